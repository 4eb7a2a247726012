"""What every engine does: a batch of requests to completions, and the distribution over given next tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. `stop` strings end a completion and aren't part of its text."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    n: int = 1
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """`seed` decides the request's n completions, whatever else is in the batch."""

    prompt: str
    sampling: Sampling
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """`token_ids` as sampled (a final end-of-sequence token included), `logprobs` in nats under the sampling model at
    temperature 1, one per token. Either is empty where a server doesn't tell it."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    logprobs: tuple[float, ...] = field(default=(), repr=False)


class Engine(Protocol):
    """Text in, text out; prompts are tokenised with the model's own special tokens (one BOS where it has one).

    `fingerprint` names everything about the engine that can change a completion: kind, weights, precision.
    """

    fingerprint: str

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt exactly as `generate` feeds them; empty where only the server knows them."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yields (index of the request, its n completions) as they finish, in any order."""
        ...

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        """Log-probability (nats) of each choice's first token right after each prompt: shape (prompts, choices).

        Raises UserError where two choices share their first token.
        """
        ...

    def close(self) -> None:
        """Frees the model."""
        ...
