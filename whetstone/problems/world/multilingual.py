"""Ten families of the generated world told in English, German and Swahili.

A sketch (`world.sketch`) is a problem before it is told: family, variant, numbers, steps. Here the same sketch is told
in any of the three languages with the same people and things, so a question and its translation share everything but
their words, and the sketch's key is the id that they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from whetstone.problems.world.sketch import Sketch, Step, equation, values

LANGUAGES = ("en", "de", "sw")
FAMILIES = ("shop", "bulk", "percent", "wages", "chain", "recipe", "posts", "age", "fraction", "travel")

_NAMES = (
    "Amina Anna Baraka Clara David Fatma Felix Hassan Ida Jonas Juma Lena Maria Neema Omar Otto Peter Rosa Simon Zawadi"
).split()
# plural in English, in German, in Swahili (all of the noun class that counts without a prefix)
_THINGS = (
    ("lamps", "Lampen", "taa"), ("pens", "Stifte", "kalamu"), ("plates", "Teller", "sahani"), ("hats", "Hüte", "kofia"),
    ("bottles", "Flaschen", "chupa"), ("bananas", "Bananen", "ndizi"), ("tables", "Tische", "meza"),
    ("clocks", "Uhren", "saa"), ("sweets", "Bonbons", "pipi"), ("soaps", "Seifen", "sabuni"), ("stamps", "Marken", "stempu"),
    ("keys", "Schlüssel", "funguo"), ("nuts", "Nüsse", "karanga"), ("coins", "Münzen", "sarafu"), ("bells", "Glocken", "kengele"),
    ("photos", "Fotos", "picha"),
)  # fmt: skip
_ITEMS = (
    ("A bicycle", "Ein Fahrrad", "Baiskeli"), ("A phone", "Ein Telefon", "Simu"), ("A table", "Ein Tisch", "Meza"),
    ("A clock", "Eine Uhr", "Saa"), ("A lamp", "Eine Lampe", "Taa"), ("A hat", "Ein Hut", "Kofia"),
)  # fmt: skip
_PARTS = {
    2: ("half", "die Hälfte", "nusu"),
    3: ("a third", "ein Drittel", "theluthi"),
    4: ("a quarter", "ein Viertel", "robo"),
    5: ("a fifth", "ein Fünftel", "moja ya tano"),
}

_ANSWER = ("The answer is {letter}.", "Die Antwort ist {letter}.", "Jibu ni {letter}.")

# family, or family and variant -> the question in the three languages; "chain" and "fraction" are put together below
_QUESTIONS = {
    "shop": (
        "{name} buys {n1} {a} for {p1} dollars each and {n2} {b} for {p2} dollars each.",
        "{name} kauft {n1} {a} zu je {p1} Dollar und {n2} {b} zu je {p2} Dollar.",
        "{name} ananunua {a} {n1} kwa dola {p1} kila moja na {b} {n2} kwa dola {p2} kila moja.",
    ),
    "shop total": (
        " How many dollars does {name} pay in all?",
        " Wie viel Dollar bezahlt {name} insgesamt?",
        " {name} analipa dola ngapi kwa jumla?",
    ),
    "shop change": (
        " {name} pays with {paid} dollars. How many dollars does {name} get back?",
        " {name} bezahlt mit {paid} Dollar. Wie viel Dollar bekommt {name} zurück?",
        " {name} anatoa dola {paid}. {name} anarudishiwa dola ngapi?",
    ),
    "shop difference": (
        " By how many dollars do the two sums differ?",
        " Um wie viel Dollar unterscheiden sich die beiden Beträge?",
        " Tofauti ya bei hizo mbili ni dola ngapi?",
    ),
    "bulk": (
        "A factory makes {made} {a} every day for {time} days. Then {sold} {a} are sold. How many {a} are left?",
        "Eine Fabrik stellt {time} Tage lang jeden Tag {made} {a} her. Dann werden {sold} {a} verkauft. Wie viele {a} sind übrig?",
        "Kiwanda kinatengeneza {a} {made} kila siku kwa siku {time}. Kisha {a} {sold} zinauzwa. Ni {a} ngapi zimebaki?",
    ),
    "percent": (
        "{item} costs {price} dollars.",
        "{item} kostet {price} Dollar.",
        "{item} inagharimu dola {price}.",
    ),
    "percent cut": (
        " The price falls by {rate} percent. What is the new price?",
        " Der Preis sinkt um {rate} Prozent. Wie hoch ist der neue Preis?",
        " Bei inapungua kwa asilimia {rate}. Bei mpya ni dola ngapi?",
    ),
    "percent rise": (
        " The price rises by {rate} percent. What is the new price?",
        " Der Preis steigt um {rate} Prozent. Wie hoch ist der neue Preis?",
        " Bei inaongezeka kwa asilimia {rate}. Bei mpya ni dola ngapi?",
    ),
    "percent missing": (
        " {name} has {rate} percent of that. How many dollars are missing?",
        " {name} hat {rate} Prozent davon. Wie viel Dollar fehlen?",
        " {name} ana asilimia {rate} ya bei hiyo. Ni dola ngapi zinakosekana?",
    ),
    "wages": (
        "{name} works {hours} hours a day for {days} days and earns {pay} dollars an hour.",
        "{name} arbeitet {days} Tage lang {hours} Stunden am Tag und verdient {pay} Dollar pro Stunde.",
        "{name} anafanya kazi saa {hours} kwa siku kwa siku {days} na analipwa dola {pay} kwa saa.",
    ),
    "wages bonus": (
        " {name} also gets a bonus of {bonus} dollars. How many dollars is that in all?",
        " Dazu kommt eine Prämie von {bonus} Dollar. Wie viel Dollar sind das insgesamt?",
        " Pia anapata zawadi ya dola {bonus}. Kwa jumla ni dola ngapi?",
    ),
    "wages rent": (
        " {name} then pays {rent} dollars of rent. How many dollars are left?",
        " Davon bezahlt {name} {rent} Dollar Miete. Wie viel Dollar bleiben übrig?",
        " Kisha {name} analipa kodi ya dola {rent}. Ni dola ngapi zimebaki?",
    ),
    "recipe": (
        "{small} cakes take {used} cups of flour.",
        "Für {small} Kuchen braucht man {used} Tassen Mehl.",
        "Keki {small} zinahitaji vikombe {used} vya unga.",
    ),
    "recipe need": (
        " How many cups do {large} cakes take?",
        " Wie viele Tassen braucht man für {large} Kuchen?",
        " Keki {large} zinahitaji vikombe vingapi?",
    ),
    "recipe more": (
        " How many more cups do {large} cakes take than {small}?",
        " Wie viele Tassen mehr braucht man für {large} Kuchen als für {small}?",
        " Keki {large} zinahitaji vikombe vingapi zaidi kuliko keki {small}?",
    ),
    "posts count": (
        "Lamps stand along a road of {length} m, one every {gap} m and one at each end. How many lamps are there?",
        "An einer Straße von {length} m stehen Lampen im Abstand von {gap} m, auch an beiden Enden. Wie viele Lampen sind es?",
        "Kando ya barabara ya mita {length} kuna taa kila mita {gap}, na moja katika kila mwisho. Kuna taa ngapi?",
    ),
    "posts length": (
        "{count} lamps stand along a road, {gap} m apart. How many m is it from the first to the last?",
        "An einer Straße stehen {count} Lampen im Abstand von {gap} m. Wie viele m sind es von der ersten bis zur letzten?",
        "Kando ya barabara kuna taa {count} kila mita {gap}. Kutoka ya kwanza hadi ya mwisho ni mita ngapi?",
    ),
    "age": ("{younger} is {b} years old.", "{younger} ist {b} Jahre alt.", "{younger} ana miaka {b}."),
    "age times": (
        " {older} is {m} times as old.",
        " {older} ist {m}-mal so alt.",
        " Umri wa {older} ni mara {m} ya huo.",
    ),
    "age more": (
        " {older} is {m} years older.",
        " {older} ist {m} Jahre älter.",
        " {older} amemzidi kwa miaka {m}.",
    ),
    "age one": (
        " How old is {older} in {y} years?",
        " Wie alt ist {older} in {y} Jahren?",
        " Baada ya miaka {y} {older} atakuwa na miaka mingapi?",
    ),
    "age both": (
        " How old are they together in {y} years?",
        " Wie alt sind beide zusammen in {y} Jahren?",
        " Baada ya miaka {y} jumla ya umri wao itakuwa miaka mingapi?",
    ),
    "travel": (
        "{name} walks {t1} minutes at {s1} m per minute and then {t2} minutes at {s2} m per minute.",
        "{name} geht {t1} Minuten mit {s1} m pro Minute und dann {t2} Minuten mit {s2} m pro Minute.",
        "{name} anatembea dakika {t1} kwa mita {s1} kwa dakika na kisha dakika {t2} kwa mita {s2} kwa dakika.",
    ),
    "travel whole": (
        " How many m is that in all?",
        " Wie viele m sind das insgesamt?",
        " Kwa jumla ni mita ngapi?",
    ),
    "travel left": (
        " The way is {trip} m long. How many m are left?",
        " Der Weg ist {trip} m lang. Wie viele m bleiben noch?",
        " Njia ina urefu wa mita {trip}. Ni mita ngapi zimebaki?",
    ),
    "chain": ("{name} has {n0} {a}.", "{name} hat {n0} {a}.", "{name} ana {a} {n0}."),
    "chain +": (" {name} finds {x} more.", " {name} findet {x} dazu.", " {name} anapata {x} zaidi."),
    "chain -": (" {name} gives away {x}.", " {name} gibt {x} weg.", " {name} anatoa {x}."),
    "chain end": (
        " How many {a} does {name} have now?",
        " Wie viele {a} hat {name} jetzt?",
        " {name} ana {a} ngapi sasa?",
    ),
    "fraction": (
        "{name} has {whole} {a} and gives away {part} of them.",
        "{name} hat {whole} {a} und verschenkt {part} davon.",
        "{name} ana {a} {whole} na anatoa {part} yake.",
    ),
    "fraction rest": (
        " Then {name} sells {part} of the rest.",
        " Dann verkauft {name} {part} vom Rest.",
        " Kisha {name} anauza {part} ya zilizobaki.",
    ),
    "fraction end": (
        " How many {a} are left?",
        " Wie viele {a} bleiben übrig?",
        " Ni {a} ngapi zimebaki?",
    ),
}  # fmt: skip

# family and step (its name without a number) -> the step's sentence; {e} is the worked equation
_SAID = {
    "shop cost": ("The {thing} cost {e} dollars.", "Die {thing} kosten {e} Dollar.", "Bei ya {thing} ni dola {e}."),
    "shop total": ("Together that is {e} dollars.", "Zusammen sind das {e} Dollar.", "Kwa jumla ni dola {e}."),
    "shop change": ("What is left is {e} dollars.", "Übrig bleiben {e} Dollar.", "Zinabaki dola {e}."),
    "shop more": ("The difference is {e} dollars.", "Der Unterschied ist {e} Dollar.", "Tofauti ni dola {e}."),
    "bulk total": ("The factory makes {e} {a}.", "Die Fabrik stellt {e} {a} her.", "Kiwanda kinatengeneza {a} {e}."),
    "bulk left": ("After that {e} are left.", "Danach sind {e} übrig.", "Kisha zinabaki {e}."),
    "percent cut": ("The share is {e} dollars.", "Der Anteil ist {e} Dollar.", "Sehemu hiyo ni dola {e}."),
    "percent rise": ("The share is {e} dollars.", "Der Anteil ist {e} Dollar.", "Sehemu hiyo ni dola {e}."),
    "percent saved": ("The share is {e} dollars.", "Der Anteil ist {e} Dollar.", "Sehemu hiyo ni dola {e}."),
    "percent new": ("The new price is {e} dollars.", "Der neue Preis ist {e} Dollar.", "Bei mpya ni dola {e}."),
    "percent need": ("What is missing is {e} dollars.", "Es fehlen {e} Dollar.", "Zinakosekana dola {e}."),
    "wages time": ("That is {e} hours.", "Das sind {e} Stunden.", "Hiyo ni saa {e}."),
    "wages earned": ("{name} earns {e} dollars.", "{name} verdient {e} Dollar.", "{name} anapata dola {e}."),
    "wages sum": ("With the bonus it is {e} dollars.", "Mit der Prämie sind es {e} Dollar.", "Pamoja na zawadi ni dola {e}."),
    "wages kept": ("What is left is {e} dollars.", "Übrig bleiben {e} Dollar.", "Zinabaki dola {e}."),
    "chain n": ("Then {e}.", "Dann {e}.", "Kisha {e}."),
    "recipe each": ("One cake takes {e} cups.", "Ein Kuchen braucht {e} Tassen.", "Keki moja inahitaji vikombe {e}."),
    "recipe need": ("For {large} it is {e} cups.", "Für {large} sind es {e} Tassen.", "Kwa keki {large} ni vikombe {e}."),
    "recipe more": ("There are {e} more cakes.", "Es sind {e} Kuchen mehr.", "Ni keki {e} zaidi."),
    "recipe extra": ("That is {e} cups more.", "Das sind {e} Tassen mehr.", "Hivyo ni vikombe {e} zaidi."),
    "posts gaps": ("There are {e} gaps.", "Es gibt {e} Lücken.", "Kuna nafasi {e}."),
    "posts count": ("So there are {e} lamps.", "Also sind es {e} Lampen.", "Hivyo kuna taa {e}."),
    "posts length": ("So it is {e} m.", "Also sind es {e} m.", "Hivyo ni mita {e}."),
    "age a": ("{older} is {e} years old.", "{older} ist {e} Jahre alt.", "{older} ana miaka {e}."),
    "age b": ("In {y} years {younger} is {e}.", "In {y} Jahren ist {younger} {e}.", "Baada ya miaka {y} {younger} ana miaka {e}."),
    "age later": ("In {y} years it is {e}.", "In {y} Jahren sind es {e}.", "Baada ya miaka {y} ni miaka {e}."),
    "age now": ("Together they are {e} now.", "Zusammen sind es jetzt {e}.", "Kwa jumla sasa ni miaka {e}."),
    "age sum": ("Together it is {e}.", "Zusammen sind es {e}.", "Kwa jumla ni miaka {e}."),
    "fraction part": ("That part is {e}.", "Dieser Teil ist {e}.", "Sehemu hiyo ni {e}."),
    "fraction rest": ("So {e} are left.", "Also bleiben {e}.", "Hivyo zinabaki {e}."),
    "travel d": ("That is {e} m.", "Das sind {e} m.", "Hiyo ni mita {e}."),
    "travel left": ("What is left is {e} m.", "Übrig bleiben {e} m.", "Zinabaki mita {e}."),
}  # fmt: skip


@dataclass(frozen=True)
class Story:
    """A sketch with its people and things, to be told in any language."""

    sketch: Sketch
    name: str
    other: str
    things: tuple[tuple[str, str, str], tuple[str, str, str]]
    item: tuple[str, str, str]


def cast(sketch: Sketch, r: Random) -> Story:
    """The sketch with people and things drawn for it. Raises KeyError for a family that isn't in `FAMILIES`."""
    if sketch.family not in FAMILIES:
        raise KeyError(sketch.family)
    name, other = r.sample(_NAMES, 2)
    first, second = r.sample(_THINGS, 2)
    return Story(sketch, name, other, (first, second), r.choice(_ITEMS))


