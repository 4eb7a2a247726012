"""Public data sets in their published forms, and what a broken one is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from whetstone import records
from whetstone.errors import UserError
from whetstone.problems.loaders import SourceSpec, gold, load
from whetstone.problems.splits import straddling

DATA = Path(os.environ.get("WHETSTONE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
published = pytest.mark.skipif(not DATA.is_dir(), reason=f"no public data sets in {DATA}")
WRITTEN = Path(__file__).parents[1] / "fixtures/public"  # a few rows in the layout of each published file
BOTH = [pytest.param(WRITTEN, id="written"), pytest.param(DATA, id="published", marks=published)]

SEED = "Ivo fills 6 crates with 35 oranges each. How many oranges does he pack?"
OTHER = "Lena reads 12 pages a day for 9 days. How many pages does she read?"
METAMATH = [
    {"type": "GSM_AnsAug", "query": SEED, "original_question": SEED, "response": "6*35\n#### 210\nThe answer is: 210"},
    {"type": "GSM_AnsAug", "query": SEED + " ", "original_question": SEED, "response": "By 6.\nThe answer is: 210"},
    {"type": "GSM_Rephrased", "query": "If 6 crates hold 35 oranges each, how many oranges are there?",
     "original_question": SEED, "response": "210 in all.\nThe answer is: 210"},
    {"type": "GSM_SV", "query": "Ivo fills x crates with 35 oranges each. He packs 210 oranges. "
     "What is the value of unknown variable x?", "original_question": SEED, "response": "210/35\nThe answer is: 6"},
    {"type": "GSM_FOBAR", "query": "Ivo fills 6 crates with x oranges each. How many oranges does he pack?\n"
     "If we know the answer to the above question is 210, what is the value of unknown variable x?",
     "original_question": SEED, "response": "6x = 210\n#### 35\nThe answer is: 35"},
    {"type": "GSM_AnsAug", "query": OTHER, "original_question": OTHER, "response": "12*9\nThe answer is: 1,080"},
    {"type": "MATH_AnsAug", "query": "Compute $\\dbinom{5}{2}$.", "original_question": "Compute $\\dbinom{5}{2}$.",
     "response": "Thus \\boxed{10}. The answer is: 10"},
]  # fmt: skip


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return str(path)


def metamath(tmp_path: Path, rows: list[dict] = METAMATH, **spec) -> pd.DataFrame:
    return load(SourceSpec(kind="metamath", path=write(tmp_path / "MetaMathQA.json", rows), **spec))


# --- MetaMathQA -----------------------------------------------------------------------------------------------------


def test_metamath_is_one_row_per_question_of_the_gsm_types(tmp_path):
    problems = metamath(tmp_path)
    assert problems["family"].tolist() == ["GSM_AnsAug", "GSM_Rephrased", "GSM_SV", "GSM_FOBAR", "GSM_AnsAug"]
    assert problems.attrs["counts"] == {
        "read": 7, "type": 1, "unparsed": 0, "repeated": 1, "conflicting": 0, "kept": 5
    }  # fmt: skip
    assert records.table(problems, records.PROBLEM).num_rows == 5


def test_metamath_gold_is_the_answer_to_its_own_query(tmp_path):
    """SV and FOBAR rows ask for the hidden x: 6 crates, 35 oranges, not the original 210."""
    assert metamath(tmp_path)["answer"].tolist() == ["210", "210", "6", "35", "1080"]


def test_what_was_made_from_one_question_is_one_group_in_one_part(tmp_path):
    problems = metamath(tmp_path)
    assert problems["group"].nunique() == 2
    assert problems.groupby("group")["part"].nunique().tolist() == [1, 1]
    assert straddling(problems) == []


def test_metamath_and_gsm8k_agree_about_the_group_of_a_question(tmp_path):
    """So that mixing both leaks nothing from one into the held-out part of the other."""
    path = write(tmp_path / "train.jsonl", [{"question": SEED, "answer": "6*35 = 210\n#### 210"}])
    gsm8k = load(SourceSpec(kind="gsm8k", path=path))
    assert gsm8k["group"][0] == metamath(tmp_path)["group"][0]
    assert gsm8k["part"][0] == metamath(tmp_path)["part"][0]


def test_a_query_with_two_different_golds_is_dropped_whole_and_counted(tmp_path):
    rows = [*METAMATH, {**METAMATH[5], "response": "12 * 9 = 108\nThe answer is: 108"}]
    problems = metamath(tmp_path, rows)
    assert problems.attrs["counts"]["conflicting"] == 2
    assert OTHER not in problems["question"].tolist()


def test_ids_depend_on_the_query_alone(tmp_path):
    forth, back = metamath(tmp_path), metamath(tmp_path, METAMATH[::-1])
    assert dict(zip(forth["id"], forth["answer"], strict=True)) == dict(zip(back["id"], back["answer"], strict=True))


def test_other_types_can_be_asked_for(tmp_path):
    assert set(metamath(tmp_path, types=None)["family"]) >= {"MATH_AnsAug", "GSM_SV"}
    assert metamath(tmp_path, types=["GSM_SV"])["answer"].tolist() == ["6"]


def test_a_smaller_limit_is_a_subset_of_a_larger_one(tmp_path):
    ids = [set(metamath(tmp_path, limit=n)["id"]) for n in (2, 3, 5, 99)]
    assert [len(one) for one in ids] == [2, 3, 5, 5]
    assert ids[0] < ids[1] < ids[2] == ids[3]


# --- the published files --------------------------------------------------------------------------------------------

FRACTIONS = {1312: "2.5", 1328: "3/7", 1331: "-1/3", 1333: "2.5", 1443: "7/9", 1444: "5/13", 1450: "4/7", 1456: "25/3",
             1496: "1/6"}  # fmt: skip
# What ASDiv asks besides one number: names, yes or no, clock times and dates, ordinals, ratios, two or three numbers.
NOT_ONE_NUMBER = """
    30 76 164 166 167 171 173 175 183 184 189 190 195 196 198 199 633 824-831 839-847 850-861 868 1046-1063 1110-1111
    1132 1137-1150 1161-1170 1295-1298 1300 1303-1308 1310 1317 1322 1326 1329-1330 1335-1336 1340 1345 1347-1349 1394
    1400-1412 1415-1419 1427-1432 1434-1437 1439-1441 1445-1449 1451-1452 1454 1457-1463 1468-1484 1486-1487 1491 1648
    1650 1652 1654 1656 1659 1665-1666 1670 1674 1679-1680 1688-1690 1692 1695 1699-1703 1706 1708-1710 1714 2060 2068
