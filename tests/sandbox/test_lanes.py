"""Lanes in all the places where the sandbox is called from, and what is left when something ends: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from whetstone.grading import sandbox
from whetstone.grading.sandbox import run_programs

ROOT = Path(__file__).parents[2]
LINUX = sys.platform.startswith("linux")
CALL = "from whetstone.grading.sandbox import run_programs\n"
ORDINARY = "class A: pass\n"


def python(code: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", CALL + code], capture_output=True, text=True, env=environment, timeout=60, **options
    )


def descendants(pid: int) -> set[int]:
    """All living processes below `pid`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, stack = set(), [pid]
    while stack:
        below = children.get(stack.pop(), [])
        found.update(below)
        stack.extend(below)
    return found


def alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(not LINUX, reason="looks at /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "program", ["while True: pass", "answer = 10**10**10", f"{ORDINARY}import time\ntime.sleep(99)"]
)
def test_no_orphan_when_the_caller_is_killed(end, program):
    caller = subprocess.Popen(
        # what runs in the background inherits an ignored SIGINT
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler)\n{CALL}"
                               f"run_programs([{program!r}] * 2, timeout=90, workers=2)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert wait_until(lambda: len(descendants(caller.pid)) >= 4)
    below = descendants(caller.pid)
    time.sleep(0.8)  # a plain program that never ends has been moved to a process of its own by now
    below |= descendants(caller.pid)
    caller.send_signal(end)
    caller.wait(timeout=20)
    assert wait_until(lambda: not any(alive(pid) for pid in below))


@pytest.mark.skipif(not LINUX, reason="looks at /proc")
def test_no_orphan_when_a_fork_of_the_caller_keeps_the_pipes_open():
    code = """
import os, sys, time
run_programs(["answer = 1"])
child = os.fork()
if child == 0:
    os.close(1); os.close(2)
    time.sleep(20)
    os._exit(0)
print(child, flush=True)
run_programs(["while True: pass"] * 2, timeout=90, workers=2)
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", CALL + code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    copy = int(caller.stdout.readline())
    assert wait_until(lambda: len(descendants(caller.pid) - {copy}) >= 4)
    below = descendants(caller.pid) - {copy}
    caller.kill()
    caller.wait()
    try:
        assert wait_until(lambda: not any(alive(pid) for pid in below))
        assert alive(copy)
    finally:
        os.kill(copy, signal.SIGKILL)
        caller.stdout.close()


@pytest.mark.skipif(not LINUX, reason="looks at /proc")
def test_a_killed_worker_costs_only_its_own_program():
    """Lanes and children die under 200 programs; every outcome is right except, at most, of who was running."""
    programs = [f"{ORDINARY}import time\ntime.sleep(0.01)\nanswer = {i}" for i in range(200)]
    stop = threading.Event()
    killed = []

    def killer():
        while len(killed) < 4 and not stop.wait(0.15):
            for pid in sorted(descendants(os.getpid()))[-1:]:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        outcomes = run_programs(programs, workers=2)
    finally:
        stop.set()
        thread.join()
    assert len(killed) >= 2
    wrong = [o for i, o in enumerate(outcomes) if o.answer != str(i)]
    assert len(wrong) <= len(killed) and all(o.error == "killed" for o in wrong)


@pytest.mark.skipif(not LINUX, reason="looks at /proc")
def test_a_lane_killed_while_it_starts_costs_nothing():
    sandbox.close()
    killed = []

    def killer():
        assert wait_until(lambda: descendants(os.getpid()))
        for pid in descendants(os.getpid()):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    outcomes = run_programs([f"answer = {i}" for i in range(20)], workers=1)
    thread.join()
    assert killed and [o.answer for o in outcomes] == [str(i) for i in range(20)]


def test_a_sandbox_that_is_always_killed_at_the_start_says_so(monkeypatch, tmp_path):
    """Never 20 programs that "failed": that would count against the model."""
    sandbox.close()
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(RuntimeError, match="did not start: status -9"):
        run_programs([f"answer = {i}" for i in range(20)])


def test_a_program_that_dies_in_a_batch_leaves_the_others_alone():
    programs = [f"answer = {i}" for i in range(60)]
    programs[20] = "answer = 9**9**9"
    programs[40] = f"answer = {'-' * 15000}1"
    outcomes = run_programs(programs, timeout=1, workers=1)
    assert [o.answer for i, o in enumerate(outcomes) if i not in (20, 40)] == [
        str(i) for i in range(60) if i not in (20, 40)
    ]
    assert outcomes[20].error in ("timeout", "memory") and outcomes[40].answer is None


def test_lanes_outlive_the_thread_that_started_them():
    sandbox.close()
    answers = []
    for value in range(3):
        program = [f"answer = {value}", f"{ORDINARY}answer = {value}"]
        thread = threading.Thread(target=lambda p=program: answers.extend(o.answer for o in run_programs(p)))
        thread.start()
        thread.join()
    assert answers == ["0", "0", "1", "1", "2", "2"]


def test_many_threads_at_once():
    results: dict[int, list[str | None]] = {}

    def work(k: int) -> None:
        programs = [f"answer = {k * 1000 + i}" if i % 10 else f"{ORDINARY}answer = {k * 1000 + i}" for i in range(100)]
        results[k] = [o.answer for o in run_programs(programs, workers=1)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [str(k * 1000 + i) for i in range(100)] for k in range(4)}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_copy_of_the_caller_gets_lanes_of_its_own():
    assert run_programs(["answer = 1"])[0].answer == "1"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, run_programs(["answer = 2"])[0].answer.encode())
            sandbox.close()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert stream.read() == "2"
    os.waitpid(child, 0)
    assert run_programs(["answer = 3"])[0].answer == "3"


def test_without_terminal_and_standard_streams():
    code = "import os\nfor d in (0, 2): os.close(d)\nos.write(1, run_programs(['answer = 6'])[0].answer.encode())"
    assert python(code, start_new_session=True, stdin=subprocess.DEVNULL).stdout == "6"


def test_from_a_directory_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    programs = ["answer = 1", "import sympy\nanswer = sympy.Integer(2)"]
    code = f"import os\nos.mkdir({str(gone)!r})\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n"
    code += f"print([o.answer for o in run_programs({programs!r})])"
    assert python(code).stdout == "['1', '2']\n"


def test_the_caller_is_left_as_it_was():
    """No signal handler, limit, directory, or standard stream of the caller changes."""
    import resource

    def state() -> tuple:
        return (
            os.getcwd(), os.getuid(), [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGALRM, signal.SIGCHLD)],
            [resource.getrlimit(r) for r in range(10)], sys.stdout, sorted(os.environ),
            signal.getitimer(signal.ITIMER_REAL), len(os.listdir("/proc/self/fd")) if LINUX else None,
        )  # fmt: skip

    programs = ["answer = 1", "while True: pass", "import os\nos._exit(1)", "print('x' * 10**7)"]
    run_programs(programs, timeout=0.3)
    before = state()
    run_programs(programs, timeout=0.3)
    assert state() == before


def test_a_sandbox_that_cannot_start_says_why(monkeypatch):
    sandbox.close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="/bin/false.*did not start"):
        run_programs(["answer = 1"])
