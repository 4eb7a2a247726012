"""The vllm engine beside a bare `LLM.generate` in the same process, and what prefix caching gives 8-shot prompts.

    python -m benchmarks.engines_vllm [--config base|1.5b|7b] [--problems 512] [--max-tokens 128] [--repeats 3]

`base` is models/base; the others have random weights in the shapes of Qwen2.5-1.5B and Mistral-7B, made on the spot:
speed doesn't depend on the values. Every run starts with an empty prefix cache; both ways take turns on one engine and
get the same requests. On a CPU that others use too, ratios of processor time say more than those of the wall.
Writes benchmarks/results/engines_vllm-<config>-<device>.json, or the file that --out names.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.commit import commit

ROOT = Path(__file__).parents[1]
BASE = ROOT / "models" / "base"
SHAPES = {
    "1.5b": {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


def random_model(shape: dict, folder: Path) -> None:
    """Configuration, and the tokenizer of models/base with its vocabulary filled up so that any token has a text."""
    config = shape | {
        "torch_dtype": "bfloat16", "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "bos_token_id": 1, "eos_token_id": 2, "use_sliding_window": False,
    }  # fmt: skip
    tokenizer = json.loads((BASE / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    taken = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    vocabulary |= {f"word{i}": i for i in range(shape["vocab_size"]) if i not in taken}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text((BASE / "tokenizer_config.json").read_text())


def eight_shot(problems: int) -> list[str]:
    from whetstone.problems.world import generate
    from whetstone.prompts.strategies import load_prompt

    prompt = load_prompt(ROOT / "prompts" / "world" / "cot.yaml", "cot")
    return [prompt.render(row["question"], 8) for row in generate("test", problems, 0)]


def processor_seconds() -> float:
    """Of this process and vLLM's."""
    import psutil

    own = psutil.Process()
    return sum(p.cpu_times().user + p.cpu_times().system for p in [own, *own.children(recursive=True)])


def timed(engine: object, call: Callable[[], int]) -> tuple[float, float]:
    """New tokens per second of the wall and of the processors, from an empty prefix cache."""
    engine.llm.reset_prefix_cache()
    began, used = time.perf_counter(), processor_seconds()
    made = call()
    return made / (time.perf_counter() - began), made / (processor_seconds() - used)


def measure(model: str, options: dict, prompts: list[str], max_tokens: int, repeats: int) -> dict[str, object]:
    from vllm import SamplingParams

    from whetstone.engines.base import Request, Sampling
    from whetstone.engines.vllm import VllmEngine, _sampling_params

    sampling = Sampling(max_tokens, temperature=0.7, stop=("\n\n",))
    requests = [Request(prompt, sampling, seed) for seed, prompt in enumerate(prompts)]
    same = [_sampling_params(request.sampling, request.seed) for request in requests]
    plain = [SamplingParams(max_tokens=max_tokens, temperature=0.7, stop=["\n\n"], seed=p.seed) for p in same]

    def ours() -> int:
        return sum(len(one.token_ids) for _, many in engine.generate(requests) for one in many)

    def bare(params: list) -> int:
        outputs = engine.llm.generate(prompts, params, use_tqdm=False)
        return sum(len(one.token_ids) for output in outputs for one in output.outputs)

    ways = {"ours": ours, "bare": lambda: bare(same), "bare without log-probabilities": lambda: bare(plain)}
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    engine = VllmEngine(model, **options)
    try:
        tokens = sum(len(engine.encode(prompt)) for prompt in prompts)
        timed(engine, ours)  # kernels are chosen and compiled
        for turn in range(repeats):
            for name in list(ways)[turn % 3 :] + list(ways)[: turn % 3]:
                speeds[name].append(timed(engine, ways[name]))
    finally:
        engine.close()
    engine = VllmEngine(model, **options, enable_prefix_caching=False)
    try:
        timed(engine, lambda: sum(1 for _ in engine.generate(requests[: len(requests) // 4])))
        uncached = [timed(engine, ours) for _ in range(repeats)]
    finally:
        engine.close()

    def ratios(other: str) -> dict[str, float]:
        pairs = list(zip(speeds["ours"], speeds[other], strict=True))
        return {kind: round(median(a[i] / b[i] for a, b in pairs), 3) for i, kind in enumerate(("wall", "processor"))}

    def factor(i: int) -> float:
        return round(median(one[i] for one in speeds["ours"]) / median(one[i] for one in uncached), 2)

    return {
        "prompts": len(prompts),
        "prompt_tokens": tokens,
        "max_tokens": max_tokens,
        "tokens_per_second": {name: [round(wall, 1) for wall, _ in values] for name, values in speeds.items()},
        "ours_to_bare": ratios("bare"),
        "ours_to_bare_without_logprobs": ratios("bare without log-probabilities"),
        "tokens_per_second_without_prefix_caching": [round(wall, 1) for wall, _ in uncached],
        "prefix_caching_factor": {"wall": factor(0), "processor": factor(1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=["base", *SHAPES], default="base")
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

    import torch
    import vllm

    gpu = torch.cuda.device_count() > 0  # unlike is_available, it leaves the device alone
    options: dict[str, object] = {} if gpu else {"slots": 128, "enforce_eager": True}
    options["dtype"] = "float32" if chosen.config == "base" and not gpu else "bfloat16"
    prompts = eight_shot(chosen.problems)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.config == "base":
            result = measure(str(BASE), options, prompts, chosen.max_tokens, chosen.repeats)
        else:
            random_model(SHAPES[chosen.config], Path(folder))
            result = measure(folder, options | {"load_format": "dummy"}, prompts, chosen.max_tokens, chosen.repeats)
    name = torch.cuda.get_device_name(0) if gpu else f"{platform.machine()}, {os.cpu_count()} cores"
    result |= {
        "config": chosen.config,
        "options": options,
        "revision": commit(),
        "device": name,
        "load_average": None if gpu else round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version()}
        | {one: version(one) for one in ("torch", "transformers")}
        | {"vllm": vllm.__version__},
    }
    kind = name.split()[1].lower() if gpu else "cpu"
    out = chosen.out or ROOT / "benchmarks" / "results" / f"engines_vllm-{chosen.config}-{kind}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
