"""How a problem is put to a model, and how a model's text splits again."""
