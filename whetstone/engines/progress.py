"""How far a run is: a live line in a terminal, one plain line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """Counts completions and tokens of one run; a context manager that writes to `stream` (standard error).

    `every` is the number of seconds between two plain lines; a terminal gets a live line instead.
    """

    def __init__(
        self,
        label: str = "sampling",
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.label, self.every, self.clock = label, every, clock
        self.stream = sys.stderr if stream is None else stream
        self.total = self.reused = self.done = self.tokens = 0
        self._live = None

    def start(self, total: int, reused: int = 0) -> None:
        """`total` completions are wanted, `reused` of them are in the journal already."""
        self.total, self.reused, self.done, self.tokens = total, reused, 0, 0
        self.began = self.said = self.clock()
        self._say(f"{self.label}: reused {reused:,}, sampling {total - reused:,}")
        if self.stream.isatty() and total > reused:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(self.line(), console=Console(file=self.stream), transient=True, refresh_per_second=4)
            self._live.start()

    def advance(self, completions: int, tokens: int) -> None:
        self.done += completions
        self.tokens += tokens
        if self._live is not None:
            self._live.update(self.line())
        elif self.clock() - self.said >= self.every:
            self._say(self.line())

    def line(self) -> str:
        elapsed = max(self.clock() - self.began, 1e-9)
        left = self.total - self.reused - self.done
        eta = f", {duration(left * elapsed / self.done)} left" if self.done and left else ""
        return (
            f"{self.label}: {self.reused + self.done:,}/{self.total:,} completions, {self.reused:,} reused, "
            f"{self.tokens / elapsed:,.0f} tokens/s, {duration(elapsed)} elapsed{eta}"
        )

    def finish(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self.done:
            self._say(self.line())

    def _say(self, line: str) -> None:
        self.said = self.clock()
        print(line, file=self.stream, flush=True)
