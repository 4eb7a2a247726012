"""The stage `code`: what in the project's code can change each stage's result, as digests in code/<stage>.json.

DVC follows no imports and hashes files as they are: a list of modules in dvc.yaml goes stale, and a comment in one of
them would train for hours again. So every stage depends on its own file here instead. It names each module that the
stage's script reaches, however deep, with a digest of what the module does.
"""

from __future__ import annotations

import json
from pathlib import Path

from stages.run.sources import ROOT, Sources, digest

FOLDER = Path("code")


def place(script: Path) -> Path:
    """code/infer.json of stages/infer.py."""
    return FOLDER / script.relative_to("stages").with_suffix(".json")


def script_of(path: str) -> Path | None:
    """The script whose digests an input holds, a path from the root or from a recipe; None for other inputs."""
    parts = [part for part in Path(path).parts if part != ".."]
    return Path("stages", *parts[1:]).with_suffix(".py") if parts[0] == FOLDER.name else None


def edited(written: Path) -> list[str]:
    """The modules that do something else now than when `written`, a file of this stage's, was made."""
    then, at = json.loads(written.read_text()), written.stat().st_ctime_ns
    here = {file: ROOT / file for file in then}
    return [
        file
        for file, path in here.items()
        if not path.exists()
        or path.stat().st_ctime_ns > at  # reading all of them at every stage's start and end would take a second
        and digest(path.read_text(encoding="utf-8")) != then[file]
    ]


def main() -> None:
    sources = Sources()
    for script in sources.scripts():
        path = ROOT / place(script)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sources.digests(script), indent=1) + "\n")


if __name__ == "__main__":
    main()
