"""The command that rebuilds the shipped models, and their cards: as many tokens as told, and nothing half written."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import numpy as np
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
    assert int(steps.replace(",", "")) * model.batch * rebuild_base.ROW == model.tokens


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A corpus and steps of a few documents, into a folder with a card and an older model."""
    kind = rebuild_base.MODELS["models/base"]
    documents = list(islice(kind.sample(), 60))
    monkeypatch.setattr(kind, "sample", lambda: documents, raising=False)
    monkeypatch.setattr(kind, "largest", 12, raising=False)
    monkeypatch.setattr(kind, "batch", 2, raising=False)
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


def test_what_a_document_marks_as_unlearnt_is_read_and_not_learnt(tmp_path):
    from tokenizers import Tokenizer

    model = rebuild_base.MODELS["models/reasoner"]
    file = ROOT / "models/reasoner/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    for pool in ("turns", "ledger"):
        _, ids, lengths = rebuild_base._tokenised((str(file), "models/reasoner", pool, 40, 5))
        assert lengths.sum() == len(ids) and len(lengths) == 40
        for document, made in zip(model.documents(pool, 40, 5), np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
            plain = document.translate(dict.fromkeys(map(ord, rebuild_base.UNLEARNT)))
            read = np.where(made < 0, ~made, made).tolist()
            assert read == tokenizer.encode(plain, add_special_tokens=False).ids
            unlearnt = tokenizer.decode([int(~one) for one in made if one < 0])
            assert unlearnt == "".join(re.findall("\x0e(.*?)\x0f", document, re.DOTALL))
            assert (made < 0).any() == (pool == "turns")


def test_unlearnt_tokens_have_no_part_in_the_loss():
    """Turned into others, they change what is read and nothing that is asked for."""
    import torch

    rows = torch.tensor([[1, 5, ~7, ~8, 9, 2]])
    read, learnt = rebuild_base.read_and_learnt(rows)
    assert read.tolist() == [[1, 5, 7, 8, 9]] and learnt.tolist() == [[5, -100, -100, 9, 2]]


def test_the_reasoner_is_small_and_solves_its_own_world_now_and_then():
    """Neither always nor never: greedy, 40 test problems, and every text keeps the format of one step a line."""
    from whetstone.engines import open_engine
    from whetstone.engines.base import Request, Sampling
    from whetstone.problems import steps
    from whetstone.problems.steps.checking import first_wrong

    folder = ROOT / "models/reasoner"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    problems = list(islice(steps.problems("steps", "test"), 40))
    engine = open_engine("transformers", str(folder), device="cpu")
    requests = [Request(steps.prompt_of(problem), Sampling(300, stop=("\n\n",))) for problem in problems]
    texts = {i: completion.text for i, (completion,) in engine.generate(requests)}
    assert all(re.fullmatch(r"(\d[-+*/= \d]+\n)+The answer is \d+\.", text) for text in texts.values())
    faultless = sum(first_wrong(problem, texts[i]) is None for i, problem in enumerate(problems))
    assert 10 <= faultless <= 30
