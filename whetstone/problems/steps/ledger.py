"""Problems of dependent steps about one running number: a ledger's stock, and what happens to it.

A problem is a start and events; each event is one step or two, and every step but those of side products needs the one
before it. All results are computed here, so that `checking` can tell the first wrong step of any solution.

Three kinds of event are ambiguous. What they mean hangs on one word, which other problems have as well, without a
meaning:

- `dozen`: 12, but 13 in a bakery;
- `grows 3 times`: by the new ledger to three times as many, by the old one by three times as many;
- `a third of the stock` is a third of what there was at the start, `a third of the sacks` of what there is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import NamedTuple

from whetstone.problems.world.language import FRACTIONS, GOODS, PLACES, THINGS, distractor

AMBIGUOUS = ("dozen", "grows", "share")
BAKERY = "bakery"


class Step(NamedTuple):
    """`left sign right = value`; `needs` are the positions of the steps whose results it takes."""

    left: int
    sign: str
    right: int
    value: int
    needs: tuple[int, ...]


class Event(NamedTuple):
    kind: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Degree:
    """How hard a problem is. Ranges hold their ends."""

    steps: tuple[int, int]
    start: tuple[int, int]
    change: tuple[int, int]  # what comes in or goes out at once
    factor: tuple[int, int]  # of `times`
    boxes: tuple[int, int]
    content: tuple[int, int]  # of a box
    most: int  # no result is larger
    ambiguous: float  # probability of one ambiguous event
    distracting: float  # probability of a sentence that has nothing to do with the question


LEVELS = (1, 2, 3, 4)
HARD = 5
DEGREES = {
    1: Degree((3, 4), (100, 799), (75, 999), (3, 12), (6, 29), (13, 89), 9_999, 0.25, 0.1),
    2: Degree((4, 5), (150, 899), (105, 1_499), (3, 15), (11, 39), (16, 99), 9_999, 0.25, 0.2),
    3: Degree((5, 6), (150, 899), (105, 1_499), (3, 15), (11, 39), (16, 99), 9_999, 0.25, 0.3),
    4: Degree((7, 8), (205, 999), (105, 1_999), (3, 15), (11, 39), (16, 99), 9_999, 0.25, 0.4),
    HARD: Degree((9, 10), (1_005, 4_999), (1_005, 9_999), (6, 19), (21, 99), (26, 99), 60_000, 0.25, 0.4),
}
_FRACTION = {name: f"{word[0].upper()}{word[1:]}" for name, word in FRACTIONS.items()}
_WORDS = {
    "gain": ("{0} more come in.", "Another {0} are delivered.", "{0} are added."),
    "loss": ("{0} are sold.", "{0} go out.", "{0} get lost."),
    "times": ("Then there are {0} times as many.", "That is multiplied by {0}."),
    "part": ("They are split evenly among {0} shops, and one share stays.", "One of {0} equal parts stays."),
    "boxes": ("{0} boxes of {1} come in.", "{0} carts bring {1} each."),
    "bags": ("{0} bags of {1} are sold.", "{0} people take {1} each."),
    "dozen": ("{0} dozen come in.", "Another {0} dozen are delivered."),
    "grows": ("The stock grows {0} times.", "It grows {0} times."),
}
_SHARE = {  # by whether it is of what there was at the start
    True: ("{fraction} of the stock is sold.", "{fraction} of the stock goes out."),
    False: ("{fraction} of the {things} is sold.", "{fraction} of the {things} goes out."),
}
_COSTS = {"boxes": 2, "bags": 2, "dozen": 2, "share": 2}  # steps of an event; all others take one


@dataclass(frozen=True)
class Ledger:
    """One problem. `special` says of the ambiguous event that it has its rarer meaning: 13 to the dozen, grown by so
    many times, a share of the start."""

    level: int
    start: int
    events: tuple[Event, ...]
    special: bool
    question: str
    family: str = "ledger"

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return worked(self.start, self.events, self.special)

    @property
    def answer(self) -> str:
        return str(self.steps[-1].value)

    @property
    def opening(self) -> str:
        """What decides the split: the start and the first two events. No problem of another split begins so, hence no
        solution of another split passes through the same first steps."""
        return self._told(self.events[:2])

    @property
    def key(self) -> str:
        """What makes two problems the same whatever their wording."""
        return f"{self._told(self.events)} {self.special}"

    def _told(self, events: tuple[Event, ...]) -> str:
        return f"{self.family}|{self.start} {' '.join(f'{e.kind} {e.numbers}' for e in events)}"


def worked(start: int, events: tuple[Event, ...], special: bool) -> tuple[Step, ...]:
    """The steps of a ledger, ambiguous events read as `special` says. Raises ValueError for a division with a rest."""
    steps: list[Step] = []
    current, last = start, ()  # the running number, and the step that it comes from

    def take(left: int, sign: str, right: int, needs: tuple[int, ...]) -> int:
        value = _OPERATIONS[sign](left, right)
        steps.append(Step(left, sign, right, value, needs))
        return value

    for kind, numbers in events:
        sign = "-" if kind in ("loss", "bags", "share") else "+"
        if kind in ("gain", "loss"):
            current = take(current, sign, numbers[0], last)
        elif kind in ("times", "grows"):
            current = take(current, "*", numbers[0] + (kind == "grows" and special), last)
        elif kind == "part":
            current = take(current, "/", numbers[0], last)
        else:
            if kind == "share":
                whole, needs = (start, ()) if special else (current, last)
                side = take(whole, "/", numbers[0], needs)
            else:
                side = take(numbers[0], "*", 12 + special if kind == "dozen" else numbers[1], ())
            current = take(current, sign, side, (*last, len(steps) - 1))
        last = (len(steps) - 1,)
    return tuple(steps)


def _divide(left: int, right: int) -> int:
    if left % right:
        raise ValueError(f"{left} / {right} leaves a rest")
    return left // right


_OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": _divide}


def draw(r: Random, level: int, degrees: Mapping[int, Degree] = DEGREES) -> Ledger:
    """One problem of a level, whose other reading can be worked out as well."""
    degree = degrees[level]
    while True:
        start, wanted = r.randint(*degree.start), r.randint(*degree.steps)
        events = _events(r, degree, start, wanted)
        special = r.random() < 0.5
        if events and all(_fits(start, events, reading, degree.most) for reading in (False, True)):
            plain, other = ([step[:4] for step in worked(start, events, reading)] for reading in (False, True))
            if (plain != other) == any(event.kind in AMBIGUOUS for event in events):
                break
    return Ledger(level, start, events, special, _question(r, degree, start, events, special))


def _fits(start: int, events: tuple[Event, ...], special: bool, most: int) -> bool:
    try:
        return all(1 < step.value <= most for step in worked(start, events, special))
    except ValueError:
        return False


def _events(r: Random, degree: Degree, start: int, wanted: int) -> tuple[Event, ...]:
    """Events that come to `wanted` steps, their numbers drawn so that results stay in range; () where that failed."""
    kinds: list[str] = [r.choice(AMBIGUOUS)] if r.random() < degree.ambiguous else []
    while (cost := sum(_COSTS.get(kind, 1) for kind in kinds)) < wanted:
        plain = ("gain", "loss", "times", "part") + (("boxes", "bags") if wanted - cost > 1 else ())
        kinds.append(r.choice(plain))
    r.shuffle(kinds)
    if kinds[0] == "share":  # at the start both readings are one
        kinds.append(kinds.pop(0))
    events: list[Event] = []
    for kind in kinds:
        current = worked(start, tuple(events), False)[-1].value if events else start
        numbers = _numbers(r, degree, kind, start, current)
        if numbers is None:
            return ()
        events.append(Event(kind, numbers))
    return tuple(events)


def _numbers(r: Random, degree: Degree, kind: str, start: int, current: int) -> tuple[int, ...] | None:
    low, high = degree.change
    if kind == "gain":
        return (r.randint(low, high),)
    if kind == "loss":
        return (r.randint(low, min(high, current - 2)),) if current - 2 >= low else None
    if kind in ("times", "grows"):
        least, largest = degree.factor if kind == "times" else (2, min(8, degree.factor[1]))
        largest = min(largest, degree.most // current)
        return (r.randint(least, largest),) if largest >= least else None
    if kind in ("part", "share"):
        whole = [k for k in (FRACTIONS if kind == "share" else range(3, 10)) if current % k == 0 and current > 2 * k]
        whole = [k for k in whole if kind == "part" or start % k == 0]
        return (r.choice(whole),) if whole else None
    boxes, content = r.randint(*degree.boxes), 13 if kind == "dozen" else r.randint(*degree.content)
    if kind == "bags" and boxes * content > current - 2:
        return None
    return (boxes,) if kind == "dozen" else (boxes, content)


def _question(r: Random, degree: Degree, start: int, events: tuple[Event, ...], special: bool) -> str:
    kinds = {event.kind for event in events}
    things, place = r.choice(THINGS + GOODS), r.choice((*PLACES, *[BAKERY] * len(PLACES)))
    age = r.choice(("old", "new"))
    if "dozen" in kinds:
        place = BAKERY if special else r.choice([p for p in PLACES if p != BAKERY])
    if "grows" in kinds:
        age = "old" if special else "new"
    told = [f"By the {age} ledger the {place} has {start} {things}."]
    for kind, numbers in events:
        words = r.choice(_SHARE[special] if kind == "share" else _WORDS[kind])
        told.append(words.format(*numbers, things=things, fraction=_FRACTION.get(numbers[0])))
    if r.random() < degree.distracting:
        told.insert(r.randint(1, len(told)), distractor(r))
    return " ".join([*told, r.choice((f"How many {things} are there now?", f"How many {things} are left?"))])
