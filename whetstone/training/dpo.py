"""Direct preference optimisation against the model that training starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from whetstone.prompts.rendering import rendered
from whetstone.training import checkpoints, checks, preflight
from whetstone.training.config import DpoConfig
from whetstone.training.tokens import check_lengths, continuation_ids

_COLUMNS = ["id", "prompt", "chosen", "rejected"]


def train_dpo(
    model_path: str | Path,
    pairs: pd.DataFrame,
    out: str | Path,
    config: DpoConfig,
    *,
    scratch: str | Path,
    dev: Callable[[Any, Any, int], float] | None = None,
    held_out: pd.DataFrame | None = None,
    base_path: str | Path | None = None,
    report: Callable[[str], None] | None = None,
    tracker: Callable[[Any], None] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Trains the model in `model_path` on `pairs` (`records.PAIR`); everything else as in `sft.train_sft`.

    The reference is the model in `model_path` (the adapter switched off, or the weights before the first step), so the
    first step's DPO loss is ln 2; or, with `config.reference` base, the model in `base_path`. Its log-probabilities
    are computed once.
    """
    model_path, where = checks.check_model(model_path), "training pairs"
    check(pairs, where)
    if held_out is not None:
        check(held_out, "held-out pairs")
    checks.check_select(config, dev, held_out)
    checks.check_device(config)
    counted = checks.check_text_lengths(pairs, _COLUMNS[2:], model_path, config, where)
    if counted:
        preflight.check(model_path, config, counted, Path(scratch), report)
    models = [model_path, *([checks.check_model(base_path)] if config.reference == "base" else [])]

    from whetstone.training import loading, loop, preference

    tables = [pairs[_COLUMNS], *([] if held_out is None else [held_out[_COLUMNS]])]
    tokenizer = loading.load_tokenizer(model_path, config.template)
    rows, cut = tokenise(pairs, tokenizer, config, where)
    unseen = None if held_out is None else tokenise(held_out, tokenizer, config, "held-out pairs")[0]
    lengths = preference.lengths(rows)
    if not counted:
        preflight.check(model_path, config, preference.both_lengths(rows), Path(scratch), report)
    folder = checkpoints.work_folder(scratch, "dpo", models, tables, config)
    model = loading.load(model_path, config)
    with loop.memory_errors(config, max(lengths)):
        if config.reference == "base":
            preference.add_reference(models[1], [rows, *([] if unseen is None else [unseen])], config, folder)
        trainer = preference.trainer(model, tokenizer, rows, config, folder, unseen)
        trainer.follow(config, lengths, dev, report)
        if tracker:
            tracker(trainer)
        trainer.go(folder)
    summary, curve = loop.finish(trainer, folder, model_path, out)
    return {**summary, "truncated": cut}, curve


def check(pairs: pd.DataFrame, where: str) -> None:
    checks.check_rows(pairs, _COLUMNS[1:], where)
    checks.check_pairs(pairs, where)


def tokenise(pairs: pd.DataFrame, tokenizer: Any, config: DpoConfig, where: str) -> tuple[dict[str, list], int]:
    """Columns `prompt_ids`, `chosen_ids`, `rejected_ids` (completions with EOS), and how many rows were cut."""
    encode, bos, eos = (lambda text: tokenizer(text)["input_ids"]), tokenizer.bos_token_id, tokenizer.eos_token_id
    rows: dict[str, list] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for row in pairs.itertuples():
        for name in ("chosen", "rejected"):
            prompt, ids = continuation_ids(
                encode, rendered(tokenizer, row.prompt), getattr(row, name), bos, eos, f"{where}: row {row.id!r}"
            )
            rows[f"{name}_ids"].append(ids)
        rows["prompt_ids"].append(prompt)
    prompts = [len(ids) for ids in rows["prompt_ids"]]
    longest = [
        p + max(len(c), len(r)) for p, c, r in zip(prompts, rows["chosen_ids"], rows["rejected_ids"], strict=True)
    ]
    cut = check_lengths(list(pairs["id"]), longest, prompts, config.max_length, config.truncate, where)
    for name in ("chosen_ids", "rejected_ids"):
        rows[name] = [ids[: config.max_length - p] for ids, p in zip(rows[name], prompts, strict=True)]
    if config.scope == "first_token":  # TRL's ld_alpha 0 ends the preference where the shorter completion ends
        rows["rejected_ids"] = [ids[:1] for ids in rows["rejected_ids"]]
    return rows, cut
