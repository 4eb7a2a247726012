"""A generated world of grade-school word problems: every gold answer computed, every split disjoint by construction.

A problem is named by its `key`: family, variant and numbers, whatever the wording. The key's hash decides whether it
belongs to train, dev or test, so no template-and-numbers combination of dev or test ever occurs in train, nor in the
corpus that the base model was pretrained on. `test_hard` has more steps and larger numbers than any other problem.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from whetstone.problems.world.families import FAMILIES
from whetstone.problems.world.language import distractor
from whetstone.problems.world.sketch import Sketch, number

LEVELS = (1, 2, 3)
HARD = 4
SPLITS = ("train", "dev", "test", "test_hard")
_SHARES = {"test": range(0, 2), "dev": range(2, 3), "train": range(3, 16)}  # sixteenths of all keys


def split_of(sketch: Sketch) -> str:
    """The one split that a problem can be in."""
    if sketch.level == HARD:
        return "test_hard"
    sixteenth = hashlib.sha256(sketch.key.encode()).digest()[0] % 16
    return next(split for split, share in _SHARES.items() if sixteenth in share)


def draw(r: Random, family: str, level: int) -> Sketch:
    """One sketch; a quarter of them carry a sentence that has nothing to do with the question."""
    sketch = FAMILIES[family](r, level)
    if r.random() < 0.25:
        sentences = re.split(r"(?<=\.) ", sketch.question)
        sentences.insert(r.randint(0, len(sentences) - 1), distractor(r))
        sketch = replace(sketch, question=" ".join(sentences))
    return sketch


def normalised(question: str) -> str:
    return " ".join(re.findall(r"\w+", question.lower()))


def sketches(split: str, seed: int) -> Iterator[Sketch]:
    """Endless sketches of a split, families and levels in turn, no question twice."""
    r = Random(f"{split}-{seed}")
    seen: set[str] = set()
    levels = (HARD,) if split == "test_hard" else LEVELS
    while True:
        for level in levels:
            for family in FAMILIES:
                while True:
                    sketch = draw(r, family, level)
                    question = normalised(sketch.question)
                    if split_of(sketch) == split and question not in seen:
                        break
                seen.add(question)
                yield sketch


def generate(split: str, count: int, seed: int = 0) -> list[dict[str, object]]:
    """`count` problems of a split as rows of `records.PROBLEM` (part 0: the caller deals train into parts).

    The first n of a longer list are the shorter list. Raises KeyError for an unknown split.
    """
    if split not in SPLITS:
        raise KeyError(split)
    rows = []
    for i, sketch in zip(range(count), sketches(split, seed), strict=False):
        rows.append(
            {
                "id": f"world-{split}-{i:06d}",
                "question": sketch.question,
                "answer": number(sketch.answer),
                "task": "number",
                "source": "world",
                "group": sketch.key,
                "split": split,
                "part": 0,
                "family": sketch.family,
                "level": sketch.level,
                "options": None,
            }
        )
    return rows
