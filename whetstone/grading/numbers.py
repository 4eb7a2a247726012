"""Numeric answers: read exactly (int, Fraction), compared exactly unless the data set states a tolerance.

Numbers are read in the English convention: "1,234.5" is 1234.5 and "1.234" is less than two.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from whetstone.grading.answers import DOUBLE_DIGITS, Answer, unparsed
from whetstone.grading.text import JOINING, Statement, adjacent, fold, statements

Number = int | Fraction | float

MAX_DIGITS = 400
"""Longer digit strings, and larger powers of ten, are malformed: they cost time and no data set has them."""

_CURRENCY = r"(?:US\$|\\\$|[$£€¥₹₦₩¢]|\bRs\.?|\b(?:USD|EUR|GBP|INR|NGN)\b)"
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7}
_NUMBER = re.compile(
    rf"""
    (?<![\w.^\\])
    (?P<sign>(?<![\w)\]%}}])[-+]\s?(?=[\d.$£€¥₹₦₩¢\\R]))?
    (?:{_CURRENCY}\s?)?
    (?P<minus>(?<=[$£€¥₹₦₩¢\s.])-(?=[\d.]))?
    (?:
        \\[dt]?frac\s*(?:\{{\s*(?P<fn>-?\d+)\s*\}}|(?P<fn1>\d))\s*(?:\{{\s*(?P<fd>\d+)\s*\}}|(?P<fd1>\d))
      | (?P<int>\d{{1,3}}(?:,\d\d\d?)*,\d{{3}}(?!\d)|\d{{1,3}}(?:\ \d{{3}})+(?![\d/])|\d+)
        (?: (?P<dec>\.\d+)?
            (?: [eE](?P<exp>[-+]?\d+)\b
              | \s*(?:\\times|\\cdot|[x×*·])\s*10\s*(?:\^|\*\*)\s*\{{?(?P<pow>[-+]?\d+)\}}? )
          | \s*\\[dt]?frac\s*(?:\{{\s*(?P<mn>\d+)\s*\}}|(?P<mn1>\d))\s*(?:\{{\s*(?P<md>\d+)\s*\}}|(?P<md1>\d))
          | \s+(?:and\s+)?(?P<xn>\d+)/(?P<xd>\d+)(?![\d/]|\.\d)
          | \s*/\s*(?P<den>\d+)(?![\d/]|\.\d)
          | (?P<dec2>\.\d+)
        )?
      | (?P<dot>\.\d+)
    )
    (?P<bad>(?:[.,:/]\d+)+|:\d+)?
    (?P<percent>\s?\\?%)?
    (?:\s(?P<scale>thousand|million|billion|trillion|lakh|crore)s?\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LATEX_SPACING = re.compile(r"(?<=\d),(?:\\!\s*|\{\})(?=\d)|(?<=\d)\{,\}(?=\d)")
_LATEX_GAP = re.compile(r"(?<=\d)\\[,;!: ](?=\d{3})")


def number(token: re.Match[str]) -> Number | None:
    """The value of a match of the number grammar; None when it is malformed ("1,2,3", "3:00", 1/0, too long)."""
    groups = token.groupdict()
    if groups["bad"] or len(token[0]) > MAX_DIGITS:
        return None
    negative = "-" in (groups["sign"] or "") or bool(groups["minus"])
    numerator, denominator = groups["fn"] or groups["fn1"], groups["fd"] or groups["fd1"]
    value: Number
    if numerator:
        if int(denominator) == 0:
            return None
        value = Fraction(int(numerator), int(denominator))
    else:
        digits = (groups["int"] or "0").replace(",", "").replace(" ", "")
        decimals = groups["dec"] or groups["dec2"] or groups["dot"]
        power = int(groups["exp"] or groups["pow"] or 0)
        if abs(power) > MAX_DIGITS:
            return None
        value = _decimal(digits, decimals)
        if power:
            exact = not isinstance(value, float)
            value = value * Fraction(10) ** power if exact else _double(f"{digits}{decimals}e{power}")
        over = groups["den"] or groups["xd"] or groups["md"] or groups["md1"]
        if over:
            if int(over) == 0:
                return None
            part = groups["xn"] or groups["mn"] or groups["mn1"]
            value = Fraction(value, int(over)) if groups["den"] else value + Fraction(int(part), int(over))
    if groups["scale"]:
        value *= 10 ** _SCALES[groups["scale"].lower()]
    if value == math.inf:  # beyond the largest double
        return None
    value = -value if negative else value
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value


def number_alone(text: str) -> Number | None:
    """The value of a text that is one number and nothing else."""
    token = _NUMBER.fullmatch(text)
    return number(token) if token else None


def find_numbers(text: str) -> list[re.Match[str]]:
    return list(_NUMBER.finditer(text))


def _double(literal: str) -> Number:
    """A decimal of DOUBLE_DIGITS significant digits or more is a printed double. Within 1e-14 of a decimal of at most
    8 digits (63.99999999999999, 0.30000000000000004) it is that decimal; elsewhere it stays a float."""
    value = float(literal)
    rounded = format(value, ".12g")
    short = len(rounded.partition("e")[0].replace(".", "").strip("-0")) <= 8 and math.isfinite(value)
    if short and abs(Fraction(rounded) - Fraction(value)) <= abs(value) * 1e-14:
        return Fraction(rounded)
    return value


_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|bf)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"\\[()\[\] ]|\^\s*+(?:\{\s*+)?\\circ\s*\}?|\\!|[*_]{2,}|<<[^<>]*>>")
_PARENTHESISED = re.compile(r"\s*+([-+]?)\s*+\(([^()]*)\)\s*+\.?\s*+")
_NEGATIVE = re.compile(r"^\W{0,3}(?:negative|minus)\s+(?=[\d$£€\\])|^\s*-\s+(?=[\d$£€\\])", re.IGNORECASE)
_JOIN = re.compile(r"\b(?:and|or|to|et|ou|und|oder)\b|\s[yo]\s+[$£€]?$|[;&|]|,\s*[$£€]?$", re.IGNORECASE)
_EQUALS = re.compile(r"=|≈|\\approx")
_OPERATOR = re.compile(
    r"[+*/×÷^<>]|(?:^|\s)-(?=[\s(]|$)|^-|(?<!\w)x(?!\w)|\\(?:times|cdot|div)\b|\b(?:plus|minus|times|divided)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"[(,:]|\b(?:because|since|as|which|where|per|for|in|of|out|every|each|after|from|at|than|by|on|when|if|with|"
    r"within|over|during|before|until|a|an)\b",
    re.IGNORECASE,
)
_PER = re.compile(r"^/ ?[a-zA-Z]{2,}")  # "$20/hour"
_SENTENCES = re.compile(r"\S\s*\n\s*\S|[.!?]\s+[A-Z]")
_LEAD = re.compile(  # what may stand before a number that is not in prose
    r"(?:\W|\b(?:about|approximately|approx|around|roughly|nearly|almost|exactly|only|just|is|the|a|total|of|x|y|n)\b)*+"
    r"|[^.,;!?\n]{0,60}(?:=|≈|:)\W*",
    re.IGNORECASE,
)


def tidy(text: str) -> str:
    """Folds, and takes the LaTeX spacing out of numbers: 10,\\!080 and 10{,}080 become 10,080."""
    text = fold(text)
    if "\\" in text or "{,}" in text:
        text = _LATEX_GAP.sub("", _LATEX_SPACING.sub(",", text))
    return text


def stated(clause: str, prose: bool) -> Number | str:
    """The one number that a clause states, or the error class. `prose`: words may stand before the number.

    A chain of equations states its last plain number ("9 * 2 = $18 a day"). Numbers joined by "and", "or" or a comma
    must agree. What follows a number with "per", "for", "because" and the like is an aside.
    """
    clause = _DROPPED.sub(" ", _WRAPPED.sub(r" \1 ", clause))
    clause = _NEGATIVE.sub("-", clause)
    bracketed = _PARENTHESISED.fullmatch(clause)
    if bracketed:
        clause = bracketed[1] + bracketed[2].strip()
    tokens = list(_NUMBER.finditer(clause, 0, 2000))
    if not tokens:
        return "no_answer"
    prefix, suffix = clause[: tokens[0].start()], clause[tokens[-1].end() :]
    if not prose and not _LEAD.fullmatch(prefix):
        return "no_answer"
    equations: list[list[list[Number | None]]] = [[[]]]  # joined equations, each a chain of sides, each its numbers
    last = tokens[0]
    equations[0][0].append(number(last))
    broken = _OPERATOR.search(prefix.rpartition("=")[2]) is not None
    for token in tokens[1:]:
        gap = clause[last.end() : token.start()]
        if _JOIN.search(gap):
            equations.append([[]])
        elif _EQUALS.search(gap):
            equations[-1].append([])
        elif _OPERATOR.search(gap) or token["sign"] and not gap.strip():
            pass
        elif _ASIDE.search(gap):
            suffix = gap
            break
        else:
            return "contradiction"
        equations[-1][-1].append(number(token))
        last = token
    values: set[Number] = set()
    for sides in equations:
        plain = [side[0] for side in sides if len(side) == 1 and side[0] is not None]
        if not plain:
            return "malformed"
        values.add(plain[-1])
    if len(values) > 1:
        return "contradiction"
    if broken or _OPERATOR.match(_PER.sub("", suffix.lstrip())):
        return "malformed"
    return values.pop()


_FAST_BARE = re.compile(r"\s*(-?\d{1,14})(?:\.0{1,9}|(\.\d{1,20}))?\s*")
_FAST_TAIL = re.compile(
    r"(?:####|A:|[Aa]nswer(?: is:?|:)) ?\$?(-?\d{1,3}(?:,\d{3})+|-?\d{1,14})(?:\.0{1,9}|(\.\d{1,20}))?%?"
    r"(?: (?!(?:thousand|[mbt]r?illion|lakh|crore|plus|minus|times|divided))[a-z]{2,20}){0,3}\.?\s*$"
)
_MARKER_WORDS = ("answer", "####", "boxed", " a:", "finish[", "antwort", "losung", "respuesta", "reponse", "risposta",
                 "resposta", "jawaban", "jibu", "idahun", "asayan", " esi", "<answer>", " ans")  # fmt: skip
_ABBREVIATED = ("rs", "approx", "ca", "no")


def _fast(text: str) -> Answer | None:
    """What the full rules give for the commonest endings, found without them; None for all others. The sentence before
    has to be free of markers, and the line before it too: no second statement stands next to the last one."""
    if len(text) < 40:
        found = _FAST_BARE.fullmatch(text)
        if found and text.isascii():
            return Answer(_decimal(found[1], found[2]), found[0].strip(), "bare")
    tail = text[-60:]
    rule, start = "answer_is", tail.rfind("nswer") - 1
    if start < 0:
        start = tail.rfind("A:")
        rule = "a_line"
        if start < 0:
            start = tail.rfind("####")
            rule = "hash"
    if start < 1 and len(text) > 60 or start < 0:
        return None
    found = _FAST_TAIL.match(tail, start)
    if not found or not found[0].isascii():
        return None
    before = tail[start - 1] if start else "\n"
    if before != "\n" and (rule == "a_line" or rule == "answer_is" and (before.isalnum() or before == "_")):
        return None
    end = len(text) - len(tail) + start
    while end:  # back over joining words, to what a statement next to this one would end with
        if not text[end - 1].isalnum():
            end -= 1
            continue
        begin = end - 1
        while begin and text[begin - 1].isalnum():
            begin -= 1
        if text[begin:end].lower() not in JOINING:
            if not text[begin:end].isascii():
                return None
            break
        end = begin
    line, sentence = text.rfind("\n", 0, end), text.rfind(". ", 0, end)
    if line > sentence:  # the line before may end in a marker
        sentence = max(0, line - 120)
    elif text[max(0, sentence - 6) : max(0, sentence)].lower().endswith(_ABBREVIATED):
        sentence = max(0, sentence - 120)
    nearby = fold(" " + text[max(0, sentence) : end].replace("\n", " ")).lower()
    if not nearby.isascii():
        return None
    for word in _MARKER_WORDS:
        if word in nearby:
            return None
    return Answer(_decimal(found[1].replace(",", ""), found[2]), found[0].strip(" .\n"), rule)


def _decimal(digits: str, decimals: str | None) -> Number:
    if not decimals or not decimals.strip(".0"):
        return int(digits)
    if len(digits.lstrip("-0")) + len(decimals) - 1 >= DOUBLE_DIGITS:
        value = _double(digits + decimals)
    else:
        value = Fraction(int(digits + decimals[1:]), 10 ** (len(decimals) - 1))
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value


def extract_number(text: str) -> Answer:
    """The final numeric answer of a text: the last well-formed statement; without any, a text that is just a number;
    without that, the last number (rule "last_number"). Statements side by side that differ are a contradiction."""
    fast = _fast(text)
    if fast is not None:
        return fast
    text = tidy(text)
    found = statements(text)
    error = None
    for at in range(len(found) - 1, -1, -1):
        value = _read(found[at])
        if value == "contradiction":
            return unparsed(value, found[at].rule, found[at].clause)
        if isinstance(value, str):
            error = error or (value if _committed(found[at]) else None)
            continue
        for earlier in range(at - 1, -1, -1):
            if not adjacent(text, found[earlier], found[earlier + 1]):
                break
            other = _read(found[earlier])
            if not isinstance(other, str) and other != value:
                return unparsed("contradiction", found[at].rule, text[found[earlier].start : found[at].end])
        return Answer(value, text[found[at].start : found[at].end].strip(), found[at].rule)
    if error:
        return unparsed(error, "statement")
    if not found and len(text) < 200 and not _SENTENCES.search(text):
        value = stated(text, prose=False)
        if not isinstance(value, str):
            return Answer(value, text.strip(), "bare")
        if value != "no_answer":
            return unparsed(value, "bare", text.strip())
    tokens = find_numbers(text)
    if not tokens:
        return unparsed("no_answer")
    value, last = number(tokens[-1]), tokens[-1][0].strip()
    return unparsed("malformed", "last_number", last) if value is None else Answer(value, last, "last_number")


def _read(statement: Statement) -> Number | str:
    if statement.rule in ("hash", "a_line") and not statement.whole_line:
        return "no_answer"
    colon = statement.rule in ("hash", "a_line") or statement.colon
    return stated(statement.clause, prose=not colon)


def _committed(statement: Statement) -> bool:
    """Whether the statement is an answer even though it holds no number ("the answer is unknown"), so that no other
    number of the text may stand in for it. "Answer:" before a whole worked solution is not."""
    return not (statement.rule in ("hash", "a_line") or statement.colon) or len(statement.clause.split()) < 4


def equal(a: Number, b: Number, tolerance: float | None = None) -> bool:
    """Exact, or within tolerance·max(1, |a|, |b|). A float (a printed double) equals what it rounds from: 1e-9."""
    if a == b:
        return True
    if isinstance(a, float) or isinstance(b, float):
        tolerance = max(tolerance or 0.0, 1e-9)
    if tolerance is None:
        return False
    try:
        return abs(Fraction(a) - Fraction(b)) <= Fraction(tolerance) * max(1, abs(Fraction(a)), abs(Fraction(b)))
    except (OverflowError, ValueError):  # an infinite or undefined double
        return False