"""


def asdiv_ids(ranges: str) -> list[str]:
    bounds = [list(map(int, one.split("-"))) for one in ranges.split()]
    return [f"asdiv-nluds-{n:04d}" for first, *last in bounds for n in range(first, (last or [first])[0] + 1)]


@pytest.mark.parametrize(
    ("kind", "file", "ids", "answers"),
    [
        ("gsm8k", "gsm8k/train.jsonl", [f"gsm8k-test-0000{n}" for n in range(3)], ["240", "2720", "-4"]),
        ("gsm8k", "gsm8k/test.jsonl", ["gsm8k-test-00000", "gsm8k-test-00001"], ["48", "12.5"]),
        ("svamp", "svamp/SVAMP.json", [f"svamp_3-chal-{n}" for n in (1, 2, 3)], ["17", "21", "15"]),
        ("mawps", "mawps/MultiArith.json", ["multiarith-0", "multiarith-3"], ["36", "24"]),
        ("mawps", "mawps/AddSub.json", ["addsub-1", "addsub-2"], ["45", "3.25"]),
        ("mawps", "mawps/SingleEq.json", ["singleeq-0", "singleeq-7"], ["17", "13"]),
        ("mawps", "mawps/trainset.json", ["trainset-11", "trainset-12"], ["8", "1.83333333333333"]),
        ("mawps", "mawps/validset.json", ["validset-21"], ["12"]),
        ("mawps", "mawps/testset.json", ["testset-31"], ["12.5"]),
    ],
)
def test_a_published_layout_is_read(kind, file, ids, answers):
    problems = load(SourceSpec(kind=kind, path=str(WRITTEN / file), split="test"))
    assert problems["id"].tolist() == ids and problems["answer"].tolist() == answers
    assert problems.attrs["counts"] == {"read": len(ids), "unparsed": 0, "kept": len(ids)}
    assert records.table(problems, records.PROBLEM).num_rows == len(ids)


def test_answers_of_asdiv_that_are_no_number_are_named_or_dropped():
    spec = {"kind": "asdiv", "path": str(WRITTEN / "asdiv/ASDiv.xml"), "split": "test"}
    with pytest.raises(UserError, match=r"nluds-0003: can't read the answer '2:55'.*2 of 4.*unparsed: drop"):
        load(SourceSpec(**spec))
    problems = load(SourceSpec(**spec, unparsed="drop"))
    assert problems["id"].tolist() == ["asdiv-nluds-0001", "asdiv-nluds-0002"]
    assert problems["answer"].tolist() == ["9", "1/3"]
    assert problems["question"][0] == "Four white hens and five brown hens sit on a fence. How many hens sit there?"
    assert (problems["level"].tolist(), problems["family"].tolist()) == ([1, 6], ["Addition", "Common-Division"])
    assert problems.attrs["unparsed"] == {"asdiv-nluds-0003": "2:55", "asdiv-nluds-0004": "Tora"}


@published
@pytest.mark.parametrize(
    ("kind", "file", "rows", "name", "first"),
    [
        ("gsm8k", "gsm8k/train.jsonl", 7473, "gsm8k", ("gsm8k-test-00000", "72")),
        ("gsm8k", "gsm8k/test.jsonl", 1319, "gsm8k", ("gsm8k-test-00000", "18")),
        ("svamp", "svamp/SVAMP.json", 1000, "svamp", ("svamp-chal-1", "51")),
        ("mawps", "mawps/MultiArith.json", 600, "multiarith", ("multiarith-0", "39")),
        ("mawps", "mawps/AddSub.json", 395, "addsub", ("addsub-1", "43")),
        ("mawps", "mawps/SingleEq.json", 508, "singleeq", ("singleeq-0", "43")),
        ("mawps", "mawps/trainset.json", 1898, "trainset", ("trainset-2351", "2")),
        ("mawps", "mawps/validset.json", 237, "validset", ("validset-279", "12")),
        ("mawps", "mawps/testset.json", 238, "testset", ("testset-926", "1.83333333333333")),
    ],
)
def test_every_row_of_a_published_file_becomes_a_problem(kind, file, rows, name, first):
    """The default, `unparsed: raise`, holds: 100 % of the golds are read."""
    problems = load(SourceSpec(kind=kind, path=str(DATA / file), split="test"))
    assert len(problems) == problems["id"].nunique() == rows
    assert problems.attrs["counts"] == {"read": rows, "unparsed": 0, "kept": rows}
    assert set(problems["source"]) == {name}
    assert (problems["id"][0], problems["answer"][0]) == first
    assert records.table(problems, records.PROBLEM).num_rows == rows
    assert set(problems["part"]) == {0}


@published
def test_the_exceptions_of_asdiv_are_those_whose_answer_is_not_one_number():
    spec = {"kind": "asdiv", "path": str(DATA / "asdiv" / "ASDiv.xml"), "split": "test"}
    with pytest.raises(UserError, match=r"nluds-0030: can't read the answer 'Mrs. Hilt'.*212 of 2305.*unparsed: drop"):
        load(SourceSpec(**spec))
    problems = load(SourceSpec(**spec, unparsed="drop"))
    assert problems.attrs["counts"] == {"read": 2305, "unparsed": 212, "kept": 2093}
    assert list(problems.attrs["unparsed"]) == asdiv_ids(NOT_ONE_NUMBER)
    by_id = problems.set_index("id")
    assert {n: by_id["answer"][f"asdiv-nluds-{n}"] for n in FRACTIONS} == FRACTIONS
    assert (by_id["level"]["asdiv-nluds-0001"], by_id["family"]["asdiv-nluds-0001"]) == (1, "Addition")


@pytest.mark.parametrize(("data", "rows"), [(WRITTEN, 4), pytest.param(DATA, 2373, marks=published)])
def test_one_pattern_reads_mawps_as_one_set(data, rows):
    problems = load(SourceSpec(kind="mawps", path=str(data / "mawps" / "*set.json"), name="mawps"))
    assert len(problems) == problems["id"].nunique() == rows
    assert set(problems["part"]) <= {1, 2, 3, 4, 5} and problems["part"].nunique() > 1


@pytest.mark.parametrize("data", BOTH)
def test_every_published_gold_equals_the_number_that_the_file_states(data):
    """Against the file read naively, so that the loader can't be wrong in a way that the grader shares."""
    rows = [json.loads(line) for line in (data / "gsm8k" / "test.jsonl").read_text().splitlines()]
    stated = [row["answer"].split("#### ")[1].replace(",", "") for row in rows]
    problems = load(SourceSpec(kind="gsm8k", path=str(data / "gsm8k" / "test.jsonl"), split="test"))
    assert problems["answer"].tolist() == stated
    svamp = json.loads((data / "svamp" / "SVAMP.json").read_text())
    problems = load(SourceSpec(kind="svamp", path=str(data / "svamp" / "SVAMP.json"), split="test"))
    assert problems["answer"].astype(float).tolist() == [row["Answer"] for row in svamp]
    assert "Common-Divison" not in set(problems["family"])


