"""Run model-written programs where they can harm nothing, and report what each one computed.

Programs never run in this process. Each goes to a *lane*: a fresh interpreter with an empty environment, which has
given up files, network and processes as far as the kernel allows (`sandbox_jail`) and forks a child for every
program. Programs that provably touch nothing but their own variables (`sandbox_verify`) share a child, the others have
one each. Lanes stay for the next call and end with this process, however it ends. docs/sandbox.md says what holds on
which system.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from whetstone.errors import UserError
from whetstone.grading.layers import Layer, require
from whetstone.grading.sandbox_prelude import HEAVY_MODULES, HEAVY_NAMES

ERRORS = ("syntax", "exception", "timeout", "memory", "output", "forbidden", "no_answer", "killed")
BATCH = 256  # programs that may share a child
STARTS = 5  # lanes in a row that may be killed while they start
GRACE = 60.0  # seconds beyond its time after which a lane that doesn't answer is given up
_HEAVY = re.compile(rf"\b({'|'.join({*HEAVY_MODULES, *HEAVY_NAMES})})\b")
_SIZES = {"answer": 10_000, "stdout": 1 << 16, "detail": 500}  # characters that a worker may report


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one program: an `answer` or an `error`, never both, never neither.

    `answer` is the exact text of what it computed: an integer, a fraction `p/q`, a float by repr, a decimal, a string.
    `error` is one of `ERRORS`, `detail` says more (for an exception its type and message). `stdout` is what it printed
    (at most 65,536 characters), `seconds` the wall-clock time that it took.
    """

    answer: str | None
    stdout: str
    error: str | None
    detail: str
    seconds: float


class _Dead(Exception):
    """The lane's process is gone."""


class _Stillborn(Exception):
    """The lane's process was killed while it started, before it was given anything to run."""


class _Lane:
    """One confined interpreter."""

    def __init__(self, kind: str, without: Collection[str]) -> None:
        if not hasattr(os, "fork"):
            raise UserError("the program sandbox needs fork (Linux, macOS, or WSL on Windows)")
        found = {name: importlib.util.find_spec(name) for name in HEAVY_MODULES}
        directories = {str(Path(spec.origin).parents[1]): None for spec in found.values() if spec and spec.origin}
        worker = Path(__file__).with_name("sandbox_worker.py")
        installed = ",".join(name for name, spec in found.items() if spec)
        environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        if "LD_LIBRARY_PATH" in os.environ:  # some interpreters find their own library this way
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", "-Wignore", worker, kind, str(os.getpid()), ",".join(without),
             installed, *directories], env=environment, cwd="/", start_new_session=True, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        self.kind, self.without = kind, set(without)
        self.layers: dict[str, Layer] | None = None

    def fileno(self) -> int:
        return self.process.stdout.fileno()

    def send(self, request: dict) -> None:
        body = json.dumps(request).encode()
        view = memoryview(len(body).to_bytes(4, "big") + body)
        try:
            while view:
                view = view[self.process.stdin.write(view) :]
        except OSError:
            pass  # seen again, and explained, when the reply is read

    def receive(self) -> tuple[dict, bytes] | None:
        """The next reply, or None if what came was the greeting of a fresh lane."""
        if self.layers is not None:
            return self._frame()
        try:
            greeting, _ = self._frame()
        except _Dead:
            trouble = self.process.stderr.read().decode(errors="replace").strip()[-2000:]
            ended = (
                f"the sandbox's interpreter ({sys.executable}) did not start: status {self.process.wait()}\n{trouble}"
            )
            raise (_Stillborn if self.process.returncode < 0 else RuntimeError)(ended) from None
        self.layers = {name: Layer(*layer) for name, layer in greeting["layers"].items()}
        self.process.stderr.close()
        require(self.layers, self.without)
        return None

    def _frame(self) -> tuple[dict, bytes]:
        head, payload = (int.from_bytes(self._read(4), "big") for _ in range(2))
        return json.loads(self._read(head)), self._read(payload)

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self.process.stdout.read(length - len(data))
            if not piece:
                raise _Dead
            data += piece
        return bytes(data)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class _Job(NamedTuple):
    """Places of programs that go to one child together; a `lonely` one has a child to itself, in a lane of `kind`."""

    places: Sequence[int]
    kind: str = "light"
    lonely: bool = False
    deaths: int = 0  # of lanes that were given this job


_idle: list[_Lane] = []
_guard = threading.Lock()


def _take(kind: str, without: Collection[str]) -> _Lane:
    with _guard:
        for lane in list(_idle):
            if lane.process.poll() is not None:
                _idle.remove(lane)
                lane.kill()
            elif lane.kind == kind and lane.without == set(without):
                _idle.remove(lane)
                return lane
    return _Lane(kind, without)


def _give_back(lane: _Lane) -> None:
    with _guard:
        _idle.append(lane)


def close() -> None:
    """End the idle lanes; the next call starts fresh ones."""
    with _guard:
        while _idle:
            _idle.pop().kill()


def _forget() -> None:
    """In a forked copy of this process: the lanes belong to the original."""
    global _guard
    _guard = threading.Lock()
    _idle.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def layers() -> dict[str, Layer]:
    """Which layers of isolation hold for programs run by this process, on this machine, as this user."""
    lane = _take("light", ())
    if lane.layers is None:
        lane.receive()
    _give_back(lane)
    return lane.layers


