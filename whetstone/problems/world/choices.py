"""Multiple choice from the generated world: wrong options are what common mistakes lead to.

Each problem is told in every language asked for, with the same options in the same order; its rows share a group, so no
question is in train in one language and in test in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from whetstone.errors import UserError
from whetstone.problems.world import split_of
from whetstone.problems.world.families import FAMILIES as WORLD
from whetstone.problems.world.multilingual import FAMILIES, LANGUAGES, Story, cast, question
from whetstone.problems.world.sketch import Sketch, Step, number, values

LEVELS = (1, 2)
OPTIONS = 4
DRY = 3000
LETTERS = "ABCD"
_OTHER = {" + ": " - ", " - ": " + ", " * ": " + ", " / ": " * "}


def mistakes(sketch: Sketch) -> list[tuple[str, tuple[Step, ...]]]:
    """(name, steps) of common mistakes: the world's misconceptions, stopping one step early, another operation in the
    last step. Only those that come to a positive number unlike the answer."""
    steps = sketch.steps
    tried = [("misconception", habit) for habit in sketch.habits.values() if isinstance(habit, tuple)]
    if len(steps) > 1:
        tried.append(("stops early", steps[:-1]))
    for sign, other in _OTHER.items():
        if steps[-1].expression.count(sign) == 1:
            tried.append(("other operation", (*steps[:-1], _with(steps[-1], sign, other))))
    found, seen = [], {number(sketch.answer)}
    for name, wrong in tried:
        value = outcome(sketch, wrong)
        if value is not None and value not in seen:
            seen.add(value)
            found.append((name, tuple(wrong)))
    return found


def _with(step: Step, sign: str, other: str) -> Step:
    return replace(step, expression=step.expression.replace(sign, other), work=None)


def outcome(sketch: Sketch, steps: Sequence[Step]) -> str | None:
    """What the steps come to, as text; None where it isn't a positive number of at most two decimals."""
    try:
        value = values(sketch.givens, tuple(steps))[steps[-1].name]
        return number(value) if value > 0 else None
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def options(sketch: Sketch, r: Random) -> tuple[list[str], str]:
    """(four options, letter of the right one): the answer, up to three mistakes in the order of `mistakes`, and slips
    of a digit where those don't suffice; every position is equally likely to be right."""
    gold = number(sketch.answer)
    wrong = [outcome(sketch, steps) for _, steps in mistakes(sketch)][: OPTIONS - 1]
    slips = [sketch.answer + by for by in r.sample((-10, -2, -1, 1, 2, 10), 6)] + [sketch.answer * 10]
    for value in slips:
        if len(wrong) == OPTIONS - 1:
            break
        if value > 0 and number(value) not in (gold, *wrong):
            wrong.append(number(value))
    shuffled = r.sample([gold, *wrong], OPTIONS)
    return shuffled, LETTERS[shuffled.index(gold)]


def stories(split: str, seed: int) -> Iterator[tuple[Story, list[str], str]]:
    """Endless (story, options, letter) of a split, families and levels in turn, no question twice. A family and level
    that has no new question in `DRY` draws is left out from then on: lamps along a road are soon told."""
    r = Random(f"choices-{split}-{seed}")
    seen: set[str] = set()
    turns = [(level, family) for level in LEVELS for family in FAMILIES]
    while turns:
        for turn in list(turns):
            level, family = turn
            for _ in range(DRY):
                story = cast(WORLD[family](r, level), r)
                told = question(story, LANGUAGES[0])
                if split_of(story.sketch) == split and told not in seen:
                    seen.add(told)
                    yield story, *options(story.sketch, r)
                    break
            else:
                turns.remove(turn)


def generate(split: str, count: int, languages: Sequence[str] = LANGUAGES, seed: int = 0) -> list[dict[str, object]]:
    """`count` problems of a split in each language, as rows of `records.PROBLEM` (part 0).

    The first n of a longer list are the shorter list, and a language's rows are the same whichever others are told.

    Raises:
        UserError: a language that the world isn't told in.
    """
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise UserError(f"the world isn't told in {', '.join(unknown)}, but in {', '.join(LANGUAGES)}")
    rows = []
    for i, (story, choices, letter) in zip(range(count), stories(split, seed), strict=False):
        for language in languages:
            rows.append(
                {
                    "id": f"choices-{split}-{i:05d}-{language}",
                    "question": question(story, language),
                    "answer": letter,
                    "task": "choice",
                    "source": f"world:{language}",
                    "group": story.sketch.key,
                    "split": split,
                    "part": 0,
                    "family": story.sketch.family,
                    "level": story.sketch.level,
                    "language": language,
                    "options": choices,
                }
            )
    return rows
