"""Logic with four options: orderings, syllogisms and constraints, solved clue by clue.

A solution takes one numbered clue after another, in three lines each, and then answers:

    Thought 1: Ben is right before Cleo.
    Action 1: Use[2]
    Observation 1: Ben Cleo
    ...
    Action 4: Finish[The answer is C.]

Any clue that leads on may be next, so a problem has many right solutions, and whether a line is right hangs on those
before it alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from whetstone.problems.world.language import THINGS, people

LETTERS = "ABCD"
LEVELS, HARD = (1, 2, 3, 4), 5
_LINE = re.compile(r"(Thought|Action|Observation) (\d{1,2}): (.+)")
_USE, _FINISH = re.compile(r"Use\[(\d{1,2})\]"), re.compile(r"Finish\[The answer is ([A-D])\.\]")

State = tuple  # what is known so far; () at the start
Clue = tuple


@dataclass(frozen=True)
class Logic:
    """One problem: `clues` as they are numbered in the question, from 1; `subject` is what its kind asks about."""

    level: int
    kind: str
    clues: tuple[Clue, ...]
    subject: tuple
    options: tuple[str, ...]
    answer: str  # the letter
    question: str
    key: str

    @property
    def family(self) -> str:
        return self.kind

    @property
    def opening(self) -> str:
        return self.key

    def after(self, state: State, number: int) -> State | None:
        """What is known when clue `number` is added; None where it doesn't lead on from here."""
        return KINDS[self.kind].after(self, state, self.clues[number - 1])

    def told(self, number: int) -> str:
        """The clue as a Thought says it, whichever way round the question put it."""
        return KINDS[self.kind].told(self.clues[number - 1])

    def shown(self, state: State) -> str:
        return KINDS[self.kind].shown(state)

    def settled(self, state: State) -> bool:
        """Whether the answer follows from what is known."""
        return KINDS[self.kind].settled(self, state)


@dataclass(frozen=True)
class Kind:
    draw: Callable[[Random, int], Logic]
    after: Callable[[Logic, State, Clue], State | None]
    told: Callable[[Clue], str]
    shown: Callable[[State], str]
    settled: Callable[[Logic, State], bool]


def solution(problem: Logic, r: Random) -> str:
    """A right solution, its clues in random order as far as they lead on."""
    state: State = ()
    left, said = list(range(1, len(problem.clues) + 1)), []
    while not problem.settled(state):
        number = r.choice([n for n in left if problem.after(state, n) is not None])
        left.remove(number)
        state, turn = problem.after(state, number), len(said) // 3 + 1
        said += [
            f"Thought {turn}: {problem.told(number)}",
            f"Action {turn}: Use[{number}]",
            f"Observation {turn}: {problem.shown(state)}",
        ]
    return "\n".join([*said, f"Action {len(said) // 3 + 1}: Finish[The answer is {problem.answer}.]"])


def first_wrong_line(problem: Logic, told: list[str]) -> int | None:
    """Position (from 1) of the first wrong line, as `checking.first_wrong`.

    A thought is right if it says a clue that leads on, an action if it uses a clue that says so, an observation if it
    is what then is known, the end if the answer follows from what is known and is that letter.
    """
    state: State = ()
    thought, number, turn, expected, used = "", 0, 1, "Thought", set()
    for position, line in enumerate(told, 1):
        found = _LINE.fullmatch(line)
        if found is None or int(found[2]) != turn:
            return position
        finish = _FINISH.fullmatch(found[3])
        if finish and found[1] == "Action" and expected == "Thought":
            right = finish[1] == problem.answer and problem.settled(state) and position == len(told)
            return None if right else position
        if found[1] != expected:
            return position
        if expected == "Thought":
            leading = [n for n in range(1, len(problem.clues) + 1) if n not in used]
            thought = found[3]
            if not any(problem.told(n) == thought and problem.after(state, n) is not None for n in leading):
                return position
            expected = "Action"
        elif expected == "Action":
            use = _USE.fullmatch(found[3])
            number = int(use[1]) if use else 0
            if not 0 < number <= len(problem.clues) or number in used or problem.told(number) != thought:
                return position
            expected = "Observation"
        else:
            state = problem.after(state, number)
            if found[3] != problem.shown(state):
                return position
            used.add(number)
            expected, turn = "Thought", turn + 1
    return len(told) + 1


