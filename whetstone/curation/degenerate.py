"""Output that mustn't be learnt from, whatever it answers: cut off, repetitive, in the wrong language, or telling of a
hint. The gates look at the text alone, never at the gold.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FAULTS = ("truncated", "repetitive", "wrong language", "hint leaked")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]")
_LETTERS = re.compile(r"[^\W\d_]")
_NGRAM = 4


class Gates(BaseModel):
    """What a completion must pass to be trained on. Null switches a gate off."""

    model_config = ConfigDict(extra="forbid")
    min_distinct: float | None = Field(
        0.5, ge=0, le=1, description="share of different ones among the runs of four words"
    )
    max_repeats: int | None = Field(8, ge=2, description="how often a run of one to four words may follow itself")
    max_compression: float | None = Field(
        4.0, gt=1, description="characters to zlib-compressed bytes, of texts from 200 bytes on"
    )
    language: bool = Field(True, description="whether the rationale has to be in the language that was asked for")
    leaks: list[str] = Field(
        default=["correct)", "marked", "as correct", "hint", "given answer", "markiert", "hinweis", "alama"],
        description="words by which a rationale tells that it was shown the answer, in small letters",
    )


def words(text: str) -> list[str]:
    """Words, numbers and punctuation marks, in small letters."""
    return _WORD.findall(text.casefold())


def distinct(tokens: list[str]) -> float:
    """Share of different ones among all runs of four words; 1 for a text of fewer than eight words."""
    runs = list(zip(*(tokens[i:] for i in range(_NGRAM)), strict=False))
    return len(set(runs)) / len(runs) if len(tokens) >= 2 * _NGRAM else 1.0


def repeats(tokens: list[str]) -> int:
    """The most times that a run of one to four words stands in a row, one right after the other."""
    most = 1
    for n in range(1, _NGRAM + 1):
        in_row = 0
        for here, before in zip(tokens[n:], tokens, strict=False):
            in_row = in_row + 1 if here == before else 0
            most = max(most, 1 + in_row // n)
    return most


def counting(tokens: list[str]) -> int:
    """The longest run of whole numbers that go up by one, whatever stands between them: enumeration without end."""
    longest, run, last = 0, 0, None
    for token in tokens:
        if token.isdecimal():
            run = run + 1 if last is not None and int(token) == last + 1 else 1
            last, longest = int(token), max(longest, run)
    return longest


def compression(text: str) -> float:
    """Bytes to zlib-compressed bytes; 1 for a text of fewer than 200 bytes, where zlib's own bytes would tell."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw, 9)) if len(raw) >= 200 else 1.0


def repetitive(text: str, gates: Gates) -> bool:
    tokens = words(text)
    return bool(
        (gates.min_distinct is not None and distinct(tokens) < gates.min_distinct)
        or (gates.max_repeats is not None and max(repeats(tokens), counting(tokens)) > gates.max_repeats)
        or (gates.max_compression is not None and compression(text) > gates.max_compression)
    )


def _code(name: str) -> Any:
    from lingua import IsoCode639_1

    return getattr(IsoCode639_1, name.upper(), None)


@lru_cache(maxsize=8)
def _detector(languages: tuple[str, ...]) -> Any:
    """None where fewer than two of the languages are known to it: nothing could be told apart."""
    from lingua import LanguageDetectorBuilder

    known = [code for name in languages if (code := _code(name)) is not None]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*known).build() if len(known) > 1 else None


def language(text: str, among: tuple[str, ...]) -> str | None:
    """Which of these languages (ISO 639-1) a text is in; None where that can't be told: no letters, or fewer than two
    languages that the detector knows."""
    detector = _detector(tuple(sorted(set(among))))
    if detector is None or not _LETTERS.search(text):
        return None
    found = detector.detect_language_of(text)
    return found.iso_code_639_1.name.lower() if found else None


def in_language(text: str, expected: str | None, among: tuple[str, ...]) -> bool | None:
    """Whether a text is in the language that was asked for; None where that can't be told."""
    if expected is None or _code(expected) is None:
        return None
    found = language(text, (*among, expected))
    return None if found is None else found == expected


def leaks(text: str, gates: Gates) -> bool:
    """Whether a rationale tells that it was shown the answer."""
    small = text.casefold()
    return any(re.search(rf"(?<!\w){re.escape(phrase)}", small) for phrase in gates.leaks)


def fault(
    text: str,
    finish_reason: str,
    gates: Gates,
    *,
    expected: str | None = None,
    among: tuple[str, ...] = (),
    hinted: bool = False,
) -> str | None:
    """Why a completion mustn't be learnt from: one of FAULTS, the first that applies, or None.

    expected: the language that the rationale has to be in; among: those that it could be in.
    """
    if repetitive(text, gates):
        return "repetitive"
    if finish_reason != "stop":
        return "truncated"
    if gates.language and in_language(text, expected, among) is False:
        return "wrong language"
    return "hint leaked" if hinted and leaks(text, gates) else None


def shorten(text: str, limit: int) -> str:
    """The first so many words, with the blank space as it was: a loop as a negative example must not outweigh the
    rest."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return text if len(ends) <= limit else text[: ends[limit - 1]]


def count(faults: list[str | None]) -> dict[str, int]:
    """How many of each fault, all of FAULTS named."""
    found = Counter(faults)
    return {name: found[name] for name in FAULTS}