def question(story: Story, language: str) -> str:
    """The word problem, without options."""
    at, sketch = LANGUAGES.index(language), story.sketch

    def told(key: str, **more: object) -> str:
        return _QUESTIONS[key][at].format(**_words(story, at), **more)

    if sketch.family == "chain":
        events = [told(f"chain {sign}", x=sketch.givens[f"x{i}"]) for i, sign in enumerate(sketch.kind, 1)]
        return told("chain") + "".join(events) + told("chain end")
    if sketch.family == "fraction":
        parts = [_PARTS[value][at] for name, value in sketch.givens.items() if name != "whole"]
        rest = [told("fraction rest", part=part) for part in parts[1:]]
        return told("fraction", part=parts[0]) + "".join(rest) + told("fraction end")
    if sketch.family == "age":
        return told("age") + told(f"age {sketch.kind}") + told("age one" if sketch.level == 1 else "age both")
    keys = [sketch.family, f"{sketch.family} {sketch.kind}"]
    return "".join(told(key) for key in keys if key in _QUESTIONS)


def rationale(story: Story, language: str, steps: Sequence[Step] | None = None) -> str:
    """One sentence for each step, in the language; by default the right steps."""
    at, sketch = LANGUAGES.index(language), story.sketch
    steps = tuple(sketch.steps if steps is None else steps)
    known = values(sketch.givens, steps)
    said = []
    for step in steps:
        words = _words(story, at)
        words["thing"] = words["a"] if step.name.endswith("1") else words["b"]
        role = step.name.rstrip("0123456789")
        if step.name == "a2":  # the older one's age then, in the words for the younger one's
            role, words["younger"] = "b", words["older"]
        told = equation(replace(step, work=None), known)
        said.append(_SAID[f"{sketch.family} {role}"][at].format(e=told, **words))
    return " ".join(said)


def conclusion(language: str, letter: str) -> str:
    """`The answer is B.` in the language."""
    return _ANSWER[LANGUAGES.index(language)].format(letter=letter)


def _words(story: Story, at: int) -> dict[str, object]:
    a, b = story.things
    people = {"name": story.name, "older": story.name, "younger": story.other}
    return {**people, "a": a[at], "b": b[at], "item": story.item[at], **story.sketch.givens}
