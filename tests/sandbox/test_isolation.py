"""Programs can't reach each other, the one who grades believes no child, and trouble of the machine is no verdict."""

from __future__ import annotations

import os
import re
import resource
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.grading import sandbox
from whetstone.grading.sandbox import run_programs

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks through memory as Linux maps it")
ORDINARY = "class A: pass\n"

# Finds every readable page near a known address: heap, objects, stack, what the C library and the interpreter keep.
# rt_sigprocmask reads eight bytes before it looks at its first argument, so it tells whether a page can be read.
SEARCH = """
import ctypes, gc, re
libc = ctypes.CDLL(None, use_errno=True)
libc.sbrk.restype = ctypes.c_void_p
P = 4096
def readable(page):
    ctypes.set_errno(0)
    libc.syscall(14, 99, ctypes.c_void_p(page), None, 8)
    return ctypes.get_errno() == 22
own = ctypes.create_string_buffer(b"NOTE-" + OWN + b"-END")
seeds = {libc.sbrk(0) - P, ctypes.addressof(own), ctypes.c_void_p.in_dll(libc, "environ").value}
seeds |= {id(o) for o in gc.get_objects()} | {id(o) for m in gc.get_objects() for o in gc.get_referents(m)}
done, found = set(), set()
for seed in {s - s % P for s in seeds}:
    for step in (P, -P):
        page, run = seed if step > 0 else seed - P, []
        while page not in done and readable(page):
            done.add(page)
            run.append(page)
            page += step
        if run:
            text = ctypes.string_at(min(run), len(run) * P)
            found.update(re.findall(rb"NOTE-([0-9a-f]{16})-END", text))
            del text
gc.collect()
answer = " ".join(sorted(f.decode() for f in found))
"""


def search() -> tuple[str, str]:
    """A program that looks for notes in all the memory that it has, and the one that it must find: its own."""
    own = secrets.token_hex(8)
    return SEARCH.replace("OWN", f"b'{own[:8]}' + b'{own[8:]}'"), own


def notes() -> list[str]:
    """Programs that leave a note, each in another place: source, answer, output, an error, an exit status apart."""
    mark = [f"NOTE-{secrets.token_hex(8)}-END" for _ in range(8)]
    return [
        f"answer = '{mark[0]}'", f"print('{mark[1]}')", f"raise ValueError('{mark[2]}')", f"# {mark[3]}\nanswer = 1",
        f"{ORDINARY}answer = '{mark[4]}'", f"{ORDINARY}print('{mark[5]}' * 20)", f"{ORDINARY}1 / 0  # {mark[6]}",
        f"import os\nx = '{mark[7]}' * 50\nos._exit(3)",
    ]  # fmt: skip


@LINUX
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a system call by its number on x86-64")
@pytest.mark.parametrize("kind", ["light", pytest.param("heavy", marks=pytest.mark.slow)])
def test_no_memory_that_a_program_inherits_has_a_text_or_a_result_of_another(kind):
    """Alone, among others in one call, and after other calls of the same lanes."""
    program, own = search()
    lane = "\n# sympy" if kind == "heavy" else ""  # whoever names it has a child of that lane
    for _ in range(2):
        run_programs([note + lane for note in notes() * 3], workers=1)
        texts = [text + lane for text in (*notes(), program, *notes(), program)]
        outcomes = run_programs(texts, workers=1, timeout=20, memory_mb=2048)
        assert [outcomes[i].answer for i in (8, 17)] == [own] * 2, outcomes[8]


def test_no_object_of_the_lane_is_writable_memory_that_its_children_share():
    """What a program writes there the next one would read. It may reach every object, through frames and the
    garbage collector."""
    reach = f"""
{ORDINARY}
import sys, ctypes, gc
frames, views = [sys._getframe()], []
while frames[-1].f_back:
    frames.append(frames[-1].f_back)
for holder in [*(o for f in frames for o in f.f_locals.values()), *gc.get_objects()]:
    for value in [holder, *getattr(holder, "__dict__", dict()).values()]:
        if isinstance(value, memoryview) and not value.readonly:
            address = ctypes.addressof((ctypes.c_char * value.nbytes).from_buffer(value))
            views.append(ctypes.c_uint64.from_address(address + 64))
"""
    write = reach + "for view in views: view.value = 4242\nanswer = len(views)"
    read = reach + "answer = str([view.value for view in views])"
    outcomes = run_programs([write, read] * 3, workers=1)
    assert [outcome.answer for outcome in outcomes] == ["0", "[]"] * 3