# --- other forms of the same sets -----------------------------------------------------------------------------------


def test_svamp_tells_by_its_name_how_many_of_the_1000_problems_it_holds(tmp_path):
    """The copy on the Hub divides them 700 to 300 and writes the answer as text."""
    row = {"ID": "chal-9", "Body": "Noa has 5 kites.", "Question": "How many does he have?",
           "Equation": "5", "Answer": "5.0", "Type": "Addition", "question_concat": "Noa ..."}  # fmt: skip
    for count, name in ((700, "svamp_700"), (300, "svamp_300"), (1000, "svamp")):
        path = write(tmp_path / "svamp.jsonl", [{**row, "ID": f"chal-{n}"} for n in range(count)])
        problems = load(SourceSpec(kind="svamp", path=path, split="test"))
        assert set(problems["source"]) == {name}
        assert problems["id"][0] == f"{name}-chal-0"
        assert problems["answer"][0] == "5"
        assert set(load(SourceSpec(kind="svamp", path=path, split="test", limit=10))["source"]) == {name}


def test_the_asdiv_copy_on_the_hub_has_neither_id_nor_grade(tmp_path):
    row = {"body": "Pia has 3 hens.", "question": "How many hens?", "solution_type": "Addition", "answer": "3 (hens)",
           "formula": "3=3"}  # fmt: skip
    problems = load(SourceSpec(kind="asdiv", path=write(tmp_path / "a.parquet", [row]), split="test"))
    assert problems.loc[0, ["id", "question", "answer"]].tolist() == [
        "asdiv-test-00000", "Pia has 3 hens. How many hens?", "3"
    ]  # fmt: skip
    assert problems["level"][0] is None


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_any_table_with_questions_and_answers(tmp_path, suffix):
    rows = [{"n": f"q{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1), "topic": "sums", "hard": "2",
             "from": "What is one more?"} for i in range(4)]  # fmt: skip
    columns = dict(id="n", question="prompt", answer="target", family="topic", level="hard", group="from")
    problems = load(SourceSpec(kind="table", path=write(tmp_path / f"Sums{suffix}", rows), columns=columns))
    assert problems["id"].tolist() == ["sums-q0", "sums-q1", "sums-q2", "sums-q3"]
    assert problems["answer"].tolist() == ["1", "2", "3", "4"]
    assert (set(problems["family"]), set(problems["level"]), problems["group"].nunique()) == ({"sums"}, {2}, 1)


