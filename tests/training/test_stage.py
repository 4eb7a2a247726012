"""The training stages: what chooses the checkpoint, what an unfinished training goes on from, several processes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from stages import dpo, sft, training
from tests.training.conftest import QUESTIONS
from whetstone import records
from whetstone.errors import UserError
from whetstone.locks import device_lock

COMMON = {"learning_rate": 1e-2, "max_steps": 6, "batch_size": 4, "rank": 4, "alpha": 8, "max_length": 128}
GOLD = 32


@pytest.fixture
def project(tmp_path, monkeypatch, base, examples, pairs):
    """An epoch of SFT and one of DPO from the same tiny model, and six dev problems."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for epoch in ("one", "two"):
        records.write(examples, records.EXAMPLE, tmp_path / f"data/training/{epoch}/sft.parquet")
        records.write(pairs, records.PAIR, tmp_path / f"data/training/{epoch}/dpo.parquet")
    write_dev(tmp_path, 6)

    def run(stage, epoch, fails=False, **fields):
        params = {
            "model": {"name": str(base)},
            "epochs": {
                "train": {
                    "one": {"start": "base", "attempts": "base", "trainer": "sft"},
                    "two": {"start": "base", "attempts": "base", "trainer": "dpo"},
                },
                "sample": [],
                "evaluate": [],
            },
            "sft": COMMON | (fields if stage is sft else {}),
            "dpo": COMMON | (fields if stage is dpo else {}),
            "evaluate": {"max_tokens": 8, "stop": ["\n\n"]},
            "runtime": {},
        }
        with open("params.yaml", "w") as file:
            YAML().dump(params, file)
        done = CliRunner().invoke(stage.main, ["--epoch", epoch])
        assert done.exit_code == (1 if fails else 0), done.output + repr(done.exception)
        return done.output

    return run


def write_dev(folder, count):
    rows = [
        {
            "id": f"d{i}", "question": QUESTIONS[i][10:].split("\n")[0], "answer": str(GOLD), "task": "number",
            "source": "s", "group": f"g{i}", "split": "dev", "part": 0, "family": None, "level": None, "options": None,
        }
        for i in range(count)
    ]  # fmt: skip
    records.write(rows, records.PROBLEM, folder / "data/problems/dev.parquet")


def outs(epoch):
    summary = json.loads(open(f"metrics/train/{epoch}.json").read())
    return summary, pd.read_csv(f"plots/train/{epoch}.csv")


@pytest.mark.slow
@pytest.mark.parametrize("stage, epoch", [(sft, "one"), (dpo, "two")])
def test_dev_loss_holds_out_whole_problems(project, stage, epoch):
    project(stage, epoch, select="dev_loss", held_out=0.25, checkpoints=2)
    summary, curve = outs(epoch)
    assert (summary["rows"], summary["held_out"]) == (18, 6)
    assert list(summary["dev"]) == ["3", "6"] and len(curve) == 6


@pytest.mark.slow
def test_the_default_holds_nothing_out(project):
    project(sft, "one")
    summary, _ = outs("one")
    assert summary["rows"] == 24 and "held_out" not in summary


def test_one_problem_cant_be_held_out_of_itself(project, examples):
    records.write(examples.assign(problem_id="p"), records.EXAMPLE, "data/training/one/sft.parquet")
    assert "24 rows are of 1 problem" in project(sft, "one", fails=True, select="dev_loss")


