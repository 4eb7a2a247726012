"""Attempts at multiple choice to examples and pairs, against tables written by hand."""

from __future__ import annotations

import itertools
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone import records
from whetstone.curation.degenerate import Gates
from whetstone.curation.star import HINTED, Asked, Curation, curate
from whetstone.errors import UserError
from whetstone.prompts import choices

GATES = Gates()
LOOP = "so " * 200
TEXTS = {"+": " It is {n} and {n}. The answer is B.", "-": " It is {n} or {n}. The answer is C."}


def attempt(
    problem: str, sample: int, mark: str, text: str | None = None, hinted: bool = False, orders: int = 2
) -> dict:
    """+ right, - wrong, o a loop that was cut off, ~ right in another language"""
    texts = TEXTS | {"o": LOOP, "~": " Das ist die Zahl, die wir hier suchen. Die Antwort ist B."}
    return {
        "id": f"base:{problem}:{'hinted' if hinted else 'direct'}:{sample}",
        "problem_id": problem,
        "sample": sample,
        "variant": HINTED if hinted else str(sample % orders),
        "gold": "BCDA"[0 if hinted else sample % orders % 4],
        "text": texts[mark].format(n=sample) if text is None else text,
        "verdict": {"+": "correct", "~": "correct", "-": "wrong", "o": "unparsed"}[mark],
        "finish_reason": "length" if mark == "o" else "stop",
    }


def attempts(hinted: dict[str, str] | None = None, orders: int = 2, **marks: str) -> pd.DataFrame:
    rows = [attempt(p, i, mark, orders=orders) for p, some in marks.items() for i, mark in enumerate(some)]
    rows += [attempt(p, 0, mark, hinted=True) for p, mark in (hinted or {}).items()]
    return pd.DataFrame(rows)


def run(table: pd.DataFrame, how: str = "sft", **options):
    names = sorted(set(table["problem_id"]))
    problems = pd.DataFrame({"id": names, "language": ["en"] * len(names)})
    asked = {name: Asked("en", lambda number, name=name: f"Q {name} order {number}\nA:") for name in names}
    asked["other"] = Asked("de", str)
    return curate(table, problems, asked, how, Curation(**options), GATES)


def test_right_rationales_become_examples_of_the_prompt_that_they_were_sampled_with():
    found = run(attempts(p="+++-"))
    assert [(e["prompt"], e["completion"]) for e in found.examples] == [
        ("Q p order 0\nA:", " It is 0 and 0. The answer is B."),
        ("Q p order 1\nA:", " It is 1 and 1. The answer is B."),
    ]
    assert [e["attempt_ids"] for e in found.examples] == [["base:p:direct:0"], ["base:p:direct:1"]]
    assert records.table(found.examples, records.EXAMPLE).num_rows == 2


@pytest.mark.parametrize(
    ("marks", "min_right", "kept"),
    [("+---", 1, 1), ("+---", 2, 0), ("++--", 2, 2), ("++--", 3, 0), ("+~--", 2, 0), ("+oo+", 2, 2)],
)
def test_one_lucky_guess_is_not_learnt_from(marks, min_right, kept):
    """And what is right in the wrong language, or degenerate, doesn't count as right."""
    found = run(attempts(p=marks, sure="++++", orders=4), min_right=min_right, per_problem=4)
    assert sum(e["problem_id"] == "p" for e in found.examples) == kept


@pytest.mark.parametrize("marks", ["+-+-", "-+-+"])
def test_right_twice_under_one_order_of_the_options_is_right_once(marks):
    """Samples 0 and 2 see one order, 1 and 3 the other: a letter that a model merely likes is right in one alone."""
    found = run(attempts(p=marks, sure="++++"))
    assert {e["problem_id"] for e in found.examples} == {"sure"}
    everything = found.statistics["all"]
    assert (everything["consistent"], everything["right_at_too_few_letters"]) == (1, 1)
    assert {p["problem_id"] for p in run(attempts(p=marks, sure="++--"), "dpo").pairs} <= {"sure"}


