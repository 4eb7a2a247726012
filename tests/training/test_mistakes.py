"""A user's mistake is one sentence, before torch is imported, and leaves the result of an earlier run alone."""

import subprocess
import sys

import pandas as pd
import pytest

from tests.training.conftest import QUESTIONS
from whetstone.errors import UserError
from whetstone.training import checks
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import train_dpo
from whetstone.training.sft import train_sft

CONFIG = {"learning_rate": 1e-3, "max_steps": 2, "max_length": 128}


def change(column, row, value):
    def apply(rows):
        rows[column] = rows[column].astype(object)
        rows.at[row, column] = value
        return rows

    return apply


@pytest.mark.parametrize(
    "change, fields, says",
    [
        (lambda rows: rows.iloc[:0], {}, "training examples: 0 of 0 rows to train on"),
        (lambda rows: rows.drop(columns="completion"), {}, r"missing columns \['completion'\]"),
        (change("completion", 3, " \n"), {}, "row 'e03': `completion` is empty, in 1 of 24 rows"),
        (change("prompt", 2, None), {}, "row 'e02': `prompt` is empty"),
        (change("weight", 5, -1.0), {}, "row 'e05': weight -1.0"),
        (change("weight", 5, float("nan")), {}, "row 'e05': weight nan"),
        (lambda rows: rows.assign(weight=0.0), {}, "0 of 24 rows have a weight above 0"),
        (lambda rows: rows, {"max_length": 40}, "max_length 40 would cut .* of 24 rows; the longest is 'e"),
        (lambda rows: rows, {"select": "dev_accuracy"}, "select `dev_accuracy` needs dev problems"),
        (lambda rows: rows, {"select": "dev_loss"}, "select `dev_loss` needs rows that are held out"),
        (lambda rows: rows, {"devices": 2}, "devices is 2, but 1 processes train.*accelerate launch"),
    ],
)
def test_sft(base, examples, tmp_path, change, fields, says):
    with pytest.raises(UserError, match=says):
        train_sft(base, change(examples), tmp_path / "out", SftConfig(**{**CONFIG, **fields}), scratch=tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda rows: rows.iloc[:0], "training pairs: 0 of 0 rows"),
        (
            lambda rows: rows.assign(rejected=rows["chosen"]),
            "row 'd00': chosen and rejected are the same text .24 of 24",
        ),
        (change("rejected", 1, ""), "row 'd01': `rejected` is empty"),
    ],
)
def test_dpo(base, pairs, tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        train_dpo(base, change(pairs), tmp_path / "out", DpoConfig(**CONFIG), scratch=tmp_path / "s")


def test_a_model_that_isnt_there(examples, tmp_path):
    with pytest.raises(UserError, match="no model there .no config.json."):
        train_sft(tmp_path / "base", examples, tmp_path / "out", SftConfig(**CONFIG), scratch=tmp_path / "s")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="config.json but no weights"):
        train_sft(tmp_path, examples, tmp_path / "out", SftConfig(**CONFIG), scratch=tmp_path / "s")


def test_qlora_without_a_gpu(base, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "cuda_devices", lambda: 0)
    with pytest.raises(UserError, match="needs a CUDA GPU; none is visible here. Use adapter `lora`"):
        train_sft(base, examples, tmp_path / "out", SftConfig(**CONFIG, adapter="qlora"), scratch=tmp_path / "s")


def test_they_are_found_without_torch(base, tmp_path):
    pd.DataFrame([{"id": "e", "prompt": QUESTIONS[0], "completion": " steps: 3" * 80, "weight": 1.0}]).to_parquet(
        tmp_path / "rows.parquet"
    )
    code = f"""if True:
        import sys, pandas
        from whetstone.errors import UserError
        from whetstone.training.config import SftConfig
        from whetstone.training.sft import train_sft
        try:
            train_sft({str(base)!r}, pandas.read_parquet({str(tmp_path / "rows.parquet")!r}), "out",
                      SftConfig(**{CONFIG!r}), scratch="s")
        except UserError as error:
            print("would cut 1 of 1 rows" in str(error), "torch" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == [
        "True",
        "False",
    ]


def test_a_loss_that_isnt_a_number_stops_the_run(base, examples, tmp_path):
    config = SftConfig(**{**CONFIG, "learning_rate": 1e30, "max_steps": 6, "adapter": "none", "warmup": 0.0})
    with pytest.raises(UserError, match="training diverged; lower learning_rate .1e.30."):
        train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s")
    assert not (tmp_path / "out").exists()


def test_a_full_gpu_names_the_three_knobs(base, examples, tmp_path, monkeypatch):
    import torch

    from whetstone.training import weighted

    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(weighted.WeightedTrainer, "training_step", full)
    config = SftConfig(**CONFIG, batch_size=12, gradient_accumulation=3)
    with pytest.raises(
        UserError, match="batch_size 12 .*gradient_accumulation, now 3.*max_length 128 .*gradient_checkpointing false"
    ):
        train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s")
