"""The sandbox's own interpreter: started by `sandbox.py` as a script, never imported by the user's process.

It imports what programs may use, gives up all rights (`sandbox_jail`), then forks a child whenever the parent asks for
one. Children run programs; this process never does, and never sees a program's text or its result: a child talks with
the parent over a channel of its own, so there is nothing that the next one could inherit.

Standard input is a socket. After a greeting (4 bytes of length, then JSON: the layers that hold) the parent sends one
byte with the descriptors of a child: its channel, for plain programs also the pipe that counts them. Another byte ends
that child, and four bytes answer: the status that `wait` gives, or minus the error number of a fork that failed.

Over its channel a child gets its request (4 bytes of length, then JSON) and sends `READY`, then a reply (4 bytes of
length, then JSON), which is a stranger's word since a program ran before; or `FAILED`, then why none could be run.

Arguments: kind (`light` or `heavy`), the parent's process id, layers to leave out, the heavy modules that are
installed, directories to import from (only while starting).
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import importlib.util
import json
import os
import select
import signal
import struct
import sys
import types
from json import dumps  # bound here, so that a program that replaces json's own answers all the same
from pathlib import Path

READY, FAILED = b"+", b"-"


def _sibling(name: str) -> types.ModuleType:
    """A module beside this file, without putting its directory on the path, where it would hide library modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


jail, prelude, verify, programs = (_sibling(f"sandbox_{name}") for name in ("jail", "prelude", "verify", "child"))


class Server:
    """Forks a child when told to and ends it when told to. Runs no program, and reads nothing of one."""

    def __init__(self, parent: int, names: dict[str, object], modules: frozenset[str], without: list[str]) -> None:
        self.names, self.process = names, os.getpid()
        shared = verify.plain_builtins(prelude.LIGHT)
        self.rules = shared, verify.ordinary_names({*names, *prelude.HEAVY_NAMES}, shared), modules
        self.null = os.open(os.devnull, os.O_RDWR)
        self.control = _socket.socket(fileno=0)
        self.watched = []  # the control socket breaks when the parent ends
        try:  # and the kernel tells us, also when a process that the parent forked keeps the socket open
            self.watched.append(os.pidfd_open(parent))
        except (AttributeError, OSError):
            pass
        self.wait = ctypes.CDLL(None, use_errno=True).waitpid
        self.status = ctypes.c_int()  # where the kernel puts how a child ended: no Python object is made of it
        self.base = jail.address_space()
        self.layers = jail.enter(without)

    def serve(self) -> None:
        send(0, dumps(self.layers))
        for descriptor in (1, 2):
            os.dup2(self.null, descriptor)
        gc.disable()
        gc.freeze()
        while True:
            descriptors = self.told(None)
            try:
                child = os.fork()
            except OSError as error:
                child, self.status.value = None, -error.errno
            if child == 0:
                self.child(*descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            self.told(child)
            if child:
                kill(child)
                self.wait(child, ctypes.byref(self.status), 0)
            os.write(0, self.status)
            self.status.value = 0

    def told(self, child: int | None) -> tuple[int, ...]:
        """Waits for the parent's next byte; the descriptors that came with it. A dead parent ends `child` and us."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        for watched in self.watched:
            poll.register(watched, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll()}
        byte, received = b"", []
        if ready == {0}:
            byte, received, *_ = self.control.recvmsg(1, _socket.CMSG_SPACE(8))
        if not byte:
            if child:
                kill(child)
            os._exit(0)
        return tuple(number for *_, packed in received for (number,) in struct.iter_unpack("i", packed))

    def child(self, channel: int, started: int | None = None) -> None:
        """What a child does, until it ends. `started`: where a batch notes that it begins a program."""
        try:
            for descriptor in (0, 1):
                os.dup2(self.null, descriptor)
            for descriptor in (self.null, *self.watched):
                os.close(descriptor)
            request = json.loads(read_all(channel, int.from_bytes(read_all(channel, 4), "big")))
            jail.confine_child(self.layers, self.base + request["memory"], request["cpu_seconds"], self.process)
        except BaseException as error:
            write_all(channel, FAILED)
            send(channel, f"{type(error).__name__}: {error}")
            os._exit(1)
        try:
            write_all(channel, READY)
            if started is None:
                for module in ("random", "numpy.random"):  # forked children draw the same numbers every time
                    if module in sys.modules:
                        sys.modules[module].seed(0)
                programs.lone(request["programs"][0], self.names, lambda row: send(channel, dumps(row)))
            else:
                send(channel, programs.batch(request["programs"], self.rules, lambda: os.write(started, READY)))
            os._exit(0)
        finally:
            os._exit(1)


def read_all(descriptor: int, length: int) -> bytes:
    pieces = []
    while length:
        pieces.append(os.read(descriptor, min(length, 1 << 20)))
        if not pieces[-1]:
            os._exit(1)  # the parent gave us up
        length -= len(pieces[-1])
    return b"".join(pieces)


def send(descriptor: int, text: str) -> None:
    body = text.encode()
    write_all(descriptor, len(body).to_bytes(4, "big") + body)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def kill(child: int) -> None:
    """The child, and its group in case a kernel without seccomp let it fork."""
    for target in (-child, child):
        try:
            os.kill(target, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def main() -> None:
    kind, parent, without, heavy, *directories = sys.argv[1:]
    if os.getppid() != int(parent):
        return
    sys.argv = ["<program>"]
    os.environ.clear()
    sys.path += directories
    for module in prelude.MODULES:
        importlib.import_module(module)
    del sys.modules["_socket"]  # ours: programs can't import it
    names = prelude.heavy_names() if kind == "heavy" else prelude.LIGHT
    sys.path.clear()
    sys.path_importer_cache.clear()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory ends, the kernel takes us first
    except OSError:
        pass
    modules = frozenset([*prelude.MODULES, *filter(None, heavy.split(","))])
    Server(int(parent), names, modules, without.split(",")).serve()


if __name__ == "__main__":
    main()
