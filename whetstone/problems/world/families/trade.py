"""Buying, selling, producing and earning."""

from __future__ import annotations

from random import Random

from whetstone.problems.world.language import GOODS, PLACES, THINGS, people
from whetstone.problems.world.sketch import Sketch, Step


def by_level(r: Random, level: int, *ranges: tuple[int, int]) -> int:
    """A number from the range of the level: levels 1 to 3, then `hard`."""
    return r.randint(*ranges[level - 1])


def shop(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    things = r.sample(GOODS, 2 if level < 4 else 3)
    counts = [by_level(r, level, (2, 9), (11, 40), (21, 89), (90, 99)) for _ in things]
    prices = [by_level(r, level, (2, 9), (11, 49), (101, 480), (481, 499)) for _ in things]
    givens, steps = {}, []
    for i, (thing, count, price) in enumerate(zip(things, counts, prices, strict=True), 1):
        givens |= {f"n{i}": count, f"p{i}": price}
        steps.append(
            Step(f"cost{i}", f"n{i} * p{i}", f"How much do the {thing} cost?", f"The {thing} cost {{e}} dollars.")
        )
    bill = " and ".join(f"{n} {t} at ${c} each" for n, t, c in zip(counts, things, prices, strict=True))
    tags = " and ".join(f"{t} cost ${c} each" for t, c in zip(things, prices, strict=True))
    take = " and ".join(f"{n} {t}" for n, t in zip(counts, things, strict=True))
    question = r.choice(
        [
            f"{p.name} buys {bill}.",
            f"In a store {tags}. {p.name} takes {take}.",
            f"{p.name} orders {bill}.",
            f"At the market {tags}. {p.name} fills a basket with {take}.",
        ]
    )
    total = sum(n * c for n, c in zip(counts, prices, strict=True))
    kind = r.choice(["total", "change", "difference"] if level < 4 else ["total", "change"])
    summed = Step(
        "total",
        " + ".join(f"cost{i}" for i in range(1, len(things) + 1)),
        "What is the total cost?",
        "Together that is {e} dollars.",
    )
    if kind == "total":
        question += r.choice(
            [
                f" How much does {p.he} pay in total?",
                " What is the total cost in dollars?",
                " How many dollars is that altogether?",
                f" What does {p.his} shopping cost?",
            ]
        )
        steps.append(summed)
    elif kind == "change":
        unit = 10 if level == 1 else 50
        givens["paid"] = (total // unit + r.randint(1, 2)) * unit
        question += r.choice(
            [
                f" {p.he.capitalize()} pays with ${givens['paid']}. How much change does {p.he} get?",
                f" {p.he.capitalize()} had ${givens['paid']} before. How many dollars are left?",
            ]
        )
        steps += [summed, Step("change", "paid - total", "How much money is left?", "What is left is {e} dollars.")]
    else:
        dear, cheap = (1, 2) if counts[0] * prices[0] >= counts[1] * prices[1] else (2, 1)
        question += r.choice(
            [
                f" How much more do the {things[dear - 1]} cost than the {things[cheap - 1]}?",
                f" By how many dollars are the {things[cheap - 1]} cheaper in all than the {things[dear - 1]}?",
            ]
        )
        steps.append(
            Step("more", f"cost{dear} - cost{cheap}", "What is the difference?", "The difference is {e} dollars.")
        )
    return Sketch("shop", level, question, givens, tuple(steps), habits={"cot": "terse"}, kind=kind)


def bulk(r: Random, level: int) -> Sketch:
    place = r.choice(["factory", "farm", "plant", "mill", "workshop", "brewery", "nursery"])
    thing = r.choice(GOODS + THINGS)
    made = by_level(r, level, (11, 30), (60, 340), (240, 890), (900, 999))
    time = by_level(r, level, (3, 9), (12, 39), (24, 89), (90, 99))
    unit = r.choice(["hour", "day", "shift", "week"])
    sold = min(by_level(r, level, (5, 60), (80, 700), (900, 8000), (8001, 9999)), made * time - 3)
    question = r.choice(
        [
            f"A {place} makes {made} {thing} every {unit}. It runs for {time} {unit}s and then ships {sold} {thing}.",
            f"Every {unit} a {place} produces {made} {thing}. After {time} {unit}s, {sold} {thing} are sold.",
            f"{time} {unit}s pass at a {place} that packs {made} {thing} per {unit}. Then {sold} of the {thing} are taken away.",
            f"A {place} turns out {made} {thing} per {unit} and works {time} {unit}s. {sold} {thing} turn out to be broken.",
        ]
    )
    question += r.choice(
        [
            f" How many {thing} remain?",
            f" How many {thing} are left?",
            f" What number of {thing} does the {place} still have?",
        ]
    )
    givens = {"made": made, "time": time, "sold": sold}
    steps = [
        Step("total", "made * time", f"How many {thing} are made?", f"The {place} makes {{e}} {thing}."),
        Step("left", "total - sold", f"How many {thing} are left?", "After that {e} are left."),
    ]
    if level == 4:
        givens["places"] = r.randint(12, 48)
        question = question.rsplit(". ", 1)[0] + f". The same happens at {givens['places']} such places."
        question += f" How many {thing} are left at all of them together?"
        steps.append(Step("all", "left * places", "How many is that in all?", "In all that is {e}."))
    return Sketch("bulk", level, question, givens, tuple(steps), kind=unit if level == 4 else "")


def percent(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    thing = r.choice("coat bike phone desk tent camera guitar table sofa stove watch carpet drum piano".split())
    rates = (
        [10, 25, 50, 20],
        [5, 15, 20, 30, 40, 60, 75],
        [3, 8, 12, 18, 35, 45, 65, 85],
        [7, 13, 17, 23, 37, 43, 59],
    )
    rate = r.choice(rates[level - 1])
    price = by_level(r, level, (2, 20), (12, 120), (1010, 8900), (8901, 9900)) * (20, 5, 1, 1)[level - 1]
    kind = r.choice(["cut", "rise", "missing"])
    givens = {"price": price, "rate": rate}
    share = "price * rate / 100"
    if kind == "cut":
        question = r.choice(
            [
                f"A {thing} costs ${price}. It is sold at {rate}% off. What is the new price?",
                f"{p.name} buys a ${price} {thing} with a {rate}% discount. How much does {p.he} pay?",
                f"In a sale every price falls by {rate}%. What does a {thing} cost that was ${price} before?",
            ]
        )
        steps = [
            Step("cut", share, "How much is the discount?", "The discount is {e} dollars."),
            Step("new", "price - cut", "What is the new price?", "The new price is {e} dollars."),
        ]
    elif kind == "rise":
        question = r.choice(
            [
                f"The price of a {thing} was ${price}. It rose by {rate}%. What is the price now?",
                f"A {thing} of ${price} becomes {rate}% more expensive. What does it cost now?",
                f"{p.name} adds {rate}% to the ${price} that {p.he} asks for a {thing}. What is the new price?",
            ]
        )
        steps = [
            Step("rise", share, "How much is the increase?", "The increase is {e} dollars."),
            Step("new", "price + rise", "What is the new price?", "The new price is {e} dollars."),
        ]
    else:
        question = r.choice(
            [
                f"{p.name} has saved {rate}% of the ${price} that {p.he} needs for a {thing}. How many dollars are missing?",
                f"A {thing} costs ${price}. {p.name} has {rate}% of it. How many dollars does {p.he} still need?",
            ]
        )
        steps = [
            Step("saved", share, f"How much does {p.name} have?", f"{p.name} has {{e}} dollars."),
            Step("need", "price - saved", "How much is missing?", "The missing part is {e} dollars."),
        ]
    habits: dict[str, tuple[Step, ...] | str] = {}
    if kind == "rise":  # misconception: every change of a price is taken for a discount
        habits["l2m"] = (
            Step("cut", share, "How much is the discount?"),
            Step("new", "price - cut", "What is the new price?"),
        )
    if level == 4:
        givens["count"] = r.randint(12, 60)
        question = question.rstrip("?") + f" for one, and what are {givens['count']} times that?"
        steps.append(
            Step("all", f"{steps[-1].name} * count", "How much is that for all?", "For all that is {e} dollars.")
        )
        habits = {}
    return Sketch("percent", level, question, givens, tuple(steps), habits=habits, kind=kind)


def wages(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    days = by_level(r, level, (2, 5), (4, 12), (13, 40), (41, 60))
    hours = by_level(r, level, (2, 5), (4, 9), (5, 11), (12, 13))
    pay = by_level(r, level, (5, 10), (11, 29), (101, 290), (291, 299))
    kind = r.choice(["bonus", "rent"])
    extra = by_level(r, level, (5, 30), (20, 200), (150, 900), (901, 999))
    givens = {"days": days, "hours": hours, "pay": pay}
    question = r.choice(
        [
            f"{p.name} works {hours} hours a day for {days} days and earns ${pay} per hour.",
            f"For {days} days {p.name} works {hours} hours each day. An hour is paid ${pay}.",
            f"A job at the {r.choice(PLACES)} pays ${pay} an hour. {p.name} does {hours} hours on each of {days} days.",
        ]
    )
    steps = [
        Step("time", "days * hours", f"How many hours does {p.name} work?", "That is {e} hours."),
        Step("earned", "time * pay", f"How much does {p.name} earn?", f"{p.name} earns {{e}} dollars."),
    ]
    if kind == "bonus":
        givens["bonus"] = extra
        question += f" {p.he.capitalize()} also gets a bonus of ${extra}."
        question += r.choice([f" How much money does {p.he} get in all?", f" What are {p.his} earnings?"])
        steps.append(
            Step("sum", "earned + bonus", "How much is it with the bonus?", "With the bonus it is {e} dollars.")
        )
    else:
        givens["rent"] = min(extra, days * hours * pay - 1)
        question += f" {p.he.capitalize()} then pays ${givens['rent']} for {r.choice(['rent', 'a trip', 'tools'])}."
        question += r.choice([f" How many dollars does {p.he} keep?", " How much of the money is left?"])
        steps.append(Step("kept", "earned - rent", "How much is left?", "What is left is {e} dollars."))
    return Sketch("wages", level, question, givens, tuple(steps), habits={"cot": "terse"}, kind=kind)


def budget(r: Random, level: int) -> Sketch:
    (p,) = people(r)
    count = (2, 3, 4, 5)[level - 1]
    places = r.sample(PLACES, count)
    spent = [by_level(r, level, (2, 15), (5, 40), (11, 90), (91, 99)) for _ in places]
    double = r.randrange(count)  # one of the sums is spent twice
    start = sum(spent) + spent[double] + by_level(r, level, (3, 30), (5, 80), (10, 99), (100, 150))
    givens, steps, told = {"money": start}, [], []
    before = "money"
    for i, (place, cost) in enumerate(zip(places, spent, strict=True), 1):
        givens[f"x{i}"] = cost
        if i - 1 == double:
            told.append(
                r.choice([f"spends ${cost} at the {place} on each of 2 days", f"pays ${cost} twice at the {place}"])
            )
            steps.append(
                Step(f"twice{i}", f"2 * x{i}", f"How much goes to the {place}?", f"At the {place} {{e}} dollars go.")
            )
            what = f"twice{i}"
        else:
            told.append(r.choice([f"spends ${cost} at the {place}", f"pays ${cost} at the {place}"]))
            what = f"x{i}"
        steps.append(
            Step(
                f"left{i}",
                f"{before} - {what}",
                f"What is left after the {place}?",
                f"After the {place} {{e}} are left.",
            )
        )
        before = f"left{i}"
    question = r.choice(
        [
            f"{p.name} has ${start}.",
            f"{p.name} starts the week with ${start}.",
            f"There are ${start} in {p.name}'s purse.",
        ]
    )
    linked = [f"{p.he.capitalize()} {told[0]}."] + [
        f"{r.choice(['Then', 'Next', 'Later'])} {p.he} {t}." for t in told[1:]
    ]
    question += " " + " ".join(linked)
    question += r.choice([f" How many dollars does {p.he} have left?", " How much money remains?"])
    once = " - ".join(["money", *(f"x{i}" for i in range(1, count + 1))])
    habits: dict[str, tuple[Step, ...] | str] = {
        "cot": "terse",
        "pot": (Step("left", once, "What is left?"),),  # misconception: what is paid twice is taken off once
    }
    return Sketch("budget", level, question, givens, tuple(steps), habits=habits, kind=str(double))
