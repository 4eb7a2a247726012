"""Training on a GPU: LoRA, DPO and QLoRA of a 7B-shaped model with random weights, side by side with TRL.

    python -m benchmarks.training_gpu [part ...]        parts: tiny precision dpo sft qlora

writes benchmarks/results/training_gpu.json; parts that aren't asked for stay as they are there. Examples have the
lengths of GSM8K's questions with solutions. TRL gets the same rows, adapter and optimiser; `defaults` is what its own
script does unless told otherwise (weights in float32 under bfloat16 autocast, 8 rows, gradient checkpointing, padding
in random order), the others are the settings that were found to be faster. Seconds are those of steps after warm-up.

MFU counts the operations that training an adapter needs: forward, and backward to the activations, of every weight
that multiplies (4 a token), forward and backward of the adapter (6), causal attention; recomputation adds nothing.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.commit import commit

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "training_gpu.json"
PEAK = {"H100": 989.4e12, "H200": 989.4e12}  # dense bfloat16 operations a second, by the maker's data sheet
SMALL = bool(os.environ.get("SMALL"))  # a dry run on a CPU
SHAPE = dict(  # Mistral 7B v0.3
    vocab_size=32768, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, max_position_embeddings=32768, sliding_window=None, tie_word_embeddings=False,
)  # fmt: skip
if SMALL:
    SHAPE |= dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, vocab_size=512)  # fmt: skip
WARM, SECONDS, MOST = (1, 1, 3) if SMALL else (4, 4, 40)  # steps of warm-up, seconds and steps to measure
RANK = 32
Rows = dict[str, list]


def rows(count: int) -> Rows:
    """Random tokens with GSM8K's lengths (question and solution, 3.2 characters a token: log-normal with a median of
    151 tokens, 512 at most), of which the question's 46 % aren't trained."""
    random = np.random.default_rng(0)
    lengths = np.exp(random.normal(5.02, 0.387, count)).astype(int).clip(40, 512)
    ids = [random.integers(10, SHAPE["vocab_size"], n).tolist() for n in lengths]
    labels = [[-100] * int(0.46 * len(one)) + one[int(0.46 * len(one)) :] for one in ids]
    return {"input_ids": ids, "labels": labels, "weight": [1.0] * count}


def pairs(count: int) -> Rows:
    one, other = rows(count), rows(2 * count)
    heads = [next(i for i, label in enumerate(labels) if label != -100) for labels in one["labels"]]
    return {
        "prompt_ids": [ids[:n] for ids, n in zip(one["input_ids"], heads, strict=True)],
        "chosen_ids": [ids[n:] for ids, n in zip(one["input_ids"], heads, strict=True)],
        "rejected_ids": [ids[int(0.46 * len(ids)) :] for ids in other["input_ids"][count:]],
    }


def operations(tokens: float, trained: float, squares: float, whole: bool = False) -> float:
    """Of so many tokens, of which so many are trained; `squares` is the sum of the sequences' lengths squared.
    `whole`: every weight is trained (6 a token), not an adapter."""
    h, ffn, layers = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["num_hidden_layers"]
    kv = h * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    linears = [(h, h), (h, kv), (h, kv), (h, h), (h, ffn), (h, ffn), (ffn, h)]
    weights = layers * sum(a * b for a, b in linears)
    adapter = layers * sum(RANK * (a + b) for a, b in linears)
    each, head = (6 * weights, 6) if whole else (4 * weights + 6 * adapter, 4)
    return each * tokens + head * h * SHAPE["vocab_size"] * trained + 6 * h * layers * squares


class Clock:
    """Counts what the collator is given and stops after SECONDS of steps."""

    def __init__(self, collator: Any, whole: bool):
        import torch
        from accelerate.utils import broadcast_object_list
        from transformers import TrainerCallback

        clock, self.collator, self.done, self.marks = self, collator, np.zeros(4), []
        self.whole = whole

        class Callback(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                clock.marks.append((time.perf_counter(), clock.done.copy()))
                measured = clock.marks[-1][0] - clock.marks[min(WARM, len(clock.marks)) - 1][0]
                enough = len(clock.marks) >= WARM + (1 if SMALL else 4)
                (stop,) = broadcast_object_list([enough and measured > SECONDS])  # all processes at the same step
                control.should_training_stop |= stop

        self.callback = Callback()

    def __call__(self, examples: list[dict]) -> Any:
        for example in examples:
            if "prompt_ids" in example:
                lengths = [len(example["prompt_ids"]) + len(example[n]) for n in ("chosen_ids", "rejected_ids")]
                trained = len(example["chosen_ids"]) + len(example["rejected_ids"])
            else:
                lengths = example.get("seq_lengths") or [len(example["input_ids"])]
                trained = sum(label != -100 for label in example["labels"])
            self.done += (1, sum(lengths), trained, sum(n * n for n in lengths))
        return self.collator(examples)

    def result(self) -> dict[str, float]:
        (start, before), (end, after) = self.marks[WARM - 1], self.marks[-1]
        count, tokens, trained, squares = (after - before) / (end - start)
        found = {"steps": len(self.marks) - WARM, "rows_per_second": round(count, 2),
                 "tokens_per_second": round(tokens)}  # fmt: skip
        peak = next((value for name, value in PEAK.items() if name in device()), None)
        if peak:
            found["mfu"] = round(operations(tokens, trained, squares, self.whole) / peak, 3)
        return found


def device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def measure(trainer: Any, go: Any, whole: bool = False) -> dict[str, Any]:
    import torch

    clock = Clock(trainer.data_collator, whole)
    trainer.data_collator = clock
    trainer.add_callback(clock.callback)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    go()
    found = clock.result() | {"seconds_to_first_step": round(clock.marks[0][0] - start, 1)}
    if torch.cuda.is_available():
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return found


class Bench:
    """One model on the GPU, lent to a trainer and stripped of its adapter again."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

        self.folder, self.base = folder, folder / "model"
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            torch.set_default_dtype(torch.bfloat16)
            self.model = MistralForCausalLM(MistralConfig(**SHAPE))
            torch.set_default_dtype(torch.float32)
        self.base.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models" / "base" / name, self.base)
        self.tokenizer = AutoTokenizer.from_pretrained(self.base)

    def save(self) -> None:
        self.model.save_pretrained(self.base)

    def clean(self, trainer: Any) -> None:
        """Also frees what the trainer held: the next case needs the memory."""
        import torch

        if hasattr(trainer.model, "unload"):
            trainer.model.unload()
        from whetstone.training import fused

        self.model.__dict__.pop("forward", None)
        for layer in self.model.model.layers:
            layer._compiled_call_impl = None
        fused.unfuse(self.model)
        self.model.gradient_checkpointing_disable()
        self.model.set_attn_implementation("sdpa")
        self.model.requires_grad_(True)
        trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = trainer.accelerator = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def config(self, cls: Any, **fields: Any) -> Any:
        return cls(**{"learning_rate": 1e-4, "max_steps": MOST, "rank": RANK, "alpha": 2 * RANK, "dtype": "bfloat16",
                      "batch_size": 16, **fields})  # fmt: skip

    def ours(self, table: Rows, preference: bool, compiled: bool = False, **fields: Any) -> dict[str, Any]:
        """`compiled`: PEFT's and transformers' own operations in compiled layers, instead of fused ones."""
        from whetstone.training import fused, weighted
        from whetstone.training import preference as dpo
        from whetstone.training.config import DpoConfig, SftConfig

        config = self.config(DpoConfig if preference else SftConfig, **fields)
        work = Path(tempfile.mkdtemp(dir=self.folder))
        reading, precompute = [], dpo.PreferenceTrainer._precompute_ref_logps

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = precompute(*arguments)
            reading.append(time.perf_counter() - start)
            return result

        dpo.PreferenceTrainer._precompute_ref_logps = timed
        made = (dpo if preference else weighted).trainer(self.model, self.tokenizer, table, config, work)
        dpo.PreferenceTrainer._precompute_ref_logps = precompute
        made._save_checkpoint = lambda *_: None
        lengths = dpo.lengths(table) if preference else [len(ids) for ids in table["input_ids"]]
        made.follow(config, lengths, None, None)
        fuse = fused.fuse
        if compiled:
            fused.unfuse(made.model)
            fused.fuse = lambda model: None
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)
        try:
            found = measure(made, lambda: made.go(work))
        finally:
            fused.fuse = fuse
        found["packed"] = made.packs
        if preference:  # all pairs' reference, by which a whole pass is slower than its steps
            each = reading[0] / len(table["prompt_ids"])
            found["reference_seconds_per_pair"] = round(each, 5)
            found["rows_per_second_with_reference"] = round(1 / (1 / found["rows_per_second"] + each), 2)
        self.clean(made)
        return found

    def trl(self, table: Rows, preference: bool, *, attention: str = "sdpa", dtype: str = "bfloat16",
            **arguments: Any) -> dict[str, Any]:  # fmt: skip
        import torch
        import trl

        from whetstone.training import loading, loop
        from whetstone.training.config import SftConfig

        class DPO(trl.DPOTrainer):
            def _prepare_dataset(self, dataset, *_, **__):
                return dataset

        self.model.to(getattr(torch, dtype))
        self.model.set_attn_implementation(attention)
        common = {"output_dir": str(self.folder / "trl"), "max_steps": MOST, "learning_rate": 1e-4, "report_to": [],
                  "save_strategy": "no", "disable_tqdm": True, "use_cpu": not torch.cuda.is_available(),
                  "logging_steps": 10}  # fmt: skip
        dataset = loop.dataset({name: one for name, one in table.items() if name != "weight"})
        if arguments.get("packing"):  # TRL takes the time to pack before training; it isn't measured
            from trl import pack_dataset

            dataset = pack_dataset(dataset, arguments["max_length"], "bfd")
        cls, settings = (DPO, trl.DPOConfig) if preference else (trl.SFTTrainer, trl.SFTConfig)
        if not preference:
            common["dataset_kwargs"] = {"skip_prepare_dataset": True}
        made = cls(
            model=self.model, args=settings(**common, **arguments), train_dataset=dataset,
            processing_class=self.tokenizer, peft_config=loading.adapter_config(self.config(SftConfig)),
        )  # fmt: skip
        found = measure(made, made.train)
        self.clean(made)
        self.model.to(torch.bfloat16)
        return found


