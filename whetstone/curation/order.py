"""The order in which strategies are tried when each choice is made among those not tried yet."""

from __future__ import annotations

import random
from collections.abc import Mapping


def strategy_order(weights: Mapping[str, float], seed: int) -> list[tuple[str, float]]:
    """Every strategy once, drawn without replacement, with its probability among those still allowed at that draw.

    This is a Plackett-Luce order, so whether an episode stops early doesn't change what its earlier choices were.
    Strategies that the weights exclude (0) come last, in uniform order.
    """
    rng, left, order = random.Random(seed), dict(weights), []
    while left:
        total = sum(left.values())
        allowed = {name: weight / total if total > 0 else 1 / len(left) for name, weight in left.items()}
        (name,) = rng.choices(list(allowed), list(allowed.values()))
        order.append((name, allowed[name]))
        del left[name]
    return order
