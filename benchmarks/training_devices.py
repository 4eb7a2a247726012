"""Training on several GPUs: the same losses as on one, and how much faster.

    python -m benchmarks.training_devices [part ...]        parts: same speed        DEVICES=2

writes benchmarks/results/training_devices.json.

`same`: the default pipeline's stages, 24 steps on one GPU and on DEVICES with an equal batch, side by side and
sharded (FSDP); one of them is killed at its first checkpoint and goes on. Needs data/ as the pipeline leaves it.
`speed`: a 7B-shaped model with random weights (see `training_gpu`), an adapter on one GPU and on DEVICES with the same
rows on each, and every weight, sharded. Tokens are those of all GPUs, peaks those of one, host memory that of all
processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks import training_gpu
from benchmarks.commit import commit
from benchmarks.training_gpu import MOST, ROOT, SMALL, Bench, device, measure, rows

RESULT = ROOT / "benchmarks" / "results" / "training_devices.json"
DEVICES = int(os.environ.get("DEVICES", 2))
STEPS = 10 if SMALL else 24  # one pass of full steps: in a last step that isn't full, several GPUs repeat a few rows
PYTHONPATH = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"

FULL = {"adapter": "none", "learning_rate": 1e-4}
SAME: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft, bfloat16": {"dtype": "bfloat16"},
    "sft, sharded": {"sharded": True},
    "sft of every weight, sharded": {"sharded": True, **FULL},
    "sft of every weight, sharded, bfloat16": {"sharded": True, "dtype": "bfloat16", **FULL},
    "sft of every weight, sharded, recomputing": {"sharded": True, "gradient_checkpointing": True, **FULL},
    "dpo": {},
    "dpo, bfloat16": {"dtype": "bfloat16"},
    "dpo, sharded": {"sharded": True, "precompute_reference": False},
    # without the likelihood term the first loss is ln 2 where the reference reads as the policy does
    "dpo of whole completions": {"scope": "completion", "nll_weight": 0},
    "dpo of whole completions, bfloat16": {"scope": "completion", "nll_weight": 0, "dtype": "bfloat16"},
}
ON_SEVERAL = ("sharded", "gradient_checkpointing", "precompute_reference")
KILLED = "sft of every weight, sharded, killed"
SPEED: dict[str, dict[str, Any]] = {
    "adapter, 16 rows": {"batch_size": 16},
    "adapter, 16 rows, sharded": {"batch_size": 16, "sharded": True},
    "every weight, 8 rows, recomputing, sharded": {
        "batch_size": 8, "adapter": "none", "learning_rate": 1e-5, "sharded": True, "gradient_checkpointing": True},
    "every weight, 16 rows, recomputing, sharded": {
        "batch_size": 16, "adapter": "none", "learning_rate": 1e-5, "sharded": True, "gradient_checkpointing": True},
}  # fmt: skip


def same(folder: Path) -> dict[str, Any]:
    """Largest gap of a step's loss to that on one GPU, without recomputation."""
    found: dict[str, Any] = {}
    on_one: dict[str, pd.DataFrame] = {}
    for name, fields in {**SAME, KILLED: SAME["sft of every weight, sharded"]}.items():
        start = time.perf_counter()
        alone = {key: value for key, value in fields.items() if key not in ON_SEVERAL}
        key = name[:3] + json.dumps(alone)
        if key not in on_one:
            on_one[key] = stage(folder, name, {**alone, "batch_size": 16})
        each = {"batch_size": 16 // DEVICES, "devices": DEVICES}
        one, many = on_one[key], stage(folder, name, {**fields, **each}, kill=name == KILLED)
        gap = (one["loss"] - many["loss"]).abs()
        found[name] = {
            "loss_first": float(one["loss"].iloc[0]), "loss_last": float(one["loss"].iloc[-1]),
            "loss_gap": round(float(gap.max()), 6), "loss_gap_first_step": round(float(gap.iloc[0]), 6),
        }  # fmt: skip
        print(f"{name:46} {json.dumps(found[name])}  ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


def stage(folder: Path, name: str, fields: dict[str, Any], kill: bool = False) -> pd.DataFrame:
    """The curve of one training stage of the default pipeline."""
    trainer, epoch = ("sft", "epoch1") if name.startswith("sft") else ("dpo", "epoch2")
    work = Path(tempfile.mkdtemp(dir=folder))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params[trainer] |= {"max_steps": STEPS, "select": "last", "checkpoints": 2, **fields}
    params["epochs"]["train"][epoch]["start"] = "base"
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    (work / "models").mkdir()
    shutil.copytree(ROOT / "models" / "base", work / "models" / "base")
    (work / "data").symlink_to(ROOT / "data")
    command = [sys.executable, "-m", f"stages.{trainer}", "--epoch", epoch]
    options = {"cwd": work, "env": os.environ | {"PYTHONPATH": PYTHONPATH}, "stdout": subprocess.DEVNULL}
    if kill:
        child = subprocess.Popen(command, start_new_session=True, **options)
        while not list((work / ".scratch").rglob("complete.json")):
            if child.poll() is not None:
                raise RuntimeError(f"{name}: ended before its first checkpoint")
            time.sleep(0.01)
        for process in descendants(child.pid):
            os.kill(process, signal.SIGKILL)
        child.wait()
        assert not (work / "plots").exists()
    subprocess.run(command, check=True, **options)
    curve = pd.read_csv(work / f"plots/train/{epoch}.csv")
    shutil.rmtree(work)
    return curve


def descendants(process: int) -> list[int]:
    """A process and all that it started: the launcher's workers have sessions of their own, no group holds them."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in descendants(int(child)))]


def speed(folder: Path) -> dict[str, Any]:
    """Tokens a second of each case, and the adapter's on all GPUs over as many times one GPU's (`efficiency`)."""
    import torch

    bench = Bench(folder)
    bench.save()
    bench.model.to("cpu")  # the GPU's memory is the workers'
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    cases: dict[str, Any] = {}
    for name, fields in SPEED.items():
        counts = [DEVICES] if fields.get("sharded") else [1, DEVICES]
        for count in counts:
            label = f"{name}, {count} GPUs" if count > 1 else f"{name}, one GPU"
            cases[label] = workers(folder, {**fields, "devices": count})
            print(f"{label:60} {json.dumps(cases[label])}", flush=True)
    one, many = (cases[f"adapter, 16 rows, {n}"].get("tokens_per_second") for n in ("one GPU", f"{DEVICES} GPUs"))
    return {"cases": cases, "efficiency": round(many / one / DEVICES, 3) if one and many else None}


def workers(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """One case in as many processes: their tokens summed, the largest peak."""
    (folder / "case.json").write_text(json.dumps(fields))
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={fields['devices']}"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command, "-m", "benchmarks.training_devices", "worker", str(folder)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        print(done.stderr[-3000:], flush=True)
        return {"failed": (lines or [f"exit {done.returncode}"])[0][:300]}
    parts = [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(fields["devices"])]
    rates = {name: sum(part[name] for part in parts) for name in ("rows_per_second", "tokens_per_second")}
    return {
        "steps": parts[0]["steps"], **{name: round(value, 1) for name, value in rates.items()},
        **({"mfu": round(sum(part["mfu"] for part in parts) / len(parts), 3)} if "mfu" in parts[0] else {}),
        **({"peak_gib": max(part["peak_gib"] for part in parts)} if "peak_gib" in parts[0] else {}),
        "host_gib": round(sum(part["host_gib"] for part in parts), 1),
        "seconds_whole": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def worker(folder: Path) -> None:
    import resource

    import torch

    from whetstone.training import loading, weighted
    from whetstone.training.config import SftConfig

    fields, rank = json.loads((folder / "case.json").read_text()), int(os.environ["RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    config = SftConfig(**{"learning_rate": 1e-4, "max_steps": MOST, "rank": training_gpu.RANK, "dtype": "bfloat16",
                          "alpha": 2 * training_gpu.RANK, **fields})  # fmt: skip
    table = rows(4000)
    model = loading.load(folder / "model", config)
    tokenizer = loading.load_tokenizer(folder / "model", config.template)
    made = weighted.trainer(model, tokenizer, table, config, folder / "work")
    made._save_checkpoint = lambda *_: None
    made.follow(config, [len(ids) for ids in table["input_ids"]], None, None)
    found = measure(made, lambda: made.go(folder / "work"), config.adapter == "none")
    found["host_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (folder / f"result-{rank}.json").write_text(json.dumps(found))
    made.accelerator.end_training()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        worker(Path(sys.argv[2]))
        return
    import torch

    parts = sys.argv[1:] or ["same", "speed"]
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    measured = result.setdefault(f"{DEVICES} GPUs", {})
    measured |= {"revision": commit(), "device": device(), "torch": torch.__version__, "model": training_gpu.SHAPE}
    out = Path(os.environ["OUT"]) / RESULT.name if "OUT" in os.environ else RESULT
    with tempfile.TemporaryDirectory() as place:
        for part in (same, speed):
            if part.__name__ in parts:
                measured[part.__name__] = part(Path(place))
                out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