# What a child that was taken over by a plain program could do instead of replying
TAKEN_OVER = {
    "nesting": "return '[' * 900_000",
    "no JSON": "return 'hello'",
    "no text": "os.write(channel(), b'\\0\\0\\0\\4\\xff\\xff\\xff\\xff')\n    time.sleep(9)",
    "a number of many digits": "return '[' + '9' * 900_000 + ']'",
    "an object": "return '{}'",
    "too few rows": "return '[]'",
    "too many rows": "return dumps([['1', '', None, '', 0]] * 300)",
    "rows that are numbers": "return dumps([7] * len(sources))",
    "rows that are objects": "return dumps([{'a': 1}] * len(sources))",
    "short rows": "return dumps([['1']] * len(sources))",
    "an answer that is no text": "return dumps([[[], '', None, '', 0]] * len(sources))",
    "answer and error": "return dumps([['1', '', 'timeout', '', 0]] * len(sources))",
    "an unknown error": "return dumps([[None, '', 'fine', '', 0]] * len(sources))",
    "a long answer": "return dumps([['1' * 20_000, '', None, '', 0]] * len(sources))",
    "seconds that are no number": "return dumps([['1', '', None, '', 'x']] * len(sources))",
    "endless seconds": "return '[' + ','.join(['[\"1\", \"\", null, \"\", Infinity]'] * len(sources)) + ']'",
    "seconds that are none": "return '[' + ','.join(['[\"1\", \"\", null, \"\", NaN]'] * len(sources)) + ']'",
    "announces 4 GB": "os.write(channel(), b'\\xff' * 8)\n    time.sleep(9)",
    "sends without end": "while True: os.write(channel(), b'x' * (1 << 20))",
    "counts more than there are": "[begin() for _ in range(60_000)]\n    os._exit(0)",
    "counts for ever": "while True:\n        begin()\n        time.sleep(0.1)",
    "says nothing": "time.sleep(99)",
    "dies": "os.kill(os.getpid(), 9) if hasattr(os, 'kill') else None\n    os._exit(1)",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Whetstone's sandbox, where a text replaces what a batch's child does."""
    folder = tmp_path_factory.mktemp("sandbox")
    for path in Path(sandbox.__file__).parent.glob("sandbox*.py"):
        shutil.copy(path, folder)
    source = (folder / "sandbox_child.py").read_text()

    def patched(body: str) -> Path:
        taken = f"""
def channel():
    return sys._getframe(2).f_locals["channel"]


def batch(sources, rules, begin):
    [begin() for _ in sources]
    {body}
"""
        (folder / "sandbox_child.py").write_text(source + taken)
        return folder / "sandbox.py"

    return patched


@pytest.mark.parametrize("how", TAKEN_OVER)
def test_whatever_a_batch_replies_every_program_has_its_own_outcome(how, copy, monkeypatch):
    monkeypatch.setattr(sandbox, "__file__", str(copy(TAKEN_OVER[how])))
    sandbox.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    try:
        outcomes = run_programs(["answer = 5", "print(6)", "1 / 0"], workers=1)
    finally:
        sandbox.close()
    assert [outcome.answer or outcome.error for outcome in outcomes] == ["5", "6", "exception"]
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_program_that_talks_without_end_is_stopped_in_time():
    """Byte by byte of a reply that it announces as long as one may be."""
    talk = """
import os
for channel in range(3, 64):
    try:
        os.write(channel, b"\\x00\\x0f\\xff\\xff")
        break
    except OSError:
        pass
while True:
    os.write(channel, b" ")
    for _ in range(200): pass
"""
    (outcome,) = run_programs([talk], timeout=0.5)
    assert outcome.error == "timeout" and 0.5 <= outcome.seconds < 1.5


def test_a_batch_that_prints_more_than_a_reply_holds_loses_nothing():
    programs = [f"print('{i % 10}' * 60_000)\nanswer = {i}" for i in range(40)]
    outcomes = run_programs(programs, workers=1)
    assert [outcome.answer for outcome in outcomes] == [str(i) for i in range(40)]
    assert all(outcome.stdout == f"{i % 10}" * 60_000 + "\n" for i, outcome in enumerate(outcomes))


def limited(limit: str, value: int, programs: str = "['answer = 1'] * 3") -> subprocess.CompletedProcess:
    """A fresh interpreter that runs programs under one limit of its own."""
    code = f"""
import resource
from whetstone.errors import UserError
from whetstone.grading.sandbox import run_programs
resource.setrlimit(resource.{limit}, ({value}, {value}))
try:
    print([outcome.answer or outcome.detail for outcome in run_programs({programs}, workers=1)])
except UserError as error:
    print("refused:", error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)  # fmt: skip


@LINUX
def test_a_machine_that_starts_no_more_processes_is_an_error_and_no_verdict():
    run = limited("RLIMIT_NPROC", 0)
    assert run.stdout.startswith("refused: the sandbox can't start a process: Resource temporarily unavailable"), run
    assert "ulimit -u" in run.stdout and not run.stderr


@LINUX
@pytest.mark.parametrize("program", ["answer = 1", f"{ORDINARY}answer = 1"])
def test_a_machine_that_grants_less_memory_than_asked_is_an_error_and_no_verdict(program):
    run = limited("RLIMIT_AS", 300 << 20, repr([program]))
    assert run.stdout.startswith("refused: the sandbox can't confine a program on this machine: ValueError: limit"), (
        run
    )
    assert re.search(r"is 314,572,800, [0-9,]+ are needed", run.stdout)


@LINUX
def test_a_child_that_is_killed_before_it_ran_anything_is_an_error_and_no_verdict(copy, monkeypatch, tmp_path):
    """Killed twice, that is: by the kernel when memory is short, for instance."""
    folder = copy("return '[]'").parent
    jail = (folder / "sandbox_jail.py").read_text()
    (folder / "sandbox_jail.py").write_text(f"{jail}\ndef confine_child(*_):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(sandbox, "__file__", str(folder / "sandbox.py"))
    sandbox.close()
    try:
        with pytest.raises(UserError, match="ended 6 times before they ran anything.* status -9"):
            run_programs(["answer = 1"])
    finally:
        sandbox.close()
        (folder / "sandbox_jail.py").write_text(jail)
