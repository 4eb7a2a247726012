"""Around every stage's work: its manifest, its signals, errors without a traceback, and where it keeps what it can
resume from."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout

from stages.run import lockfile, manifest, signals, terminal
from whetstone.errors import UserError


def prepare() -> None:
    """A process that will import torch, for speed and a quiet terminal."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # stages have a progress line of their own
    # Threads that wait by spinning for long cost a factor of ten on a machine that does something else beside; those
    # that don't spin at all, a quarter of a small model's speed elsewhere. libgomp reads the second.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # torch and its kin are a million objects that live until the end: to look through them for garbage takes a second
    # of their import, and one and a half of the exit
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel that nothing here calls


class Command(click.Command):
    """A command that tells its user's mistakes in one message, with exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        prepare()
        try:
            lockfile.mend()
            return self.work(context)
        except UserError as error:
            raise click.ClickException(terminal.plain(str(error))) from error
        except KeyboardInterrupt:
            stop = click.ClickException("interrupted; what was finished is kept in .scratch, run again to go on")
            stop.exit_code = 130
            raise stop from None

    def work(self, context: click.Context) -> Any:
        return super().invoke(context)


class Stage(Command):
    """The command of a stage: it leaves a manifest."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.meta["arguments"] = list(args)
        return super().parse_args(context, args)

    def work(self, context: click.Context) -> Any:
        module = sys.modules[self.callback.__module__]
        name = module.__spec__.name if module.__spec__ else module.__name__
        command = " ".join(["python", "-m", name, *context.meta["arguments"]])
        signals.listen()
        return manifest.run(command, scratch, lambda: super(Stage, self).work(context))


def scratch(*parts: str) -> Path:
    """A folder for resumable work: git-ignored, and no stage's out, since DVC deletes outs before a stage runs."""
    roots = (Path(folder) for folder in (".", *Path.cwd().parents) if Path(folder, ".dvc").is_dir())
    folder = Path(os.environ.get("DVC_ROOT") or next(roots, ".")).joinpath(".scratch", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def journal(name: str) -> Path:
    """The store of a stage's completions, this process's until it ends. Waits while another experiment's same stage
    has it: what both ask for is sampled once."""
    store = scratch("journal") / f"{name}.sqlite"
    turn = FileLock(store.with_suffix(".turn"))
    try:
        turn.acquire(timeout=0)
    except Timeout:
        print(f"{store}: in use by another stage, waiting for it", flush=True)
        turn.acquire()
    click.get_current_context().call_on_close(turn.release)
    return store
