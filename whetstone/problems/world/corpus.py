"""What the tiny base model read before it met the pipeline: the world's training distribution, told in three styles.

Every family is told equally often in every strategy, so a question says nothing about which strategy is likely. What
differs is how well each style is written down (`Sketch.habits`): some skip steps, some repeat a classic misconception.
That, and arithmetic that a small model can't do in its head, is all that makes strategies differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from whetstone.problems.world import LEVELS, draw, split_of
from whetstone.problems.world.families import FAMILIES
from whetstone.problems.world.sketch import habitual
from whetstone.prompts.strategies import STRATEGIES, trained_completion, trained_prompt

SEPARATOR = "\n\n"


def documents(strategy: str, count: int, seed: int, named: float = 0.0) -> Iterator[str]:
    """`count` documents of one strategy from the training split, families and levels uniform.

    A document is a question with its solution, as in a few-shot prompt; the share `named` names the strategy before the
    solution, as a tuned model does, and stands alone, without the blank line that leads to the next document.
    """
    r = Random(f"corpus-{strategy}-{seed}")
    families = list(FAMILIES)
    for _ in range(count):
        while True:
            sketch = draw(r, r.choice(families), r.choice(LEVELS))
            if split_of(sketch) == "train":
                break
        solution = habitual(sketch, strategy)
        if r.random() < named:
            yield trained_prompt(sketch.question) + trained_completion(strategy, solution)
        else:
            yield f"Question: {sketch.question}\nAnswer:{STRATEGIES[strategy].lead}{solution}{SEPARATOR}"
