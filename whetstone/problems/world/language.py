"""The words of the generated world."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Person:
    name: str
    he: str
    his: str


_HE = (
    "Aaron Amir Anton Boris Bruno Caleb Dario David Dmitri Edwin Emil Felix Frank George Hassan Henry Ian Igor Isaac "
    "Jonas Joseph Karl Kenji Lars Liam Marco Martin Miguel Nils Oscar Pablo Peter Quinn Rafael Robert Samir Stefan Tariq "
    "Thomas Victor Walter Yusuf"
).split()
_SHE = (
    "Alice Amara Anita Astrid Bella Carla Chloe Clara Dana Diana Elena Elsa Esther Fatima Freya Grace Greta Hannah Helen "
    "Ingrid Irene Iris Julia Kamala Karin Laila Leila Lena Linda Lucia Marta Mei Mira Naomi Nadia Nora Paula Petra Rita "
    "Selma Sofia Teresa Vera Yuki"
).split()
THINGS = (
    "acorns apples badges balloons beads berries biscuits bolts books bricks buttons cakes candles cards carrots cherries "
    "coins cookies corks crayons eggs envelopes feathers figs flowers lemons marbles melons nuts olives onions oranges "
    "peaches pearls pebbles pencils plums postcards potatoes ribbons roses seeds shells stamps stickers stones tickets tiles"
).split()
GOODS = (
    "bags bells belts blankets bottles bowls brushes caps chairs clocks combs cups hats jackets jars kites knives lamps "
    "mats mirrors mugs notebooks paintings pans pens pillows plates pots puzzles rugs scarves shirts skirts socks spoons "
    "towels toys trays umbrellas vases"
).split()
PLACES = "bakery castle farm garden harbor hotel library market mill museum office park school station studio theater".split()
JOBS = "audit camp course dig festival project repair survey tour training".split()
EVENTS = "ballet concert debate exam film flight lecture match meeting opera play race".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FRACTIONS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 8: "an eighth"}


def people(r: Random, count: int = 1) -> list[Person]:
    """`count` different people."""
    names = r.sample([(n, "he", "his") for n in _HE] + [(n, "she", "her") for n in _SHE], count)
    return [Person(*n) for n in names]


def listed(words: list[str]) -> str:
    """ "3, 5 and 9"."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def distractor(r: Random) -> str:
    """A sentence with a number that has nothing to do with the question."""
    person = people(r)[0]
    return r.choice(
        [
            f"{person.name} is {r.randint(7, 60)} years old.",
            f"The {r.choice(PLACES)} is {r.randint(2, 40)} km away.",
            f"It is {r.randint(8, 33)} degrees outside.",
            f"There are {r.randint(3, 60)} people in the {r.choice(PLACES)}.",
            f"{person.name} has {r.randint(2, 12)} cousins.",
            f"The {r.choice(PLACES)} opens at {r.randint(7, 11)} o'clock.",
            f"{person.name} lives at number {r.randint(2, 90)}.",
            f"The {r.choice(PLACES)} has {r.randint(2, 30)} windows.",
        ]
    )
