"""Which pipeline a tool looks at: the root's, or that of recipes/<name> in whose folder it was started."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType


def name() -> str | None:
    """The recipe's name; None for the root's pipeline."""
    here = Path.cwd()
    return here.name if here.parent.name == "recipes" and (here / "params.yaml").is_file() else None


def here() -> ModuleType:
    """What the tools know of it: stages/recipe.py, or stages/<name>/recipe.py."""
    return import_module(f"stages.{own}.recipe" if (own := name()) else "stages.recipe")
