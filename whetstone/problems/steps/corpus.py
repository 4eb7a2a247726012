"""What `models/reasoner` read before it met any pipeline: the training distribution of this world.

Three things let it err by chance, and none of them is noise that greedy decoding would remove.

- Many ways. The work of a step is written in one of several ways (at once, by places, by rounding), side products may
  come early, clues of a logic problem in any order. So one sample differs from the next, and so do their slips, while
  what is right agrees.
- Readings. An ambiguous event is read one way or the other with even odds, whatever the word that settles it says.
- Arithmetic at the edge of what so small a model can do in one line. The corpus itself never slips.

Some documents have several turns: an attempt, a feedback, the question again, another attempt. Only the last attempt
is learnt; earlier ones are there to be read, and their results are random numbers. So the format is known, but nothing
of an earlier attempt helps or harms the next, and neither slips nor revising is taught.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from whetstone.problems.steps import LEVELS, draw, ledger, prompt_of, split_of
from whetstone.problems.steps.ledger import Degree, Ledger, Step, worked
from whetstone.problems.steps.logic import LETTERS, Logic, solution

FEEDBACK = {  # by mode; what stands between an attempt and the question's next telling
    "incorrect": "The answer is incorrect. Please try again.\n",
    "neutral": "Please look at it once more.\n",
    "none": "",
}
BREAK = "\n\n"  # between turns, and between the problems of a page
UNLEARNT = "\x0e{}\x0f"  # read and not learnt (models/rebuild_base.py)
PAGE = (2, 5)  # problems of a page
# ways to work a step: how often, by sign; `direct` leaves it all in the head
WAYS = {
    "+": {"direct": 2, "places": 1, "round": 1},
    "-": {"direct": 2, "places": 1, "round": 1},
    "*": {"direct": 1, "left": 1, "right": 1, "round": 1},
    "/": {"direct": 1, "places": 1},
}
# how hard the ledgers are that it read: easier than the problems, as text is that one learns from
READ = {
    1: Degree((3, 4), (30, 199), (15, 199), (3, 9), (3, 9), (12, 49), 2_000, 0.4, 0.1),
    2: Degree((4, 5), (60, 399), (35, 499), (3, 9), (4, 19), (12, 69), 5_000, 0.4, 0.2),
    3: Degree((5, 6), (100, 799), (75, 899), (3, 12), (6, 29), (13, 89), 9_999, 0.4, 0.3),
    4: Degree((7, 8), (100, 999), (105, 1_999), (3, 15), (11, 49), (13, 99), 9_999, 0.4, 0.4),
}
EARLY = 0.3  # probability that steps which can be done early are put in random order


def documents(pool: str, count: int, seed: int) -> Iterator[str]:
    """`count` documents of a pool, of the training split, levels uniform: `ledger`, `logic` (one problem), `page`
    (some of one family and level, as in a few-shot prompt), `turns` (several attempts at one problem)."""
    r = Random(f"steps-corpus-{pool}-{seed}")
    for _ in range(count):
        family = pool if pool == "ledger" else r.choice(("ordering", "syllogism", "constraint"))
        if pool in ("page", "turns") and r.random() < 0.6:
            family = "ledger"
        level = r.choice(LEVELS)
        if pool == "page":
            told = (_drawn(r, family, level) for _ in range(r.randint(*PAGE)))
            yield BREAK.join(prompt_of(problem) + attempt(problem, r) for problem in told)
        elif pool == "turns":
            yield _turns(_drawn(r, family, level), r)
        else:
            problem = _drawn(r, family, level)
            yield prompt_of(problem) + attempt(problem, r)


def _drawn(r: Random, family: str, level: int) -> Ledger | Logic:
    while True:
        problem = ledger.draw(r, level, READ) if family == "ledger" else draw(r, family, level)
        if split_of(problem) == "train":
            return problem


def retry(problem: Ledger | Logic, text: str, mode: str) -> str:
    """What stands between the prompt and a next attempt: the attempt so far, feedback, the question again."""
    return f"{text}{BREAK}{FEEDBACK[mode]}{prompt_of(problem)}"


def _turns(problem: Ledger | Logic, r: Random) -> str:
    earlier = "".join(
        UNLEARNT.format(retry(problem, scrambled(problem, r), r.choice(list(FEEDBACK))))
        for _ in range(r.choice((1, 1, 2)))
    )
    return prompt_of(problem) + earlier + attempt(problem, r)


def attempt(problem: Ledger | Logic, r: Random, special: bool | None = None) -> str:
    """A solution as the corpus writes it: never a slip, but maybe the wrong reading, unless `special` names one."""
    if isinstance(problem, Logic):
        return solution(problem, r)
    steps = worked(problem.start, problem.events, r.random() < 0.5 if special is None else special)
    told = [_line(steps[i], r) for i in _order(steps, r)]
    return "\n".join([*told, f"The answer is {steps[-1].value}."])


def _order(steps: tuple[Step, ...], r: Random) -> list[int]:
    """Positions of the steps, each after those that it needs."""
    if r.random() >= EARLY:
        return list(range(len(steps)))
    done: list[int] = []
    while len(done) < len(steps):
        done.append(r.choice([i for i, s in enumerate(steps) if i not in done and set(s.needs) <= set(done)]))
    return done


def _line(step: Step, r: Random) -> str:
    """`347 * 26 = 6940 + 2082 = 9022`, in a way that the numbers allow."""
    ways = {way: share for way, share in WAYS[step.sign].items() if way == "direct" or _middle(step, way)}
    way = r.choices(list(ways), list(ways.values()))[0]
    middle = "" if way == "direct" else f" = {_middle(step, way)}"
    return f"{step.left} {step.sign} {step.right}{middle} = {step.value}"


def _middle(step: Step, way: str) -> str | None:
    """What a way writes between the two sides; None where the numbers give it nothing to do."""
    left, sign, right, value, _ = step
    if sign in "+-":
        unit = 10 ** (len(str(right)) - 1)
        if unit == 1 or right % unit == 0:
            return None
        high, low = right - right % unit, right % unit
        if way == "places":
            first, then = (left + high, f"+ {low}") if sign == "+" else (left - high, f"- {low}")
        else:
            first, then = (
                (left + high + unit, f"- {unit - low}") if sign == "+" else (left - high - unit, f"+ {unit - low}")
            )
        return f"{first} {then}" if first > 0 else None
    if sign == "*":
        whole, other = (left, right) if way == "left" else (right, left)
        unit = 10 ** (len(str(whole)) - 1)
        if unit == 1 or whole % unit == 0:
            return None
        if way == "round":
            return f"{other * (whole - whole % unit + unit)} - {other * (unit - whole % unit)}"
        return f"{other * (whole - whole % unit)} + {other * (whole % unit)}"
    unit = 10 ** (len(str(value)) - 1)
    return None if unit == 1 or value % unit == 0 else f"{value - value % unit} + {value % unit}"


def scrambled(problem: Ledger | Logic, r: Random) -> str:
    """An attempt whose results are random: of the problem's form, and of no use."""
    if isinstance(problem, Logic):
        told = solution(problem, r).split("\n")
        said = [line.partition(": ")[2] for line in told]
        thoughts, uses, seen = said[0:-1:3], said[1:-1:3], said[2:-1:3]
        for texts in (thoughts, uses, seen):
            r.shuffle(texts)
        triples = enumerate(zip(thoughts, uses, seen, strict=True), 1)
        lines = [f"Thought {i}: {a}\nAction {i}: {b}\nObservation {i}: {c}" for i, (a, b, c) in triples]
        return "\n".join([*lines, f"Action {len(thoughts) + 1}: Finish[The answer is {r.choice(LETTERS)}.]"])
    steps = worked(problem.start, problem.events, r.random() < 0.5)
    made = [r.randint(1 + step.value // 2, 2 * step.value) for step in steps]
    lines = []
    for i in _order(steps, r):
        known = {steps[j].value: made[j] for j in steps[i].needs}
        left, right = (known.get(number, number) for number in (steps[i].left, steps[i].right))
        middle = f" = {r.randint(1, made[i])} {r.choice('+-')} {r.randint(1, made[i])}" if r.random() < 0.5 else ""
        lines.append(f"{left} {steps[i].sign} {right}{middle} = {made[i]}")
    return "\n".join([*lines, f"The answer is {made[-1]}."])