@pytest.mark.parametrize("said", "ABCD")
@pytest.mark.parametrize(("k", "orders"), [(4, 2), (4, 4), (8, 4), (12, 6)])
def test_a_model_that_always_says_one_letter_teaches_nothing(said, k, orders):
    """Also where the options' order was shuffled after all its turns, and the letter is right under several."""
    problems = pd.DataFrame({"id": [f"p{i}" for i in range(60)], "language": "en"})
    rows = []
    for number, problem in enumerate(problems["id"]):
        for sample in range(k):
            order = choices.order_of(problem, sample % orders, 4)
            _, gold = choices.shown("wxyz", "ABCD"[number % 4], order)
            rows.append(attempt(problem, sample, "+" if gold == said else "-", orders=orders) | {"gold": gold})
    asked = dict.fromkeys(problems["id"], Asked("en", str))
    with pytest.raises(UserError, match="problems right at enough letters: 0"):
        curate(pd.DataFrame(rows), problems, asked, "sft", Curation(), GATES)


@pytest.mark.parametrize(
    ("k", "orders", "min_right", "share"), [(4, 2, 1, 0.68), (4, 2, 2, 0.19), (4, 4, 2, 0.26), (4, 4, 3, 0.05)]
)
def test_a_guesser_passes_less_often_the_more_orders_have_to_be_right(k, orders, min_right, share):
    """Of four options a guess is right one time in four: every outcome of k samples, by its likelihood."""
    outcomes = {f"p{i}": "".join(marks) for i, marks in enumerate(itertools.product("+-", repeat=k))}
    found = run(attempts(orders=orders, **outcomes), min_right=min_right)
    taught = {e["problem_id"] for e in found.examples}
    likelihood = sum(0.25 ** outcomes[p].count("+") * 0.75 ** outcomes[p].count("-") for p in taught)
    assert round(likelihood, 2) == share


def test_a_problem_without_its_attempt_is_an_error_not_full_coverage():
    problems = pd.DataFrame({"id": ["p", "q", "r"], "language": "en"})
    asked = {name: Asked("en", str) for name in problems["id"]}
    table = attempts(hinted={"q": "+"}, p="++++")
    with pytest.raises(UserError, match="2 of 3 problems have no attempt, such as 'q'"):
        curate(table, problems, asked, "sft", Curation(), GATES)


@pytest.mark.parametrize(("how", "per_problem", "kept"), [("sft", 2, 2), ("sft", None, 4), ("sft_unique", 2, 1)])
def test_caps(how, per_problem, kept):
    assert len(run(attempts(p="++++"), how, per_problem=per_problem).examples) == kept


def test_repeated_texts_are_one_example_unless_every_sample_is_kept():
    rows = [attempt("p", i, "+", " The same. The answer is B.") for i in (0, 2, 4, 1)]
    found = run(pd.DataFrame(rows), per_problem=4)
    assert Counter(e["prompt"] for e in found.examples) == {"Q p order 0\nA:": 1, "Q p order 1\nA:": 1}
    assert found.examples[0]["attempt_ids"] == ["base:p:direct:0", "base:p:direct:2", "base:p:direct:4"]
    every = run(pd.DataFrame(rows), per_problem=None)
    assert len(every.examples) == 4 and records.table(every.examples, records.EXAMPLE).num_rows == 4


def test_rationalized_examples_are_for_what_nothing_else_solved_and_never_show_the_hint():
    table = attempts(hinted={"q": "+", "r": "-", "p": "+"}, p="++--", q="----", r="----", s="++++", t="++++")
    found = run(table, rationalized_share=0.9)
    hinted = [e for e in found.examples if e["strategy"] == "hinted"]
    assert [(e["problem_id"], e["prompt"]) for e in hinted] == [("q", "Q q order 0\nA:")]
    assert not any("CORRECT" in e["prompt"] + e["completion"] for e in found.examples)
    assert found.statistics["all"]["hinted"] == 3 and found.statistics["all"]["hinted_right"] == 2


@pytest.mark.parametrize("text", [" B is marked as correct. The answer is B.", " The hint says B. The answer is B."])
def test_a_rationale_that_tells_of_its_hint_is_dropped_and_counted(text):
    rows = [attempt("q", 0, "-"), attempt("q", 0, "+", text, hinted=True), *attempts(p="++").to_dict("records")]
    found = run(pd.DataFrame(rows), rationalized_share=0.9)
    assert [e["problem_id"] for e in found.examples] == ["p", "p"]
    assert found.statistics["all"]["hinted_right_but"]["hint leaked"] == 1


