"""A user's mistakes, found before torch is imported."""

from __future__ import annotations

import ctypes
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from whetstone.errors import UserError
from whetstone.prompts.rendering import TEMPLATE
from whetstone.training.config import TrainingConfig
from whetstone.training.tokens import check_lengths, file_encoder

ORIGIN = "whetstone.json"  # in a result: digest and precision of the model it was trained against
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_model(path: str | Path) -> Path:
    """Raises UserError where `path` isn't a folder with a model (config.json and weights)."""
    path = Path(path)
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: no model there (no config.json); run the stage that makes it, or correct the path")
    if not weight_files(path):
        raise UserError(f"{path}: config.json but no weights ({' or '.join(WEIGHTS)})")
    return path


def template_of(path: Path) -> str:
    """How prompts become tokens for the model in a folder: what it was trained with, plain where nothing says so."""
    config = path / "tokenizer_config.json"
    return json.loads(config.read_text()).get(TEMPLATE, "plain") if config.is_file() else "plain"


def weight_files(path: Path) -> list[Path]:
    return sorted(file for pattern in WEIGHTS for file in path.glob(pattern))


def check_rows(rows: pd.DataFrame, texts: Sequence[str], where: str) -> None:
    """Raises UserError for an empty table, a missing column or an empty text."""
    missing = [name for name in ("id", *texts) if name not in rows.columns]
    if missing:
        raise UserError(f"{where}: missing columns {missing}; it has {list(rows.columns)}")
    if rows.empty:
        raise UserError(
            f"{where}: 0 of 0 rows to train on: nothing came through the filters before; look at the statistics of "
            "the stage that wrote it (how many attempts were right, and what was dropped)"
        )
    for name in texts:
        usable = rows[name].map(lambda text: isinstance(text, str) and bool(text.strip()))
        if not usable.all():
            raise UserError(
                f"{where}: row {rows['id'][~usable].iloc[0]!r}: `{name}` is empty, in {int((~usable).sum())} of "
                f"{len(rows)} rows"
            )


def check_weights(rows: pd.DataFrame, where: str) -> None:
    """Raises UserError for a weight that isn't a finite number >= 0, or where all are 0."""
    bad = ~rows["weight"].map(lambda w: w is not None and math.isfinite(w) and w >= 0)
    if bad.any():
        raise UserError(
            f"{where}: row {rows['id'][bad].iloc[0]!r}: weight {rows['weight'][bad].iloc[0]!r}; a weight is a finite "
            f"number, 0 or more ({int(bad.sum())} of {len(rows)} aren't)"
        )
    if not (rows["weight"] > 0).any():
        raise UserError(f"{where}: 0 of {len(rows)} rows have a weight above 0: there is nothing to train on")


def check_turns(rows: pd.DataFrame, where: str) -> None:
    """Raises UserError for turns that begin with a trained one, train none, or have an unusable text or weight."""
    for row in rows.itertuples():
        weights = [turn["weight"] for turn in row.turns]
        fault = None
        if any(not isinstance(turn["text"], str) or not turn["text"] for turn in row.turns):
            fault = "a turn has no text"
        elif any(w is not None and not (math.isfinite(w) and w >= 0) for w in weights):
            fault = f"weights {weights}: a weight is a finite number, 0 or more, or null where a turn isn't trained"
        elif not weights or weights[0] is not None:
            fault = "the first turn is trained: it would have no prompt; give it weight null"
        elif not any(weights):
            fault = "no turn has a weight above 0"
        if fault:
            raise UserError(f"{where}: row {row.id!r}: {fault}")


def check_pairs(rows: pd.DataFrame, where: str) -> None:
    """Raises UserError where chosen and rejected are the same text."""
    same = rows["chosen"] == rows["rejected"]
    if same.any():
        raise UserError(
            f"{where}: row {rows['id'][same].iloc[0]!r}: chosen and rejected are the same text ({int(same.sum())} of "
            f"{len(rows)} rows)"
        )


def check_select(config: TrainingConfig, dev: object, held_out: object) -> None:
    """Raises UserError where a checkpoint is to be selected by something that isn't given."""
    if config.select == "dev_accuracy" and dev is None:
        raise UserError("select `dev_accuracy` needs dev problems; give them, or set select to `last`")
    if config.select == "dev_loss" and held_out is None:
        raise UserError("select `dev_loss` needs rows that are held out; give them, or set select to `last`")


def check_device(config: TrainingConfig) -> None:
    """Raises UserError for qlora without a CUDA GPU, and where there are fewer processes than `devices`."""
    if config.adapter == "qlora":
        need_cuda(f"adapter `qlora` keeps the base in {'4' if config.quantisation == 'nf4' else '8'} bits")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes != config.devices:
        raise UserError(
            f"devices is {config.devices}, but {processes} processes train; a stage starts them itself, otherwise use "
            f"`accelerate launch --num_processes {config.devices}`"
        )


def need_cuda(what: str) -> None:
    """Raises UserError where no CUDA GPU is visible."""
    if not cuda_devices():
        raise UserError(
            f"{what} and needs a CUDA GPU; none is visible here. Use adapter `lora` (or `none`), or a "
            "machine with a GPU"
        )


def cuda_devices() -> int:
    """CUDA GPUs that the driver shows to this process, without importing torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def gpus(config: TrainingConfig) -> list[str]:
    """The GPUs that a training takes: as many as `devices`, from the first visible one on; none on a CPU.

    Raises:
        UserError: there are fewer.
    """
    found = cuda_devices()
    if 0 < found < config.devices:
        raise UserError(f"devices is {config.devices}, but this machine shows {found} GPUs")
    return [f"cuda:{number}" for number in range(config.devices)] if found else []


def cuda_device() -> tuple[float, str] | None:
    """(bytes of memory, name) of the first CUDA GPU; None where there is none."""
    if not cuda_devices():
        return None
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        size, name = ctypes.c_size_t(0), ctypes.create_string_buffer(100)
        if driver.cuDeviceTotalMem_v2(ctypes.byref(size), 0) or driver.cuDeviceGetName(name, 100, 0):
            return None
    except OSError:
        return None
    return float(size.value), name.value.decode()


def check_text_lengths(
    rows: pd.DataFrame, texts: Sequence[str], model: Path, config: TrainingConfig, where: str
) -> list[int] | None:
    """Tokens of each row (of a pair, of both its sequences), counted by tokenizer.json alone. None without one, with a
    chat template and for turns: then rows are counted once the tokenizer is loaded, which takes torch.

    Raises:
        UserError: `max_length` would cut a completion that may not be cut.
    """
    encode = file_encoder(model) if config.template == "plain" and set(texts) <= set(rows.columns) else None
    if encode is None:
        return None
    end = 0 if encode("a")[-1:] == encode("b")[-1:] else 1  # unless the tokenizer adds it to every text
    total = [0] * len(rows)
    prompts = [len(encode(prompt)) for prompt in rows["prompt"]]
    for name in texts:
        lengths = [len(encode(text)) + end for text in rows["prompt"].str.cat(rows[name])]
        check_lengths(list(rows["id"]), lengths, prompts, config.max_length, config.truncate, where)
        total = [known + min(length, config.max_length) for known, length in zip(total, lengths, strict=True)]
    return total
