"""Checkpoints that are complete or ignored, and results that appear at once or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from whetstone import records
from whetstone.prompts.rendering import TEMPLATE
from whetstone.training import checks
from whetstone.training.config import TrainingConfig

_COMPLETE = "complete.json"  # written last: a checkpoint without it, or with other sizes than it names, was torn
_TRAINER_FILES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "training_args.bin", "README.md")


def seal(checkpoint: Path) -> None:
    """Marks a checkpoint as complete: the marker names every file and its size, and appears in one rename."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file() and file.name != _COMPLETE]
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}
    partial = checkpoint / (_COMPLETE + ".partial")
    partial.write_text(json.dumps(sizes, indent=1))
    partial.replace(checkpoint / _COMPLETE)


def is_complete(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / _COMPLETE).read_text())
    except (OSError, ValueError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items()
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; torn ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    torn = [path for path in found if not is_complete(path)]
    for path in torn:
        shutil.rmtree(path)
    whole = [path for path in found if path not in torn]
    return whole[-1] if whole else None


def work_folder(
    scratch: str | Path, kind: str, models: Sequence[Path], tables: Sequence[pd.DataFrame], config: TrainingConfig
) -> Path:
    """Where the checkpoints of this very training live: another model, row or parameter is another folder."""
    weights = [records.weights_digest(model) for model in models]
    rows = [pd.util.hash_pandas_object(one.map(repr), index=False).to_numpy().tobytes().hex() for one in tables]
    key = records.fingerprint(kind, *weights, *rows, config.model_dump_json())
    folder = Path(scratch) / f"{kind}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def publish(checkpoint: Path, model: Path, config: TrainingConfig, dtype: str, out: Path) -> None:
    """Replaces `out` by the weights of a checkpoint, with the tokenizer of the `model` that it was trained from and
    what `merge` needs to know: that model's digest and the `dtype` in which it was loaded."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    copy_weights(checkpoint, partial)
    copy_tokenizer(model, partial)
    if config.template != "plain":  # so that whatever samples from the result asks as training did
        own = partial / "tokenizer_config.json"
        own.write_text(json.dumps(json.loads(own.read_text()) | {TEMPLATE: config.template}, indent=2) + "\n")
    peft = partial / "adapter_config.json"
    if peft.exists():  # PEFT writes a set: in any order
        content = json.loads(peft.read_text())
        if isinstance(content.get("target_modules"), list):
            content["target_modules"].sort()
        peft.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    origin = {
        "base": records.weights_digest(model),
        "adapter": config.adapter,
        "dtype": dtype,
    }
    if config.adapter == "qlora":
        origin["quantisation"] = config.quantisation
    (partial / checks.ORIGIN).write_text(json.dumps(origin, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)


def copy_weights(model: Path, to: Path) -> None:
    """Weights and their configuration: all but the tokenizer and what only a trainer reads."""
    for file in sorted(model.iterdir()):
        trainers = file.name in (*_TRAINER_FILES, _COMPLETE, checks.ORIGIN) or file.name.startswith("rng_state")
        if not trainers and file.name not in checks.TOKENIZER_FILES:
            shutil.copyfile(file, to / file.name)


def copy_tokenizer(model: Path, to: Path) -> None:
    """Tokenizer and generation config, byte for byte."""
    for name in checks.TOKENIZER_FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, to / name)
