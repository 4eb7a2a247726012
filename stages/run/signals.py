"""How a stage ends before its end: in order, and never left behind by the DVC that started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

SHELLS = ("sh", "ash", "bash", "dash", "fish", "ksh", "zsh")
POLL, PATIENCE = 0.5, 30.0  # seconds between two looks at the parents; seconds to end in order


def listen() -> None:
    """SIGTERM ends this process as Ctrl-C does, so that journals commit and locks are given back. A stage that DVC
    started does so too when that DVC is gone: killed alone, it would leave its stage working for nobody."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if "DVC_STAGE" in os.environ:
            threading.Thread(target=_watch, args=(_starters(),), daemon=True).start()


def _starters() -> list[Any]:
    """The process that started this one, and the one behind it where that is a shell."""
    import psutil

    parents = psutil.Process().parents()[:2]
    return parents if parents and parents[0].name() in SHELLS else parents[:1]


def _watch(processes: list[Any]) -> None:
    while all(process.is_running() and process.status() != "zombie" for process in processes):
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(128 + signal.SIGTERM)
