"""The command that rebuilds the shipped models, and their cards: as many tokens as told, and nothing half written."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from models import rebuild_base

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", list(rebuild_base.MODELS))
def test_the_card_the_makefile_and_the_command_name_the_same_training(folder):
    card, model = (ROOT / folder / "README.md").read_text(), rebuild_base.MODELS[folder]
    target, command = re.search(r"^\| rebuild \| `make ([\w-]+)` \(`(.+?)`\)", card, re.MULTILINE).groups()
    assert command == f"python models/rebuild_base.py {folder}"
    assert re.search(rf"^{target}:.*\n\t@{re.escape(command)}$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (amount, unit, steps) = re.search(r"^\| training \| ([\d.]+) (\w+) tokens \(([\d,]+) steps", card, re.M).groups()
    assert float(amount) == pytest.approx(model.tokens / {"million": 1e6, "billion": 1e9}[unit], rel=0.005)
    assert int(steps.replace(",", "")) * rebuild_base.BATCH * rebuild_base.ROW == model.tokens


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A corpus and steps of a few documents, into a folder with a card and an older model."""
    kind = rebuild_base.MODELS["models/base"]
    documents = list(islice(kind.sample(), 60))
    monkeypatch.setattr(kind, "sample", lambda: documents, raising=False)
    monkeypatch.setattr(kind, "largest", 12, raising=False)
    monkeypatch.setattr(rebuild_base, "BATCH", 2)
    out = tmp_path / "base"
    out.mkdir()
    (out / "README.md").write_text("the card")
    (out / "model.safetensors").write_text("the older model")

    def rebuild(tokens: int):
        return CliRunner().invoke(rebuild_base.main, ["models/base", "--out", str(out), "--tokens", str(tokens)])

    return out, rebuild


@pytest.mark.slow
def test_it_trains_on_the_tokens_told_and_repeats_itself(small):
    out, rebuild = small
    weights = []
    for _ in range(2):
        done = rebuild(3 * 2 * rebuild_base.ROW - 5)
        assert done.exit_code == 0, done.output
        assert "3 steps, 7,680 tokens" in done.output
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert (out / "README.md").read_text() == "the card" and (out / "tokenizer.json").exists()
    assert [file.name for file in out.parent.iterdir()] == ["base"]


def test_a_run_that_ends_early_leaves_the_model_as_it_was(small, monkeypatch):
    out, rebuild = small

    def ends(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rebuild_base, "Corpus", ends)
    assert rebuild(10).exit_code == 1
    assert {file.name: file.read_text() for file in out.iterdir()} == {
        "README.md": "the card", "model.safetensors": "the older model"}  # fmt: skip
