"""The recipe in a temporary folder, its model a script that knows the gold."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.stage_folder import StageFolder
from whetstone.engines.scripted import ScriptedEngine

ROOT = Path(__file__).parents[2]
SAYS = {"en": "The answer is {}.", "de": "Die Antwort ist {}.", "sw": "Jibu ni {}."}
THINKS = {"en": "First we look at all the numbers here.", "de": "Zuerst sehen wir uns alle Zahlen hier an.",
          "sw": "Kwanza tunaangalia namba zote hapa."}  # fmt: skip


class Star(StageFolder):
    """The folder, its parameters, and how stages run in it. `fails(number, language, draw)` says which of a problem's
    texts are wrong; a hinted prompt is answered rightly."""

    package = "stages.star"

    def __init__(self, folder: Path):
        super().__init__(folder, ROOT / "recipes/star/params.yaml")
        self.requests = []
        self.fails = lambda number, language, draw: (number + draw) % 3 == 0
        shutil.copytree(ROOT / "recipes/star/prompts", folder / "prompts")
        for name in ("base", "sft1/merged", "sft2/merged"):
            (folder / "models" / name).mkdir(parents=True)
            (folder / "models" / name / "config.json").write_text("{}")
        self.params["problems"]["world"] = {"train": 20, "dev": 5, "test": 10, "seed": 0}
        self.params["evaluate"]["train"] = 12
        self.save()

    def golds(self) -> dict[str, tuple[int, str, str]]:
        """Question -> (number, language, text of the right option)."""
        found = {}
        for file in (self.folder / "data/problems").glob("*.parquet"):
            for one in pd.read_parquet(file).itertuples():
                language = one.source.rpartition(":")[2]
                gold = one.options["ABCD".index(one.answer)]
                found[one.question] = (int(re.search(r"-(\d+)-", one.id)[1]), language, gold)
        return found

    def reply(self, prompt: str) -> list[str]:
        """Three texts: what a greedy request gets, and what sampled ones get in turn."""
        block = prompt.rpartition("Question: ")[2]
        question, *lines = block.split("\n")
        number, language, gold = self.golds_by_question[question]
        options = {line[0]: line[3:].removesuffix(" (CORRECT)") for line in lines if re.match(r"[A-D]\) ", line)}
        right = next(letter for letter, text in options.items() if text == gold)
        wrong = next(letter for letter in "ABCD" if letter != right)
        if "(CORRECT)" in prompt:
            return [f" {THINKS[language]} {SAYS[language].format(right)}"]
        letters = [wrong if self.fails(number, language, draw) else right for draw in range(3)]
        return [f" {THINKS[language]} {draw}. {SAYS[language].format(one)}" for draw, one in enumerate(letters)]


@pytest.fixture
def star(tmp_path, monkeypatch):
    """The recipe with its problems made."""
    folder = tmp_path / "recipes/star"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    made = Star(folder)

    @contextlib.contextmanager
    def open_engine(label):
        engine = ScriptedEngine(made.reply, fingerprint=f"scripted:{label}")
        generate = engine.generate
        engine.generate = lambda requests: generate(made.requests.extend(requests) or requests)
        yield engine

    monkeypatch.setattr("stages.serving.open_engine", open_engine)
    made.run("problems")
    made.golds_by_question = made.golds()
    return made
