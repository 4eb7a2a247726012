"""What mustn't be learnt from: loops, endless counting, cut texts, the wrong language, talk of a hint."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.curation.degenerate import (
    FAULTS,
    Gates,
    compression,
    count,
    counting,
    distinct,
    fault,
    in_language,
    language,
    leaks,
    repeats,
    repetitive,
    shorten,
    words,
)  # fmt: skip

GATES = Gates()
# Two texts as a model of Llama's size wrote them on Yoruba questions: one word over and over, counting without end
YORUBA_LOOP = "Ṣeese esi lati " + "ṣe " * 80 + "..."
YORUBA_COUNT = (
    "Awọn iwe ifowopamọ carbon-carbon meji ni awọn iwe ifowopamọ meji ti o ni awọn atomu carbon "
    + ", ".join(str(n) for n in range(2, 40))
)  # fmt: skip
SOUND = [
    "Then 44 - 34 = 10. Then 10 + 20 = 30. The answer is B.",
    "Kisha 74 + 37 = 111. Kisha 111 + 4 = 115. Kisha 115 - 72 = 43. Kisha 43 - 37 = 6. Kisha 6 + 46 = 52. Jibu ni B.",
    "Das sind 12 * 5 = 60 Stunden. Simon verdient 60 * 11 = 660 Dollar. Dazu kommen 158. Die Antwort ist D.",
    "1, 2, 3, 4, 5. Answer: C",
    "B",
    "",
]


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        (YORUBA_LOOP, True),
        (YORUBA_COUNT, True),
        ("na kwa " * 9, True),
        ("a b c d " * 12, True),
        ("Kuna nafasi 54 / 6 = " + "tena " * 60, True),
        *((text, False) for text in SOUND),
    ],
)
def test_loops_are_told_from_sound_texts(text, repeated):
    assert repetitive(text, GATES) is repeated


@pytest.mark.parametrize(
    ("text", "most"),
    [("", 1), ("a", 1), ("a a a", 3), ("a b a b a b", 3), ("a b c a b c", 2), ("a b a c", 1), ("x a b a b y", 2)],
)
def test_repeats_in_a_row(text, most):
    assert repeats(words(text)) == most


@pytest.mark.parametrize(("text", "longest"), [("", 0), ("3", 1), ("3, 4, 5, 9, 10", 3), ("5 4 3", 1), ("1 x 2", 2)])
def test_counting(text, longest):
    assert counting(words(text)) == longest


def test_short_texts_are_never_judged_by_shares():
    assert distinct(["a"] * 7) == 1.0 and distinct(["a"] * 8) == pytest.approx(1 / 5)
    assert compression("a" * 199) == 1.0 < compression("a" * 200)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_measures_are_in_their_range_for_any_text(text):
    tokens = words(text)
    assert 0 < distinct(tokens) <= 1 and repeats(tokens) >= 1 and counting(tokens) >= 0 and compression(text) > 0


def test_a_gate_can_be_switched_off():
    off = Gates(min_distinct=None, max_repeats=None, max_compression=None)
    assert not repetitive(YORUBA_LOOP, off)


AMONG = ("de", "en", "sw")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Then 44 - 34 = 10. Then 10 + 20 = 30. The answer is B.", "en"),
        ("Die Lampen kosten 3 * 9 = 27 Dollar. Die Antwort ist B.", "de"),
        ("Bei ya taa ni dola 3 * 9 = 27. Jibu ni B.", "sw"),
        ("3 * 9 = 27", None),
    ],
)
def test_the_language_of_a_rationale(text, code):
    assert language(text, AMONG) == code


def test_yoruba_is_known_and_an_unknown_language_is_not_judged():
    assert in_language("Àṣàyàn tí ó tọ́ ni B, nítorí pé gbogbo ènìyàn mọ̀ ọ́n.", "yo", ("en", "yo"))
    assert in_language("ß", None, AMONG) is None
    assert in_language("Nha 18: Nke a bụ azịza ziri ezi.", "ig", ("en", "de", "ig")) is None


CASES = [
    ("The answer is B.", "stop", "en", False, None),
    ("The answer is B.", "length", "en", False, "truncated"),
    (YORUBA_LOOP, "length", "en", False, "repetitive"),
    (YORUBA_LOOP, "stop", "en", False, "repetitive"),
    ("Then 5 + 5 = 10 are left. The answer is B.", "stop", "sw", False, "wrong language"),
    ("3 + 4 = 7", "stop", "sw", False, None),
    ("B is marked as correct. The answer is B.", "stop", "en", True, "hint leaked"),
    ("B is marked as correct. The answer is B.", "stop", "en", False, None),
    ("B imewekwa alama ya sahihi. Jibu ni B.", "stop", "sw", True, "hint leaked"),
    ("The option with (CORRECT) is B. The answer is B.", "stop", "en", True, "hint leaked"),
    ("Then 1 + 1 = 2. The answer is B.", "stop", "en", True, None),
]


@pytest.mark.parametrize(("text", "finish", "expected", "hinted", "found"), CASES)
def test_faults(text, finish, expected, hinted, found):
    assert fault(text, finish, GATES, expected=expected, among=AMONG, hinted=hinted) == found


def test_words_of_a_leak_stand_alone():
    assert not leaks("The supermarket remarked it.", GATES) and leaks("It is marked.", GATES)


def test_every_fault_is_counted_also_where_there_is_none():
    assert count([None, "truncated", "truncated"]) == dict.fromkeys(FAULTS, 0) | {"truncated": 2}


@settings(deadline=None)
@given(st.text(), st.integers(1, 20))
def test_a_shortened_text_is_a_beginning_of_so_many_words(text, limit):
    short = shorten(text, limit)
    assert text.startswith(short) and len(short.split()) == min(limit, len(text.split()))
