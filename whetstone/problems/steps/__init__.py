"""A generated world whose problems are chains of steps that can each slip: the world of `models/reasoner`.

Where `problems.world` errs by rule (which strategy?), this one errs by chance, step by step. Ledgers ask for a number,
logic for one of four options; `checking.first_wrong` tells the first wrong step of any solution.

The hash of a problem's opening (a ledger's start and first two events; all of a logic problem, however its clues are
put) decides whether it is of train, dev or test, so that nothing in training begins as a problem of dev or test does,
under whatever wording. `test_hard` has more steps and larger numbers than any other problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

from whetstone.errors import UserError
from whetstone.problems.steps import ledger, logic
from whetstone.problems.steps.ledger import HARD, LEVELS, Ledger
from whetstone.problems.steps.logic import LETTERS, Logic
from whetstone.problems.world import normalised

SPLITS = ("train", "dev", "test", "test_hard")
_SHARES = {"test": range(0, 2), "dev": range(2, 3), "train": range(3, 16)}  # sixteenths of all openings
FAMILIES = {"steps": ("ledger",), "logic": tuple(logic.KINDS)}  # by source


def draw(r: Random, family: str, level: int) -> Ledger | Logic:
    return ledger.draw(r, level) if family == "ledger" else logic.draw(r, family, level)


def split_of(problem: Ledger | Logic) -> str:
    """The one split that a problem can be in."""
    if problem.level == HARD:
        return "test_hard"
    sixteenth = hashlib.sha256(problem.opening.encode()).digest()[0] % 16
    return next(split for split, share in _SHARES.items() if sixteenth in share)


def problems(source: str, split: str, seed: int = 0) -> Iterator[Ledger | Logic]:
    """Endless problems of a split, families and levels in turn, none twice."""
    r = Random(f"{source}-{split}-{seed}")
    seen: set[str] = set()
    levels = (HARD,) if split == "test_hard" else LEVELS
    while True:
        for level in levels:
            for family in FAMILIES[source]:
                while True:
                    problem = draw(r, family, level)
                    question = normalised(problem.question)
                    if split_of(problem) == split and question not in seen and problem.key not in seen:
                        break
                seen |= {question, problem.key}
                yield problem


def generate(source: str, split: str, count: int, seed: int = 0) -> list[dict[str, object]]:
    """`count` problems of a split as rows of `records.PROBLEM` (part 0: the caller deals train into parts).

    Args:
        source: `steps` (ledgers) or `logic`.

    The first n of a longer list are the shorter list. Raises UserError for an unknown source or split.
    """
    if source not in FAMILIES or split not in SPLITS:
        raise UserError(f"no {split!r} of {source!r}: sources are {', '.join(FAMILIES)}, splits {', '.join(SPLITS)}")
    return [
        {
            "id": f"{source}-{split}-{i:06d}",
            "question": problem.question,
            "answer": problem.answer,
            "task": "choice" if isinstance(problem, Logic) else "number",
            "source": source,
            "group": problem.opening,
            "split": split,
            "part": 0,
            "family": problem.family,
            "level": problem.level,
            "options": list(problem.options) if isinstance(problem, Logic) else None,
        }
        for i, problem in zip(range(count), problems(source, split, seed), strict=False)
    ]


def prompt(question: str, options: list[str] | tuple[str, ...] | None = None) -> str:
    """How a problem is put to the model, which goes on with the first step."""
    listed = "".join(f"{letter}) {text}\n" for letter, text in zip(LETTERS, options or (), strict=False))
    return f"Question: {question}\n{listed}Answer:\n"


def prompt_of(problem: Ledger | Logic) -> str:
    return prompt(problem.question, getattr(problem, "options", None))
