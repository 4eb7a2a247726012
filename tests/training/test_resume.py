"""A run that was killed goes on as though it hadn't been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from whetstone.training.checkpoints import is_complete, last_checkpoint
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import train_dpo
from whetstone.training.sft import train_sft

pytestmark = pytest.mark.slow
BASIC = {
    "learning_rate": 1e-2,
    "rank": 4,
    "alpha": 8,
    "max_length": 128,
    "batch_size": 4,
    "epochs": 2,
    "checkpoints": 4,
}


class Killed(Exception):
    pass


def dev_dying_at(step):
    def dev(model, tokenizer, now):
        if now == step:
            raise Killed
        return float(-now % 7)

    return dev


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


SFT = (train_sft, SftConfig(**BASIC, select="dev_accuracy", dropout=0.1), "examples")
DPO = (train_dpo, DpoConfig(**BASIC, select="dev_accuracy"), "pairs")


@pytest.mark.parametrize(
    "train, config, rows, died",
    [(*SFT, 9), (*SFT, 6), (*DPO, 9), (*SFT, 12)],
    ids=["within an epoch", "at its end", "preferences", "at the last checkpoint"],
)
def test_resumed_is_uninterrupted(base, tmp_path, request, train, config, rows, died):
    """12 steps, checkpoints at 3, 6, 9, 12: loss curve, dev values and the bytes of the result are the same."""
    data = request.getfixturevalue(rows)
    whole, curve = train(base, data, tmp_path / "whole", config, scratch=tmp_path / "a", dev=dev_dying_at(None))
    with pytest.raises(Killed):
        train(base, data, tmp_path / "out", config, scratch=tmp_path / "b", dev=dev_dying_at(died))
    assert not (tmp_path / "out").exists()
    seen = []
    resumed, again = train(
        base,
        data,
        tmp_path / "out",
        config,
        scratch=tmp_path / "b",
        dev=lambda model, tokenizer, now: seen.append(now) or float(-now % 7),
    )
    assert seen == [step for step in (3, 6, 9, 12) if step >= died]
    assert again.to_dict() == curve.to_dict()
    for key in ("steps", "tokens", "loss_first", "loss_last", "dev", "chosen_step"):
        assert resumed[key] == whole[key], key
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_killed_between_the_last_step_and_the_result(base, tmp_path, examples, monkeypatch):
    from whetstone.training import checkpoints

    config = SftConfig(**{**BASIC, "epochs": None, "max_steps": 4, "checkpoints": 1})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s")
    summary, curve = train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s")
    assert summary["steps"] == len(curve) == 4 and (tmp_path / "out" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("change", ["rows", "config", "base"])
def test_another_run_doesnt_go_on_from_this_one(base, tmp_path, examples, change):
    import shutil

    config = SftConfig(**BASIC)
    with pytest.raises(Killed):
        train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s", dev=dev_dying_at(6))
    if change == "rows":
        examples.loc[0, "completion"] += " So."
    elif change == "config":
        config = config.model_copy(update={"learning_rate": 2e-2})
    else:
        shutil.copytree(base, tmp_path / "base")
        weights = tmp_path / "base" / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        base = tmp_path / "base"
    seen = []
    train_sft(
        base,
        examples,
        tmp_path / "out",
        config,
        scratch=tmp_path / "s",
        dev=lambda model, tokenizer, now: float(seen.append(now) or 0),
    )
    assert seen == [3, 6, 9, 12]


@pytest.mark.parametrize("tear", ["no marker", "half a file", "a missing file", "half a marker"])
def test_a_torn_checkpoint_is_ignored_and_removed(tmp_path, tear):
    from whetstone.training.checkpoints import seal

    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)
        (folder / "optimizer.pt").write_bytes(b"y" * 100)
        seal(folder)
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    torn = tmp_path / "checkpoint-10"
    {
        "no marker": lambda: (torn / "complete.json").unlink(),
        "half a file": lambda: (torn / "optimizer.pt").write_bytes(b"y" * 50),
        "a missing file": lambda: (torn / "optimizer.pt").unlink(),
        "half a marker": lambda: (torn / "complete.json").write_text('{"optim'),
    }[tear]()
    assert not is_complete(torn)
    assert last_checkpoint(tmp_path).name == "checkpoint-9" and not torn.exists()


def test_killed_by_the_system_for_real(base, tmp_path, examples):
    """SIGKILL while it trains; what it left in scratch is enough."""
    fields = {**BASIC, "epochs": 10, "checkpoints": 30}
    examples.to_parquet(tmp_path / "examples.parquet")
    code = f"""if True:
        import pandas, torch; torch.set_num_threads(1)
        from whetstone.training.config import SftConfig
        from whetstone.training.sft import train_sft
        train_sft({str(base)!r}, pandas.read_parquet({str(tmp_path / "examples.parquet")!r}),
                  {str(tmp_path / "out")!r}, SftConfig(**{fields!r}), scratch={str(tmp_path / "s")!r})"""
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "s").glob("*/checkpoint-*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not (tmp_path / "out").exists()
    (folder,) = (tmp_path / "s").iterdir()
    done = json.loads((last_checkpoint(folder) / "trainer_state.json").read_text())["global_step"]
    seen = []
    summary, curve = train_sft(
        base,
        examples,
        tmp_path / "out",
        SftConfig(**fields),
        scratch=tmp_path / "s",
        dev=lambda model, tokenizer, step: float(seen.append(step) or 0),
    )
    assert seen[0] == done + 2 and summary["steps"] == len(curve) == 60
    assert curve["step"].tolist() == list(range(1, 61))
