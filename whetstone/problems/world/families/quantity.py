"""Counting, sharing, comparing and measuring out."""

from __future__ import annotations

import math
from random import Random

from whetstone.problems.world.families.trade import by_level
from whetstone.problems.world.language import FRACTIONS, THINGS, listed, people
from whetstone.problems.world.sketch import Sketch, Step

_ORDINALS = ["first", "second", "third", "fourth", "fifth"]


def chain(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    thing = r.choice(THINGS)
    events = by_level(r, level, (2, 3), (4, 5), (6, 7), (8, 8))
    have = by_level(r, level, (20, 60), (30, 99), (30, 99), (100, 140))
    givens, steps, told, before = {"n0": have}, [], [], "n0"
    for i in range(1, events + 1):
        up = r.random() < 0.5 or have < 15
        x = by_level(r, level, (3, 20), (3, 50), (3, 60), (61, 90)) if up else r.randint(2, have - 5)
        gain = [
            f"{p.name} finds {x} more",
            f"{p.he} buys {x} more",
            f"a friend gives {p.name} {x}",
            f"{p.he} wins {x}",
        ]
        loss = [
            f"{p.he} gives away {x}",
            f"{p.name} loses {x}",
            f"{p.he} sells {x}",
            f"{p.name} hands {x} to a friend",
        ]
        told.append(r.choice(gain if up else loss))
        givens[f"x{i}"] = x
        have += x if up else -x
        steps.append(
            Step(
                f"n{i}",
                f"{before} {'+' if up else '-'} x{i}",
                f"How many {thing} after {p.name} {'gets' if up else 'loses'} {x}?",
                f"{'Then' if i < events else 'In the end'} {{e}}.",
            )
        )
        before = f"n{i}"
    question = r.choice(
        [
            f"{p.name} has {givens['n0']} {thing}.",
            f"{p.name} starts the day with {givens['n0']} {thing}.",
            f"There are {givens['n0']} {thing} in {p.name}'s box.",
            f"{p.name} owns {givens['n0']} {thing}.",
        ]
    )
    for i, event in enumerate(told):
        question += " " + r.choice(["Then", "Next", "Later", "After that"] if i else ["Then", "First"]) + f" {event}."
    question += r.choice(
        [
            f" How many {thing} does {p.he} have now?",
            f" How many {thing} are left in the end?",
            f" How many {thing} is that?",
        ]
    )
    habits: dict[str, tuple[Step, ...] | str] = {"cot": "terse"}  # everything in one expression
    kind = "".join("+" if "+" in s.expression else "-" for s in steps)
    return Sketch("chain", level, question, givens, tuple(steps), habits=habits, kind=kind)


def relations(r: Random, level: int) -> Sketch:
    count = by_level(r, level, (2, 2), (3, 3), (4, 5), (6, 6))
    crew, thing = people(r, count), r.choice(THINGS)
    have = by_level(r, level, (3, 15), (3, 20), (3, 20), (21, 40))
    letters = "abcdefg"
    givens, steps, told, kind, current = {"a": have}, [], [f"{crew[0].name} has {have} {thing}."], "", have
    for i in range(1, count):
        one, other = crew[i].name, crew[i - 1].name
        op = r.choice("+-**") if current < 40 * level else r.choice("+-")
        x = {"*": r.randint(2, 4), "+": r.randint(2, 25 * max(1, level - 2)), "-": r.randint(1, max(1, current - 2))}[
            op
        ]
        told.append(
            {
                "*": f"{one} has {'twice' if x == 2 else f'{x} times'} as many as {other}.",
                "+": f"{one} has {x} more than {other}.",
                "-": f"{one} has {x} fewer than {other}.",
            }[op]
        )
        current = {"*": current * x, "+": current + x, "-": current - x}[op]
        givens[f"x{i}"] = x
        kind += op
        steps.append(
            Step(letters[i], f"{letters[i - 1]} {op} x{i}", f"How many {thing} does {one} have?", f"{one} has {{e}}.")
        )
    if level > 1 and r.random() < 0.4:
        r.shuffle(told)
    question = " ".join(told)
    # misconception: everybody is compared with the first person
    wrong = [Step(s.name, f"a{s.expression[1:]}", s.ask) for s in steps]
    if r.random() < 0.6:
        kind += "sum"
        question += r.choice([f" How many {thing} do they have together?", f" How many {thing} is that altogether?"])
        total = Step(
            "sum", " + ".join(letters[:count]), f"How many {thing} do they have together?", "Together they have {e}."
        )
        steps.append(total)
        wrong.append(total)
    else:
        question += r.choice(
            [f" How many {thing} does {crew[-1].name} have?", f" What is the number of {crew[-1].name}'s {thing}?"]
        )
    habits: dict[str, tuple[Step, ...] | str] = {"cot": "terse", "pot": tuple(wrong)}
    return Sketch("relations", level, question, givens, tuple(steps), habits=habits, kind=kind)


def fraction(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    thing = r.choice(THINGS)
    parts = [r.choice([2, 3, 4, 5]) for _ in range((1 if r.random() < 0.5 else 2, 2, 3, 4)[level - 1])]
    whole = math.prod(parts) * by_level(r, level, (2, 8), (3, 15), (1, 8), (9, 12))
    question = r.choice(
        [
            f"{p.name} has {whole} {thing}. {p.he.capitalize()} gives {FRACTIONS[parts[0]]} of them to a friend.",
            f"Of {whole} {thing}, {FRACTIONS[parts[0]]} are sold in the morning.",
            f"A basket holds {whole} {thing}. {p.name} takes {FRACTIONS[parts[0]]} of them.",
            f"{p.name} counts {whole} {thing}. Then {FRACTIONS[parts[0]]} of them are put into a drawer.",
        ]
    )
    givens = {"whole": whole} | {f"d{i}": d for i, d in enumerate(parts, 1)}
    steps, before = [], "whole"
    for i, d in enumerate(parts, 1):
        if i > 1:
            question += r.choice(
                [
                    f" Then {FRACTIONS[d]} of the rest is lost.",
                    f" After that {FRACTIONS[d]} of the remaining {thing} go to the school.",
                    f" {FRACTIONS[d].capitalize()} of what is left is thrown away.",
                ]
            )
        steps += [
            Step(
                f"part{i}",
                f"{before} / d{i}",
                f"How many {thing} is the {_ORDINALS[i - 1]} part?",
                "That part is {e}.",
            ),
            Step(f"rest{i}", f"{before} - part{i}", "How many are left then?", "So {e} are left."),
        ]
        before = f"rest{i}"
    question += r.choice([f" How many {thing} are left?", f" How many {thing} remain?"])
    taken = tuple(Step(f"part{i}", f"whole / d{i}", "") for i in range(1, len(parts) + 1))
    rest = Step("rest", " - ".join(["whole", *(s.name for s in taken)]), "")
    habits: dict[str, tuple[Step, ...] | str] = {
        "pot": (*taken, rest)
    }  # misconception: each part is taken of the whole
    return Sketch("fraction", level, question, givens, tuple(steps), habits=habits)


def average(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    count = by_level(r, level, (2, 3), (3, 4), (4, 6), (7, 7))
    numbers = [by_level(r, level, (2, 20), (11, 90), (60, 700), (701, 900)) for _ in range(count)]
    numbers[-1] += -sum(numbers) % count
    verb, thing = r.choice(
        [
            ("scores", "points"),
            ("reads", "pages"),
            ("runs", "meters"),
            ("earns", "dollars"),
            ("bakes", "rolls"),
            ("types", "words"),
        ]
    )
    told = listed([str(n) for n in numbers])
    question = r.choice(
        [
            f"{p.name} {verb} {told} {thing} on {count} days. What is the average per day?",
            f"In {count} rounds {p.name} {verb} {told} {thing}. What is the average per round?",
            f"{p.name} {verb} {told} {thing} in {count} weeks. How many {thing} is that per week on average?",
        ]
    )
    givens = {f"x{i}": n for i, n in enumerate(numbers, 1)} | {"n": count}
    steps = (
        Step("sum", " + ".join(f"x{i}" for i in range(1, count + 1)), f"How many {thing} in all?", "In all {e}."),
        Step("mean", "sum / n", "What is the average?", "The average is {e}."),
    )
    return Sketch("average", level, question, givens, steps)


def recipe(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    food = r.choice("bread soup cake jam paint dough tea mortar juice glue".split())
    stuff, unit = r.choice(
        [("flour", "cups"), ("sugar", "spoons"), ("water", "liters"), ("salt", "grams"), ("milk", "cups")]
    )
    small = by_level(r, level, (2, 5), (3, 8), (4, 12), (13, 15))
    each = by_level(r, level, (2, 6), (3, 9), (6, 19), (20, 24))
    large = small + by_level(r, level, (1, 6), (3, 15), (7, 30), (31, 40))
    used = small * each
    batches, portion = r.choice([("batches", "batch"), ("pots", "pot"), ("buckets", "bucket")])
    question = r.choice(
        [
            f"{p.name} needs {used} {unit} of {stuff} for {small} {batches} of {food}.",
            f"{small} {batches} of {food} take {used} {unit} of {stuff}.",
            f"With {used} {unit} of {stuff} {p.name} makes {small} {batches} of {food}.",
        ]
    )
    givens = {"used": used, "small": small, "large": large}
    steps = [
        Step("each", "used / small", f"How much is needed for one {portion}?", f"One {portion} needs {{e}}."),
        Step("need", "each * large", f"How much is needed for {large} {batches}?", f"For {large} it is {{e}} {unit}."),
    ]
    # misconception: as many more units as there are more batches
    added = (
        Step("more", "large - small", "", f"There are {{e}} more {batches}."),
        Step("need", "used + more", "", f"That makes {{e}} {unit}."),
    )
    kind = r.choice(["need", "more"])
    if kind == "need":
        question += r.choice(
            [
                f" How many {unit} are needed for {large} {batches}?",
                f" How many {unit} does {p.he} need to make {large}?",
            ]
        )
    else:
        question += f" How many more {unit} are needed for {large} {batches} than for {small}?"
        steps.append(Step("extra", "need - used", f"How many more {unit} is that?", f"That is {{e}} {unit} more."))
        added = (added[0], Step("need", "used + more", "", "That makes {e}."), steps[-1])
    if level == 4:
        givens["days"] = r.randint(12, 40)
        question = question.rstrip("?") + f" on each of {givens['days']} days, all days together?"
        steps.append(Step("all", f"{steps[-1].name} * days", "How much is it in all?", "In all it is {e}."))
    habits: dict[str, tuple[Step, ...] | str] = {"pot": added} if level < 4 else {}
    if level in (2, 3):
        habits["cot"] = added
    return Sketch("recipe", level, question, givens, tuple(steps), habits=habits, kind=kind)


def packing(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    thing = r.choice([*THINGS, "children", "guests", "visitors"])
    size = by_level(r, level, (3, 9), (6, 19), (14, 48), (49, 60))
    count = by_level(r, level, (15, 60), (60, 260), (300, 2000), (2001, 4000))
    one, many = r.choice(
        [("bus", "buses"), ("van", "vans"), ("table", "tables")]
        if thing in ("children", "guests", "visitors")
        else [("box", "boxes"), ("bag", "bags"), ("tray", "trays"), ("crate", "crates"), ("jar", "jars")]
    )
    full, over = divmod(count, size)
    question = r.choice(
        [
            f"There are {count} {thing}. Each {one} holds {size}.",
            f"A {one} holds {size} {thing}. {p.name} has {count} {thing} to place.",
            f"{p.name} puts {count} {thing} into {many} of {size}.",
        ]
    )
    givens = {"all": count, "size": size}
    fit = Step(
        "full",
        "all // size",
        f"How many {many} are full?",
        "{e} full " + many + ".",
        work=f"{size} * {full} = {size * full}, so {full}",
    )
    rest = Step(
        "rest",
        "all - full * size",
        "How many are left over?",
        "Left over are {e}.",
        work=f"{count} - {size * full} = {over}",
    )
    kind = r.choice(["needed", "over"])
    if kind == "needed":
        question += r.choice([f" How many {many} are needed for all of them?", f" How many {many} does it take?"])
        last = Step(
            "need",
            "ceil(all / size)",
            f"How many {many} are needed?",
            f"That takes {{e}} {many}.",
            work=f"{full} + 1 = {full + 1}" if over else f"{full}",
        )
        steps = (fit, rest, last)
        program = f"all = {count}\nsize = {size}\nanswer = ceil(all / size)"
        # misconception: the last container that isn't full is forgotten
        forgets = (Step("need", "all // size", f"How many {many} are needed?", work=f"{count} / {size} = {full}"),)
    else:
        question += r.choice(
            [
                f" How many {thing} are left over?",
                f" After filling as many {many} as possible, how many {thing} are left?",
            ]
        )
        steps = (fit, rest)
        program = f"all = {count}\nsize = {size}\nanswer = all % size"
        forgets = (Step("rest", "all - full * size", f"How many {thing} are left over?", work=f"{over}"),)
        forgets = (Step("full", "all // size", f"How many {many} are full?", work=f"{full}"), *forgets)
    return Sketch("packing", level, question, givens, steps, program=program, habits={"l2m": forgets}, kind=kind)


def units(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    thing = r.choice(THINGS)
    unit, size = r.choice([("dozen", 12), ("week", 7), ("hour", 60), ("box", r.randint(3, 9)), ("kg", 1000)])
    many = by_level(r, level, (2, 5), (3, 9), (6, 25), (26, 40))
    more = by_level(r, level, (1, 9), (2, 20), (10, 60), (61, 99))
    told, parts, what = {
        "dozen": (
            [f"{p.name} has {many} dozen {thing} and {more} single ones. How many {thing} does {p.he} have?"],
            f"{many} dozen",
            thing,
        ),
        "week": (
            [
                f"A trip lasts {many} weeks and {more} days. How many days is that?",
                f"{p.name} is away for {many} weeks and {more} days. How many days is {p.he} away?",
            ],
            f"{many} weeks",
            "days",
        ),
        "hour": (
            [
                f"{p.name} works {many} hours and {more} minutes. How many minutes is that?",
                f"A journey takes {many} hours and {more} minutes. How many minutes does it take?",
            ],
            f"{many} hours",
            "minutes",
        ),
        "box": (
            [
                f"Each box holds {size} {thing}. {p.name} has {many} full boxes and {more} loose {thing}. How many {thing} is that?",
                f"{p.name} packs {many} boxes of {size} {thing} and keeps {more} more. How many {thing} does {p.he} have?",
            ],
            f"{many} boxes",
            thing,
        ),
        "kg": (
            [
                f"A sack weighs {many} kg and {more} grams. How many grams is that?",
                f"How many grams are {many} kg and {more} grams?",
            ],
            f"{many} kg",
            "grams",
        ),
    }[unit]
    steps = (
        Step("part", "n * size", f"How many {what} are {parts}?", f"{parts} are {{e}} {what}."),
        Step("sum", "part + more", f"How many {what} in all?", f"In all that is {{e}} {what}."),
    )
    return Sketch("units", level, r.choice(told), {"n": many, "size": size, "more": more}, steps, kind=unit)


def sequence(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    count = (3, 4, r.choice([5, 6]), 8)[level - 1]
    doubling = r.random() < 0.4
    first = (
        by_level(r, level, (2, 9), (2, 9), (2, 9), (10, 15))
        if doubling
        else by_level(r, level, (2, 15), (2, 15), (2, 15), (16, 30))
    )
    grow = (r.choice([2, 3]) if count < 5 else 2) if doubling else by_level(r, level, (2, 9), (2, 9), (2, 9), (10, 15))
    unit = r.choice(["week", "month", "year"])
    verb, thing = r.choice(
        [("saves", "dollars"), ("reads", "pages"), ("runs", "km"), ("bakes", "rolls"), ("plants", "trees")]
    )
    if doubling:
        times = {2: "twice", 3: "3 times"}[grow]
        question = r.choice(
            [
                f"In the first {unit} {p.name} {verb} {first} {thing}. Each {unit} {p.he} {verb} {times} as many as the {unit} before.",
                f"{p.name} {verb} {first} {thing} in {unit} 1 and {times} as many every new {unit} as in the last.",
            ]
        )
    else:
        question = r.choice(
            [
                f"In the first {unit} {p.name} {verb} {first} {thing}. Each {unit} {p.he} {verb} {grow} more than the {unit} before.",
                f"{p.name} {verb} {first} {thing} in {unit} 1 and then {grow} {thing} more every {unit}.",
            ]
        )
    op = "*" if doubling else "+"
    names = "abcdefghi"
    steps = [
        Step(names[i], f"{names[i - 1]} {op} x", f"How many {thing} in {unit} {i + 1}?", f"In {unit} {i + 1} {{e}}.")
        for i in range(1, count)
    ]
    total = r.random() < 0.7
    if total:
        question += r.choice(
            [f" How many {thing} is that in {count} {unit}s?", f" What is the total after {count} {unit}s?"]
        )
        steps.append(Step("sum", " + ".join(names[:count]), f"How many {thing} in all?", "In all {e}."))
    else:
        question += f" How many {thing} in {unit} {count}?"
    # misconceptions: the program returns the last value for a total; the sum forgets that the growth piles up
    habits: dict[str, tuple[Step, ...] | str] = {
        "pot": f"n = {first}\nfor i in range({count - 1}):\n    n = n {op} {grow}\nanswer = n",
        "cot": "terse",
    }
    if total and not doubling:
        flat = f"{count} * {first} + {count} * {grow} = {count * first + count * grow}"
        habits["cot"] = (Step("sum", f"{count} * a + {count} * x", "", "In all {e}.", work=flat),)
    kind = f"{op}{count}{total}"
    return Sketch("sequence", level, question, {"a": first, "x": grow}, tuple(steps), habits=habits, kind=kind)