def test_a_hub_data_set_at_a_commit(tmp_path, monkeypatch):
    """A folder in the Hub's layout stands in for the Hub."""
    datasets = pytest.importorskip("datasets")
    (tmp_path / "someone" / "sums" / "data").mkdir(parents=True)
    write(tmp_path / "someone" / "sums" / "data" / "test-00000.parquet", [{"question": "1 + 1?", "answer": "2"}] * 3)
    write(tmp_path / "someone" / "sums" / "data" / "train-00000.parquet", [{"question": "2 + 1?", "answer": "3"}] * 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    spec = {"kind": "table", "dataset": "someone/sums", "revision": "0123456789abcdef" * 2 + "01234567"}
    problems = load(SourceSpec(**spec, hub_split="test", split="test"))
    assert problems["id"].tolist() == [f"sums-test-0000{n}" for n in range(3)]
    assert load(SourceSpec(**spec))["answer"].tolist() == ["3", "3"]
    with pytest.raises(UserError, match="someone/sums@01234567 validation: .*"):
        load(SourceSpec(**spec, hub_split="validation"))


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dataset": "openai/gsm8k"}, "`revision` of openai/gsm8k is None; pin it to a commit"),
        ({"dataset": "openai/gsm8k", "revision": "main"}, "'main'; pin it to a commit"),
        ({}, "either `path`"),
        ({"path": "a.jsonl", "dataset": "b/c", "revision": "0" * 40}, "not both"),
        ({"path": "a.jsonl", "revision": "0" * 40}, "versioned by DVC"),
        ({"path": "a.jsonl", "columns": {"question": "q"}}, "`columns` belongs to kind `table`"),
        ({"path": "a.jsonl", "types": ["GSM_AnswerAug"]}, "GSM_AnsAug"),
        ({"path": "a.jsonl", "limit": 0}, "greater than or equal to 1"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_before_anything_is_read(spec, message):
    with pytest.raises(ValidationError, match=message):
        SourceSpec(kind="gsm8k", **spec)


def fresh(question: object = "Why?", answer: object = "#### 1") -> dict:
    return {"question": question, "answer": answer}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, r"absent.jsonl: no such file; correct `path`"),
        ("none-*.jsonl", None, r"none-\*.jsonl: no such file"),
        ("empty.jsonl", "", r"empty.jsonl: no rows"),
        ("empty.json", "[]", r"empty.json: no rows"),
        ("cut.jsonl", '{"question": "a', r"cut.jsonl: line 1: not JSON"),
        ("list.jsonl", "[1, 2]\n", r"list.jsonl: row 1: list, expected an object"),
        ("ragged.csv", "question,answer\na,1\nb\n", r"ragged.csv: a row has another number of cells"),
        ("fake.parquet", "not parquet", r"fake.parquet: "),
        ("broken.xml", "<Problem>", r"broken.xml: "),
        ("notes.docx", "", r"notes.docx: can't read .docx; known: .jsonl"),
        ("column.jsonl", json.dumps({"query": "a", "answer": "1"}), r"row 1: no column `question` in query, answer"),
        ("null.jsonl", json.dumps(fresh(None)), r"row 1: `question` is None, expected text"),
        ("blank.jsonl", json.dumps(fresh("  ")), r"row 1: `question` is '  ', expected text"),
        ("gold.jsonl", "\n".join(map(json.dumps, [fresh(), fresh(answer="#### 3:30 p.m.")])),
         r"gold.jsonl: row 2: gsm8k-train-00001: can't read the answer ' 3:30 p.m.' as a number \(1 of 2 rows\)"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load(SourceSpec(kind="gsm8k", path=str(tmp_path / name)))


def test_a_folder_is_told_how_to_name_its_files(tmp_path):
    with pytest.raises(UserError, match=r"a folder; name a file in it, or a pattern such as .*/\*.parquet"):
        load(SourceSpec(kind="gsm8k", path=str(tmp_path)))


def test_nothing_left_is_an_error_with_the_counts(tmp_path):
    with pytest.raises(UserError, match=r"0 of 7 rows are left: \{'read': 7, 'type': 7"):
        metamath(tmp_path, types=["MATH_FOBAR"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("72", "72"), (" 1,080", "1080"), ("-5", "-5"), (0, "0"), (0.0, "0"), (51.0, "51"), ("$3.50", "3.5"),
        ("25/3", "25/3"), ("-(1/3)", "-1/3"), ("\\frac{1}{2}", "0.5"), (None, None), ("", None), ("3:30 p.m.", None),
        ("Vendor 2", None), ("1st", None), ("5; 15", None), ("5:6", None), ("The answer is 4", None), ("nan", None),
        ("inf", None), (True, None),
    ],
)  # fmt: skip
def test_a_gold_is_a_number_alone(text, read):
    assert gold(text) == read
