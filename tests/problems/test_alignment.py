"""The same question in other languages and layouts: 1,000 made-up questions, as each set publishes them."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from pathlib import Path
from random import Random

import pandas as pd
import pytest

from whetstone.errors import UserError
from whetstone.problems import reading
from whetstone.problems.choice_splits import assemble
from whetstone.problems.multiple_choice import ChoiceSource, load

SHA = "0" * 40
SUBJECTS = ("anatomy", "college_physics", "virology")


def made(count: int = 1000) -> list[dict]:
    """Questions in words that no other has, a third of them with numbers; right letters at random."""
    rng, found, seen = Random(0), [], Counter()
    for number in range(count):
        subject = SUBJECTS[number * len(SUBJECTS) // count]
        figures = [rng.randrange(2000) for _ in range(rng.randint(1, 3))] if number % 3 == 0 else []
        found.append(
            {
                "number": number,
                "subject": subject,
                "place": seen[subject],
                "stem": ([rng.randrange(5000) for _ in range(rng.randint(3, 30))], figures),
                "options": [([rng.randrange(5000) for _ in range(rng.randint(1, 8))], []) for _ in range(4)],
                "answer": rng.randrange(4),
            }
        )
        seen[subject] += 1
    return found


def told(words: tuple[list[int], list[int]], language: str) -> str:
    """Words without a digit; another language's are others, and longer."""
    spelled = ["".join(chr(97 + int(digit)) for digit in str(word)) for word in words[0]]
    return " ".join([*(word + language * (language != "en") for word in spelled), *map(str, words[1])])


def stem(row: dict, language: str) -> str:
    return told(row["stem"], language)


def options(row: dict, language: str) -> list[str]:
    return [told(one, language) for one in row["options"]]


