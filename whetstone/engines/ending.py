"""Where a completion ends, and its text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from whetstone.engines.decoding import Row


class Ending:
    """Ends rows at an end-of-sequence token, at a stop string (wherever tokens cut it) and at their limit."""

    def __init__(self, tokenizer: object, eos: Sequence[int], vocabulary: int):
        self.tokenizer, self.eos, self.vocabulary = tokenizer, frozenset(eos), vocabulary
        self._enders: dict[tuple[str, ...], np.ndarray] = {}

    def __call__(self, row: Row) -> bool:
        """Sets the row's reason once its last token ended it."""
        token, stop = row.tokens[-1], row.request.sampling.stop
        if token in self.eos or (stop and self._may_end(stop)[token] and self.cut(row) is not None):
            row.reason = "stop"
        elif len(row.tokens) >= row.limit:
            row.reason = "length"
        return row.reason is not None

    def _may_end(self, stop: tuple[str, ...]) -> np.ndarray:
        """Which tokens can complete a stop string: those whose text has the last character of one. A token that is
        part of a character, or whose blank space may be lost when it is decoded alone, can."""
        if stop not in self._enders:
            size = max(len(self.tokenizer), self.vocabulary)
            texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            ends = {text[-1] for text in stop if text}
            table = np.ones(size, dtype=bool)
            table[: len(texts)] = [bool(ends & set(text)) or "\ufffd" in text or " " in ends for text in texts]
            self._enders[stop] = table
        return self._enders[stop]

    def cut(self, row: Row) -> str | None:
        """The text before the first stop string, if there is one."""
        text = self.text(row)
        ends = [end for stop in row.request.sampling.stop if (end := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else None

    def text(self, row: Row) -> str:
        """Decoded after the prompt's last token, since some tokenizers drop the blank space that opens a text."""
        ids = row.tokens[:-1] if row.tokens and row.tokens[-1] in self.eos else row.tokens
        before = self.tokenizer.decode(row.prompt[-1:], skip_special_tokens=True)
        return self.tokenizer.decode(row.prompt[-1:] + ids, skip_special_tokens=True)[len(before) :]
