"""The process that compares expressions with math-verify. Started by symbolic.py as a file, with `python -I`.

Reads lines of JSON [seconds, a, b]; answers one byte each: "1" same, "0" different, "e" error. A comparison that takes
longer than its seconds of CPU time (which, unlike the clock's, don't depend on what else the machine does) ends the
process: SIGPROF keeps its default action, which no Python or C code can hold up.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from functools import lru_cache

from math_verify import LatexExtractionConfig, parse, verify

MEMORY = 4 << 30
CONFIG = [LatexExtractionConfig(boxed_match_priority=0)]  # LaTeX only: its parser evaluates no Python, unlike sympify


@lru_cache(maxsize=1024)
def parsed(latex: str) -> list[object]:
    return parse(f"\\boxed{{{latex}}}", CONFIG, fallback_mode="no_fallback", parsing_timeout=None)


def same(a: str, b: str) -> bool:
    """math-verify tells gold from prediction; equality here does not."""
    return verify(parsed(a), parsed(b), timeout_seconds=None) or verify(parsed(b), parsed(a), timeout_seconds=None)


def main() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(2000)
    replies = sys.stdout.buffer
    replies.write(b"r")
    replies.flush()
    for line in sys.stdin:
        seconds, a, b = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            reply = b"1" if same(a, b) else b"0"
        except Exception:
            reply = b"e"
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(reply)
        replies.flush()


if __name__ == "__main__":
    main()
