"""What a change reruns: each of CHANGES is made to a finished pipeline, DVC is asked, and the change is undone.

The table in docs/reproducibility.md says what was found; `WRITE=1 pytest tests/test_invalidation.py` writes it anew.
tests/test_pipeline.py really runs some of the changes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from typing import NamedTuple

import networkx
import pytest
from dvc.repo import Repo

from stages.run.sources import Sources
from tests.project import ROOT, Copy
from tools import lineage, plan

pytestmark = pytest.mark.slow
DOCS, BEGIN, END = ROOT / "docs/reproducibility.md", "<!-- invalidation -->\n", "<!-- /invalidation -->"
THIRD = {"train": {"epoch3": {"start": "epoch2", "attempts": "epoch2", "trainer": "sft"}},
         "sample": ["epoch1", "epoch2"], "evaluate": ["epoch1", "epoch2", "epoch3"]}  # fmt: skip


def comment(path: str) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        with (copy.folder / path).open("a") as file:
            file.write("# a comment\n")

    return change


def line(path: str) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        with (copy.folder / path).open("a") as file:
            file.write("ANSWER = 42\n")

    return change


def messages(copy: Copy) -> None:
    """In every module: a comment, a line more in its docstring, and another word in the first error that it raises."""
    for folder in ("stages", "whetstone"):
        for file in (copy.folder / folder).rglob("*.py"):
            text = re.sub(r'^"""', '"""Edited. ', file.read_text(), count=1)
            text = re.sub(r'(raise UserError\(\n?\s*f?")', r"\1Edited: ", text, count=1)
            file.write_text(text + "# a comment\n")


def param(values: dict) -> Callable[[Copy], None]:
    return lambda copy: copy.edit(values)


def again(path: str) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        content = (copy.folder / path).read_bytes()
        (copy.folder / path).unlink()
        (copy.folder / path).write_bytes(content)

    return change


def replace(path: str, old: str, new: str) -> Callable[[Copy], None]:
    def change(copy: Copy) -> None:
        text = (copy.folder / path).read_text()
        assert old in text
        (copy.folder / path).write_text(text.replace(old, new, 1))

    return change


def reorder(copy: Copy) -> None:
    """params.yaml without its comments, its sections the other way round."""
    from ruamel.yaml import YAML

    path = copy.folder / "params.yaml"
    params = YAML(typ="safe").load(path)
    with path.open("w") as file:
        YAML().dump(dict(reversed(params.items())), file)


def remove(path: str) -> Callable[[Copy], None]:
    return lambda copy: shutil.rmtree(copy.folder / path)


def row(copy: Copy) -> None:
    """A gold of the first part is corrected by hand."""
    import pandas as pd

    path = copy.folder / "data/problems/part-1.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "answer"] = "0"
    table.to_parquet(path)


CHANGES: dict[str, Callable[[Copy], None]] = {
    "nothing": lambda copy: None,
    "a module is saved again, with the same bytes": again("whetstone/records.py"),
    "README.md, docs/, tests/": comment("docs/decisions.md"),
    "a tool that isn't a stage (`tools/compare.py`)": comment("tools/compare.py"),
    "comments and order of params.yaml": reorder,
    "a `desc` or a comment in dvc.yaml": replace("dvc.yaml", "desc: Few-shot attempts", "desc: # all\n      Attempts"),
    "the base model's card": comment("models/base/README.md"),
    "manifests/ is deleted": remove("manifests"),
    "the scratch folder is deleted": remove(".scratch"),
    "`runtime.slots`": param({"runtime": {"slots": 64}}),
    "the prompt of one strategy": comment("prompts/world/pot.yaml"),
    "a prompt of another task": comment("prompts/gsm8k/pot.yaml"),
    "a comment, a docstring, a message anywhere": messages,
    "how a table is printed (`stages/output.py`)": line("stages/output.py"),
    "a line of `stages/infer.py`": line("stages/infer.py"),
    "a line of `stages/dpo.py`": line("stages/dpo.py"),
    "a line of `whetstone/problems/splits.py`": line("whetstone/problems/splits.py"),
    "a line of `whetstone/grading/numbers.py`": line("whetstone/grading/numbers.py"),
    "a line of `whetstone/engines/base.py`": line("whetstone/engines/base.py"),
    "a line of `whetstone/curation/smart.py`": line("whetstone/curation/smart.py"),
    "a line of `whetstone/training/dpo.py`": line("whetstone/training/dpo.py"),
    "a line of `whetstone/training/loop.py`": line("whetstone/training/loop.py"),
    "a line of `whetstone/evaluation/intervals.py`": line("whetstone/evaluation/intervals.py"),
    "a line of `whetstone/report/page.py`": line("whetstone/report/page.py"),
    "a line of the report's style": comment("whetstone/report/templates/report.css"),
    "a line of `whetstone/records.py`": line("whetstone/records.py"),
    "a row of a file in `data/raw`, or another file there": comment("data/raw/README.md"),
    "a row of a table is edited by hand (it comes back from the cache)": row,
    "the base model's configuration": replace("models/base/config.json", "{", "{ "),
    "a merged model is deleted (`make free`)": remove("models/epoch1/merged"),
    "`problems.world.train`": param({"problems": {"world": {"train": 160}}}),
    "`model.revision`": param({"model": {"revision": "0" * 40}}),
    "`engine.dtype`": param({"engine": {"dtype": "bfloat16"}}),
    "`infer.k` is raised": param({"infer": {"k": 2}}),
    "`infer.temperature`": param({"infer": {"temperature": 0.5}}),
    "`infer.max_tokens`": param({"infer": {"max_tokens": 128}}),
    "`preprocess.keep`": param({"preprocess": {"keep": "all"}}),
    "`sft.learning_rate`": param({"sft": {"learning_rate": 0.002}}),
    "`sample.seed`": param({"sample": {"seed": 1}}),
    "`dpo.beta`": param({"dpo": {"beta": 0.5}}),
    "`evaluate.max_tokens`": param({"evaluate": {"max_tokens": 128}}),
    "`strategies` without `pot`": param({"strategies": ["cot", "l2m"]}),
    "a part more for the base model": param({"infer_parts": [1, 2]}),
    "a part more for the tuned model": param({"sample_parts": [2, 3]}),
    "an evaluation set more": param({"datasets": ["test", "dev"]}),
    "epoch 2 by `sft`": param({"epochs": {"train": {"epoch2": {"trainer": "sft"}}}}),
    "a third epoch": param({"epochs": THIRD}),
}


class Reach(NamedTuple):
    """What a change invalidates by itself, what reads the results of that, and all there is."""

    at_once: list[str]
    after: list[str]
    all: list[str]


def reach(copy: Copy, change: Callable[[Copy], None]) -> Reach:
    change(copy)
    try:
        os.chdir(copy.folder)
        with Repo(str(copy.folder)) as repo:
            status, stages, sources = lineage.status(repo), lineage.pipeline(repo), Sources(repo.root_dir)
            at_once = [stage for stage in stages if plan.reasons(stage, status, sources)]
            changed = [stage for stage in at_once if stage.name != "code"]  # what it finds is known already
            reached = set().union(*(networkx.ancestors(repo.index.graph, stage) for stage in changed))
            after = [stage for stage in stages if stage in reached and stage not in at_once]
            return Reach(*([stage.name for stage in some] for some in (at_once, after, stages)))
    finally:
        os.chdir(ROOT)
        copy.run("git", "reset", "-q", "--hard")
        copy.run("git", "clean", "-qfd")
        if change is row:
            copy.run("dvc", "checkout", "-q", "-f", "problems")


def named(stages: Iterable[str], all_of_them: Iterable[str]) -> str:
    """Names of stages, a group by its own name where all of it is meant."""
    stages, found = [*stages], []
    for group in dict.fromkeys(name.partition("@")[0] for name in stages):
        own = [name for name in stages if name.partition("@")[0] == group]
        every = [name for name in all_of_them if name.partition("@")[0] == group]
        found += [group] if own == every else own
    return ", ".join(found) or "nothing"


@pytest.fixture(scope="module")
def reached(copy) -> dict[str, Reach]:
    backup = copy.folder.with_name("merged")
    shutil.copytree(copy.folder / "models/epoch1/merged", backup)
    found = {}
    for name, change in CHANGES.items():
        found[name] = reach(copy, change)
        shutil.copytree(backup, copy.folder / "models/epoch1/merged", dirs_exist_ok=True)
    assert copy.changed() == set()
    return found


def table(found: dict[str, Reach]) -> str:
    rows = ["| change | runs | and then, where the result is another one |", "| --- | --- | --- |"]
    for name, one in found.items():
        after = named(one.after, one.all) if one.after else ""
        rows.append(f"| {name} | {named(one.at_once, one.all)} | {after} |")
    return "\n".join(rows) + "\n"


def test_the_table_in_the_documentation_is_what_was_found(reached):
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    said, after = rest.split(END)
    if "WRITE" in os.environ:
        DOCS.write_text(before + BEGIN + table(reached) + END + after)
    else:
        assert said == table(reached)


@pytest.mark.parametrize(("name", "groups"), [
    ("nothing", set()),
    ("a module is saved again, with the same bytes", set()),
    ("comments and order of params.yaml", set()),
    ("`runtime.slots`", set()),
    ("the base model's card", set()),
    ("manifests/ is deleted", set()),
    ("the prompt of one strategy", {"infer", "baseline"}),
    ("a prompt of another task", set()),
    ("a comment, a docstring, a message anywhere", {"code"}),
    ("a line of `whetstone/curation/smart.py`", {"code", "preprocess"}),
    ("`infer.temperature`", {"infer", "report"}),
    ("`preprocess.keep`", {"preprocess", "report"}),
    ("`evaluate.max_tokens`", {"train", "baseline", "evaluate", "report"}),
])  # fmt: skip
def test_what_must_hold_whatever_the_table_says(reached, name, groups):
    assert {stage.partition("@")[0] for stage in reached[name].at_once} == groups


def test_a_prompt_reaches_its_own_strategy(reached):
    assert reached["the prompt of one strategy"].at_once == ["infer@pot-1", "baseline@test"]


def test_a_part_more_runs_itself_and_keeps_the_others(reached):
    one = reached["a part more for the base model"]
    assert {"infer@cot-2", "infer@l2m-2", "infer@pot-2"} <= {*one.at_once}
    assert not {"infer@cot-1", "infer@l2m-1", "infer@pot-1"} & {*one.at_once, *one.after}


def test_a_third_epoch_keeps_the_first_two(reached):
    one = reached["a third epoch"]
    kept = ("infer", "baseline", "train@epoch1", "train@epoch2", "merge@epoch1", "merge@epoch2", "preprocess@epoch1")
    assert not [name for name in (*one.at_once, *one.after) if name.startswith(kept)]


def test_every_section_is_changed(reached):
    sections = {name.split("`")[1].partition(".")[0] for name in CHANGES if name.startswith("`")}
    from stages.recipe import SECTIONS

    assert {*SECTIONS} - sections == {"epochs"}  # changed by the third epoch, and the other trainer
