"""What the operating system takes away from a process that is about to run untrusted programs.

Runs inside the sandbox's own interpreter (never in the user's). Every layer is tried, and `enter` says for each one
whether it holds. Two levels: `enter` confines the process that forks (it keeps fork, wait and kill), `confine_child`
takes those too, in the forked child, right before a program runs. Linux talks through ctypes; elsewhere only the
POSIX layers (separate process, resource limits, another user when root) exist, and the answer says so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Collection

LINUX = sys.platform.startswith("linux")
NOBODY = 65534
USER = os.geteuid()  # before any user namespace hides it

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 22, 38, 47
SECCOMP_MODE_FILTER, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446  # the same number on every architecture

# System calls by architecture: (name, x86_64, aarch64); None where the architecture lacks the call.
# All that computing, sleeping and answering need. No open, no socket, no process, no path of any kind.
PROGRAM_CALLS = (
    ("read", 0, 63), ("write", 1, 64), ("close", 3, 57), ("fstat", 5, 80), ("lseek", 8, 62), ("poll", 7, None),
    ("select", 23, None), ("ppoll", 271, 73), ("pselect6", 270, 72), ("mmap", 9, 222), ("mprotect", 10, 226),
    ("munmap", 11, 215), ("mremap", 25, 216), ("madvise", 28, 233), ("brk", 12, 214), ("futex", 202, 98),
    ("rt_sigaction", 13, 134), ("rt_sigprocmask", 14, 135), ("rt_sigreturn", 15, 139), ("sigaltstack", 131, 132),
    ("alarm", 37, None), ("pause", 34, None), ("getitimer", 36, 102), ("setitimer", 38, 103), ("nanosleep", 35, 101),
    ("clock_nanosleep", 230, 115), ("restart_syscall", 219, 128), ("clock_gettime", 228, 113),
    ("clock_getres", 229, 114), ("gettimeofday", 96, 169), ("time", 201, None), ("times", 100, 153),
    ("getrusage", 98, 165), ("sched_yield", 24, 124), ("rseq", 334, 293), ("set_robust_list", 273, 99),
    ("getpid", 39, 172), ("getppid", 110, 173), ("gettid", 186, 178), ("getuid", 102, 174), ("geteuid", 107, 175),
    ("getgid", 104, 176), ("getegid", 108, 177), ("getrandom", 318, 278), ("exit", 60, 93), ("exit_group", 231, 94),
)  # fmt: skip
# The forking process needs these on top, until `confine_child` removes them for what it forked.
SERVER_CALLS = (
    ("fork", 57, None), ("clone", 56, 220), ("wait4", 61, 260), ("kill", 62, 129), ("setpgid", 109, 154),
    ("recvmsg", 47, 212), ("pipe2", 293, 59), ("dup2", 33, None), ("dup3", 292, 24), ("prlimit64", 302, 261),
    ("setrlimit", 160, 164), ("prctl", 157, 167), ("set_tid_address", 218, 96),
)  # fmt: skip
# The interpreter's own ABI as its ELF header tells it (bits, byte order, machine): name, column above, AUDIT_ARCH_* of
# audit.h. `platform.machine()` is the kernel's word: it may say i686 to a 64-bit process, and x86_64 to a 32-bit one.
ABIS = {(2, 1, 62): ("x86_64", 0, 0xC000003E), (2, 1, 183): ("aarch64", 1, 0xC00000B7)}

_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


class _Capabilities(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def _prctl(option: int, *arguments: object) -> None:
    padded = [a if not isinstance(a, int) else ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(option, *padded):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _abi() -> tuple[str, int, int]:
    """The row of ABIS that is this process. Raises LookupError if the table of system calls lacks it."""
    with open("/proc/self/exe", "rb") as interpreter:
        magic, bits, order, machine = struct.unpack("=4sBB12xH", interpreter.read(20))
    if magic != b"\x7fELF" or (bits, order, machine) not in ABIS:
        raise LookupError(f"no system-call table for ELF machine {machine}, {32 * bits} bits ({platform.machine()})")
    return ABIS[bits, order, machine]


def _bpf(*allowed: tuple[str, int | None, int | None]) -> _Filter:
    """A seccomp program: wrong architecture dies, listed calls pass, everything else fails with EPERM."""
    _, column, audit = _abi()
    numbers = [row[1 + column] for row in allowed if row[1 + column] is not None]
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    code = [(load, 0, 0, 4), (equal, 1, 0, audit), (answer, 0, 0, 0x80000000), (load, 0, 0, 0)]
    code += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    code += [(answer, 0, 0, 0x00050000 | errno.EPERM), (answer, 0, 0, 0x7FFF0000)]
    return _Filter(len(code), b"".join(struct.pack("=HBBI", *step) for step in code))


def _drop_user() -> str:
    if USER != 0:
        return f"runs as user {USER}, the caller's own"
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return f"root became user {NOBODY}"


def _drop_capabilities() -> str:
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = _Capabilities(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    _checked(_libc.capset(ctypes.byref(header), ctypes.create_string_buffer(24)))
    return "no capability left, nor any that exec could give"


def _no_network() -> str:
    wanted = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    # Who isn't root gets the right to the others from a user namespace of its own. Root must not: there it would
    # go on owning root's files while it looks like somebody else.
    _checked(_libc.unshare(wanted if os.geteuid() == 0 else wanted | CLONE_NEWUSER))
    return "own network, IPC and host-name namespaces with no interface up"


def _landlock() -> str:
    abi = _checked(_libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    files = (1 << 13) - 1  # version 1; REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5
    files |= (abi >= 2) << 13 | (abi >= 3) << 14 | (abi >= 5) << 15
    rules = struct.pack("=QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)[: 8 if abi < 4 else 24]
    rules = rules[:16] if 4 <= abi < 6 else rules
    ruleset = _checked(_libc.syscall(LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0))
    _checked(_libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    return f"version {abi}: no file can be opened, made or removed" + (", no TCP" if abi >= 4 else "")


def _limits() -> str:
    for what, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_STACK, 8 << 20),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    return "no byte into a file, no core dump; memory, CPU seconds and processes limited for each program"


def _seccomp() -> str:
    if _server_filter is None:
        raise LookupError(_no_table)
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_server_filter))
    return f"{len(PROGRAM_CALLS)} calls for a program ({_abi_name}), the others fail with EPERM"


LAYERS = {"limits": _limits, "network": _no_network, "user": _drop_user, "capabilities": _drop_capabilities,
          "landlock": _landlock, "seccomp": _seccomp}  # fmt: skip
ORDER = ("limits", "network", "user", "network", "capabilities", "landlock", "seccomp")  # root may need try two
POSIX = ("limits", "user")


def enter(without: Collection[str] = ()) -> dict[str, tuple[bool, str]]:
    """Confine this process as far as the kernel allows.

    Returns for each layer (holds, what it does or why it is missing). `without` leaves layers out, to test the others.
    """
    report = {}
    if LINUX:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)  # without it, neither Landlock nor seccomp take orders from an ordinary user
        _prctl(PR_SET_DUMPABLE, 0)  # no process of the same user traces this one or its children
    for name in ORDER:
        if report.get(name, (False,))[0]:
            continue
        if name in without:
            report[name] = (False, "left out by the caller")
        elif not LINUX and name not in POSIX:
            report[name] = (False, f"{sys.platform} has no such thing")
        else:
            try:
                report[name] = (True, LAYERS[name]())
            except LookupError as unknown:
                report[name] = (False, str(unknown))
            except OSError as refused:
                report[name] = (False, f"refused by this kernel: {refused}")
    return report


def address_space() -> int:
    """Bytes of address space in use, on top of which a program gets its memory. Call before `enter`."""
    if not LINUX:
        return 1 << 30
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def confine_child(report: dict[str, tuple[bool, str]], memory: int, cpu_seconds: int, server: int) -> None:
    """Last step in a forked child. `memory`: bytes of address space; `server`: the process that must be the parent.

    Raises ValueError or OSError where it can't be confined as asked, such as where a stricter limit can't be raised.
    """
    os.setpgid(0, 0)
    for what, most in ((resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory)):
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError) as error:
            if LINUX:  # macOS refuses an address-space limit
                limit = resource.getrlimit(what)[1]
                raise ValueError(f"limit {what} is {limit:,}, {most:,} are needed ({error}); see ulimit") from None
    if LINUX:
        _prctl(PR_SET_PDEATHSIG, 9)
        if os.getppid() != server:
            os._exit(1)
        if report["seccomp"][0]:
            _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_child_filter))


# Made now, while files can be read
try:
    _abi_name = _abi()[0]
    _server_filter, _child_filter = _bpf(*PROGRAM_CALLS, *SERVER_CALLS), _bpf(*PROGRAM_CALLS)
except (LookupError, OSError) as unknown:
    _no_table = str(unknown)
    _abi_name = _server_filter = _child_filter = None
