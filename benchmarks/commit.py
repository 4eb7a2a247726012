"""The commit that a result is of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The checked-out commit, `-dirty` behind it where tracked files differ from it; None where git can't tell."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
