"""Multiple choice: exactly one letter, stated as a word of its own, in any of the languages of MMMLU and in Yoruba."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from whetstone.grading.answers import Answer, unparsed
from whetstone.grading.numbers import Number, equal, extract_number, stated, tidy
from whetstone.grading.text import adjacent, fold, statements

LETTERS = "ABCDEFGHIJ"
_NATIVE = {"ا": "A", "ب": "B", "ج": "C", "د": "D"}  # Arabic, as folded: alef without its hamza
_NATIVE |= dict(zip("কখগঘঅবডঢ", "ABCDABCD", strict=True))  # Bengali: the alphabet, and the sounds of A B C D
_NATIVE |= dict(zip("कखगघअबसद", "ABCDABCD", strict=True))  # Devanagari
_LETTER = f"[A-Ja-j{''.join(_NATIVE)}]"
# What makes a letter part of a word: letters and Indic vowel signs, but no script that is written without spaces.
_WORD = r"(?:[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|['\u0900-\u0903\u093a-\u094f\u0980-\u0983\u09bc-\u09cd])"
_ALONE = rf"(?<!{_WORD})({_LETTER})(?!{_WORD})"

_NOUN = (
    r"(?:options?|choices?|letter|buchstabe[n]?|opcion|opcao|alternativa|opzione|lettera|lettre|pilihan|opsi|huruf|chaguo|"
    r"herufi|asayan|विकल्प|বিকল্প|অপশন|الخيار|الحرف|خيار|选项|選項|選択肢|선택지|보기)"
)
_OPENING = re.compile(
    rf"(?:[\s*_\"'`$({{\[:：「『“”‘]|\\(?:text|mathrm|mathbf|textbf|mbox|boxed)\s*\{{"
    rf"|\b(?:the|clearly|definitely|therefore|thus|most|likely|la|le|el|il|lo|die|der|das|a|o|na)\s(?=\W*{_NOUN})"
    rf"|{_NOUN}\b)*+",
    re.IGNORECASE,
)
_FIRST = re.compile(rf"({_LETTER})(?!{_WORD})")
_ENDED = re.compile(r"\s*+(?:[)\].,:;}*_$\"'`」』”。、，；：-]|$)")
_VERB = re.compile(r"\s+(?:is|because|since|as|and|or|which|for|due|with|in|from|among|ist|es|est|e|ni)\b", re.I)
_ALSO = re.compile(
    rf"[)\]}}*_.\s]*+(?:,|/|&|\+|\b(?:and|or|und|oder|y|o|et|ou|e|dan|atau|na|au|ati|tabi)\b"
    rf"|और|या|এবং|বা|و|او|和|或|または|と|와|또는)"
    rf"\s*+(?:{_NOUN}\s*+)?[(\[*_\s]*+({_LETTER})(?!{_WORD})",
    re.IGNORECASE,
)
_MARKED = re.compile(
    rf"(?<!{_WORD})[(\[]({_LETTER})[)\]]|{_NOUN}\s*+[:：]?\s*+[(\[*_'\"]*+({_LETTER})(?!{_WORD})|{_ALONE}\)",
    re.IGNORECASE,
)
_ALONE_IN_LINE = re.compile(rf"[*_(\[]*({_LETTER})[*_)\].:]*[ \t]*\n")
_PLAIN = re.compile(r"[^\w%.+*/^=<>-]+|\.(?!\d)")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+")
_NUMBERED = re.compile(r"^\s*(?:[(\[]?[A-Ja-j][)\].:]\s*)+")


def lettered(options: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Options by letter; "A)5 apples" loses its own letter."""
    named = options if isinstance(options, Mapping) else dict(zip(LETTERS, options, strict=False))
    return {letter.upper(): _NUMBERED.sub("", text) for letter, text in named.items()}


def extract_choice(
    text: str, options: Mapping[str, str] | Sequence[str] | None = None, tolerance: float | None = None
) -> Answer:
    """The one letter that a text chooses. In this order: a text that is nothing but the choice; the last statement
    ("the answer is", "Answer:", \\boxed{}, … in any language) that names exactly one; a letter marked as an option, or
    the text of one option, in the last line; a letter alone in the first line. Two different letters side by side are
    a contradiction.

    options: the letters that exist, with their texts; a text that equals one option's (as words or as a number) is
    that letter. tolerance: a bare number stands for the nearest numeric option within tolerance·max(1, |a|, |b|).
    """
    named = lettered(options) if options else {}
    text = fold(text).strip()
    found = statements(text)
    if not found and "\n" not in text and len(text) < 400:
        letter = _opens_with(text, named)
        if letter is None:
            letter = _by_text(text, named)
        if letter is None and named and tolerance is not None:
            letter = _nearest(text, named, tolerance)
        if letter is not None:
            return _answer(letter, text, "bare", named)
    for at in range(len(found) - 1, -1, -1):
        letter = _chosen(found[at].clause, named)
        if letter is None:
            continue
        for earlier in range(at - 1, -1, -1):
            if not adjacent(text, found[earlier], found[earlier + 1]):
                break
            if _chosen(found[earlier].clause, named) not in (None, letter):
                letter = "contradiction"
        return _answer(letter, text[found[at].start : found[at].end], found[at].rule, named)
    line = text[text.rfind("\n") + 1 :]
    letter = _marked(line)
    if letter is None:
        letter = _by_text(line, named)
    if letter is not None:
        return _answer(letter, line, "last_line", named)
    alone = _ALONE_IN_LINE.match(text)
    return _answer(_latin(alone[1]), alone[0], "first_line", named) if alone else unparsed("no_answer")


