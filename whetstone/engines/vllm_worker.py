"""Imported by vLLM in each of its worker processes: they end when the process that opened the engine is gone.

vLLM's engine process outlives a parent that is killed, with its GPU memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

OWNER = "WHETSTONE_ENGINE_OWNER"  # process id of the one that opened the engine


class Worker:
    """What vLLM asks for as `worker_extension_cls`; importing the module is what counts."""


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _watch(owner: int) -> None:
    while _alive(owner):
        time.sleep(0.5)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != owner:  # the engine process, which started this worker
        try:
            os.kill(parent.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get(OWNER) and int(os.environ[OWNER]) != os.getpid():
    threading.Thread(target=_watch, args=(int(os.environ[OWNER]),), daemon=True).start()
