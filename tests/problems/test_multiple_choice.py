"""Public multiple-choice sets: what their rows mean, and that no question is in two splits, in whatever language."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone import records
from whetstone.errors import UserError
from whetstone.grading import extract, grade
from whetstone.problems import reading
from whetstone.problems.choice_splits import assemble, grouped
from whetstone.problems.multiple_choice import ChoiceSource, load, subject

DATA = Path(os.environ.get("WHETSTONE_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
public = pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not here")
WRITTEN = Path(__file__).parents[1] / "fixtures/public"  # a few rows in the layout of each published file
BOTH = [pytest.param(WRITTEN, id="written"), pytest.param(DATA, id="published", marks=public)]
SHA = "0" * 40


def simple_evals(path: Path, rows: list[tuple], columns: str = ",Question,A,B,C,D,Answer,Subject") -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split(","))
        writer.writerows((number, *row) for number, row in enumerate(rows))
    return str(path)


def question(number: int, language: str = "en") -> tuple:
    return (f"Question {number} in {language}?", f"{number}", f"{number + 1}", f"{number + 2}", f"{number + 3}",
            "ABCD"[number % 4], "anatomy")  # fmt: skip


@pytest.fixture
def languages(tmp_path):
    """Two files in the form of simple-evals, 200 aligned rows each."""
    return [
        ChoiceSource(
            kind="simple_evals",
            path=simple_evals(tmp_path / f"mmlu_{code}.csv", [question(i, code) for i in range(200)]),
            language=code,
        )
        for code in ("en", "yo")
    ]


def test_a_row_becomes_a_problem(languages):
    frame = load(languages[1])
    one = frame.iloc[1]
    assert (one["question"], one["answer"], one["source"]) == ("Question 1 in yo?", "B", "mmlu:yo")
    assert one["options"] == ["1", "2", "3", "4"] and one["family"] == "anatomy" and one["published"] == "test"
    assert frame.attrs["counts"] == {"read": 200, "kept": 200, "answer": 0, "options": 0}


def test_the_same_question_is_in_one_split_in_all_languages(languages):
    frame, counts = assemble(languages, 0.1, 0.1, train_on_test=True)
    splits = frame.groupby("group")["split"].agg(set)
    assert len(splits) == 200 and all(len(some) == 1 for some in splits)
    assert {"train", "dev", "test"} == set(frame["split"])
    assert records.table(frame, records.PROBLEM).num_rows == 400
    number = frame["question"].str.extract(r"(\d+)")[0]
    assert frame.groupby(number)["split"].nunique().max() == 1


def test_the_order_of_sources_does_not_matter(languages):
    one, _ = assemble(languages, 0.1, 0.1, True)
    other, _ = assemble(languages[::-1], 0.1, 0.1, True)
    assert one.set_index("id")["split"].to_dict() == other.set_index("id")["split"].to_dict()


def test_training_on_a_published_test_set_needs_saying_so(languages):
    with pytest.raises(UserError, match="`split: divide` would train on 200 rows of a published test set"):
        assemble(languages, 0.1, 0.1, train_on_test=False)
    _, counts = assemble(languages, 0.1, 0.1, train_on_test=True)
    assert 300 < counts["trains_on_test_rows"] < 400
    as_test = [source.model_copy(update={"split": "test"}) for source in languages]
    frame, counts = assemble(as_test, 0.1, 0.1, train_on_test=False)
    assert set(frame["split"]) == {"test"} and counts["trains_on_test_rows"] == 0


def test_a_question_that_sources_put_in_two_splits_is_an_error(languages):
    torn = [languages[0].model_copy(update={"split": "train"}), languages[1].model_copy(update={"split": "test"})]
    with pytest.raises(UserError, match="200 groups of questions are in test and train by name"):
        assemble(torn, 0.1, 0.1, train_on_test=True)


def test_a_limit_takes_whole_groups(languages):
    limited = [source.model_copy(update={"limit": 50}) for source in languages]
    frame, counts = assemble(limited, 0.1, 0.1, True)
    assert len(frame) == 100 and frame["group"].nunique() == 50 and counts["over_limit"] == 300


def test_a_shared_passage_makes_one_group(tmp_path):
    passage = " ".join(f"word{i}" for i in range(60))
    rows = [(f"{passage}\nWhat is meant by {i}?", "a", "b", "c", "d", "A", "history") for i in range(5)]
    source = ChoiceSource(kind="simple_evals", path=simple_evals(tmp_path / "x.csv", [*rows, question(9)]))
    frame, _ = assemble([source.model_copy(update={"split": "test"})], 0.1, 0.1, False)
    assert frame["group"].nunique() == 2


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 12).map(str), min_size=1, max_size=3), min_size=1, max_size=15))
def test_rows_linked_by_any_chain_of_keys_share_a_group(keys):
    import networkx

    graph = networkx.Graph()
    for row, own in enumerate(keys):
        graph.add_edges_from((f"row {row}", key) for key in own)
    found = grouped(keys)
    for a in range(len(keys)):
        for b in range(len(keys)):
            assert (found[a] == found[b]) == networkx.has_path(graph, f"row {a}", f"row {b}")


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("college_mathematics_test.csv_YO-NG.csv", "college_mathematics"),
        ("anatomy_test.csv", "anatomy"),
        ("virology_test_zu.csv", "virology"),
        ("abstract_algebra", "abstract_algebra"),
        ("High School Physics", "high_school_physics"),
    ],
)
def test_subjects_are_spelled_one_way(name, cleaned):
    assert subject(name) == cleaned


MMMLU_ROW = {"Unnamed: 0": 0, "Question": "Q?", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "D", "Subject": "x"}
GLOBAL_ROW = {"sample_id": "anatomy/test/7", "question": "Q?", "option_a": "1", "option_b": "2", "option_c": "3",
              "option_d": "4", "answer": "C", "subject": "anatomy"}  # fmt: skip


@pytest.mark.parametrize("layout", ["config per locale", "split per locale"])
def test_mmmlu_in_both_of_its_layouts(layout, monkeypatch):
    asked = []

    def hub_rows(dataset, revision, split, config=None):
        asked.append((config, split))
        if (layout == "config per locale") != (config == "YO_NG"):
            raise UserError("no such configuration")
        yield "openai/MMMLU: row 1", MMMLU_ROW

    monkeypatch.setattr(reading, "hub_rows", hub_rows)
    source = ChoiceSource(kind="mmmlu", dataset="openai/MMMLU", revision=SHA, config="YO_NG", language="yo")
    frame = load(source)
    assert (frame.iloc[0]["answer"], frame.iloc[0]["source"]) == ("D", "mmlu:yo")
    assert asked == [("YO_NG", "test"), ("by_language", "YO_NG")][: 1 + (layout != "config per locale")]


def test_global_mmlu_groups_by_its_sample_id(monkeypatch):
    monkeypatch.setattr(reading, "hub_rows", lambda *_: iter([("row 1", GLOBAL_ROW)]))
    frame = load(ChoiceSource(kind="global_mmlu", dataset="x/Global-MMLU", revision=SHA, config="sw", language="sw"))
    assert frame.iloc[0][["set", "part_of_set", "place"]].tolist() == ["mmlu", "test", "anatomy/test/7"]
    assert frame.iloc[0]["answer"] == "C"


def test_mmlu_of_the_hub(monkeypatch):
    row = {"question": "Q?", "subject": "anatomy", "choices": ["1", "2", "3", "4"], "answer": 2}
    monkeypatch.setattr(reading, "hub_rows", lambda *_: iter([("row 1", row)]))
    frame = load(ChoiceSource(kind="mmlu", dataset="cais/mmlu", revision=SHA, config="all", hub_split="validation"))
    assert frame.iloc[0][["answer", "published", "family"]].tolist() == ["C", "validation", "anatomy"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "mmlu"}, "name either `path`"),
        ({"kind": "aqua", "dataset": "x/y", "revision": SHA}, "aqua is read from a file"),
        ({"kind": "mmmlu", "dataset": "openai/MMMLU", "revision": "main"}, "pin it to a commit"),
    ],
)
def test_a_source_that_can_not_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ChoiceSource(**fields)


def test_rows_that_can_not_be_graded_are_dropped_and_counted(tmp_path):
    rows = [question(0), ("Q?", "1", "1", "2", "3", "A", "x"), ("R?", "1", "2", "3", "4", "E", "x")]
    frame = load(ChoiceSource(kind="simple_evals", path=simple_evals(tmp_path / "x.csv", rows)))
    assert frame.attrs["counts"] == {"read": 3, "kept": 1, "answer": 1, "options": 1}


@pytest.mark.parametrize(
    ("fields", "dropped", "answers", "options"),
    [
        ({"kind": "mmlu", "path": "mmlu/test/*.csv"}, 1, ["A", "B"],
         ["the leg", "the ear", "the tongue", "the liver"]),
        ({"kind": "mmlu", "path": "mmlu/val/*.csv"}, 0, ["A"], ["windpipe", "femur", "retina", "tendon"]),
        ({"kind": "mmlu", "path": "mmlu/dev/*.csv"}, 0, ["B"], ["skin", "eye", "heel", "rib"]),
        ({"kind": "mmlu", "path": "mmlu_african/*_test_zu.csv", "language": "zu"}, 0, ["A", "B"],
         ["indlebe", "ithambo", "inwele", "uzipho"]),
        ({"kind": "logiqa2", "path": "logiqa2/dev.txt"}, 0, ["C", "A"],
         ["No gardener digs.", "All who dig are gardeners.", "Whoever owns no spade is no gardener.",
          "Some gardeners never dig."]),
        ({"kind": "logiqa2", "path": "logiqa2/test.txt"}, 1, ["D"],
         ["She will vote again.", "She won.", "All members voted.", "She is a member."]),
        ({"kind": "logiqa2", "path": "logiqa2/ood_test.jsonl"}, 0, ["B"],
         ["A river is crossed by those who wait", "What joins two sides is owned by none", "Ferrymen dislike bridges",
          "Both banks are alike"]),
        ({"kind": "aqua", "path": "aqua/dev.json"}, 1, ["C"], ["24", "28", "30", "36", "60"]),
        ({"kind": "aqua", "path": "aqua/test.json"}, 0, ["B"], ["5", "√49", "8", "14", "3.5"]),
        ({"kind": "commonsenseqa", "path": "commonsenseqa/dev_rand_split.jsonl"}, 0, ["D", "A"],
         ["oven", "lake", "mirror", "hallway stand", "nest"]),
    ],
)  # fmt: skip
def test_a_public_layout_is_read(fields, dropped, answers, options):
    """Rows with two equal options are dropped and counted."""
    frame = load(ChoiceSource(**fields | {"path": str(WRITTEN / fields["path"])}))
    read = len(answers) + dropped
    assert frame.attrs["counts"] == {"read": read, "kept": len(answers), "answer": 0, "options": dropped}
    assert frame["answer"].tolist() == answers and list(frame["options"].iloc[0]) == options
    assert frame["id"].is_unique


@public
@pytest.mark.parametrize(
    ("fields", "read", "kept"),
    [
        ({"kind": "mmlu", "path": "mmlu/test/*.csv"}, 3560, 3558),
        ({"kind": "mmlu", "path": "mmlu/val/*.csv"}, 1531, 1528),
        ({"kind": "mmlu", "path": "mmlu/dev/*.csv"}, 285, 284),
        ({"kind": "mmlu", "path": "mmlu_african/*_test_zu.csv", "language": "zu"}, 604, 593),
        ({"kind": "logiqa2", "path": "logiqa2/dev.txt"}, 1569, 1564),
        ({"kind": "logiqa2", "path": "logiqa2/test.txt"}, 1572, 1565),
        ({"kind": "logiqa2", "path": "logiqa2/ood_test.jsonl"}, 575, 570),
        ({"kind": "aqua", "path": "aqua/dev.json"}, 254, 253),
        ({"kind": "aqua", "path": "aqua/test.json"}, 254, 247),
        ({"kind": "commonsenseqa", "path": "commonsenseqa/dev_rand_split.jsonl"}, 1221, 1197),
    ],
)
def test_public_sets_are_read_whole(fields, read, kept):
    frame = load(ChoiceSource(**fields | {"path": str(DATA / fields["path"])}))
    assert frame.attrs["counts"] == {"read": read, "kept": kept, "answer": 0, "options": read - kept}
    assert frame["id"].is_unique and (frame["answer"].map("ABCDE".index) < frame["options"].map(len)).all()


def african() -> list[ChoiceSource]:
    codes = {"en": "", "am": "_am", "bm": "_bm", "ig": "_ig", "zu": "_zu"}
    return [
        ChoiceSource(kind="mmlu", path=str(DATA / f"mmlu_african/*_{split}{suffix}.csv"), language=code)
        for code, suffix in codes.items()
        for split in ("dev", "val", "test")
    ]


@public
def test_five_languages_of_mmlu_are_split_alike():
    frame, counts = assemble(african(), 0.2, 0.2, train_on_test=True)
    assert frame.groupby("group")["split"].nunique().max() == 1
    languages = frame.groupby("group")["source"].nunique()
    assert (languages == 5).mean() > 0.9 and counts["trains_on_test_rows"] > 1500
    number = frame["group"].map({group: i for i, group in enumerate(sorted(set(frame["group"])))})
    shares = frame.groupby("source")["split"].value_counts(normalize=True).unstack()
    assert ((shares["test"] - 0.2).abs() < 0.06).all() and number.nunique() == frame["group"].nunique()


@public
def test_dev_and_test_of_logiqa_that_share_questions_are_one_group():
    """33 pairs of text and question occur in both."""
    sources = [ChoiceSource(kind="logiqa2", path=str(DATA / f"logiqa2/{name}.txt"), split="test")
               for name in ("dev", "test")]  # fmt: skip
    frame, _ = assemble(sources, 0.1, 0.1, False)
    origins = frame["id"].isin(set(load(sources[0])["id"])).groupby(frame["group"]).nunique()
    assert (origins == 2).sum() >= 30  # a few share a passage with others, and so one group


STATED = ["Answer: {letter}", "The answer is ({letter}).", "**Answer:** {letter}", "Jibu: {letter}",
          "Ìdáhùn: {letter}", "So it is {letter}) {text}\nAnswer: {letter}"]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "code"),
    [(WRITTEN, "zu"), *(pytest.param(DATA, one, marks=public) for one in ("en", "am", "bm", "ig", "zu"))],
)
def test_letters_stated_after_real_questions_are_read(data, code):
    """Every row of AfriMMLU's kind, every way to state it, and a rationale that names a wrong letter first."""
    suffix = "" if code == "en" else f"_{code}"
    frame = load(ChoiceSource(kind="mmlu", path=str(data / f"mmlu_african/*_test{suffix}.csv"), language=code))
    for number, row in enumerate(frame.itertuples()):
        form = STATED[number % len(STATED)]
        text = form.format(letter=row.answer, text=row.options["ABCD".index(row.answer)].split("\n")[0])
        other = "ABCD"[("ABCD".index(row.answer) + 1) % 4]
        for said in (text, f"First I thought: Answer: {other}\nBut that is wrong.\n{text}"):
            found = extract(said, "choice", options=row.options)
            assert found.value == row.answer, (code, row.id, said)


@pytest.mark.parametrize("data", BOTH)
def test_a_number_of_mgsm_is_read_after_any_languages_marker(data):
    read = 0
    for code, marker in {"sw": "Jibu ni", "de": "Die Antwort ist", "fr": "La réponse est", "es": "La respuesta es",
                         "zh": "答案是", "bn": "উত্তর:"}.items():  # fmt: skip
        file = data / f"mgsm/mgsm_{code}.tsv"  # what was written for tests has two of the languages
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() or data == DATA else []:
            read += 1
            gold = line.rpartition("\t")[2]
            assert grade(f"{marker} {gold}", gold, "number").verdict == "correct", (code, gold)
    assert read >= 3


@pytest.mark.parametrize("data", BOTH)
def test_commonsenseqa_keeps_its_five_options(data):
    first = json.loads((data / "commonsenseqa/dev_rand_split.jsonl").read_text().splitlines()[0])
    frame = load(ChoiceSource(kind="commonsenseqa", path=str(data / "commonsenseqa/dev_rand_split.jsonl")))
    assert frame.iloc[0]["answer"] == first["answerKey"] and len(frame.iloc[0]["options"]) == 5
    assert isinstance(frame, pd.DataFrame)
