"""Where a layer of isolation is missing, nothing runs, unless who runs it accepts that layer by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.grading import layers, sandbox
from whetstone.grading.layers import MAY_LACK, Layer

ROOT = Path(__file__).parents[2]
X86 = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="system-call numbers of x86-64"
)
WHOLE = {name: Layer(True, "as it should") for name in layers.OPENS}
LACKING = {**WHOLE, "seccomp": Layer(False, "no system-call table for ELF machine 243")}


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch):
    monkeypatch.setattr(layers, "_seen", {})
    monkeypatch.delenv(MAY_LACK, raising=False)


def test_every_layer_of_the_sandbox_says_what_its_absence_opens():
    assert list(sandbox.layers()) == list(layers.OPENS)


def test_a_whole_sandbox_is_not_talked_about(recwarn):
    layers.require(WHOLE)
    assert not recwarn.list and layers.seen() == dict.fromkeys(layers.OPENS, "holds")


def test_a_missing_layer_is_refused_and_the_message_says_which_and_what_to_do():
    with pytest.raises(UserError) as refused:
        layers.require(LACKING)
    for part in ("seccomp: no system-call table for ELF machine 243. Opens every system call", "docs/sandbox.md",
                 "`runtime.sandbox_may_lack: [seccomp]`", f"{MAY_LACK}=seccomp"):  # fmt: skip
        assert part in str(refused.value)


def test_a_layer_that_may_be_missing_is_accepted_and_said(monkeypatch):
    monkeypatch.setenv(MAY_LACK, "seccomp, landlock")
    with pytest.warns(RuntimeWarning, match="without layers, as was asked for:\n  seccomp: no system-call table"):
        layers.require(LACKING)
    assert layers.seen()["seccomp"] == "no system-call table for ELF machine 243"


def test_accepting_one_layer_accepts_no_other(monkeypatch):
    monkeypatch.setenv(MAY_LACK, "landlock")
    with pytest.raises(UserError, match="Missing:\n  seccomp"):
        layers.require(LACKING)


def test_a_layer_that_nobody_knows_cannot_be_accepted(monkeypatch):
    monkeypatch.setenv(MAY_LACK, "secomp")
    with pytest.raises(UserError, match=f"{MAY_LACK} names secomp; the sandbox's layers are limits, network"):
        layers.require(WHOLE)


def test_the_record_keeps_that_a_layer_was_missing_once():
    layers.require(WHOLE)
    layers.require(LACKING, left_out=("seccomp",))
    layers.require(WHOLE)
    assert layers.seen()["seccomp"] == LACKING["seccomp"].detail and layers.seen()["limits"] == "holds"


def test_a_run_without_programs_has_no_layers_to_record():
    assert layers.seen() is None


# A system-call filter stands for a kernel: what is refused, of all first arguments or of one, fails with ENOSYS
KERNEL = r"""
import ctypes, errno, struct, warnings
from whetstone.errors import UserError
from whetstone.grading import layers
from whetstone.grading.sandbox import layers as held, run_programs
warnings.simplefilter("ignore")
code = []
for number, first in {refused}:
    fits = [] if first is None else [(0x20, 0, 0, 16), (0x15, 0, 1, first)]
    code += [(0x20, 0, 0, 0), (0x15, 0, 1 + len(fits), number), *fits, (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
code += [(0x06, 0, 0, 0x7FFF0000)]
text = b"".join(struct.pack("=HBBI", *step) for step in code)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Filter(len(code), text)), 0, 0) == 0
print([name for name, layer in held().items() if not layer.holds])
programs = ["answer = 1", "import os\nos.fork()", "open('/etc/passwd')", "while True: pass"]
try:
    print([o.answer or o.error for o in run_programs(programs, timeout=1)])
except UserError as error:
    print(error)
print(layers.seen()["network"], "|", layers.seen()["seccomp"][:20])
"""


def kernel(refused: list[tuple[int, int | None]], **environment: str) -> list[str]:
    code = KERNEL.replace("{refused}", repr(refused))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                         env={**os.environ, "PYTHONPATH": str(ROOT), **environment})  # fmt: skip
    assert not run.stderr, run.stderr
    return run.stdout.splitlines()


OLD = [(number, None) for number in (272, 434, 444, 445, 446)]  # unshare, pidfd_open, landlock_*
NO_SECCOMP = [(157, 22)]  # prctl(PR_SET_SECCOMP)


@X86
def test_an_old_kernel_is_refused_and_works_when_it_is_accepted():
    """As in a container or on an old kernel: no Landlock, no namespaces, no pidfd."""
    missing, *message, seen = kernel(OLD)
    assert missing == "['network', 'landlock']" and "Missing:" in message[0]
    assert message[1].startswith(
        "  network: refused by this kernel: [Errno 38] Function not implemented. Opens nothing"
    )
    assert "sandbox_may_lack: [network, landlock]" in message[-1]
    assert seen == "refused by this kernel: [Errno 38] Function not implemented | holds"
    assert kernel(OLD, **{MAY_LACK: "network,landlock"})[1] == "['1', 'forbidden', 'forbidden', 'timeout']"


@X86
def test_a_kernel_without_seccomp_is_refused_and_works_when_it_is_accepted():
    missing, *message, seen = kernel(NO_SECCOMP)
    assert missing == "['seccomp']" and message[1].startswith("  seccomp: refused by this kernel: [Errno 38]")
    assert seen == "holds | refused by this kern"
    assert kernel(NO_SECCOMP, **{MAY_LACK: "seccomp"})[1] == "['1', 'forbidden', 'forbidden', 'timeout']"


@X86
@pytest.mark.skipif(shutil.which("setarch") is None, reason="needs setarch")
def test_the_table_of_system_calls_is_that_of_the_interpreter_whatever_the_kernel_calls_the_machine():
    code = "import os\nfrom whetstone.grading.sandbox import layers\nprint(os.uname().machine, *layers()['seccomp'])"
    run = subprocess.run(["setarch", "i686", sys.executable, "-c", code], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert run.stdout.startswith("i686 True") and "(x86_64)" in run.stdout, run
