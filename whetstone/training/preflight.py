"""What a training will take, told before its model is loaded: memory, disk and time. Imports no torch.

Memory is that of the pass with the longest rows, or of sampling the dev problems if that takes more:
  weights       4 bytes each, 2 where a GPU holds a frozen base in bfloat16, 1.03 in int8, 0.52 in nf4 (with the
                scales; embeddings stay in bfloat16)
  trained ones  16 bytes each: the weight in float32, its gradient and Adam's two moments
  activations   2 x (6 h + 3 k + 4 f) bytes a token and layer (h: hidden, k: width of the keys, f: feed-forward); in
                float32, whose norms aren't fused, 4 x (8 h + 3 k + 4 f); with recomputation 2 or 4 h a token and
                layer, and one layer whole; int8 keeps the inputs of its layers all the same, 2 x (6 h + f) each
  sampling      with select dev_accuracy, a copy of the adapted layers where they are in float32
Beside measured peaks of a 7B model (benchmarks/results/training_gpu.json), for the tokens of their longest passes: 43
GiB where 42 were seen, 68 where 67 were, with recomputation 20 where 19 were, in nf4 19 where 18 and 8 where
7 were, in int8 15 where 15 were.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from whetstone.errors import UserError
from whetstone.training import checks
from whetstone.training.config import DpoConfig, TrainingConfig

BYTES = {"nf4": 0.52, "int8": 1.03}
GIB = 2**30
OVERHEAD = 1.0 * GIB  # libraries, fragments
SPEED = {"H100": 370e12, "H200": 370e12, "A100": 130e12, "4090": 50e12, "3090": 25e12, "L4": 25e12}  # operations a
# second in training adapters in bfloat16; of the H100 measured, of others a third of the maker's peak


class Shape(NamedTuple):
    """Of a model: numbers of weights, and widths."""

    weights: int
    linear: int  # weights of the layers that an adapter is put on
    adapted: int  # sum of in + out over these
    layers: int
    hidden: int
    keys: int
    feed_forward: int


class Need(NamedTuple):
    """Bytes, and operations."""

    weights: float
    trained: float
    activations: float
    sampling: float
    disk: float
    operations: float

    @property
    def memory(self) -> float:
        return self.weights + self.trained + max(self.activations, self.sampling) + OVERHEAD


def shape(model: Path) -> Shape | None:
    """From the headers of the weights' files; None where they aren't safetensors."""
    config = json.loads((model / "config.json").read_text())
    config = config.get("text_config", config)
    tensors: dict[str, list[int]] = {}
    for file in sorted(model.glob("model*.safetensors")):
        with file.open("rb") as stream:
            head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        tensors |= {name: one["shape"] for name, one in head.items() if name != "__metadata__"}
    if not tensors or "hidden_size" not in config:
        return None
    linear = [s for name, s in tensors.items() if len(s) == 2 and "embed" not in name and "lm_head" not in name]
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    width = config.get("head_dim") or hidden // heads
    return Shape(
        sum(math.prod(s) for s in tensors.values()),
        sum(math.prod(s) for s in linear),
        sum(sum(s) for s in linear),
        config["num_hidden_layers"],
        hidden,
        width * (config.get("num_key_value_heads") or heads),
        config.get("intermediate_size") or 4 * hidden,
    )


def need(size: Shape, config: TrainingConfig, lengths: Sequence[int], gpu: bool) -> Need:
    """`lengths`: tokens of each row; of a pair, of both its sequences."""
    whole, full = config.adapter == "none", config.dtype == "float32" or not gpu
    adapter = config.rank * size.adapted
    trained = 16.0 * (size.weights if whole else adapter)
    if whole:
        weights = 0.0  # counted as trained
    elif config.adapter == "qlora":
        weights = BYTES[config.quantisation] * size.linear + 2.0 * (size.weights - size.linear)
    else:
        weights = (4.0 if full else 2.0) * size.weights
    share = config.devices if config.sharded else 1
    longest = sorted(lengths)[-config.batch_size :]
    tokens = float(sum(longest)) if gpu and not full else float(len(longest) * max(longest))
    layer = (4.0 if full else 2.0) * ((8 if full else 6) * size.hidden + 3 * size.keys + 4 * size.feed_forward)
    if config.gradient_checkpointing:
        kept = 2.0 * size.hidden * (2 if full else 1)
        if config.adapter == "qlora" and config.quantisation == "int8":
            kept += 2.0 * (6 * size.hidden + size.feed_forward)
        activations = tokens * (kept * size.layers + layer)
    else:
        activations = tokens * layer * size.layers
    copied = config.adapter == "lora" and full and config.select == "dev_accuracy"
    passes = config.epochs or config.max_steps * config.rows_per_step / len(lengths)
    each = (6 if whole else 4) + (2 if config.gradient_checkpointing else 0)
    reference = 2 if isinstance(config, DpoConfig) else 0
    operations = sum(lengths) * size.weights * (each * passes + reference)
    checkpoint = 12.0 * (size.weights if whole else adapter)
    return Need(
        weights / share, trained / share, activations, 4.0 * size.linear if copied else 0.0, 3 * checkpoint,
        operations / config.devices,
    )  # fmt: skip


def check(
    model: Path, config: TrainingConfig, lengths: Sequence[int], scratch: Path,
    report: Callable[[str], None] | None,
) -> None:  # fmt: skip
    """Reports what the training will take.

    Raises:
        UserError: it needs more memory or disk than there is, with the knobs that change it.
    """
    size = shape(model)
    if size is None:
        return
    gpu, memory, name = device()
    found = need(size, config, lengths, gpu)
    speed = next((value for part, value in SPEED.items() if part in name), None)
    took = f", about {found.operations / speed / 3600:.1f} h on {name}" if speed and gpu else ""
    if report:
        report(
            f"{size.weights / 1e6:,.0f} million weights; {found.memory / GIB:.1f} GiB of memory, up to "
            f"{found.disk / GIB:.1f} GiB of disk, {found.operations / 1e15:,.1f} petaflop{took}"
        )
    if memory and found.memory > memory:
        most = {"activations": found.activations, "sampling": found.sampling}
        largest = max(most, key=most.__getitem__)
        parts = {"weights": found.weights, "what is trained": found.trained, largest: most[largest]}
        listed = ", ".join(f"{part} {size / GIB:.1f}" for part, size in parts.items())
        raise UserError(
            f"{name} has {memory / GIB:.1f} GiB of memory, training would need about "
            f"{found.memory / GIB:.1f} ({listed}). " + knobs(config, max(lengths))
        )
    free = shutil.disk_usage(next(folder for folder in [scratch, *scratch.parents] if folder.exists())).free
    if found.disk > free:
        raise UserError(
            f"unfinished training would take up to {found.disk / GIB:.1f} GiB in {scratch}, where "
            f"{free / GIB:.1f} are free; free some (`make free`), or lower rank (now {config.rank}) or use an adapter"
        )


def knobs(config: TrainingConfig, longest: int) -> str:
    """What makes a training smaller, with the values of the moment. `longest` row in tokens."""
    recomputes = str(config.gradient_checkpointing).lower()
    smaller = "" if config.adapter == "qlora" else f". Or adapter `qlora`, now `{config.adapter}`"
    return (
        f"Three knobs, with their values now: batch_size {config.batch_size} (halve it and double "
        f"gradient_accumulation, now {config.gradient_accumulation}: the same result), max_length {config.max_length} "
        f"(the longest row has {longest} tokens), gradient_checkpointing {recomputes}{smaller}"
    )


def device() -> tuple[bool, float | None, str]:
    """(is a GPU, bytes of its memory or of what the machine has to give, name); None where nothing tells."""
    if found := checks.cuda_device():
        return True, *found
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return False, None, "this machine"
    return False, 1024.0 * int(available), "this machine"
