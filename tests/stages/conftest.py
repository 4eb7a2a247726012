"""A project in a temporary folder whose model is a script: it knows the gold, and which strategy fails on what."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from functools import cached_property
from pathlib import Path

import pandas as pd
import pytest

from tests.stage_folder import StageFolder
from whetstone.engines.scripted import ScriptedEngine

ROOT = Path(__file__).parents[2]
TAGS = {"steps": "cot", "questions": "l2m", "program": "pot"}


def solution(strategy: str, answer: str) -> str:
    return {
        "cot": f" It comes to {answer}. The answer is {answer}.",
        "l2m": f"\nSub-question 1: How many?\nAnswer 1: {answer}\nThe answer is {answer}.",
        "pot": f"\nanswer = {answer}",
    }[strategy]


class Solver:
    """Solves a problem of id number n in strategy s unless `fails(n, s)`; chooses by `choice`."""

    def __init__(self, project: Project):
        self.project, self.calls = project, 0
        self.fails = lambda number, strategy: (number + ["cot", "l2m", "pot"].index(strategy)) % 3 == 0
        self.choice = {" steps": 0.6, " questions": 0.1, " program": 0.3}

    def reply(self, prompt: str) -> str:
        self.calls += 1
        question, _, ending = prompt.rpartition("Question: ")[2].rpartition("\nAnswer")
        number, gold = self.project.golds[question]
        if ending == ":":
            strategy = "l2m" if "Sub-question" in prompt else "pot" if "answer = " in prompt else "cot"
        elif ending == " by":
            tag = max(self.choice, key=self.choice.get).strip()
            return f" {tag}:{self.solve(number, TAGS[tag], gold)}"
        else:
            strategy = TAGS[re.fullmatch(r" by (\w+):", ending)[1]]
        return self.solve(number, strategy, gold)

    def solve(self, number: int, strategy: str, gold: str) -> str:
        return solution(strategy, "-99" if self.fails(number, strategy) else gold)


class Project(StageFolder):
    """The folder, its parameters, and how stages run in it."""

    def __init__(self, folder: Path):
        super().__init__(folder, ROOT / "params.yaml")
        self.solver = Solver(self)
        shutil.copytree(ROOT / "prompts", folder / "prompts")
        (folder / "models/base").mkdir(parents=True)
        (folder / "models/base/config.json").write_text("{}")
        self.params["problems"]["world"] = {"train": 60, "dev": 6, "test": 18, "test_hard": 6, "seed": 0}
        self.params |= {"infer_parts": [1, 2], "sample_parts": [2, 3, 4, 5]}
        self.params["infer"] |= {"k": 1, "shots": 2}
        self.params["sample"] |= {"k": 2, "explore": "until_solved"}
        self.save()

    @cached_property
    def golds(self) -> dict[str, tuple[int, str]]:
        """Question to the number in its problem's id, and its gold."""
        found = {}
        for file in sorted((self.folder / "data/problems").glob("*.parquet")):
            for problem in pd.read_parquet(file).itertuples():
                found[problem.question] = (int(re.search(r"\d+$", problem.id)[0]), problem.answer)
        return found


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    made = Project(tmp_path)

    @contextlib.contextmanager
    def open_engine(label):
        from stages import common

        common.model_path(label)
        yield ScriptedEngine(made.solver.reply, lambda _: made.solver.choice, fingerprint=f"scripted:{label}")

    monkeypatch.setattr("stages.serving.open_engine", open_engine)
    return made


@pytest.fixture
def problems(project):
    """The project with its problems made."""
    project.run("problems")
    return project


@pytest.fixture
def tuned(problems):
    """The project with an epoch 1 and an epoch 2 model, as far as a script needs one."""
    for epoch in ("epoch1", "epoch2"):
        merged = problems.folder / "models" / epoch / "merged"
        merged.mkdir(parents=True)
        (merged / "config.json").write_text("{}")
        trained = {"rows": 9, "steps": 2, "chosen_step": 2, "tokens": 50, "select": "dev_accuracy", "dev": {"2": 0.5}}
        for path, text in (
            (f"metrics/train/{epoch}.json", json.dumps(trained)),
            (f"plots/train/{epoch}.csv", "step,loss\n1,0.5\n2,0.25\n"),
        ):
            (problems.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (problems.folder / path).write_text(text)
    return problems