@pytest.mark.slow
def test_a_training_doesnt_go_on_from_one_that_another_dev_set_chose_for(project, tmp_path, monkeypatch):
    """Killed after its first checkpoint: with the same dev file it goes on, with another it begins anew."""
    from whetstone.training import loop

    real, steps, die_at = loop.Loop._dev_value, [], [4]

    def value(self, step):
        if step == die_at[0]:
            raise KeyboardInterrupt
        steps.append(step)
        return real(self, step)

    monkeypatch.setattr(loop.Loop, "_dev_value", value)
    fields = {"select": "dev_accuracy", "checkpoints": 3}

    def again():
        steps.clear()
        project(sft, "one", **fields)
        return list(steps)

    def killed():
        die_at[0] = 4
        with pytest.raises(AssertionError, match="KeyboardInterrupt|interrupted"):
            project(sft, "one", **fields)
        die_at[0] = None

    killed()
    assert again() == [4, 6]
    killed()
    write_dev(tmp_path, 5)
    assert again() == [2, 4, 6]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, epoch, fields",
    [
        (sft, "one", {"select": "dev_loss", "checkpoints": 2, "held_out": 0.334}),  # leaves 16 rows
        (sft, "one", {"select": "dev_accuracy", "checkpoints": 2}),
        (sft, "one", {"sharded": True}),
        (dpo, "two", {}),
    ],
    ids=["dev loss", "dev accuracy", "sharded", "preferences"],
)
def test_two_processes_train_as_one_does(project, tmp_path, stage, epoch, fields):
    """Half the batch each: the same losses, the same adapter, written once."""
    from safetensors.torch import load_file

    from whetstone.training.checks import ORIGIN

    alone = {name: value for name, value in fields.items() if name != "sharded"}
    project(stage, epoch, **{**alone, "batch_size": 8})
    expected, curve = outs(epoch)
    weights = load_file(f"models/{epoch}/adapter/adapter_model.safetensors")
    origin = (tmp_path / "models" / epoch / "adapter" / ORIGIN).read_text()
    project(stage, epoch, **fields, batch_size=4, devices=2)
    summary, both = outs(epoch)
    assert both["loss"].tolist() == pytest.approx(curve["loss"].tolist(), abs=2e-4)
    assert summary["tokens"] == expected["tokens"]
    assert summary["dev"] == pytest.approx(expected["dev"], abs=2e-4)
    again = load_file(f"models/{epoch}/adapter/adapter_model.safetensors")
    assert again.keys() == weights.keys()
    for name in weights:
        assert (again[name] - weights[name]).norm() <= 0.02 * weights[name].norm()
    assert (tmp_path / "models" / epoch / "adapter" / ORIGIN).read_text() == origin
    assert [path.name for path in (tmp_path / "models" / epoch).iterdir()] == ["adapter"]
    assert not list((tmp_path / ".scratch").rglob("checkpoint-*"))


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Tells the stages how many GPUs the machine shows; locks on them lie in a folder of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda count: monkeypatch.setattr(training.checks, "cuda_devices", lambda: count)


def test_a_training_holds_its_gpu_and_samples_dev_on_it(project, gpus, monkeypatch):
    gpus(1)
    real, seen = training.dev_accuracy, []

    def watched(*arguments):
        def measure(*where):
            with pytest.raises(UserError, match="GPU 0 is in use"), device_lock("cuda:0"):
                pass
            seen.append(where[-1])
            return real(*arguments)(*where)

        return measure

    monkeypatch.setattr(training, "dev_accuracy", watched)
    project(sft, "one", select="dev_accuracy", checkpoints=2)
    assert seen == [3, 6]
    with device_lock("cuda:0"):
        pass


def test_a_training_is_refused_a_gpu_that_another_stage_samples_on(project, gpus):
    gpus(1)
    with device_lock("cuda:0"):
        assert "GPU 0 is in use by process" in project(sft, "one", fails=True)
    assert not list(Path("models").glob("one/*"))


def test_a_training_on_several_gpus_holds_each_of_them(project, gpus, monkeypatch):
    gpus(4)
    taken = []

    def launch(*_):
        for number in range(4):
            try:
                with device_lock(f"cuda:{number}"):
                    pass
            except UserError:
                taken.append(number)
        raise UserError("enough")

    monkeypatch.setattr(training, "launch", launch)
    assert "enough" in project(sft, "one", fails=True, devices=3)
    assert taken == [0, 1, 2]
    assert "devices is 5, but this machine shows 4 GPUs" in project(sft, "one", fails=True, devices=5)


def test_a_process_leaves_its_group_before_it_exits(monkeypatch):
    """On four GPUs NCCL's watchdog outlived the libraries that it calls, and aborted a process that had trained."""
    from torch import distributed

    def fit(epoch, kind):
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

    monkeypatch.setattr(training.run, "prepare", lambda: None)
    monkeypatch.setattr(training, "fit", fit)
    training.process("one", "sft")
    assert not distributed.is_initialized()
