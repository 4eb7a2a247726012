"""What people run by hand: look at a pipeline, prepare it, ask its models, publish its results."""
