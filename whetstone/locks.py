"""One process at a time, on a file or on a GPU."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from whetstone.errors import UserError


@contextlib.contextmanager
def held(path: str | Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` for one process; the lock ends with the process, however it ends.

    Raises:
        UserError: another process holds it; the message names that process and its host.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(path), path.with_name(path.name + ".holder")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = note.read_text() if note.exists() else "another process"
        raise UserError(f"{what} is in use by {holder}; wait for it or end it") from None
    try:
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        note.write_text(f"process {os.getpid()} on {socket.gethostname()} ({command[:200]})")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def device_lock(*devices: str, folder: str | Path | None = None) -> Iterator[None]:
    """Keeps two stages off one GPU: one lock file per GPU, in the system's temporary folder. Nothing on a CPU.

    `cuda` is all visible GPUs, `cuda:1` the second of them. Who takes several holds all of them or none, and nobody
    waits, so that two can't block each other. Sampling within a training takes no lock of its own.

    Raises:
        UserError: another process holds one of the GPUs.
    """
    names: dict[str, None] = {}
    for device in devices:
        kind, _, number = device.partition(":")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if kind != "cuda":
            continue
        if visible is not None:
            found = [name.strip() for name in visible.split(",") if name.strip()]
            names |= dict.fromkeys([found[int(number)]] if number else found)
        elif number:
            names[number] = None
        else:
            import torch

            names |= dict.fromkeys(map(str, range(torch.cuda.device_count())))
    with contextlib.ExitStack() as stack:
        for name in names:
            path = Path(folder or tempfile.gettempdir()) / f"whetstone-gpu-{name}.lock"
            stack.enter_context(held(path, f"GPU {name}"))
        yield
