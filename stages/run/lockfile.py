"""What a DVC that was killed leaves half-written, put right before anything reads it.

DVC empties dvc.lock and then writes it, for half a second where there are some twenty stages. Killed meanwhile, by
whatever signal, it leaves nothing or a part, and every later command fails. So a copy is kept of each dvc.lock while
it is whole, before each stage and each of our commands, and put back where the file isn't whole any more. What the
copy doesn't know yet comes out of DVC's own cache, or is made again.

Every dvc.lock of the project counts, since DVC reads them all whatever it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from whetstone.errors import UserError

SLACK = 60  # seconds by which the clock may have been set since
COPIES = "copies"  # in .dvc/tmp, which git ignores; an experiment in a temporary folder has its own


def mend() -> None:
    """Keeps a copy of each dvc.lock that is whole, puts the copies of the others back and says so.

    Raises:
        UserError: there is no copy, or another DVC is at work and doesn't finish.
    """
    root = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / ".dvc").is_dir()), None)
    if root is None:
        return
    torn = [lock for lock in _locks(root) if not _kept(root, lock)]
    if torn or _forsaken(root) or any(_leftovers(root)):
        with _alone(root):
            for lock in torn:
                if not _kept(root, lock):  # another DVC was writing it, and has
                    _put_back(root, lock)
            for file in _leftovers(root):
                file.unlink()
            if _forsaken(root):
                (root / ".dvc/tmp/rwlock").unlink()


def whole(text: str) -> bool:
    """Whether a dvc.lock was written to its end: its last stage has outs, each with its size. One that was cut between
    two stages or two outs can't be told, and does no harm: DVC does again what it doesn't find there."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        *_, last = YAML(typ="safe").load(text.rpartition("\n    outs:\n")[2])  # another stage after these: no YAML
        known = {"size", "nfiles"} if last["md5"].endswith(".dir") else {"size"}
        return text.endswith("\n") and last.keys() >= known
    except (YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return False


def _locks(root: Path) -> list[Path]:
    return [file.with_suffix(".lock") for file in (root / "dvc.yaml", *sorted(root.glob("recipes/*/dvc.yaml")))]


def _copy(root: Path, lock: Path) -> Path:
    return root / ".dvc/tmp" / COPIES / lock.relative_to(root)


def _kept(root: Path, lock: Path) -> bool:
    """Whether the file is whole, or isn't there; then its copy is as it is, and empty where there is none."""
    copy, now = _copy(root, lock), lock.read_bytes() if lock.exists() else None
    if b"\n<<<<<<< " in (now or b""):  # a conflict is its user's to mend
        return True
    if copy.exists() and copy.read_bytes() == (now or b"") and now != b"":
        return True
    if now is not None and not whole(now.decode(errors="replace")):
        return False
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(copy.name + ".partial")
    partial.write_bytes(now or b"")
    partial.replace(copy)
    return True


def _put_back(root: Path, lock: Path) -> None:
    copy, name = _copy(root, lock), lock.relative_to(root)
    if not copy.exists():
        raise UserError(
            f"{name} was cut short, as a DVC leaves it that is killed while it writes it, and no copy is here. "
            f"`git checkout {name}` takes the committed one; or delete it: DVC's cache has most of what it told"
        )
    torn = copy.with_name(copy.name + ".torn")
    shutil.copyfile(lock, torn)
    if copy.stat().st_size:
        partial = copy.with_name(copy.name + ".partial")
        shutil.copyfile(copy, partial)
        partial.replace(lock)
    else:
        lock.unlink()
    click.echo(
        f"{name} was cut short, as a DVC leaves it that is killed while it writes it: put back as it was before "
        f"({torn.relative_to(root)} has what was there)",
        err=True,
    )


def _forsaken(root: Path) -> bool:
    """Whether .dvc/tmp/rwlock, in which DVC notes who reads and writes what, is torn, or all that it names are gone:
    a process that began after the note was written only has the same number."""
    note = root / ".dvc/tmp/rwlock"
    try:
        found = json.loads(note.read_text())
        holders = [*found.get("write", {}).values(), *(one for some in found.get("read", {}).values() for one in some)]
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    if not holders:
        return False
    import psutil

    written = note.stat().st_mtime
    for holder in holders:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(holder["pid"]).create_time() <= written + SLACK:
                return False
    return True


def _leftovers(root: Path) -> Iterator[Path]:
    """Notes for DVC's cache of runs that were being written: the newest file of a folder there is taken for one."""
    return (root / ".dvc/cache/runs").glob("*/*/.*.tmp")


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Holds DVC's own locks, so that no other DVC writes meanwhile."""
    from dvc.lock import LockError, make_lock

    folder = root / ".dvc/tmp"
    folder.mkdir(exist_ok=True)
    try:
        with make_lock(str(folder / "lock")), make_lock(str(folder / "rwlock.lock")):
            yield
    except LockError:
        raise UserError(
            "another DVC is at work here, and files of an earlier one that was killed have to be put right; "
            "run this again when it has ended"
        ) from None