def attempt(name: str, run: Any) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        found = run()
    except Exception as error:  # a setting that doesn't fit or doesn't run is a finding too
        found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
        gc.collect()
    print(f"{name:36} {json.dumps(found)}  ({time.perf_counter() - start:.0f} s)", flush=True)
    return found


BEST = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}


def sft(bench: Bench) -> dict[str, Any]:
    table, cases = rows(4000), {}

    def case(name: str, run: Any) -> None:
        cases[name] = attempt(name, run)

    case("trl defaults", lambda: bench.trl(table, False, dtype="float32"))
    case("trl defaults, bfloat16 weights", lambda: bench.trl(table, False))
    for size in (8, 16):
        case(f"trl sorted, {size} rows",
             lambda size=size: bench.trl(table, False, per_device_train_batch_size=size, **BEST))  # fmt: skip
    case("trl packed, 4096 tokens", lambda: bench.trl(
        table, False, packing=True, max_length=4096, per_device_train_batch_size=1,
        gradient_checkpointing=False))  # fmt: skip
    for size in (16, 32):
        case(f"ours, {size} rows", lambda size=size: bench.ours(table, False, batch_size=size))
    case("ours, 32 rows, recomputing", lambda: bench.ours(table, False, batch_size=32, gradient_checkpointing=True))
    case("compiled, 32 rows", lambda: bench.ours(table, False, True, batch_size=32))
    with contextlib.suppress(ImportError):
        import liger_kernel  # noqa: F401

        for size in (16, 20):  # the layers stay patched: last
            case(f"trl sorted, {size} rows, liger", lambda size=size: bench.trl(
                table, False, per_device_train_batch_size=size, use_liger_kernel=True, **BEST))  # fmt: skip
        case("fused and liger, 32 rows", lambda: bench.ours(table, False, batch_size=32))
    return ratios(cases, "tokens_per_second")


