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
import math
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from whetstone.errors import UserError
from whetstone.grading.layers import Layer, require
from whetstone.grading.sandbox_prelude import HEAVY_MODULES, HEAVY_NAMES, REPLY_LIMIT, SLICE

ERRORS = ("syntax", "exception", "timeout", "memory", "output", "forbidden", "no_answer", "killed")
BATCH = 256  # programs that may share a child
STUCK = 0.5  # seconds without progress after which a batch must be inside one endless C call
STARTS = 5  # lanes in a row that may be killed while they start
GRACE = 60.0  # seconds that a lane may take to start, or to end a child, before it is given up
TIMEOUT = (0.1, 86_400.0)  # seconds that a program may be given
MEMORY = (1, 1 << 20)  # MiB
READY, FAILED = b"+", b"-"  # a child's first byte
LONE = "lone"  # what a batch says of a program that needs a process of its own
_HEAVY = re.compile(rf"\b({'|'.join({*HEAVY_MODULES, *HEAVY_NAMES})})\b")
_SIZES = {"answer": 10_000, "stdout": 1 << 16, "detail": 500}  # characters that a child may report


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
    """One confined interpreter. It forks a child when told to, ends it when told to, and sees nothing of programs."""

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
        self.control, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-B", "-Wignore", worker, kind, str(os.getpid()), ",".join(without),
                 installed, *directories], env=environment, cwd="/", start_new_session=True,
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        except BlockingIOError as error:
            self.control.close()
            raise UserError(_no_fork(error.errno)) from None
        finally:
            theirs.close()
        self.kind, self.without = kind, set(without)
        self.layers: dict[str, Layer] | None = None
        self.permitted = False  # whether the layers that hold are enough to run a program

    def greeting(self) -> dict[str, Layer]:
        """Which layers hold. To be called once, of a fresh lane."""
        try:
            greeting = json.loads(self._read(int.from_bytes(self._read(4), "big")))
            self.layers = {name: Layer(*layer) for name, layer in greeting.items()}
        except _Dead:
            trouble = self.process.stderr.read().decode(errors="replace").strip()[-2000:]
            ended = (
                f"the sandbox's interpreter ({sys.executable}) did not start: status {self.process.wait()}\n{trouble}"
            )
            raise (_Stillborn if self.process.returncode < 0 else RuntimeError)(ended) from None
        self.process.stderr.close()
        return self.layers

    def end(self) -> None:
        """Ends the child. `ended` tells how, once the control socket can be read."""
        try:
            self.control.sendall(b"e")
        except OSError:
            raise _Dead from None

    def ended(self) -> int:
        """The child's exit status, negative for a signal.

        Raises:
            UserError: there was no child, since this machine forks no more.
        """
        (status,) = struct.unpack("i", self._read(4))
        if status < 0:
            raise UserError(_no_fork(-status))
        return os.waitstatus_to_exitcode(status)

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                piece = self.control.recv(length - len(data))
            except OSError:
                piece = b""
            if not piece:
                raise _Dead
            data += piece
        return bytes(data)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        self.control.close()


def _no_fork(number: int) -> str:
    return (
        f"the sandbox can't start a process: {os.strerror(number)}. No program was judged by that. See `ulimit -u`, "
        "the container's limit of processes and what memory is free, and run it again"
    )


class _Job(NamedTuple):
    """Places of programs that go to one child together; a `lonely` one has a child to itself, in a lane of `kind`."""

    places: Sequence[int]
    kind: str = "light"
    lonely: bool = False
    deaths: int = 0  # of the processes that were at work on this job
    starts: int = 0  # processes that ended before they began with it