def mmlu_files(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    suffix = "" if language == "en" else f"_{language}"
    for subject in SUBJECTS:
        with (folder / f"{subject}_test{suffix}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [stem(row, language), *options(row, language), "ABCD"[row["answer"]]]
                for row in rows
                if row["subject"] == subject
            )
    return ChoiceSource(kind="mmlu", path=f"{folder}/*_test{suffix}.csv", language=language)


def cais_mmlu(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    hub["cais/mmlu", language] = [
        {"question": stem(row, language), "choices": options(row, language)}
        | {name: row[name] for name in ("answer", "subject")}
        for row in rows
    ]
    return ChoiceSource(kind="mmlu", dataset="cais/mmlu", revision=SHA, config=language, language=language)


def lettered(row: dict, language: str) -> dict:
    return {"Question": stem(row, language), **dict(zip("ABCD", options(row, language), strict=True)),
            "Answer": "ABCD"[row["answer"]], "Subject": row["subject"]}  # fmt: skip


def simple_evals(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    """Its first column has no name and numbers the rows."""
    path = folder / f"mmlu_{language}.csv"
    pd.DataFrame([lettered(row, language) for row in rows], index=[row["number"] for row in rows]).to_csv(path)
    return ChoiceSource(kind="simple_evals", path=str(path), language=language)


def mmmlu(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    hub["openai/MMMLU", language] = [{"Unnamed: 0": row["number"], **lettered(row, language)} for row in rows]
    return ChoiceSource(kind="mmmlu", dataset="openai/MMMLU", revision=SHA, config=language, language=language)


def global_mmlu(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    hub["CohereLabs/Global-MMLU", language] = [
        {
            "sample_id": f"{row['subject']}/test/{row['place']}",
            "subject": row["subject"],
            "question": stem(row, language),
            **{f"option_{letter}": one for letter, one in zip("abcd", options(row, language), strict=True)},
            "answer": "ABCD"[row["answer"]],
        }
        for row in rows
    ]
    dataset = "CohereLabs/Global-MMLU"
    return ChoiceSource(kind="global_mmlu", dataset=dataset, revision=SHA, config=language, language=language)


def aqua(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    path = folder / f"test.{language}.json"
    path.write_text("".join(
        json.dumps({"question": stem(row, language), "correct": "ABCD"[row["answer"]], "options": [
            f"{letter}){one}" for letter, one in zip("ABCD", options(row, language), strict=True)]}) + "\n"
        for row in rows))  # fmt: skip
    return ChoiceSource(kind="aqua", path=str(path), language=language)


def logiqa2(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    path = folder / f"test.{language}.txt"
    path.write_text("".join(
        json.dumps({"text": stem(row, language), "question": told(([1, 2], []), language), "answer": row["answer"],
                    "options": options(row, language), "type": {language: True}}) + "\n"
        for row in rows))  # fmt: skip
    return ChoiceSource(kind="logiqa2", path=str(path), language=language)


def commonsenseqa(rows: list[dict], language: str, folder: Path, hub: dict) -> ChoiceSource:
    path = folder / f"test.{language}.jsonl"
    path.write_text("".join(
        json.dumps({"id": f"{row['number']:x}", "answerKey": "ABCD"[row["answer"]], "question": {
            "stem": stem(row, language), "question_concept": language,
            "choices": [{"label": letter, "text": one}
                        for letter, one in zip("ABCD", options(row, language), strict=True)]}}) + "\n"
        for row in rows))  # fmt: skip
    return ChoiceSource(kind="commonsenseqa", path=str(path), language=language)


MMLU = (mmlu_files, cais_mmlu, simple_evals, mmmlu, global_mmlu)
PAIRS = [*itertools.combinations_with_replacement(MMLU, 2), *((one, one) for one in (aqua, logiqa2, commonsenseqa))]
ROWS, FEW = made(1000), made(250)
QUESTION = {
    text: row["number"] for row in [*ROWS, *FEW] for code in ("en", "yo", "de")
    for text in (stem(row, code), f"{stem(row, code)}\n{told(([1, 2], []), code)}")
}  # fmt: skip


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Rows in a layout and a language, as a source that reads them."""
    hub: dict[tuple, list[dict]] = {}

    def hub_rows(dataset, revision, split, config=None):
        return iter([(f"{dataset}: row {number}", row) for number, row in enumerate(hub[dataset, config], 1)])

    monkeypatch.setattr(reading, "hub_rows", hub_rows)
    return lambda layout, language, rows=FEW: layout(rows, language, tmp_path, hub)


def torn(frame: pd.DataFrame) -> int:
    """Questions that are in several groups."""
    return int((frame["group"].groupby(frame["question"].map(QUESTION)).nunique() > 1).sum())


@pytest.mark.parametrize(("english", "yoruba"), PAIRS, ids=lambda layout: layout.__name__)
def test_a_question_is_in_one_split_in_all_languages_whatever_published_it(english, yoruba, publish):
    sources = [publish(english, "en", ROWS), publish(yoruba, "yo", ROWS)]
    frame, counts = assemble(sources, 0.2, 0.2, train_on_test=True)
    assert len(frame) == 2000 and frame["group"].nunique() == 1000 and torn(frame) == 0
    assert (frame.groupby(frame["question"].map(QUESTION))["split"].nunique() == 1).all()
    assert counts["unaligned_rows"] == 0


@pytest.mark.parametrize(("english", "yoruba"), PAIRS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("gone", [{40}, {0, 83, 100, 101, 102, 170, 248}])
def test_a_row_that_one_file_lacks_tears_no_other(english, yoruba, gone, publish):
    left = [row for row in FEW if row["number"] not in gone]
    for sources in (
        [publish(english, "en", left), publish(yoruba, "yo")],
        [publish(english, "en"), publish(yoruba, "yo", left)],
    ):
        frame, _ = assemble(sources, 0.2, 0.2, train_on_test=True)
        assert torn(frame) == 0 and frame["group"].nunique() > 235


def test_rows_that_were_numbered_anew_after_one_was_lost_are_found_again(publish):
    left = [{**row, "number": number} for number, row in enumerate(row for row in FEW if row["number"] != 17)]
    frame, _ = assemble([publish(mmmlu, "de"), publish(simple_evals, "yo", left)], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0


def test_three_languages_each_lack_other_rows(publish):
    kinds = {"en": mmlu_files, "de": mmmlu, "yo": global_mmlu}
    sources = [
        publish(layout, code, [row for row in FEW if row["number"] % 41 != 10 * at])
        for at, (code, layout) in enumerate(kinds.items())
    ]
    frames = [assemble(order, 0.2, 0.2, train_on_test=True)[0] for order in itertools.permutations(sources)]
    assert torn(frames[0]) == 0 and frames[0]["group"].nunique() > 230
    splits = [frame.set_index("id")["split"].to_dict() for frame in frames]
    assert all(one == splits[0] for one in splits)


def test_a_corrected_letter_parts_no_question_from_its_translation(publish):
    corrected = [{**row, "answer": (row["answer"] + (row["number"] % 50 == 0)) % 4} for row in FEW]
    frame, _ = assemble([publish(cais_mmlu, "en"), publish(mmmlu, "yo", corrected)], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0


@pytest.mark.parametrize(("english", "yoruba"), [*itertools.product(MMLU[:2], MMLU[2:4]), (aqua, aqua)])
def test_sources_that_can_not_be_aligned_are_refused_unless_that_is_meant(english, yoruba, publish):
    shuffled = Random(1).sample(FEW, len(FEW))
    shuffled = [{**row, "number": number} for number, row in enumerate(shuffled)]
    sources = [publish(english, "en"), publish(yoruba, "yo", shuffled)]
    with pytest.raises(UserError, match=r"can't be aligned .* `problems\.unaligned: true`"):
        assemble(sources, 0.2, 0.2, train_on_test=True)
    _, counts = assemble(sources, 0.2, 0.2, train_on_test=True, unaligned=True)
    assert counts["unaligned_rows"] == 250


def test_rows_in_another_order_are_found_by_the_number_that_is_published_with_them(publish):
    shuffled = Random(1).sample(FEW, len(FEW))
    frame, _ = assemble([publish(mmmlu, "de"), publish(simple_evals, "yo", shuffled)], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0


def test_every_tenth_row_goes_by_its_number_and_without_one_is_refused(publish):
    few = FEW[::10]
    frame, _ = assemble([publish(mmmlu, "de"), publish(simple_evals, "yo", few)], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0 and frame["group"].nunique() == 250
    with pytest.raises(UserError, match="can't be aligned"):
        assemble([publish(mmlu_files, "en"), publish(mmmlu, "yo", few)], 0.2, 0.2, train_on_test=True)


def test_subjects_under_other_names_are_refused(publish):
    renamed = [{**row, "subject": f"{row['subject']}_yo"} for row in FEW]
    with pytest.raises(UserError, match="can't be aligned"):
        assemble([publish(cais_mmlu, "en"), publish(mmmlu, "yo", renamed)], 0.2, 0.2, train_on_test=True)


def test_a_subject_that_one_language_lacks_is_no_fault(publish):
    some = [row for row in FEW if row["subject"] != "virology"]
    frame, _ = assemble([publish(mmlu_files, "en"), publish(mmmlu, "yo", some)], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0 and frame["group"].nunique() == 250


def test_a_file_in_two_halves_is_aligned_with_a_whole_one(publish, tmp_path):
    whole = publish(mmmlu, "yo")
    (tmp_path / "second").mkdir()
    first, second = FEW[:120], FEW[120:]
    halves = [publish(simple_evals, "en", first), simple_evals(second, "en", tmp_path / "second", {})]
    frame, _ = assemble([*halves, whole], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0


@pytest.mark.parametrize(("english", "yoruba"), [*itertools.combinations(MMLU, 2)], ids=lambda layout: layout.__name__)
def test_a_question_that_is_published_as_test_is_not_trained_on_in_another_language(english, yoruba, publish):
    sources = [
        publish(english, "en").model_copy(update={"split": "train"}),
        publish(yoruba, "yo").model_copy(update={"split": "test"}),
    ]
    with pytest.raises(UserError, match="250 groups of questions are in test and train by name"):
        assemble(sources, 0.2, 0.2, train_on_test=True)


def test_a_few_training_rows_whose_question_is_a_test_question_elsewhere_are_dropped_and_counted(publish):
    sources = [
        publish(mmlu_files, "en").model_copy(update={"split": "test"}),
        publish(aqua, "en", FEW[:5] + made(300)[270:]).model_copy(update={"split": "train", "published": "train"}),
    ]
    frame, counts = assemble(sources, 0.2, 0.2, train_on_test=False)
    assert counts["in_a_held_out_split_too"] == 5 and len(frame) == 250 + 30
    assert frame.groupby("question")["split"].nunique().max() == 1


def test_too_many_rows_to_compare_each_with_each_go_by_their_places(publish, monkeypatch):
    from whetstone.problems import alignment

    monkeypatch.setattr(alignment, "LARGEST", 100)
    frame, _ = assemble([publish(mmlu_files, "en"), publish(cais_mmlu, "yo")], 0.2, 0.2, train_on_test=True)
    assert torn(frame) == 0
    with pytest.raises(UserError, match="can't be aligned"):
        assemble([publish(mmlu_files, "en"), publish(cais_mmlu, "yo", FEW[1:])], 0.2, 0.2, train_on_test=True)


def test_a_place_counts_within_its_subject(publish):
    frame = load(publish(cais_mmlu, "en"))
    assert frame["place"].tolist() == [f"{row['subject']}/test/{row['place']}" for row in FEW]
