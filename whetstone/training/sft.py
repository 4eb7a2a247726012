"""Supervised fine-tuning on completions, each example with its weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from whetstone.training import checkpoints, checks
from whetstone.training.config import SftConfig
from whetstone.training.tokens import check_lengths, continuation_ids


def train_sft(
    model_path: str | Path,
    examples: pd.DataFrame,
    out: str | Path,
    config: SftConfig,
    *,
    scratch: str | Path,
    dev: Callable[[Any, Any, int], float] | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Trains the model in `model_path` on `examples` (`records.EXAMPLE`) and writes the adapter (or, with adapter
    `none`, the model) to `out` when it is done.

    The loss of a step is sum_i w_i nll_i / (number of the step's completion tokens), nll_i the sum over the tokens of
    completion i and its end of sequence, w_i its weight over the mean weight of a token of `examples`: equal weights
    are plain fine-tuning, whatever their size.

    A run that was killed goes on from its last complete checkpoint in `scratch`, where the same call finds it.

    Args:
        dev: (model, tokenizer, step) to a value, called at each checkpoint; `config.select` says whether the highest
            or the lowest is the result (the earlier of equals).
        report: receives a line of progress now and then.

    Returns:
        (summary, curve): steps, tokens, seconds, first and last loss, dev values, chosen step; and a row per step.

    Raises:
        UserError: see `checks`; or training diverges, or the GPU runs out of memory.
    """
    model_path, where = checks.check_model(model_path), "training examples"
    checks.check_rows(examples, ["completion"], where)
    checks.check_weights(examples, where)
    checks.check_select(config, dev)
    checks.check_device(config)
    checks.check_text_lengths(examples, ["completion"], model_path, config, where)

    from whetstone.training import loop, weighted

    folder = checkpoints.work_folder(
        scratch, "sft", model_path, examples[["id", "prompt", "completion", "weight"]], config
    )
    model, tokenizer = loop.load(model_path, config)
    rows, cut = tokenise(examples, tokenizer, config, where)
    with loop.memory_errors(config, max(map(len, rows["input_ids"]))):
        trainer = weighted.trainer(model, tokenizer, rows, config, folder)
        trainer.follow(config, [len(ids) for ids in rows["input_ids"]], dev, report)
        trainer.go(checkpoints.last_checkpoint(folder))
    summary, curve = loop.finish(trainer, folder, model_path, out)
    return {**summary, "truncated": cut}, curve


def dev_loss(examples: pd.DataFrame, config: SftConfig) -> Callable[[Any, Any, int], float]:
    """A `dev` for `select: dev_loss`: mean negative log-likelihood (nats) of a completion token of `examples`."""

    def measure(model: Any, tokenizer: Any, step: int) -> float:
        import torch

        rows, _ = tokenise(examples, tokenizer, config, "dev examples")
        order = sorted(range(len(examples)), key=lambda i: len(rows["input_ids"][i]))
        total = tokens = 0
        for start in range(0, len(order), config.batch_size):
            batch = [(rows["input_ids"][i], rows["labels"][i]) for i in order[start : start + config.batch_size]]
            width = len(batch[-1][0])
            ids = torch.tensor([ids + [tokenizer.eos_token_id] * (width - len(ids)) for ids, _ in batch])
            labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in batch])[:, 1:]
            logits = model(ids.to(model.device)).logits[:, :-1].float().cpu()  # padded on the right: no mask is needed
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").item()
            tokens += int((labels != -100).sum())
        return total / tokens

    return measure


def tokenise(examples: pd.DataFrame, tokenizer: Any, config: SftConfig, where: str) -> tuple[dict[str, list], int]:
    """Columns `input_ids`, `labels` (-100 on the prompt), `weight` (mean 1 over the completion tokens), and how many
    rows were cut."""
    encode, bos, eos = (lambda text: tokenizer(text)["input_ids"]), tokenizer.bos_token_id, tokenizer.eos_token_id
    pairs = [
        continuation_ids(encode, row.prompt, row.completion, bos, eos, f"{where}: row {row.id!r}")
        for row in examples.itertuples()
    ]
    lengths, prompts = [len(p) + len(c) for p, c in pairs], [len(p) for p, _ in pairs]
    cut = check_lengths(list(examples["id"]), lengths, prompts, config.max_length, config.truncate, where)
    ids = [(p + c)[: config.max_length] for p, c in pairs]
    labels = [([-100] * len(p) + c)[: config.max_length] for p, c in pairs]
    trained = [len(row) - start for row, start in zip(ids, prompts, strict=True)]
    mean = sum(w * n for w, n in zip(examples["weight"], trained, strict=True)) / sum(trained)
    return {"input_ids": ids, "labels": labels, "weight": [float(w) / mean for w in examples["weight"]]}, cut
