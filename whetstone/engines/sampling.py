"""From logits to tokens, row by row: a row's token depends on its logits, its own settings and its own noise alone."""

from __future__ import annotations

import numpy as np
import torch

_NUCLEUS = 64  # tokens looked at before all are sorted


def uniforms(seeds: np.ndarray, samples: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """One number in [0, 1) per row from (seed, number of the sample, step) by splitmix64's finaliser: a counter-based
    generator, so that no row's noise depends on another row or on the order of draws (Steele, Lea & Flood 2014)."""
    state = np.uint64(0)
    for part in (seeds, samples, steps):
        with np.errstate(over="ignore"):
            state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)) * 2.0**-53


def choose(
    logits: torch.Tensor, temperature: np.ndarray, top_p: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Token and its log-probability (nats, temperature 1, before top_p) for each row of `logits` (rows, vocabulary).

    Temperature 0 takes the largest logit, the first of equals. Otherwise the token is where the cumulative
    distribution passes the row's `noise` in [0, 1). top_p keeps the most probable tokens that together reach it, with
    all that are as probable as the last of them.
    """
    logits = logits.float()
    tokens = logits.argmax(-1)
    drawn = np.flatnonzero(temperature > 0)
    if len(drawn):
        rows = torch.from_numpy(drawn).to(logits.device)
        heat = torch.from_numpy(temperature[drawn]).to(logits)[:, None]
        weights = torch.softmax((logits if len(drawn) == len(logits) else logits[rows]) / heat, -1)
        if (top_p[drawn] < 1).any():
            weights = torch.where(weights >= _nucleus(weights, torch.from_numpy(top_p[drawn]).to(logits)), weights, 0)
        reached = weights.double().cumsum(-1)
        goal = torch.from_numpy(noise[drawn]).to(reached)[:, None] * reached[:, -1:]
        found = torch.searchsorted(reached, goal, right=True)[:, 0]
        last = logits.shape[-1] - 1 - (weights.flip(-1) > 0).to(torch.uint8).argmax(-1)  # the last that can be drawn
        tokens[rows] = torch.minimum(found, last)
    logprobs = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
    return tokens.cpu().numpy(), logprobs.cpu().numpy()


def _nucleus(weights: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The smallest probability that is kept, per row: (rows, 1)."""
    top = weights.topk(min(_NUCLEUS, weights.shape[-1]), -1).values
    if bool((top.cumsum(-1)[:, -1] < top_p).any()):
        top = weights.sort(-1, descending=True).values
    place = (top.cumsum(-1) < top_p[:, None]).sum(-1, keepdim=True).clamp(max=top.shape[-1] - 1)
    return torch.where(top_p[:, None] < 1, top.gather(-1, place), 0)