def _answer(letter: str, text: str, rule: str, named: Mapping[str, str]) -> Answer:
    if len(letter) > 1:
        return unparsed(letter, rule, text.strip())
    if named and letter not in named:
        return unparsed("not_an_option", rule, text.strip())
    return Answer(letter, text.strip(), rule)


def _latin(letter: str) -> str:
    return _NATIVE.get(letter, letter.upper())


def _opens_with(clause: str, named: Mapping[str, str]) -> str | None:
    """The letter that a clause begins with, "contradiction" for a list of different ones, or None."""
    begin = _OPENING.match(clause).end()
    first = _FIRST.match(clause, begin)
    if not first:
        return None
    letter, end = _latin(first[1]), first.end()
    ended = _ENDED.match(clause, end)
    if not ended and not _VERB.match(clause, end) and not _ALSO.match(clause, end):
        article = first[1] in "AaIi" or first[1].islower()
        if article and not (letter in named and _words(clause[end:]) == _words(named[letter])):
            return None
    elif ended and first[1] in "Ii" and clause[end : end + 1] == "'":
        return None
    letters = {letter}
    also = _ALSO.match(clause, end)
    while also:
        if not (also[1].islower() and also[1] in "aeio" and not _ENDED.match(clause, also.end())):
            letters.add(_latin(also[1]))
        also = _ALSO.match(clause, also.end())
    return letter if len(letters) == 1 else "contradiction"


def _marked(clause: str) -> str | None:
    letters = {_latin(next(filter(None, found.groups()))) for found in _MARKED.finditer(clause)}
    return (letters.pop() if len(letters) == 1 else "contradiction") if letters else None


def _chosen(clause: str, named: Mapping[str, str]) -> str | None:
    """What a statement's clause chooses: its first word, an option's text, a marked letter, or its only capital."""
    for way in (_opens_with, _by_text, lambda words, _: _marked(words)):
        letter = way(clause, named)
        if letter is not None:
            return letter
    capitals = {_latin(found[1]) for found in re.finditer(_ALONE, clause) if found[1] not in "AI" + LETTERS.lower()}
    return (capitals.pop() if len(capitals) == 1 else None) if len(clause.split()) <= 12 else None


@lru_cache(maxsize=4096)
def _words(text: str) -> str:
    return _ARTICLE.sub("", " ".join(_PLAIN.sub(" ", fold(text).casefold()).split()))


@lru_cache(maxsize=4096)
def _values(option: str) -> tuple[Number, ...]:
    """The number of an option, words around it or not; of "28%" also 0.28."""
    value = stated(tidy(option), prose=True)
    if isinstance(value, str):
        return ()
    return (value, value / 100 if isinstance(value, float) else Fraction(value) / 100) if "%" in option else (value,)


def _number(text: str) -> Number | None:
    read = extract_number(text)
    return read.value if read.rule == "bare" else None


def _by_text(text: str, named: Mapping[str, str]) -> str | None:
    """The only option whose text this is, word for word or as a number."""
    if not named or len(text) > 400:
        return None
    words = _words(text.strip("$*_ "))
    same = [letter for letter, option in named.items() if words and words == _words(option)]
    if not same:
        value = _number(text)
        if value is not None:
            same = [letter for letter, option in named.items() if any(equal(value, v) for v in _values(option))]
    return same[0] if len(same) == 1 else None


def _nearest(text: str, named: Mapping[str, str], tolerance: float) -> str | None:
    value = _number(text)
    if value is None:
        return None
    near = sorted(
        (abs(Fraction(number) - Fraction(value)), letter)
        for letter, option in named.items()
        for number in _values(option)[:1]
        if tolerance == math.inf or equal(number, value, tolerance)
    )
    return near[0][1] if near and (len(near) == 1 or near[0][0] < near[1][0]) else None
