"""Stages and the tools around them; none starts in a Python that lacks the project's packages.

This runs before anything else of a stage, in whatever Python the shell finds: the standard library is all it needs.
DVC deletes a stage's outs before it starts the stage's command, and asks nobody (3.67): what this can do is say so.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

missing = [name for name in ("click", "dvc", "pandas", "pydantic", "torch") if not find_spec(name)]
if missing:
    environment = Path(__file__).resolve().parents[1] / ".venv"
    raise SystemExit(
        f"Error: {sys.executable} lacks {', '.join(missing)}: it isn't the project's environment. `make` finds that "
        f"by itself; for other commands `source {environment}/bin/activate` first (`make install` creates it). "
        "Nothing is lost: what DVC took away before this comes back from its cache, or is made again, at the next run"
    )