def draw(r: Random, kind: str, level: int) -> Logic:
    return KINDS[kind].draw(r, level)


def _options(r: Random, right: str, wrong: list[str]) -> tuple[tuple[str, ...], str]:
    shuffled = r.sample([right, *r.sample(wrong, 3)], 4)
    return tuple(shuffled), LETTERS[shuffled.index(right)]


# Orderings: neighbours in a row, and who stands in a place


def _draw_ordering(r: Random, level: int) -> Logic:
    names = [person.name for person in people(r, level + 3)]
    place = r.randrange(len(names))
    clues = r.sample(list(zip(names, names[1:], strict=False)), len(names) - 1)
    listed = [
        f"({n}) {a} came in right before {b}." if r.random() < 0.5 else f"({n}) {b} came in right after {a}."
        for n, (a, b) in enumerate(clues, 1)
    ]
    options, letter = _options(r, names[place], [name for name in names if name != names[place]])
    question = f"{len(names)} runners came in one by one. {' '.join(listed)} Who was number {place + 1}?"
    key = f"ordering|{' '.join(names)}"
    return Logic(level, "ordering", tuple(clues), tuple(names), options, letter, question, key)


def _after_neighbours(problem: Logic, row: State, clue: Clue) -> State | None:
    before, after = clue
    if not row:
        return clue
    if after == row[0]:
        return (before, *row)
    return (*row, after) if before == row[-1] else None


def _whole_row(problem: Logic, row: State) -> bool:
    return len(row) == len(problem.subject)


# Syllogisms: one conclusion that grows at either end


_SAID = {
    "all": "All {0} are {1}",
    "no": "No {0} are {1}",
    "some": "Some {0} are {1}",
    "some not": "Some {0} are not {1}",
}
_NOT_ENTAILED = {  # what doesn't follow from a conclusion about {0} and {1}
    "all": ("No {0} are {1}", "All {1} are {0}", "Some {0} are not {1}"),
    "no": ("All {0} are {1}", "All {1} are {0}", "Some {0} are {1}"),
    "some": ("All {0} are {1}", "No {0} are {1}", "Some {0} are not {1}"),
    "some not": ("All {0} are {1}", "All {1} are {0}", "No {0} are {1}"),
}
_JOINED = {  # quantifiers of (a, b) and (b, c) to that of (a, c)
    ("all", "all"): "all",
    ("all", "no"): "no",
    ("some", "all"): "some",
    ("some", "no"): "some not",
}


def _draw_syllogism(r: Random, level: int) -> Logic:
    terms = r.sample(THINGS, level + 3)
    quantifiers = ["all"] * (level + 2)
    quantifiers[0] = r.choice(("all", "some"))
    quantifiers[-1] = r.choice(("all", "no"))
    premises = [(q, a, b) for q, a, b in zip(quantifiers, terms, terms[1:], strict=False)]
    clues = r.sample(premises, len(premises))
    ends = {("all", "all"): "all", ("some", "all"): "some", ("all", "no"): "no", ("some", "no"): "some not"}
    conclusion = ends[quantifiers[0], quantifiers[-1]]
    right = _SAID[conclusion].format(terms[0], terms[-1])
    options, letter = _options(r, right, [text.format(terms[0], terms[-1]) for text in _NOT_ENTAILED[conclusion]])
    listed = " ".join(f"({n}) {_told_premise(clue)}" for n, clue in enumerate(clues, 1))
    key = f"syllogism|{' '.join(terms)}"
    return Logic(level, "syllogism", tuple(clues), tuple(terms), options, letter, f"{listed} What follows?", key)


