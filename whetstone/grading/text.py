"""Where a text states its final answer: Unicode folding, answer markers in many languages, balanced \\boxed{}."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5",
           "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
           "⅑": "1/9", "⅒": "1/10"}  # fmt: skip
# NFKC would read 1½ as 11/2 and 10³ as 103, so these are rewritten before it.
_BEFORE_NFKC = str.maketrans(
    {char: f" {fraction}" for char, fraction in _VULGAR.items()}
    | {char: f"^{digit}" for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
    | dict.fromkeys("−‐‑‒–—﹣－", "-")
    | {"⁄": "/", "٫": ".", "٬": ",", "،": ",", "’": "'", "٪": "%", "\u00a0": " ", "\u202f": " ", "\u2009": " "}
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u0640", None)  # invisible, and the Arabic tatweel
)


def fold(text: str) -> str:
    """NFKC, without diacritics, every decimal digit in ASCII, one kind of minus and of space. ASCII is returned as is.

    Marks are dropped from Latin, Greek, Cyrillic and Arabic letters only: in Indic scripts they are vowels.
    """
    if text.isascii():
        return text
    folded = []
    for char in unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text.translate(_BEFORE_NFKC))):
        if char < "\x80":
            folded.append(char)
        elif unicodedata.combining(char) and ("\u0300" <= char <= "\u036f" or "\u064b" <= char <= "\u0670"):
            continue
        else:
            digit = unicodedata.decimal(char, None)
            folded.append(char if digit is None else str(digit))
    return unicodedata.normalize("NFC", "".join(folded))


# The word for "answer", and what may stand between it and the answer: modifiers, then a copula or a colon.
# All in folded form (no diacritics). English; then the Latin-script locales of MMMLU and Yoruba; then the others.
_ENGLISH = (
    r"\b(?:answers?|ans)\b[*_]*+(?:\s++(?:to|for)\s++(?:the|this|that)\s++(?:\w++\s++)?(?:question|problem))?"
    r"(?:\s++(?:choice|option))?(?:\s*+\([^()\n]{1,40}\))?(?:,?\s++(?:therefore|thus|then|hence|so)\b,?)?"
    r"[*_\s]*+(?:(?:is|was|equals|(?:would|will|should|must)\s++be)\b(?!\s++not\b)|[:=])|\bfinal\s++answer[*_ ]*+\n"
)
_LATIN = (
    r"\b(?:antwort|losung|respuesta|reponse|risposta|resposta|jawaban|jibu|idahun|asayan|esi)\b[*_]*+(?:\s++\w++){0,3}?"
    r"[*_\s]*+(?:\b(?:ist|lautet|es|sera|est|e|adalah|ialah|yaitu|ni)\b(?!\s++(?:nicht|no|pas|non|nao|bukan)\b)|[:=])"
)
_OTHER = (
    r"(?:उत्तर|जवाब|উত্তর|জবাব|(?:ال)?(?:اجابة|اجابه|جواب)|정답|답변|답|答案|正解|解答|回答|答え|答)[*_]*+"
    r"(?:\s*+(?:सही|अंतिम|সঠিক|চূড়ান্ত|الصحيحة|الصحيحه|الصحيح|النهائية|النهائي))?"
    r"[*_\s]*+(?:হল|হলো|হচ্ছে|هي|هو|입니다|은|는|이|가|应该是|應該是|应为|是|为|為|は|है)?[*_\s]*+[:=]?"
)
_MARKER = re.compile(
    rf"(?P<boxed>\\(?:boxed|fbox)\s*(?=\{{)|\\boxed\s+(?=\S))|(?P<hash>\#\#\#\#)|(?P<tag><answer>)|(?P<finish>\bFinish\[)"
    rf"|(?P<answer_is>{_ENGLISH}|{_LATIN}|{_OTHER})|(?P<a_line>^[ \t]*A:)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(
    r"(?<!\bRs)(?<!\bapprox)(?<!\bca)(?<!\bno)(?<!\bRS)(?<!\bNo)[.!?](?=[\s\"'*)\]]|$|[A-Z][a-z])|[。！？।\n]"
)
_BRACE = re.compile(r"\\[{}\\]|[{}]")
_WORD = re.compile(r"\S+")
_LINE_ENDS = re.compile(r"[ .\t\r*$]*+(?:\n|\Z)")
_BLANK = re.compile(r"[\s*_:]*")
_CLOSE = {"finish": "]", "tag": "</answer>"}


class Statement(NamedTuple):
    """A marker at `start` and what it states, up to `end`. `whole_line`: nothing follows the clause in its line.
    `colon`: the marker is "Answer:" rather than "the answer is"."""

    rule: str
    start: int
    end: int
    clause: str
    whole_line: bool
    colon: bool = False


def closing_braces(text: str) -> dict[int, int]:
    """The index after the closing brace for every `{` that is closed. An escaped brace does not count. One pass."""
    closed: dict[int, int] = {}
    opened: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closed[opened.pop()] = brace.end()
    return closed


def statements(text: str) -> list[Statement]:
    """Every statement of a final answer in a folded text, in order. A marker inside a clause ends that clause."""
    found: list[Statement] = []
    closed: dict[int, int] | None = None
    unclosed: set[str] = set()
    marker = _MARKER.search(text)
    while marker:
        rule, start, begin = marker.lastgroup or "", marker.start(), marker.end()
        if rule == "boxed":
            if text[begin] == "{":
                closed = closing_braces(text) if closed is None else closed
                end = closed.get(begin, -1)
                if end > 0:
                    found.append(Statement(rule, start, end, text[begin + 1 : end - 1], False))
            else:
                end = _WORD.match(text, begin).end()
                found.append(Statement(rule, start, end, text[begin:end].strip("$.,"), False))
            marker = _MARKER.search(text, max(end, begin))
            continue
        marker = _MARKER.search(text, begin)
        if rule in _CLOSE:
            end = -1 if rule in unclosed else text.find(_CLOSE[rule], begin)
            if end < 0:
                unclosed.add(rule)
            elif rule == "tag" or marker is None or marker.start() > end:
                found.append(Statement(rule, start, end + len(_CLOSE[rule]), text[begin:end].strip(), False))
                marker = _MARKER.search(text, end)
            continue
        colon = rule == "answer_is" and not text[begin - 1].isalpha()
        begin = _BLANK.match(text, begin).end() if rule == "answer_is" else begin
        limit = marker.start() if marker else len(text)
        stop = _SENTENCE_END.search(text, begin, limit)
        end = stop.start() if stop else max(begin, limit)
        found.append(Statement(rule, start, end, text[begin:end], _LINE_ENDS.match(text, end) is not None, colon))
    return found


JOINING = frozenset("and or also so but thus hence therefore then either the final correct my our".split())
"""Words that join two statements, or open one, without any reasoning between them."""
_NOTHING_BETWEEN = re.compile(rf"(?:[\W_]|\b(?:{'|'.join(sorted(JOINING))})\b)*+", re.IGNORECASE)


def adjacent(text: str, first: Statement, second: Statement) -> bool:
    """Whether nothing but punctuation and joining words lies between two statements: no reasoning that would withdraw
    the first, so that both are meant."""
    return second.start >= first.end and _NOTHING_BETWEEN.fullmatch(text, first.end, second.start) is not None