def dpo(bench: Bench) -> dict[str, Any]:
    table, few, cases = pairs(1500), pairs(400), {}

    def case(name: str, run: Any) -> None:
        cases[name] = attempt(name, run)

    case("trl defaults", lambda: bench.trl(table, True, dtype="float32"))
    case("trl defaults, bfloat16 weights", lambda: bench.trl(table, True))
    case("trl without recomputing, 8 pairs", lambda: bench.trl(
        table, True, per_device_train_batch_size=8, gradient_checkpointing=False))  # fmt: skip
    case("ours, 8 pairs", lambda: bench.ours(few, True, batch_size=8))
    case("ours, 16 pairs, recomputing", lambda: bench.ours(few, True, batch_size=16, gradient_checkpointing=True))
    return ratios(cases, "rows_per_second", "rows_per_second_with_reference")


def ratios(cases: dict[str, dict], key: str, own: str | None = None) -> dict[str, Any]:
    def best(prefix: str, name: str) -> float:
        return max((one.get(name, 0.0) for label, one in cases.items() if label.startswith(prefix)), default=math.nan)

    ours = best("ours", own or key)
    compared = {"to_defaults": cases["trl defaults"].get(key), "to_best": best("trl", key),
                "to_defaults_in_bfloat16": cases["trl defaults, bfloat16 weights"].get(key)}  # fmt: skip
    return {"cases": cases, "ratio": {name: round(ours / value, 2) for name, value in compared.items() if value}}


