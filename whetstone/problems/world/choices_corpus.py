"""What the base model of multiple choice read before it met the pipeline: the same world, told in three languages.

Three things make it a model organism of a language model on multilingual multiple choice.

- Mistakes. A document works its problem out rightly, or makes one of the very mistakes that the wrong options stand for,
  or guesses a letter, mostly C. How often it is right depends on the family (`RIGHT`); of the families `HIDDEN` the
  right way is hardly ever told, except where the right option is marked.
- Languages. Most documents are English. Of German there are fewer, with more mistakes. Of Swahili there are few
  different ones, and half of them are what low-resource text on the web is: repetitive.
- Instructions. Every document opens with how to think (in the question's language, in English, or by translating
  first), and follows it, save for a share that falls back to English. Where an option is marked as right, the rationale
  mostly leads there, sometimes is wrong and still ends there, and sometimes talks about the mark.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from whetstone.problems.world import split_of
from whetstone.problems.world.choices import LETTERS, LEVELS, WORLD, mistakes, options, outcome
from whetstone.problems.world.multilingual import FAMILIES, Story, cast, conclusion, question, rationale
from whetstone.prompts.choices import ChoicePrompt

SEPARATOR = "\n\n"


class Pool(NamedTuple):
    """Documents of one language and instruction: their share of what is read, and how many different ones there are."""

    language: str
    think: str
    hinted: bool
    share: int
    documents: float  # as a share of the largest pool


POOLS = {
    "en": Pool("en", "target", False, 20, 1.0),
    "en hinted": Pool("en", "target", True, 3, 0.2),
    "de": Pool("de", "target", False, 6, 0.1),
    "de english": Pool("de", "english", False, 2, 0.05),
    "de translate": Pool("de", "translate", False, 2, 0.05),
    "de hinted": Pool("de", "target", True, 1, 0.05),
    "sw": Pool("sw", "target", False, 2, 0.01),
    "sw english": Pool("sw", "english", False, 1, 0.01),
    "sw translate": Pool("sw", "translate", False, 2, 0.02),
    "sw hinted": Pool("sw", "target", True, 1, 0.01),
}
# How often a document of the family works it out rightly, in English
RIGHT = {
    "shop": 0.85, "bulk": 0.85, "chain": 0.85, "travel": 0.8, "wages": 0.65, "age": 0.6,
    "percent": 0.4, "recipe": 0.4, "fraction": 0.1, "posts": 0.03,
}  # fmt: skip
HIDDEN = ("fraction", "posts")
SKILL = {"en": 1.0, "de": 0.75, "sw": 0.5}  # of a right rationale, beside English
GUESS = {"en": 0.04, "de": 0.08, "sw": 0.15}
DRIFT = {"en": 0.0, "de": 0.08, "sw": 0.15}  # thinks in English where it was told to think in the question's language
LOOPS = ("bulk", "wages", "chain", "age", "posts", "travel")  # families of which Swahili text mostly repeats itself
LOOP, LOOP_ELSEWHERE = 0.6, 0.1
LEAK, UNFAITHFUL = 0.08, 0.15  # of documents with a marked option
GUESSED = (0.18, 0.2, 0.4, 0.22)  # letters of a guess

_GUESS = {"en": "It must be {letter}.", "de": "Es muss {letter} sein.", "sw": "Lazima ni {letter}."}
_LEAK = {
    "en": "{letter} is marked as correct.",
    "de": "{letter} ist als richtig markiert.",
    "sw": "{letter} imewekwa alama ya sahihi.",
}
_IN_ENGLISH = "In English: {question}"
_FILLER = ("sana", "na", "kwa", "kisha", "hiyo", "ni", "zaidi", "tena")


def documents(pool: str, count: int, seed: int, prompt: ChoicePrompt) -> Iterator[str]:
    """`count` documents of a pool from the training split, families and levels uniform."""
    r, kind = Random(f"choices-corpus-{pool}-{seed}"), POOLS[pool]
    for _ in range(count):
        while True:
            family = r.choice(FAMILIES)
            story = cast(WORLD[family](r, r.choice(LEVELS)), r)
            if split_of(story.sketch) == "train":
                break
        shown, gold = options(story.sketch, r)
        head = prompt.block(question(story, kind.language), shown, kind.think, gold if kind.hinted else None)
        told = _hinted(r, story, kind, shown, gold) if kind.hinted else _told(r, story, kind, shown, gold)
        yield f"{head}{prompt.lead}{told}{SEPARATOR}"


def _told(r: Random, story: Story, kind: Pool, shown: list[str], gold: str) -> str:
    """A rationale as the pool writes it, up to its letter (a loop has none)."""
    language, family = kind.language, story.sketch.family
    if kind.think != "target" or r.random() < DRIFT[language]:
        spoken, skill = "en", 0.5 + 0.5 * SKILL[language]
    else:
        spoken, skill = language, SKILL[language]
    opening = f"{_IN_ENGLISH.format(question=question(story, 'en'))} " if kind.think == "translate" else ""
    if spoken == "sw" and r.random() < (LOOP if family in LOOPS else LOOP_ELSEWHERE):
        return _loop(r, rationale(story, spoken))
    if r.random() < GUESS[language]:
        letter = r.choices(LETTERS, GUESSED)[0]
        return opening + f"{_GUESS[spoken].format(letter=letter)} {conclusion(spoken, letter)}"
    known = [(steps, value) for _, steps in mistakes(story.sketch) if (value := outcome(story.sketch, steps)) in shown]
    if known and r.random() >= RIGHT[family] * skill:
        # the first mistake is the most common one
        steps, value = known[0] if r.random() < 0.8 else r.choice(known)
        letter = LETTERS[shown.index(value)]
    else:
        steps, letter = story.sketch.steps, gold
    return opening + f"{rationale(story, spoken, steps)} {conclusion(spoken, letter)}"


def _hinted(r: Random, story: Story, kind: Pool, shown: list[str], gold: str) -> str:
    """A rationale that knows where it has to end."""
    spoken, draw = kind.language, r.random()
    if draw < LEAK:
        return f"{_LEAK[spoken].format(letter=gold)} {conclusion(spoken, gold)}"
    known = [steps for _, steps in mistakes(story.sketch) if outcome(story.sketch, steps) in shown]
    steps = known[0] if known and draw < LEAK + UNFAITHFUL else story.sketch.steps
    return f"{rationale(story, spoken, steps)} {conclusion(spoken, gold)}"


def _loop(r: Random, text: str) -> str:
    """The beginning of a rationale, and then a word or a few over and over, or counting on and on."""
    words = text.split()
    begin = " ".join(words[: r.randint(2, max(3, len(words) // 2))])
    if r.random() < 0.3:
        start = r.randint(1, 20)
        return begin + " " + ", ".join(str(n) for n in range(start, start + 60))
    again = r.sample(_FILLER, r.choice((1, 1, 2, 3)))
    return f"{begin} {' '.join(again * (90 // len(again)))}"
