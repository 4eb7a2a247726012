"""Twenty families of word problems; each makes a sketch at level 1, 2, 3 or 4 (harder than anything in training)."""

from __future__ import annotations

from whetstone.problems.world.families.quantity import (
    average,
    chain,
    fraction,
    packing,
    recipe,
    relations,
    sequence,
    units,
)
from whetstone.problems.world.families.space_time import age, area, calendar, clock, posts, ranking, travel
from whetstone.problems.world.families.trade import budget, bulk, percent, shop, wages

FAMILIES = {
    make.__name__: make
    for make in (
        shop, bulk, percent, wages, budget, chain, relations, fraction, average, recipe, packing, units, sequence,
        travel, area, posts, age, clock, calendar, ranking,
    )
}  # fmt: skip