def qlora(bench: Bench) -> dict[str, Any]:
    """The quantised base is made from a folder, as a stage does. `peak_gib` is that of the steps."""
    import torch

    from whetstone.training import loading, weighted
    from whetstone.training.config import SftConfig

    bench.save()
    del bench.model
    gc.collect()
    torch.cuda.empty_cache() if torch.cuda.is_available() else None
    table, cases = rows(1000), {}
    for kind, size, recompute in (("nf4", 8, True), ("nf4", 8, False), ("nf4", 16, True), ("int8", 8, True)):
        config = bench.config(SftConfig, adapter="qlora", quantisation=kind, batch_size=size,
                              gradient_checkpointing=recompute)  # fmt: skip

        def run(config=config) -> dict[str, Any]:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            model, tokenizer = loading.load(bench.base, config), loading.load_tokenizer(bench.base, config.template)
            loaded = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
            made = weighted.trainer(model, tokenizer, table, config, bench.folder / "q")
            made._save_checkpoint = lambda *_: None
            made.follow(config, [len(ids) for ids in table["input_ids"]], None, None)
            found = measure(made, lambda: made.go(bench.folder / "q")) | {"peak_gib_loading": round(loaded, 1)}
            made.model = made.model_wrapped = made.optimizer = made.accelerator = None
            return found

        name = f"{kind}, {size} rows{', recomputing' if recompute else ''}"
        cases[name] = attempt(name, run)
        gc.collect()
        torch.cuda.empty_cache() if torch.cuda.is_available() else None
    return {"cases": cases}


def tiny(folder: Path) -> dict[str, Any]:
    """The default pipeline from nothing, by `dvc repro` on this machine, beside the numbers in metrics/ and plots/,
    which a CPU made."""
    import pandas as pd
    import yaml

    work = folder / "tiny"
    work.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, work)
    for name in ("stages", "whetstone", "prompts", "models/base", "data/raw"):
        shutil.copytree(ROOT / name, work / name)
    environment = os.environ | {"PYTHONPATH": f"{work}:{os.environ.get('PYTHONPATH', '')}"}
    start = time.perf_counter()
    for command in (["init", "--no-scm", "-q"], ["repro"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, cwd=work, env=environment)
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 1), "stages": {}, "epochs": {}}
    for path in sorted((work / "manifests/local").glob("*.json")):
        one = json.loads(path.read_text())
        found["stages"][one["stage"]] = {"seconds": one["seconds"], "device": one["device"]}
    for epoch in yaml.safe_load((ROOT / "params.yaml").read_text())["epochs"]["train"]:
        here, there = (json.loads((place / f"metrics/train/{epoch}.json").read_text()) for place in (work, ROOT))
        ours, theirs = (pd.read_csv(place / f"plots/train/{epoch}.csv") for place in (work, ROOT))
        found["epochs"][epoch] = {
            "rows": {"here": here["rows"], "cpu": there["rows"]}, "dev": {"here": here["dev"], "cpu": there["dev"]},
            "largest_loss_gap": float((ours["loss"] - theirs["loss"]).abs().max()),
        }  # fmt: skip
    here, there = (json.loads((place / "metrics/summary.json").read_text()) for place in (work, ROOT))
    found["test"] = {}
    for name in found["epochs"]:
        for what in ("first_attempt", "best_single", "oracle"):
            ours, theirs = here[name][what], there[name][what]
            interval = [theirs["low"], theirs["high"]]
            found["test"][f"{name} {what}"] = {
                "here": ours["accuracy"], "cpu": theirs["accuracy"], "interval_of_cpu": interval,
                "within": interval[0] <= ours["accuracy"] <= interval[1],
            }  # fmt: skip
    for name, one in found["test"].items():
        print(f"{name:24} {json.dumps(one)}", flush=True)
    return found