def _after_premise(problem: Logic, known: State, clue: Clue) -> State | None:
    if not known:
        return clue
    for (one, a, b), (other, c, d) in ((known, clue), (clue, known)):
        if b == c and (one, other) in _JOINED:
            return (_JOINED[one, other], a, d)
    return None


def _told_premise(clue: Clue) -> str:
    return f"{_SAID[clue[0]].format(*clue[1:])}."


def _whole_chain(problem: Logic, known: State) -> bool:
    return bool(known) and (known[1], known[2]) == (problem.subject[0], problem.subject[-1])


# Constraints: which of the numbers is meant?


_PROPERTIES: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "even": ("It is even.", lambda n, _: n % 2 == 0),
    "odd": ("It is odd.", lambda n, _: n % 2 == 1),
    "divisible": ("It is divisible by {0}.", lambda n, k: n % k == 0),
    "above": ("It is more than {0}.", lambda n, k: n > k),
    "below": ("It is less than {0}.", lambda n, k: n < k),
    "ends": ("It doesn't end in {0}.", lambda n, k: n % 10 != k),
    "sum": ("Its digits add up to more than {0}.", lambda n, k: sum(map(int, str(n))) > k),
}


def _draw_constraint(r: Random, level: int) -> Logic:
    """Numbers of two digits, from level 3 of three; each clue rules out at least one that those before it left."""
    low, high = (12, 99) if level < 3 else (102, 999)
    wanted, clues, left = level + 2, [], set()
    while len(left) != 1:
        numbers = r.sample(range(low, high + 1), wanted + 3)
        meant, clues, left = numbers[0], [], set(numbers)
        for _ in range(100):
            clue = _property(r, low, high)
            kept = {n for n in left if _PROPERTIES[clue[0]][1](n, clue[1])}
            enough = len(left) > len(kept) >= wanted - len(clues) and (len(kept) == 1 or len(clues) < wanted - 1)
            if meant in kept and enough and clue not in clues:
                clues.append(clue)
                left = kept
            if len(left) == 1:
                break
    subject, clues = tuple(sorted(numbers)), r.sample(clues, len(clues))
    listed = " ".join(f"({n}) {_told_property(clue)}" for n, clue in enumerate(clues, 1))
    options, letter = _options(r, str(meant), [str(n) for n in numbers[1:]])
    question = f"Which number is meant: {', '.join(map(str, subject))}? {listed}"
    key = f"constraint|{subject} {meant}"
    return Logic(level, "constraint", tuple(clues), subject, options, letter, question, key)


def _property(r: Random, low: int, high: int) -> Clue:
    name = r.choice(list(_PROPERTIES))
    divisor, digit, total = r.choice((3, 4, 5, 7, 9)), r.randrange(10), r.randint(3, 18)
    bounds = {"even": 0, "odd": 0, "divisible": divisor, "ends": digit, "sum": total}
    return (name, bounds.get(name, r.randint(low, high)))


def _after_property(problem: Logic, left: State, clue: Clue) -> State | None:
    return tuple(n for n in left or problem.subject if _PROPERTIES[clue[0]][1](n, clue[1]))


def _told_property(clue: Clue) -> str:
    return _PROPERTIES[clue[0]][0].format(clue[1])


KINDS = {
    "ordering": Kind(
        _draw_ordering, _after_neighbours, lambda clue: f"{clue[0]} is right before {clue[1]}.", " ".join, _whole_row
    ),
    "syllogism": Kind(_draw_syllogism, _after_premise, _told_premise, _told_premise, _whole_chain),
    "constraint": Kind(
        _draw_constraint,
        _after_property,
        _told_property,
        lambda left: " ".join(map(str, left)),
        lambda problem, left: len(left) == 1,
    ),
}
