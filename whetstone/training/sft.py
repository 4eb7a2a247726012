"""Supervised fine-tuning on completions, each example with its weight, or each turn with its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from whetstone.errors import UserError
from whetstone.prompts.rendering import rendered
from whetstone.training import checkpoints, checks, preflight
from whetstone.training.config import SftConfig
from whetstone.training.tokens import check_lengths, continuation_ids, turn_ids


def train_sft(
    model_path: str | Path,
    examples: pd.DataFrame,
    out: str | Path,
    config: SftConfig,
    *,
    scratch: str | Path,
    dev: Callable[[Any, Any, int], float] | None = None,
    held_out: pd.DataFrame | None = None,
    report: Callable[[str], None] | None = None,
    tracker: Callable[[Any], None] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Trains the model in `model_path` on `examples` (`records.EXAMPLE`) and writes the adapter (or, with adapter
    `none`, the model) to `out` when it is done.

    The loss of a step is sum_i w_i nll_i / (number of the step's completion tokens), nll_i the sum over the tokens of
    completion i and its end of sequence, w_i its weight over the mean weight of a token of `examples`: equal weights
    are plain fine-tuning, whatever their size.

    Instead of `prompt` and `completion`, rows may have `turns`: a list of {"text", "weight"} that follow each other,
    weight None where the text isn't trained. A token's weight is its turn's times its row's. The last turn ends with
    an end of sequence; what ends an earlier one is part of its text.

    A run that was killed goes on from its last complete checkpoint in `scratch`, where the same call finds it. Under
    `accelerate launch` each process makes this call; one of them writes.

    Args:
        dev: (model, tokenizer, step) to a value, called at each checkpoint for select `dev_accuracy`: the highest is
            the result (the earlier of equals). What it measures on isn't part of the run's identity: give another
            `scratch` with another dev set.
        held_out: rows like `examples`, for select `dev_loss`: the lowest loss on them is the result.
        report: receives a line of progress now and then.
        tracker: is given the trainer before it begins, see `trackers`.

    Returns:
        (summary, curve): steps, tokens, seconds, first and last loss, dev values, chosen step; and a row per step.

    Raises:
        UserError: see `checks`; or training diverges, or the GPU runs out of memory.
    """
    model_path, where = checks.check_model(model_path), "training examples"
    columns = check(examples, config, where)
    if held_out is not None:
        check(held_out, config, "held-out examples")
    checks.check_select(config, dev, held_out)
    checks.check_device(config)
    counted = checks.check_text_lengths(examples, ["completion"], model_path, config, where)
    if counted:
        preflight.check(model_path, config, counted, Path(scratch), report)

    from whetstone.training import loading, loop, weighted

    tables = [examples[columns], *([] if held_out is None else [held_out[columns]])]
    tokenizer = loading.load_tokenizer(model_path, config.template)
    rows, cut = tokenise(examples, tokenizer, config, where)
    unseen = None if held_out is None else tokenise(held_out, tokenizer, config, "held-out examples")[0]
    lengths = [len(ids) for ids in rows["input_ids"]]
    if not counted:
        preflight.check(model_path, config, lengths, Path(scratch), report)
    folder = checkpoints.work_folder(scratch, "sft", [model_path], tables, config)
    model = loading.load(model_path, config)
    with loop.memory_errors(config, max(lengths)):
        trainer = weighted.trainer(model, tokenizer, rows, config, folder, unseen)
        trainer.follow(config, lengths, dev, report)
        if tracker:
            tracker(trainer)
        trainer.go(folder)
    summary, curve = loop.finish(trainer, folder, model_path, out)
    return {**summary, "truncated": cut}, curve


def check(examples: pd.DataFrame, config: SftConfig, where: str) -> list[str]:
    """The columns that decide what is trained. Raises UserError for what can't be trained on."""
    if "turns" not in examples.columns:
        checks.check_rows(examples, ["prompt", "completion"], where)
        checks.check_weights(examples, where)
        return ["id", "prompt", "completion", "weight"]
    checks.check_rows(examples, [], where)
    checks.check_weights(examples, where)
    checks.check_turns(examples, where)
    if config.first_token_weight != 1:
        raise UserError(
            f"{where}: first_token_weight is {config.first_token_weight}, but rows with `turns` weigh their tokens "
            "themselves; set it to 1"
        )
    return ["id", "turns", "weight"]


def tokenise(examples: pd.DataFrame, tokenizer: Any, config: SftConfig, where: str) -> tuple[dict[str, list], int]:
    """Columns `input_ids`, `labels` (-100 on what isn't trained), `weight` (mean 1 over the trained tokens), with
    turns `token_weight` too; and how many rows were cut."""
    encode, bos, eos = (lambda text: tokenizer(text)["input_ids"]), tokenizer.bos_token_id, tokenizer.eos_token_id
    sequences = []  # ids, and a weight for each: None where it isn't trained
    for row in examples.itertuples():
        place = f"{where}: row {row.id!r}"
        if "turns" in examples.columns:
            sequences.append(turn_ids(encode, row.turns, bos, eos, place))
        else:
            head, tail = continuation_ids(encode, rendered(tokenizer, row.prompt), row.completion, bos, eos, place)
            sequences.append((head + tail, [None] * len(head) + [1.0] * len(tail)))
    heads = [next(i for i, w in enumerate(weights) if w is not None) for _, weights in sequences]
    lengths = [len(ids) for ids, _ in sequences]
    cut = check_lengths(list(examples["id"]), lengths, heads, config.max_length, config.truncate, where)
    sequences = [(ids[: config.max_length], weights[: config.max_length]) for ids, weights in sequences]
    trained = [[w for w in weights if w is not None] for _, weights in sequences]
    mean = sum(w * sum(own) for w, own in zip(examples["weight"], trained, strict=True)) / sum(map(len, trained))
    rows = {
        "input_ids": [ids for ids, _ in sequences],
        "labels": [
            [-100 if w is None else token for token, w in zip(ids, weights, strict=True)] for ids, weights in sequences
        ],
        "weight": [float(w) / mean for w in examples["weight"]],
    }
    if "turns" in examples.columns:
        rows["token_weight"] = [[w or 0.0 for w in weights] for _, weights in sequences]
    return rows, cut
