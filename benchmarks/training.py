"""Training on the CPU: tokens per second beside a plain PyTorch loop in the same process, and where the time goes.

    python -m benchmarks.training [folder of a base model]

writes benchmarks/results/training.json. Seconds are of the wall and, because a shared machine disturbs these, of the
processor; the ratio to the plain loop is taken run by run, alternately.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks.commit import commit
from whetstone.problems.world.corpus import documents
from whetstone.prompts.strategies import STRATEGIES

ROOT = Path(__file__).parents[1]
STEPS, WARM, REPEATS = 24, 3, 3
CASES = [("none", "float32"), ("none", "bfloat16"), ("lora", "float32"), ("lora", "bfloat16")]
RATES = {"none": 3e-4, "lora": 3e-3}


def rows(count: int) -> pd.DataFrame:
    """Examples as an epoch's: question, strategy, solution."""
    texts = [text for name in STRATEGIES for text in documents(name, count // len(STRATEGIES), 0, named=1.0)]
    parts = [text.partition("\nAnswer by") for text in texts]
    return pd.DataFrame(
        {"id": f"e{i:05d}", "prompt": head + middle, "completion": tail, "weight": 1.0}
        for i, (head, middle, tail) in enumerate(parts)
    )


def plain(base: Path, table: dict[str, list], order: list[int], config: Any) -> tuple[float, float]:
    """(tokens per wall second, per processor second) of the loop that anybody would write."""
    import torch

    from whetstone.training import loading

    model = loading.load(base, config)
    if config.adapter == "lora":
        from peft import get_peft_model

        model = get_peft_model(model, loading.adapter_config(config))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=config.learning_rate, fused=True)
    tokens = 0
    for step in range(STEPS):
        if step == WARM:
            wall, cpu, tokens = time.perf_counter(), time.process_time(), 0
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        width = max(len(table["input_ids"][i]) for i in batch)
        ids, labels = torch.zeros(len(batch), width, dtype=torch.long), torch.full((len(batch), width), -100)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            length = len(table["input_ids"][i])
            ids[row, :length] = torch.tensor(table["input_ids"][i])
            labels[row, :length] = torch.tensor(table["labels"][i])
            mask[row, :length] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        tokens += int(mask.sum())
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


def ours(base: Path, examples: pd.DataFrame, config: Any) -> tuple[float, float]:
    """The same of `train_sft`, from its fourth step to its last."""
    from whetstone.training import weighted
    from whetstone.training.sft import train_sft

    marks: list[tuple[float, float, int]] = []

    class Timed(weighted.WeightedTrainer):
        def log(self, logs, start_time=None):
            if "loss" in logs:
                marks.append((time.perf_counter(), time.process_time(), self._total_train_tokens))
            super().log(logs, start_time)

    original, weighted.WeightedTrainer = weighted.WeightedTrainer, Timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            train_sft(base, examples, Path(folder) / "out", config, scratch=Path(folder) / "scratch")
    finally:
        weighted.WeightedTrainer = original
    (wall, cpu, before), (end_wall, end_cpu, after) = marks[WARM - 1], marks[-1]
    return (after - before) / (end_wall - wall), (after - before) / (end_cpu - cpu)


def speed(base: Path) -> list[dict[str, Any]]:
    from whetstone.training import loading, loop
    from whetstone.training.config import SftConfig
    from whetstone.training.sft import tokenise

    examples, results = rows(STEPS * 16), []
    for adapter, dtype in CASES:
        config = SftConfig(adapter=adapter, dtype=dtype, learning_rate=RATES[adapter], max_steps=STEPS, batch_size=16)
        tokenizer = loading.load_tokenizer(base, config.template)
        table, _ = tokenise(examples, tokenizer, config, "benchmark")
        order = list(loop.LikeLengths([len(ids) for ids in table["input_ids"]], 16, config.seed))
        pairs = [(plain(base, table, order, config), ours(base, examples, config)) for _ in range(REPEATS)]
        results.append({
            "adapter": adapter, "dtype": dtype,
            "plain_tokens_per_second": round(median(a[0] for a, _ in pairs)),
            "tokens_per_second": round(median(b[0] for _, b in pairs)),
            "ratio_wall": round(median(b[0] / a[0] for a, b in pairs), 3),
            "ratio_processor": round(median(b[1] / a[1] for a, b in pairs), 3),
        })  # fmt: skip
        print(results[-1], flush=True)
    return results


def stages() -> dict[str, Any]:
    """The default pipeline's two training stages, as `dvc repro` runs them: shares of a process's wall time. Needs
    data/ and models/epoch1 as the pipeline leaves them."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "params.yaml", folder)
        for name in ("data", "models"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        for trainer, epoch in (("sft", "epoch1"), ("dpo", "epoch2")):
            code = f"""if True:
                import json, time; start = time.perf_counter()
                from stages import training, {trainer}
                import whetstone.training.weighted, whetstone.training.preference, transformers, peft
                from transformers import AutoModelForCausalLM, LlamaForCausalLM
                imported, fit, found = time.perf_counter(), training.fit, []
                training.fit = lambda *arguments: found.append(fit(*arguments)) or found[0]
                {trainer}.main(["--epoch", {epoch!r}], standalone_mode=False)
                print()
                print(json.dumps({{"import": imported - start, **found[0]}}))"""
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            wall = time.perf_counter() - start
            parts = json.loads(done.stdout.splitlines()[-1])
            other = wall - parts["import"] - parts["seconds"]
            results[trainer] = {
                "rows": parts["rows"], "steps": parts["steps"], "tokens": parts["tokens"], "seconds": round(wall, 1),
                "seconds_import": round(parts["import"], 1), "seconds_steps": round(parts["seconds"], 1),
                "seconds_dev": round(parts["seconds_dev"], 1), "share_other": round(other / wall, 3),
            }  # fmt: skip
            print(trainer, results[trainer], flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    seconds = sum(one["seconds"] for one in results.values())
    return {**results, "seconds": round(seconds, 1), "peak_gib": round(peak, 2)}


def main() -> None:
    import torch

    base = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "models" / "base").resolve()
    result = {
        "revision": commit(), "device": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "load_average": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "stages": stages(), "speed": speed(base),
    }  # fmt: skip
    (ROOT / "benchmarks" / "results" / "training.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
