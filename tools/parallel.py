"""Runs the stages of one group side by side, each on a GPU of its own (`make infer GPUS=0,1`).

DVC runs one stage at a time. Several `dvc repro -s` do run beside each other, as long as what they need is there; they
meet only where they write dvc.lock, and one that finds it locked tries again.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import click

from stages.run import Command
from tools import lineage
from whetstone.errors import UserError

LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")  # what DVC says of another DVC at work
TRIES = 60


def divided(group: str) -> tuple[list[str], list[str]]:
    """(stages outside of the group that it needs, stages of the group that would run)."""
    from dvc.exceptions import DvcException

    with lineage.opened() as repo:
        try:
            own = repo.stage.collect(group)
        except DvcException as error:
            raise UserError(f"dvc.yaml has no stages of the name {group}: {error}") from None
        import networkx

        needed = set().union(*(networkx.descendants(repo.index.graph, stage) for stage in own)) - set(own)
        status = lineage.status(repo)
        todo = [stage.addressing for stage in own if stage.addressing in status]
        return [stage.addressing for stage in lineage.pipeline(repo) if stage in needed], todo


class Team:
    """One worker per GPU, each with one `dvc repro -s` at a time; `failed` names the stages that did."""

    def __init__(self, names: Sequence[str]):
        self.waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in names:
            self.waiting.put(name)
        self.running: dict[str, subprocess.Popen] = {}
        self.failed: list[str] = []
        self.stopping = False

    def work(self, gpu: str) -> None:
        while not self.stopping:
            try:
                name = self.waiting.get_nowait()
            except queue.Empty:
                return
            for _ in range(TRIES):
                code, said = self.repro(name, gpu)
                if code == 0 or self.stopping or not any(reason in said for reason in LOCKED):
                    break
                time.sleep(random.uniform(0.5, 2))
            if code:
                self.failed.append(name)

    def repro(self, name: str, gpu: str) -> tuple[int, str]:
        """Exit code and output of one run, whose lines are printed with the stage's name."""
        command = [sys.executable, "-m", "dvc", "repro", "-s", name]
        started = subprocess.Popen(
            command, env=os.environ | {"CUDA_VISIBLE_DEVICES": gpu}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.running[name] = started
        said = []
        for line in started.stdout:
            said.append(line)
            print(f"[{name} on {gpu}] {line}", end="", flush=True)
        self.running.pop(name)
        return started.wait(), "".join(said)

    def stop(self) -> None:
        """Ends what runs, in order: a stage that is told to keeps what it has finished."""
        self.stopping = True
        for started in list(self.running.values()):
            os.killpg(started.pid, signal.SIGTERM)


@click.command(cls=Command)
@click.argument("group")
@click.option("--gpus", required=True, help="their numbers, such as 0,1: as many stages run at once")
def main(group: str, gpus: str) -> None:
    """Runs the stages of GROUP that aren't up to date side by side, after what they need."""
    slots = [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]
    if not slots:
        raise UserError(f"GPUS={gpus!r} names no GPU; give their numbers, such as GPUS=0,1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    needed, _ = divided(group)
    if needed and subprocess.run([sys.executable, "-m", "dvc", "repro", *needed], check=False).returncode:
        raise UserError(f"what {group} needs failed; nothing of {group} was started")
    _, todo = divided(group)
    team = Team(todo)
    workers = [threading.Thread(target=team.work, args=(gpu,)) for gpu in slots[: len(todo)]]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        team.stop()
        for worker in workers:
            worker.join()
        raise
    if team.failed:
        raise UserError(f"{len(team.failed)} of {len(todo)} failed: {', '.join(sorted(team.failed))}; see above")
    print(f"{group}: {len(todo)} stages ran, the others were up to date")


if __name__ == "__main__":
    main()