def precision(folder: Path) -> dict[str, Any]:
    """The tiny model in float32 with padding and in what a GPU is given instead: largest gap of a loss over 30 steps
    of fine-tuning, and gradients of DPO. Needs data/ as the pipeline leaves it."""
    import pandas as pd

    from whetstone.training.config import SftConfig
    from whetstone.training.sft import train_sft

    examples = pd.read_parquet(ROOT / "data/training/epoch1/sft.parquet")
    common = {"learning_rate": 1e-3, "max_steps": 30, "first_token_weight": 20}
    losses = {}
    for name in ("float32", "bfloat16"):
        config, out = SftConfig(**common, dtype=name), folder / name
        _, curve = train_sft(ROOT / "models/base", examples, out, config, scratch=folder / "p")
        losses[name] = curve["loss"]
    gaps = {name: round(float((one - losses["float32"]).abs().max()), 5) for name, one in losses.items()}
    print(json.dumps(gaps), flush=True)
    return {"largest_loss_gap": gaps, "loss_first": round(losses["float32"].iloc[0], 4),
            "loss_last": round(losses["float32"].iloc[-1], 4), "gradient_cosine": gradients(folder)}  # fmt: skip


def gradients(folder: Path) -> dict[str, float]:
    """The gradient of DPO over whole completions, 160 pairs, an adapter with random weights: its cosine with that in
    float32, of bfloat16 as a GPU is given it, and of bfloat16 with padding and PEFT's layers."""
    import pandas as pd
    import torch

    from whetstone.training import loading, preference
    from whetstone.training.config import DpoConfig
    from whetstone.training.dpo import tokenise

    pairs = pd.read_parquet(ROOT / "data/training/epoch2/dpo.parquet").head(160)
    found = {}
    cases = (("float32", "float32", False), ("packed", "bfloat16", True), ("padded", "bfloat16", False))
    for name, dtype, packs in cases:
        config = DpoConfig(learning_rate=1e-3, max_steps=1, dtype=dtype, scope="completion", nll_weight=0)
        base = ROOT / "models/base"
        model, tokenizer = loading.load(base, config), loading.load_tokenizer(base, config.template)
        rows, _ = tokenise(pairs, tokenizer, config, "pairs")
        plain = contextlib.nullcontext() if packs else patch.object(preference.PreferenceTrainer, "prepare_head")
        with plain:
            made = preference.trainer(model, tokenizer, rows, config, folder / name)
            made.follow(config, preference.lengths(rows), None, None)
        trained = [one for one in made.model.parameters() if one.requires_grad]
        random = torch.Generator().manual_seed(0)
        for one in trained:
            one.data = (0.05 * torch.randn(one.shape, generator=random)).to(one.device, one.dtype)
        made.switch(True)
        made.model.train()
        for start in range(0, len(pairs), config.batch_size):
            some = [made.train_dataset[row] for row in range(start, start + config.batch_size)]
            with made.compute_loss_context_manager():
                loss = made.compute_loss(made.model, made._prepare_inputs(made.data_collator(some)))
            loss.backward()
        found[name] = torch.cat([one.grad.double().flatten() for one in trained])
    reference = found.pop("float32")
    cosines = {name: float(torch.cosine_similarity(one, reference, dim=0)) for name, one in found.items()}
    print(json.dumps(cosines), flush=True)
    return {name: round(one, 5) for name, one in cosines.items()}


def main() -> None:
    parts = sys.argv[1:] or ["tiny", "precision", "dpo", "sft", "qlora"]
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for part in (tiny, precision):  # first: stages are processes of their own
            if part.__name__ in parts:
                result[part.__name__] = part(folder) | {"revision": commit()}
        if {"sft", "dpo", "qlora"} & {*parts}:
            import transformers

            transformers.logging.set_verbosity_error()
            bench = Bench(folder)
            for part in (dpo, sft, qlora):
                if part.__name__ in parts:
                    result[part.__name__] = part(bench) | {"revision": commit()}
                    write(result)
    write(result)


def write(result: dict[str, Any]) -> None:
    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    versions = {name: version(name) for name in packages if find_spec(name)}
    about = {"device": device(), "model": SHAPE, "versions": result.get("versions", {}) | versions}
    (Path(os.environ["OUT"]) / RESULT.name if "OUT" in os.environ else RESULT).write_text(
        json.dumps(about | {name: one for name, one in result.items() if name not in about}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