class _Child:
    """A child of a lane at work on a job: what goes there, and what came back so far."""

    def __init__(self, lane: _Lane, job: _Job, programs: Sequence[str], cpu_seconds: float, memory: int) -> None:
        request = {"programs": [programs[i] for i in job.places], "memory": memory, "cpu_seconds": int(cpu_seconds)}
        body = json.dumps(request).encode()
        self.outgoing = memoryview(len(body).to_bytes(4, "big") + body)
        self.incoming = bytearray()
        self.given = time.monotonic()
        self.began: float | None = None  # when it was ready to run a program, as far as we know
        self.counter: int | None = None
        self.count = 0  # programs of a batch that were begun
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        given = [theirs.fileno()]
        if not job.lonely:
            self.counter, writer = os.pipe()
            os.set_blocking(self.counter, False)
            given.append(writer)
        try:
            socket.send_fds(lane.control, [b"f"], given)
        except OSError:
            self.close()
            raise _Dead from None
        finally:
            theirs.close()
            if not job.lonely:
                os.close(writer)

    def age(self) -> float:
        """Seconds: no program of this child took longer."""
        return time.monotonic() - self.given

    def exchange(self) -> bool:
        """Sends and receives what goes without waiting. False when that is over: a whole reply came, or what announces
        more than a reply can have, or the child closed its channel."""
        try:
            if self.outgoing:
                self.outgoing = self.outgoing[self.channel.send(self.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing = self.outgoing[:0]  # it reads no more; what it sent can still be read
        try:
            piece = self.channel.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.incoming += piece
        if self.began is None and self.incoming[:1] == READY:
            self.began = time.monotonic()
        return bool(piece) and len(self.incoming) - 5 < self._announced() <= REPLY_LIMIT

    def _announced(self) -> int:
        """Bytes that the reply has by its own account."""
        return int.from_bytes(self.incoming[1:5], "big") if len(self.incoming) >= 5 else 1

    def reply(self) -> bytes | None:
        """What a program's process sent; None if that isn't a whole reply of a possible length.

        Raises:
            UserError: no program was run, since the child couldn't be confined as asked.
        """
        text = bytes(self.incoming[5 : 5 + self._announced()])
        if len(text) < self._announced() or len(text) > REPLY_LIMIT:
            return None
        if self.incoming[:1] == FAILED:
            raise UserError(f"the sandbox can't confine a program on this machine: {text.decode(errors='replace')}")
        return text

    def progressed(self) -> bool:
        """Whether a program of the batch was begun since this was last asked."""
        before = self.count
        try:
            self.count += len(os.read(self.counter, BATCH))
        except BlockingIOError:
            pass
        return self.count > before

    def close(self) -> None:
        self.channel.close()
        if self.counter is not None:
            os.close(self.counter)


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
    held = lane.layers or lane.greeting()
    _give_back(lane)
    return held


def run_programs(
    programs: Sequence[str], *, timeout: float = 5.0, workers: int | None = None, memory_mb: int = 512,
    without: Collection[str] = (),
) -> list[Outcome]:  # fmt: skip
    """Run untrusted Python programs in the sandbox; outcome i belongs to program i and depends on that program only.

    `timeout` is wall-clock seconds for each program (0.1 to 86,400), `memory_mb` the MiB that it may allocate (to
    1,048,576), `workers` how many run at a time (default: the CPUs this process may use). `without` leaves layers of
    isolation out: it is there to test that the others hold on their own.

    Raises:
        UserError: a bad argument; a layer of isolation is missing (see `layers.require`); this machine starts no more
            processes, or can't limit them as asked.
        RuntimeError: the sandbox's interpreter can't start.
    """
    if isinstance(programs, str) or not all(isinstance(program, str) for program in programs):
        raise UserError("run_programs takes a list of program texts")
    for name, value, (least, most) in (("timeout", timeout, TIMEOUT), ("memory_mb", memory_mb, MEMORY)):
        if not least <= value <= most:
            raise UserError(f"{name}={value}: must be between {least:g} and {most:,.0f}")
    if workers is not None and workers < 1:
        raise UserError(f"workers={workers}: must be positive")
    workers = workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return _Run(programs, timeout, int(memory_mb) << 20, workers, without).outcomes()


@dataclass(eq=False, slots=True)
class _Task:
    """A lane that is busy with a job: it starts (no child yet), its child works, its child is being ended."""

    lane: _Lane
    job: _Job
    deadline: float
    child: _Child | None = None
    stopped: str | None = None  # why the child had to be, if it didn't end by itself
    seconds: float = 0.0  # of the child, from when it was ready
    ending: bool = False


class _Run:
    """One call of `run_programs`: jobs wait, tasks are at work, outcomes are there."""

    def __init__(
        self, programs: Sequence[str], timeout: float, memory: int, workers: int, without: Collection[str]
    ) -> None:
        self.programs, self.timeout, self.memory = programs, timeout, memory
        self.workers, self.without = workers, without
        n = len(programs)
        size = max(1, min(BATCH, -(-n // workers)))
        self.jobs = deque(_Job(range(i, min(i + size, n))) for i in range(0, n, size))
        self.results: list[Outcome | None] = [None] * n
        self.tasks: set[_Task] = set()
        self.stillborn = 0
        self.selector = selectors.DefaultSelector()

    def outcomes(self) -> list[Outcome]:
        try:
            while self.jobs or self.tasks:
                while self.jobs and len(self.tasks) < self.workers:
                    job = self.jobs.popleft()
                    task = _Task(_take(job.kind, self.without), job, time.monotonic() + GRACE)
                    self.tasks.add(task)
                    self.selector.register(task.lane.control, selectors.EVENT_READ, task)
                    self.advance(task, ())
                due = min((task.deadline for task in self.tasks), default=0.0)
                ready: dict[_Task, list] = {}
                for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                    ready.setdefault(key.data, []).append(key.fileobj)
                now = time.monotonic()
                for task in [task for task in self.tasks if task in ready or task.deadline <= now]:
                    self.advance(task, ready.get(task, ()))
        finally:
            for task in list(self.tasks):
                self.free(task).kill()
            self.selector.close()
        return self.results

    def advance(self, task: _Task, ready: Collection) -> None:
        """The task's next step; `ready`: those of its sockets where something came."""
        try:
            self.step(task, task.lane.control in ready, task.child is not None and task.child.channel in ready)
        except _Dead:
            self.free(task).kill()
            self.again(task)
        except _Stillborn as death:
            self.free(task).kill()
            self.jobs.append(task.job)
            self.stillborn += 1
            if self.stillborn == STARTS:
                raise RuntimeError(str(death)) from None

    def step(self, task: _Task, told: bool, heard: bool) -> None:
        """`told`: the lane says something; `heard`: the child does, or takes more of its request."""
        lane, late = task.lane, time.monotonic() >= task.deadline
        if task.child is None:
            if told:
                lane.greeting()
                self.stillborn = 0
            if lane.layers is not None:
                self.begin(task)
            elif late:
                raise _Dead
        elif task.ending:
            if told:
                self.settle(task, lane.ended())
            elif late:
                raise _Dead
        elif told:  # nothing is to be said while a child works
            raise _Dead
        else:
            if heard:
                self.hear(task)
            if not task.ending and time.monotonic() >= task.deadline:  # also of a child that talks without end
                self.overdue(task)

    def begin(self, task: _Task) -> None:
        """Has the lane fork a child for the job."""
        if not task.lane.permitted:
            require(task.lane.layers, self.without)
            task.lane.permitted = True
        cpu_seconds = 2 + (self.timeout if task.job.lonely else len(task.job.places) * (SLICE + STUCK))
        task.child = _Child(task.lane, task.job, self.programs, cpu_seconds, self.memory)
        task.deadline = time.monotonic() + GRACE
        self.selector.register(task.child.channel, selectors.EVENT_READ | selectors.EVENT_WRITE, task)

    def hear(self, task: _Task) -> None:
        child, began, more = task.child, task.child.began, bool(task.child.outgoing)
        if not child.exchange():
            self.end(task, None)
        elif began is None and child.began is not None:
            task.deadline = child.began + (self.timeout if task.job.lonely else STUCK)
        if more and not child.outgoing and not task.ending:
            self.selector.modify(child.channel, selectors.EVENT_READ, task)

    def overdue(self, task: _Task) -> None:
        """A lone program had its time. A batch is looked at from time to time: each of its programs has little."""
        child, now = task.child, time.monotonic()
        if child.began is None:
            raise _Dead
        if task.job.lonely:
            self.end(task, "timeout")
        elif not child.progressed():
            self.end(task, "stuck")
        elif now - child.began > len(task.job.places) * (SLICE + STUCK):
            self.end(task, "deceived")
        else:
            task.deadline = now + STUCK

    def end(self, task: _Task, stopped: str | None) -> None:
        now = time.monotonic()
        task.stopped, task.ending, task.deadline = stopped, True, now + GRACE
        task.seconds = now - (task.child.began or now)
        self.selector.unregister(task.child.channel)
        task.lane.end()

    def free(self, task: _Task) -> _Lane:
        """Ends the task; its lane, to be killed or given back."""
        self.tasks.remove(task)
        self.selector.unregister(task.lane.control)
        if task.child is not None:
            if not task.ending:
                self.selector.unregister(task.child.channel)
            task.child.close()
        return task.lane

    def settle(self, task: _Task, status: int) -> None:
        """Enters what a child reported, and notes what is left to do."""
        job, child = task.job, task.child
        if not job.lonely:
            child.progressed()
        _give_back(self.free(task))
        reply = child.reply()
        if child.began is None:
            self.again(task, f", the second time with status {status}")
        elif job.lonely:
            self.results[job.places[0]] = self.lone(task, reply, status)
        elif reply is None and task.stopped != "deceived":
            # The program that was begun last stopped the others too: it goes alone, they go again
            i = max(0, min(child.count, len(job.places)) - 1)
            rest = (job.places[:i], job.places[i + 1 :])
            self.jobs.extend(job._replace(places=places) for places in rest if places)
            self.jobs.append(self.alone(job.places[i]))
        else:
            rows = _rows(reply, len(job.places), child.age()) or [None] * len(job.places)
            for place, outcome in zip(job.places, rows, strict=True):
                if outcome is None:
                    self.jobs.append(self.alone(place))
                else:
                    self.results[place] = outcome

    def lone(self, task: _Task, reply: bytes | None, status: int) -> Outcome:
        """The outcome of a program that had a process to itself."""
        outcome = None if task.stopped or reply is None else _outcome(_parsed(reply), task.child.age())
        if outcome is not None:
            return replace(outcome, seconds=max(outcome.seconds, task.seconds))
        silent = len(task.child.incoming) == 1  # nothing came after it was ready
        error, detail = "killed", "the program's process sent something else than a result"
        if task.stopped:
            error, detail = "timeout", f"stopped after {self.timeout:g} s"
        elif silent and -status == signal.SIGXCPU:
            error, detail = "timeout", "stopped by its limit of CPU time"
        elif silent and status < 0:
            detail = f"ended by {_signal(-status)}"
        elif silent:
            detail = f"the process ended with status {status} before it reported"
        return Outcome(None, "", error, detail, task.seconds)

    def alone(self, place: int) -> _Job:
        return _Job((place,), "heavy" if _HEAVY.search(self.programs[place]) else "light", lonely=True)

    def again(self, task: _Task, how: str = "") -> None:
        """After the death of a lane, or of a child that ran nothing yet. Who ran may be to blame: a batch's programs
        go alone, and one that was running when two processes died is given up."""
        job = task.job
        if task.child is None or task.child.began is None:
            if job.starts == STARTS:  # where seccomp is missing, another program may have ended a few of them
                raise UserError(
                    f"the sandbox's processes ended {STARTS + 1} times before they ran anything{how}; is memory short?"
                )
            self.jobs.append(job._replace(starts=job.starts + 1))
        elif not job.lonely:
            self.jobs.extend(map(self.alone, job.places))
        elif job.deaths:
            ended = "the sandbox's process ended, twice"
            self.results[job.places[0]] = Outcome(None, "", "killed", ended, task.seconds)
        else:
            self.jobs.append(job._replace(deaths=1))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those without a name
        return f"signal {number}"


def _parsed(reply: bytes) -> object:
    """What the JSON says that a stranger wrote; None if it is none."""
    try:
        return json.loads(reply)
    except (ValueError, RecursionError):
        return None


def _rows(reply: bytes | None, n: int, seconds: float) -> list[Outcome | None] | None:
    """The outcomes of a batch of n programs, None for one that has to go alone; None if it is no such list."""
    rows = None if reply is None else _parsed(reply)
    if type(rows) is not list or len(rows) != n:
        return None
    found = [None if row == LONE else _outcome(row, seconds) for row in rows]
    return None if any(one is None and row != LONE for one, row in zip(found, rows, strict=True)) else found


def _outcome(row: object, seconds: float) -> Outcome | None:
    """The outcome that a child tells, which took no longer than `seconds`; None if it hasn't this very form."""
    if type(row) is not list or len(row) != 5:
        return None
    answer, stdout, error, detail, took = row
    texts = {"answer": "" if answer is None else answer, "stdout": stdout, "detail": detail}
    if (
        (answer is None) == (error is None)
        or not (error is None or error in ERRORS)
        or any(type(text) is not str or len(text) > _SIZES[name] for name, text in texts.items())
        or type(took) not in (int, float)
        or not 0 <= took < math.inf
    ):
        return None
    return _clean(answer, stdout, error, detail, min(took, seconds))


def _clean(answer: str | None, stdout: str, error: str | None, detail: str, seconds: float) -> Outcome:
    """An outcome whose texts can be written as UTF-8: a lone surrogate becomes a question mark."""
    if not (stdout.isascii() and detail.isascii() and (answer is None or answer.isascii())):
        answer, stdout, detail = (
            text if text is None else text.encode("utf-8", "replace").decode() for text in (answer, stdout, detail)
        )
    return Outcome(answer, stdout, error, detail, seconds)
