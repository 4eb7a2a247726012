"""The sandbox's own interpreter: started by `sandbox.py` as a script, never imported by the user's process.

It imports what programs may use, gives up all rights (`sandbox_jail`), then forks a child for each request and tells
the parent what came of it. The children run programs; this process never does. Frames on stdin and stdout: 4 bytes of
length, then JSON.

Arguments: kind (`light` or `heavy`), the parent's process id, layers to leave out, the heavy modules that are
installed, directories to import from (only while starting).
"""

from __future__ import annotations

import gc
import importlib.util
import json
import mmap
import os
import select
import signal
import sys
import time
import types
from json import dumps  # bound here, so that a program that replaces json's own answers all the same
from pathlib import Path

REPLY_LIMIT = 1 << 20  # bytes that a lone program's child may send
STUCK = 0.5  # seconds without progress after which a batch must be inside one endless C call


def _sibling(name: str) -> types.ModuleType:
    """A module beside this file, without putting its directory on the path, where it would hide library modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


jail, prelude, verify, programs = (_sibling(f"sandbox_{name}") for name in ("jail", "prelude", "verify", "child"))


class Server:
    """Forks one child per request, watches over it, and tells what came of it. Runs no program itself."""

    def __init__(self, parent: int, names: dict[str, object], modules: frozenset[str], without: list[str]) -> None:
        self.names, self.process = names, os.getpid()
        shared = verify.plain_builtins(prelude.LIGHT)
        self.rules = shared, verify.ordinary_names({*names, *prelude.HEAVY_NAMES}, shared), modules
        self.progress = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self.null = os.open(os.devnull, os.O_RDWR)
        self.watched = [0]  # our standard input breaks when the parent ends
        try:  # and the kernel tells us, also when a process that the parent forked keeps the pipe open
            self.watched.append(os.pidfd_open(parent))
        except (AttributeError, OSError):
            pass
        self.base = jail.address_space()
        self.layers = jail.enter(without)

    def serve(self) -> None:
        self.send({"layers": self.layers})
        os.dup2(self.null, 2)
        gc.disable()
        gc.freeze()
        while True:
            request = json.loads(self.receive(int.from_bytes(self.receive(4), "big")))
            self.send(*self.supervise(request))

    def receive(self, length: int) -> bytes:
        """That many bytes of our standard input; ends the process when the parent is gone."""
        data = b""
        while len(data) < length:
            self.wait(0, None)
            piece = os.read(0, length - len(data))
            if not piece:
                os._exit(0)
            data += piece
        return data

    def send(self, header: dict, payload: bytes = b"") -> None:
        """A frame of two parts: what we say, then the bytes of a child, which nobody has looked at yet."""
        head = json.dumps(header).encode()
        write_all(1, len(head).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + head + payload)

    def wait(self, descriptor: int, seconds: float | None, child: int | None = None) -> bool:
        """Until there is something to read (True) or the time is over (False); a dead parent ends child and us."""
        poll = select.poll()
        for watched in self.watched:
            poll.register(watched, select.POLLIN if watched else 0)
        poll.register(descriptor, select.POLLIN)
        ready = dict(poll.poll(None if seconds is None else max(0, seconds) * 1000))
        if ready.keys() & self.watched and not (descriptor == 0 and ready.get(0, 0) & select.POLLIN):
            if child:
                kill(child)
            os._exit(0)
        return descriptor in ready

    def supervise(self, request: dict) -> tuple[dict, bytes]:
        start = time.monotonic()
        lonely = request["lonely"]
        reader, writer = os.pipe()
        self.progress[0] = 0
        child = os.fork()
        if child == 0:
            try:
                self.child(request, reader, writer)
            finally:
                os._exit(1)
        os.close(writer)
        deadline = start + request["timeout"]
        pieces, size, place, ended, detail = [], 0, 0, None, ""
        while ended is None:
            if not self.wait(reader, deadline - time.monotonic() if lonely else STUCK, child):
                if lonely:
                    ended, detail = "timeout", f"stopped after {request['timeout']:g} s"
                elif self.progress[0] == place:
                    ended = "stuck"
                place = self.progress[0]
                continue
            piece = os.read(reader, 1 << 16)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if lonely and size > REPLY_LIMIT:
                ended, detail = "killed", f"the reply has more than {REPLY_LIMIT} bytes"
        os.close(reader)
        kill(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended is None and not pieces:
            ended, detail = "killed", f"the process ended with status {status} before it reported"
            if status == -signal.SIGXCPU:
                ended = "timeout"
            elif status < 0:
                detail = f"ended by {signal.Signals(-status).name}"
        seconds = time.monotonic() - start
        return {"ended": ended, "detail": detail, "seconds": seconds, "place": self.progress[0]}, b"".join(pieces)

    def child(self, request: dict, reader: int, writer: int) -> None:
        for descriptor in (0, 1):
            os.dup2(self.null, descriptor)
        for descriptor in (self.null, reader, *self.watched[1:]):
            os.close(descriptor)
        sources = request["programs"]
        cpu = int(request["timeout"]) + 2 if request["lonely"] else int(len(sources) * (programs.SLICE + STUCK)) + 2
        jail.confine_child(self.layers, self.base + request["memory"], cpu, self.process)

        def send(result: object) -> None:
            write_all(writer, dumps(result).encode())

        if request["lonely"]:
            for module in ("random", "numpy.random"):  # forked children draw the same numbers every time
                if module in sys.modules:
                    sys.modules[module].seed(0)
            programs.lone(sources[0], self.names, send)
        else:
            send(programs.batch(sources, self.rules, self.progress))
        os._exit(0)


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