def run_programs(
    programs: Sequence[str], *, timeout: float = 5.0, workers: int | None = None, memory_mb: int = 512,
    without: Collection[str] = (),
) -> list[Outcome]:  # fmt: skip
    """Run untrusted Python programs in the sandbox; outcome i belongs to program i and depends on that program only.

    `timeout` is wall-clock seconds for each program, `memory_mb` the MiB that it may allocate, `workers` how many run
    at a time (default: the CPUs this process may use). `without` leaves layers of isolation out: it is there to test
    that the others hold on their own. Raises UserError for a bad argument, RuntimeError if the sandbox can't start.
    """
    if isinstance(programs, str) or not all(isinstance(program, str) for program in programs):
        raise UserError("run_programs takes a list of program texts")
    if not timeout > 0 or memory_mb < 1 or (workers is not None and workers < 1):
        raise UserError(f"timeout={timeout}, memory_mb={memory_mb}, workers={workers}: all must be positive")
    workers = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    size = max(1, min(BATCH, -(-len(programs) // workers)))
    jobs = deque(_Job(range(i, min(i + size, len(programs)))) for i in range(0, len(programs), size))
    outcomes: list[Outcome | None] = [None] * len(programs)
    busy: dict[int, tuple[_Lane, _Job, float]] = {}
    poll = select.poll()
    stillborn = 0
    try:
        while jobs or busy:
            while jobs and len(busy) < workers:
                job = jobs.popleft()
                lane = _take(job.kind, without)
                deadline = time.monotonic() + GRACE + (timeout if job.lonely else len(job.places))
                busy[lane.fileno()] = lane, job, deadline
                poll.register(lane, select.POLLIN)
                lane.send({"lonely": job.lonely, "programs": [programs[i] for i in job.places], "timeout": timeout,
                           "memory": memory_mb << 20})  # fmt: skip
            ready = {descriptor for descriptor, _ in poll.poll(GRACE * 1000)}
            ready |= {descriptor for descriptor, (*_, deadline) in busy.items() if time.monotonic() > deadline}
            for descriptor in ready:
                lane, job, deadline = busy[descriptor]
                reply = None
                try:
                    if time.monotonic() > deadline:
                        raise _Dead
                    reply = lane.receive()
                    if reply is None:
                        stillborn = 0
                        continue
                    left = _settle(job, *reply, programs, outcomes)
                except _Dead:
                    left = _mourn(job, outcomes)
                except _Stillborn as death:
                    stillborn += 1
                    if stillborn == STARTS:
                        raise RuntimeError(str(death)) from None
                    left = [job]
                poll.unregister(descriptor)
                del busy[descriptor]
                if reply is None:
                    lane.kill()
                else:
                    _give_back(lane)
                jobs.extend(left)
    finally:
        for lane, *_ in busy.values():
            lane.kill()
    return outcomes


def _settle(
    job: _Job, header: dict, payload: bytes, programs: Sequence[str], outcomes: list[Outcome | None]
) -> list[_Job]:
    """Enter what a child reported; return what is left to do."""
    if job.lonely:
        place, ended, seconds = job.places[0], header["ended"], header["seconds"]
        outcomes[place] = Outcome(None, "", ended, header["detail"], seconds) if ended else _outcome(payload, seconds)
        return []
    if header["ended"]:  # the program at `place` stopped the others too: it goes alone, they go again
        i = header["place"]
        rest = [job._replace(places=places) for places in (job.places[:i], job.places[i + 1 :]) if places]
        return [*rest, _alone(job.places[i], programs)]
    left = []
    for place, row in zip(job.places, json.loads(payload), strict=True):
        if row == "lone":
            left.append(_alone(place, programs))
        else:
            outcomes[place] = _clean(*row)
    return left


def _alone(place: int, programs: Sequence[str]) -> _Job:
    return _Job((place,), "heavy" if _HEAVY.search(programs[place]) else "light", lonely=True)


def _mourn(job: _Job, outcomes: list[Outcome | None]) -> list[_Job]:
    """After the death of a lane: everybody goes alone, and whose lane died twice is given up."""
    if job.deaths:
        outcomes[job.places[0]] = Outcome(None, "", "killed", "the sandbox's process ended, twice", 0.0)
        return []
    return [_Job((place,), job.kind, lonely=True, deaths=int(job.lonely)) for place in job.places]


def _outcome(payload: bytes, seconds: float) -> Outcome:
    """The outcome in the bytes of a child that an untrusted program had to itself: believed only in this very form."""
    try:
        answer, stdout, error, detail, _ = json.loads(payload)
        texts = {"answer": "" if answer is None else answer, "stdout": stdout, "detail": detail}
        if (answer is None) == (error is None) or not (error is None or error in ERRORS) or any(
            not isinstance(text, str) or len(text) > _SIZES[name] for name, text in texts.items()
        ):  # fmt: skip
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        return Outcome(None, "", "killed", "the program's process sent something else than a result", seconds)
    return _clean(answer, stdout, error, detail, seconds)


def _clean(answer: str | None, stdout: str, error: str | None, detail: str, seconds: float) -> Outcome:
    """An outcome whose texts can be written as UTF-8: a lone surrogate becomes a question mark."""
    if not (stdout.isascii() and detail.isascii() and (answer is None or answer.isascii())):
        answer, stdout, detail = (
            text if text is None else text.encode("utf-8", "replace").decode() for text in (answer, stdout, detail)
        )
    return Outcome(answer, stdout, error, detail, seconds)
