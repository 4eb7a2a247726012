"""When root runs the tests: the hostile programs again, as an ordinary user who has no right that root has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = "65534"


def closed_to_others(path: Path) -> list[Path]:
    """The directories on the way to `path` that only their owner may pass, outermost first."""
    return [parent for parent in reversed([path, *path.parents]) if not parent.stat().st_mode & 0o001]


def as_nobody(command: list[str], needs: list[Path]) -> list[str]:
    """The command as user nobody, in a mount namespace of its own where directories like /root don't bar the way.

    What the command needs is bound aside, an empty file system goes over the closed directory, and what is needed
    comes back to its old place. Nothing of it is seen outside of this process tree.
    """
    lines = ["set -e", "keep=$(mktemp -d)", "chmod 755 $keep"]
    closed = sorted({closed_to_others(path)[0] for path in needs if closed_to_others(path)})
    hidden = [path for path in needs if any(path.is_relative_to(directory) for directory in closed)]
    for number, path in enumerate(hidden):
        lines += [f"mkdir $keep/{number}", f"mount --rbind '{path}' $keep/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none '{directory}'" for directory in closed]
    for number, path in enumerate(hidden):
        lines += [f"mkdir -p '{path}'", f"mount --rbind $keep/{number} '{path}'"]
    lines.append(
        f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all "
        '--no-new-privs "$@"'
    )
    return ["unshare", "--mount", "--propagation=private", "bash", "-c", "\n".join(lines), "bash", *command]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="already an ordinary user")
@pytest.mark.skipif(not (shutil.which("unshare") and shutil.which("setpriv")), reason="needs unshare and setpriv")
def test_hostile_programs_as_an_ordinary_user():
    needs = [Path(sys.base_prefix).resolve(), Path(sys.prefix), ROOT]
    who = subprocess.run(
        as_nobody([sys.executable, "-c", "import os; print(os.getresuid())"], needs),
        capture_output=True, text=True, cwd="/",
    )  # fmt: skip
    if who.returncode:
        pytest.skip(f"can't become an ordinary user here: {who.stderr.strip()[-300:]}")
    assert who.stdout == f"({NOBODY}, {NOBODY}, {NOBODY})\n"
    hostile = [str(Path(__file__).with_name(f"{name}.py")) for name in ("test_hostile", "test_hostile_answers")]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *hostile]
    run = subprocess.run(
        as_nobody(tests, needs), capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