@settings(deadline=None)
@given(direct=st.integers(1, 30), hinted=st.integers(0, 30), share=st.floats(0, 0.9))
def test_rationalized_examples_stay_under_their_share(direct, hinted, share):
    marks = {f"p{i}": "++" for i in range(direct)} | {f"q{i}": "--" for i in range(hinted)}
    table = attempts(hinted={f"q{i}": "+" for i in range(hinted)}, **marks)
    found = run(table, rationalized_share=share)
    kept = sum(e["strategy"] == "hinted" for e in found.examples)
    assert kept <= share * len(found.examples) + 1e-6
    assert kept == hinted or (kept + 1) / (len(found.examples) + 1) > share
    assert found.statistics["all"]["rationalized_over_share"] == hinted - kept


def test_pairs_share_their_prompt_and_so_the_order_of_their_options():
    found = run(attempts(p="+--+"), "dpo", pairs_per_problem=4)
    assert sorted((p["prompt"], *p["attempt_ids"]) for p in found.pairs) == [
        ("Q p order 0\nA:", "base:p:direct:0", "base:p:direct:2"),
        ("Q p order 1\nA:", "base:p:direct:3", "base:p:direct:1"),
    ]
    assert records.table(found.pairs, records.PAIR).num_rows == 2 and not found.examples


@pytest.mark.parametrize(("marks", "limit", "pairs"), [("+++++-----", 2, 2), ("+++++-----", 9, 5), ("++++", 2, 0)])
def test_pairs_of_a_question_are_bounded_and_no_attempt_is_in_two(marks, limit, pairs):
    made = run(attempts(p=marks, q="++--", orders=1), "dpo", min_right=1, pairs_per_problem=limit)
    found = [p for p in made.pairs if p["problem_id"] == "p"]
    ids = [one for pair in found for one in pair["attempt_ids"]]
    assert len(found) == pairs and len(set(ids)) == len(ids)


def test_pairs_are_matched_in_length():
    rows = [
        attempt("p", 0, "+", " one two three four. The answer is B.", orders=1),
        attempt("p", 1, "+", " six words. The answer is B.", orders=1),
        attempt("p", 2, "-", " a b c d. The answer is C.", orders=1),
        attempt("p", 3, "-", " ".join(a + b for a in "abcdefgh" for b in "ijklmnop") + " The answer is C.", orders=1),
    ]
    found = run(pd.DataFrame(rows), "dpo", min_right=1, pairs_per_problem=4, length_ratio=1.5)
    assert [p["attempt_ids"] for p in found.pairs] == [["base:p:direct:0", "base:p:direct:2"]]
    assert found.statistics["all"]["pairs_without_match"] == 1


def test_loops_are_cut_and_one_a_question_is_enough():
    found = run(attempts(p="++++oooo", orders=1), "dpo", min_right=1, pairs_per_problem=4, loop_words=10)
    assert len(found.pairs) == 1
    assert found.pairs[0]["rejected"].split() == ["so"] * 10 and found.pairs[0]["rejected_strategy"] == "degenerate"
    none = run(attempts(p="++oo", q="++--", orders=1), "dpo", min_right=1, loops_per_problem=0)
    assert {p["problem_id"] for p in none.pairs} == {"q"}


def test_nothing_to_train_on_is_an_error_with_its_numbers():
    with pytest.raises(UserError, match=r"1 of 8 attempts at 2 problems are right and none can be trained on by sft"):
        run(attempts(p="+---", q="----"))
    with pytest.raises(UserError, match="none can be trained on by dpo"):
        run(attempts(p="++++"), "dpo")


def test_an_attempt_at_an_unknown_problem_is_an_error():
    table = attempts(p="++")
    with pytest.raises(UserError, match="1 problems of the attempts aren't among the problems, such as 'p'"):
        curate(table, pd.DataFrame({"id": [], "language": []}), {}, "sft", Curation(), GATES)


def test_every_row_is_counted():
    found = run(attempts(hinted={"q": "+"}, p="++-o", q="---~"), rationalized_share=0.5)
    everything = found.statistics["all"]
    assert everything == found.statistics["en"] | {"rationalized_over_share": 0, "pairs_without_match": 0}
    assert (everything["problems"], everything["attempts"], everything["right"]) == (2, 8, 3)
    assert everything["faults"] == {"truncated": 0, "repetitive": 1, "wrong language": 1, "hint leaked": 0}
    assert everything["right_but"]["wrong language"] == 1
    assert (everything["coverage"], everything["consistent"]) == (1.0, 1)
    assert (everything["examples"], everything["rationalized"]) == (3, 1)


@settings(deadline=None)
@given(st.permutations(range(8)))
def test_the_order_of_the_rows_does_not_matter(order):
    table = attempts(p="++-o", q="+-+-")
    assert run(table.iloc[list(order)]) == run(table)
