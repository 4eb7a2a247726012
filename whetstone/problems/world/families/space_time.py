"""Clocks, calendars, ages, distances, areas and who comes before whom."""

from __future__ import annotations

from random import Random

from whetstone.problems.world.families.trade import by_level
from whetstone.problems.world.language import DAYS, EVENTS, JOBS, people
from whetstone.problems.world.sketch import Sketch, Step


def travel(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    verb = r.choice(["walks", "cycles", "drives", "runs", "rows", "rides"])
    legs = 2 if level < 4 else 3
    speeds = [by_level(r, level, (2, 9), (11, 60), (105, 480), (481, 499)) for _ in range(legs)]
    times = [by_level(r, level, (2, 5), (6, 29), (11, 48), (49, 60)) for _ in range(legs)]
    givens, steps, told = {}, [], []
    for i, (speed, time) in enumerate(zip(speeds, times, strict=True), 1):
        givens |= {f"s{i}": speed, f"t{i}": time}
        told.append(
            r.choice([f"{time} minutes at {speed} m per minute", f"at {speed} m per minute for {time} minutes"])
        )
        steps.append(Step(f"d{i}", f"s{i} * t{i}", f"How long is part {i}?", f"Part {i} is {{e}} m."))
    question = f"{p.name} {verb} {told[0]}" + "".join(f" and then {t}" for t in told[1:]) + "."
    whole = Step(
        "d", " + ".join(f"d{i}" for i in range(1, legs + 1)), "How far is it in all?", "The whole way is {e} m."
    )
    kind = r.choice(["whole", "left"])
    if kind == "whole":
        question += r.choice([f" How many m does {p.he} cover?", " What is the whole distance in m?"])
        steps.append(whole)
    else:
        ahead = by_level(r, level, (5, 30), (20, 90), (100, 600), (601, 900))
        givens["trip"] = sum(s * t for s, t in zip(speeds, times, strict=True)) + ahead
        question += f" The trip is {givens['trip']} m long." + r.choice(
            [" How many m are left?", " How far is it still?"]
        )
        steps += [whole, Step("left", "trip - d", "How many m are left?", "What is left is {e} m.")]
    return Sketch("travel", level, question, givens, tuple(steps), habits={"cot": "terse", "l2m": "terse"}, kind=kind)


def area(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    place = r.choice("garden room yard field wall hall roof court".split())
    w = by_level(r, level, (2, 9), (8, 30), (101, 480), (481, 499))
    h = by_level(r, level, (2, 9), (5, 20), (21, 88), (89, 99))
    givens = {"w": w, "h": h}
    kind = r.choice(["fence", "paint", "free"])
    question = r.choice(
        [
            f"A {place} is {w} m long and {h} m wide.",
            f"{p.name}'s {place} measures {w} m by {h} m.",
            f"A {place} of {w} m by {h} m is planned.",
        ]
    )
    if kind == "free":
        used = r.randint(1, max(1, w * h // 2))
        givens["used"] = used
        question += r.choice(
            [
                f" {used} square m of it are used. How many square m are free?",
                f" {used} square m are done. How many square m are not?",
            ]
        )
        steps = (
            Step("area", "w * h", "What is the area?", "The area is {e} square m."),
            Step("free", "area - used", "How much is free?", "Free are {e} square m."),
        )
    else:
        cost = by_level(r, level, (2, 9), (3, 12), (6, 35), (36, 40))
        givens["c"] = cost
        if kind == "fence":
            question += f" A border around it costs ${cost} per m." + r.choice(
                [" What does the border cost?", " How much is that?"]
            )
            steps = (
                Step("half", "w + h", "How long are two sides?", "Two sides are {e} m."),
                Step("around", "half * 2", "How long is the border?", "All sides are {e} m."),
                Step("cost", "around * c", "What does it cost?", "The cost is {e} dollars."),
            )
        else:
            question += f" Tiles cost ${cost} per square m." + r.choice(
                [" What does it cost to cover it?", " How much do the tiles cost?"]
            )
            steps = (
                Step("area", "w * h", "What is the area?", "The area is {e} square m."),
                Step("cost", "area * c", "What does it cost?", "The cost is {e} dollars."),
            )
    return Sketch("area", level, question, givens, steps, habits={"cot": "terse", "l2m": "terse"}, kind=kind)


def posts(r: Random, level: int) -> Sketch:
    thing, along = r.choice(
        [("trees", "road"), ("lamps", "street"), ("posts", "fence"), ("flags", "track"), ("benches", "path")]
    )
    gap = by_level(r, level, (2, 9), (3, 15), (4, 25), (26, 40))
    gaps = by_level(r, level, (2, 9), (5, 20), (11, 40), (41, 60))
    kind = r.choice(["count", "length"])
    if kind == "count":
        length = gap * gaps
        question = r.choice(
            [
                f"{thing.capitalize()} stand along a {along} of {length} m, one every {gap} m and one at each end. How many {thing} are there?",
                f"A {along} is {length} m long. From one end to the other there is one of the {thing} every {gap} m. How many {thing} is that?",
                f"How many {thing} are needed for a {along} of {length} m if they stand {gap} m apart, with one at both ends?",
            ]
        )
        givens = {"length": length, "gap": gap}
        steps = (
            Step("gaps", "length / gap", "How many gaps are there?", "Gaps: {e}."),
            Step("count", "gaps + 1", f"How many {thing} are there?", "One more than gaps: {e}."),
        )
        forgets = (Step("count", "length / gap", f"How many {thing} are there?"),)
    else:
        count = gaps + 1
        question = r.choice(
            [
                f"{count} {thing} stand along a {along}, {gap} m apart. How many m is it from the first to the last?",
                f"Along a {along} there are {count} {thing} with {gap} m between neighbors. How far are the first and the last apart?",
            ]
        )
        givens = {"count": count, "gap": gap}
        steps = (
            Step("gaps", "count - 1", "How many gaps are there?", "Gaps: {e}."),
            Step("length", "gaps * gap", "How long is that?", "That is {e} m."),
        )
        forgets = (Step("length", "count * gap", "How long is that?"),)
    if level == 4:
        givens["both"] = 2
        question = question.rstrip("?") + ", counting both sides?"
        steps = (*steps, Step("all", f"{steps[-1].name} * both", "How much is it on both sides?", "Both sides: {e}."))
        return Sketch("posts", level, question, givens, steps, kind=kind)
    # misconception: as many things as gaps
    return Sketch("posts", level, question, givens, steps, habits={"l2m": forgets, "pot": forgets}, kind=kind)


def age(r: Random, level: int) -> Sketch:
    older, younger = people(r, 2)
    x = by_level(r, level, (3, 12), (4, 15), (5, 18), (19, 25))
    y = by_level(r, level, (2, 9), (2, 12), (3, 25), (26, 30))
    times = r.random() < 0.5
    m = r.randint(2, 4) if times else r.randint(2, 20)
    told = f"{'twice' if m == 2 else f'{m} times'} as old" if times else f"{m} years older"
    question = r.choice(
        [
            f"{younger.name} is {x} years old. {older.name} is {told}.",
            f"{older.name} is {told} than {younger.name}, who is {x}.",
        ]
        if not times
        else [
            f"{younger.name} is {x} years old. {older.name} is {told}.",
            f"{older.name} is {told} as {younger.name}, who is {x}.",
        ]
    )
    givens = {"b": x, "m": m, "y": y}
    steps = [Step("a", f"b {'*' if times else '+'} m", f"How old is {older.name} now?", f"{older.name} is {{e}}.")]
    if level == 1:
        question += r.choice(
            [f" How old will {older.name} be in {y} years?", f" What is {older.name}'s age {y} years from now?"]
        )
        steps.append(Step("later", "a + y", f"How old is {older.name} in {y} years?", f"In {y} years {{e}}."))
        habits: dict[str, tuple[Step, ...] | str] = (
            {"pot": (Step("later", f"b {'*' if times else '+'} m", ""),)} if m % 2 else {}
        )
    else:
        question += r.choice(
            [f" How old will they be together in {y} years?", f" What is the sum of their ages in {y} years?"]
        )
        steps += [
            Step("a2", "a + y", f"How old is {older.name} in {y} years?", f"In {y} years {older.name} is {{e}}."),
            Step("b2", "b + y", f"How old is {younger.name} in {y} years?", f"In {y} years {younger.name} is {{e}}."),
            Step("sum", "a2 + b2", "What is the sum?", "Together {e}."),
        ]
        # misconception: the years are added once, not for both
        once = (
            steps[0],
            Step("now", "a + b", "How old are they together now?"),
            Step("sum", "now + y", f"And in {y} years?"),
        )
        habits = {"pot": once, "l2m": once}
    if level == 4:
        third = people(r)[0].name + "'s"
        givens["z"] = r.randint(50, 90)
        question = question.rstrip("?") + f" if {third} age then, {givens['z']}, is added?"
        steps.append(Step("all", "sum + z", "What is the sum of all?", "All: {e}."))
        habits = {}
    return Sketch("age", level, question, givens, tuple(steps), habits=habits, kind="times" if times else "more")


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24}:{minutes % 60:02d}"


def clock(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    event = r.choice(EVENTS)
    grid = (15, 5, 1, 1)[level - 1]
    start = r.randint(7, 16) * 60 + r.randrange(0, 60, grid)
    whole = by_level(r, level, (1, 2), (1, 3), (2, 5), (6, 7))
    rest = r.randrange(grid, 60, grid)
    last = whole * 60 + rest
    end = start + last
    kind = r.choice(["last", "end"])
    noon = start + whole * 60
    minute, more = start % 60, end % 60
    if kind == "last":
        question = r.choice(
            [
                f"A {event} starts at {_clock(start)} and ends at {_clock(end)}. How many minutes does it last?",
                f"{p.name}'s {event} begins at {_clock(start)} and is over at {_clock(end)}. How many minutes is that?",
                f"How many minutes pass from {_clock(start)} to {_clock(end)} while {p.name} is at the {event}?",
            ]
        )
        hours = end // 60 - start // 60
        steps = (
            Step(
                "long",
                f"{whole} * 60",
                f"How many minutes from {_clock(start)} to {_clock(noon)}?",
                f"From {_clock(start)} to {_clock(noon)} {{e}}.",
            ),
            Step(
                "rest",
                f"{rest}",
                f"How many minutes from {_clock(noon)} to {_clock(end)}?",
                f"From {_clock(noon)} to {_clock(end)} {{e}}.",
                work=f"{rest}",
            ),
            Step("sum", "long + rest", "How many minutes in all?", "In all {e}."),
        )
        program = f"start = {start // 60} * 60 + {minute}\nend = {end // 60} * 60 + {more}\nanswer = end - start"
        # misconception: hours and minutes are subtracted each by itself, the smaller from the larger
        apart = abs(more - minute)
        slip = f"hours = {end // 60} - {start // 60}\nminutes = {apart}\nanswer = hours * 60 + minutes"
        asked = (Step("sum", f"{hours} * 60 + {apart}", f"How many minutes from {_clock(start)} to {_clock(end)}?"),)
    else:
        question = r.choice(
            [
                f"A {event} starts at {_clock(start)} and lasts {last} minutes. How many minutes past the hour is it when it ends?",
                f"{p.name} leaves at {_clock(start)} and travels {last} minutes. How many minutes past the hour does {p.he} arrive?",
            ]
        )
        steps = (
            Step(
                "long",
                f"{whole} * 60",
                f"What time is it {whole * 60} minutes later?",
                f"{whole * 60} minutes later it is {{e}}.",
                work=_clock(noon),
            ),
            Step(
                "past",
                f"({minute} + {rest}) % 60",
                f"What time is it another {rest} minutes later?",
                f"Another {rest} minutes later it is {{e}}.",
                work=_clock(end),
            ),
        )
        program = f"start = {minute}\nlast = {last}\nanswer = (start + last) % 60"
        # misconception: minutes run past sixty
        slip = f"start = {minute}\nrest = {rest}\nanswer = start + rest"
        asked = (Step("past", f"{minute} + {rest}", "How many minutes past the hour is it?"),)
    givens = {"start": start, "last": last}
    if level == 4:
        return Sketch("clock", level, question, givens, steps, program=program, kind=kind)
    return Sketch(
        "clock", level, question, givens, steps, program=program, habits={"l2m": asked, "pot": slip}, kind=kind
    )


def calendar(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    job = r.choice(JOBS)
    weekday, day = r.randrange(5), r.randint(1, 14 if level < 4 else 9)
    need = by_level(r, level, (2, 4), (5, 7), (8, 11), (12, 13))
    question = r.choice(
        [
            f"A {job} starts on {DAYS[weekday]} the {day} and takes {need} working days (Monday to Friday). On what day of the month does it end?",
            f"{p.name} begins a {job} on {DAYS[weekday]}, day {day} of the month. It needs {need} weekdays. On which day of the month is the last one?",
            f"The {job} lasts {need} weekdays. Its first day is {DAYS[weekday]} the {day}. What is the day of the month of its last day?",
        ]
    )
    counted, at = [], 0
    while len(counted) < need:
        if (weekday + at) % 7 < 5:
            counted.append((DAYS[(weekday + at) % 7], day + at))
        at += 1
    last = counted[-1][1]
    told = ", ".join(f"{i} {name} {date}" for i, (name, date) in enumerate(counted, 1))
    steps = (Step("end", f"{last}", "Which working days are counted?", "Counting: {e}.", work=told),)
    program = (
        f"day = {day}\nweekday = {weekday}\nleft = {need} - 1\nwhile left > 0:\n    day = day + 1\n"
        "    weekday = (weekday + 1) % 7\n    if weekday < 5:\n        left = left - 1\nanswer = day"
    )
    givens = {"weekday": weekday, "day": day, "need": need}
    # misconception: weekends are counted as well
    plain = (Step("end", "day + need - 1", "On which day does it end?"),)
    habits: dict[str, tuple[Step, ...] | str] = {
        "l2m": plain,
        "pot": f"day = {day}\nneed = {need}\nanswer = day + need - 1",
    }
    return Sketch("calendar", level, question, givens, steps, program=program, habits=habits if level < 4 else {})


def ranking(r: Random, level: int) -> Sketch:
    count = by_level(r, level, (3, 3), (4, 4), (5, 5), (6, 6))
    crew = [p.name for p in people(r, count)]  # from the most to the least
    more, less = r.choice(
        [
            ("taller", "shorter"),
            ("older", "younger"),
            ("faster", "slower"),
            ("heavier", "lighter"),
            ("richer", "poorer"),
        ]
    )
    told = [
        f"{a} is {more} than {b}." if r.random() < 0.6 else f"{b} is {less} than {a}."
        for a, b in zip(crew, crew[1:], strict=False)
    ]
    if level > 1:
        r.shuffle(told)
    at, up = r.randrange(count), r.random() < 0.5
    asked = more if up else less
    question = " ".join(told) + r.choice(
        [f" How many people are {asked} than {crew[at]}?", f" How many of them are {asked} than {crew[at]}?"]
    )
    walk = crew[: at + 1][::-1] if up else crew[at:]
    answer = len(walk) - 1
    found = " ".join(f"{asked.capitalize()} than {a}: {b}." for a, b in zip(walk, walk[1:], strict=False))
    found = f"{found} {asked.capitalize()} than {walk[-1]}: nobody.".strip()
    steps = (
        Step("count", f"{answer}", f"Who is {asked} than {crew[at]}?", "{e} That is " + f"{answer}.", work=found),
    )
    pairs = ", ".join(f"('{a}', '{b}')" for a, b in zip(crew, crew[1:], strict=False))
    program = (
        f"order = [{pairs}]\nwho = '{crew[at]}'\nanswer = 0\nfor i in range(len(order)):\n    for a, b in order:\n"
        + (
            "        if b == who:\n            who = a\n            answer = answer + 1\n            break"
            if up
            else "        if a == who:\n            who = b\n            answer = answer + 1\n            break"
        )
    )
    # the corpus answers from memory in these two styles
    bare = (Step("count", f"{answer}", f"How many are {asked} than {crew[at]}?", work=f"{answer}"),)
    habits: dict[str, tuple[Step, ...] | str] = {"l2m": bare, "pot": f"answer = {answer}"} if level < 4 else {}
    # nothing but who stands where tells these problems apart: the statements with places for names
    places = {name: str(place) for place, name in enumerate(crew)}
    kind = " ".join(places.get(word.strip(".?"), word) for word in question.split())
    return Sketch("ranking", level, question, {}, steps, program=program, habits=habits, kind=kind)
