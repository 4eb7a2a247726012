"""An engine that answers from a function: the stages, the journal and curation are tested with it, without a model."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from whetstone.engines.base import Completion, Request
from whetstone.errors import UserError

EOS = 0
_PIECE = re.compile(r"\s*\S+|\s+")


def pieces(text: str) -> list[str]:
    """The tokens of this engine: words with the blank space before them."""
    return _PIECE.findall(text)


def token_ids(text: str) -> list[int]:
    return [1 + zlib.crc32(piece.encode()) % 0x7FFFFFFE for piece in pieces(text)]


class ScriptedEngine:
    """`reply(prompt)` gives the completion text, or several: a greedy request takes the first, a sampled one draws by
    its seed (sample i of seed s is text number (s + i) modulo their count).

    `choose(prompt)` maps each choice's text to its probability; without it, every choice is equally likely.
    """

    def __init__(
        self,
        reply: Callable[[str], str | Sequence[str]],
        choose: Callable[[str], Mapping[str, float]] | None = None,
        fingerprint: str = "scripted",
    ):
        self.reply, self.choose, self.fingerprint = reply, choose, fingerprint

    def encode(self, prompt: str) -> list[int]:
        return token_ids(prompt)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for index, request in enumerate(requests):
            texts = self.reply(request.prompt)
            texts = [texts] if isinstance(texts, str) else list(texts)
            first = request.seed if request.sampling.temperature > 0 else 0
            shift = 1 if request.sampling.temperature > 0 else 0
            yield (
                index,
                tuple(
                    _complete(texts[(first + shift * sample) % len(texts)], request)
                    for sample in range(request.sampling.n)
                ),
            )

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        heads = [token_ids(choice)[0] for choice in choices]
        if len(set(heads)) < len(heads):
            raise UserError(f"choices {list(choices)} share their first token; reword one of them")
        table = np.full((len(prompts), len(choices)), -math.log(len(choices)))
        for row, prompt in enumerate(prompts):
            if self.choose is not None:
                probabilities = self.choose(prompt)
                table[row] = [math.log(p) if (p := probabilities.get(c, 0.0)) > 0 else -math.inf for c in choices]
        return table

    def close(self) -> None:
        pass


def _complete(text: str, request: Request) -> Completion:
    ends = [end for stop in request.sampling.stop if (end := text.find(stop)) >= 0]
    tokens = pieces(text[: min(ends)] if ends else text)
    cut = len(tokens) > request.sampling.max_tokens
    text = "".join(tokens[: request.sampling.max_tokens])
    ids = token_ids(text) + ([] if cut else [EOS])
    return Completion(text, tuple(ids), "length" if cut else "stop", (-0.5,) * len(ids))
