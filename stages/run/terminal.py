"""What reaches a terminal. Text that others wrote (models, their programs, data sets, servers) can't steer it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

# All control characters but line breaks and tabs (ESC begins what moves the cursor, sets titles, reads the clipboard);
# marks that turn the direction of writing; and surrogates, which can't be written as UTF-8
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text without characters that a terminal obeys instead of showing them."""
    return _CONTROL.sub("", text)


class Terminal(Console):
    """A console on which all text is plain; colours and tables are the program's own."""

    def __init__(self, wide: int | None = None, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        if wide and not self.is_terminal:
            self.width = wide

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*arguments, **options):
            yield Segment(text if control else plain(text), style, control)
