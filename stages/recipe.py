"""What the tools know of this pipeline: the schemas of its parameters, what has to fit together, what it is about.

A recipe in recipes/<name> has a module of the same name and functions in stages/<name>.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages import common, infer, problems, sample, serving
from whetstone.curation.smart import Curation
from whetstone.engines.base import Sampling
from whetstone.errors import UserError
from whetstone.prompts import strategies
from whetstone.training.config import DpoConfig, SftConfig

SECTIONS = {
    "epochs": common.Epochs,
    "model": common.Model,
    "engine": serving.Engine,
    "problems": problems.Problems,
    "infer": infer.Infer,
    "preprocess": Curation,
    "sft": SftConfig,
    "sample": sample.Sample,
    "dpo": DpoConfig,
    "evaluate": common.Evaluate,
    "runtime": common.Runtime,
}
LISTS = ("strategies", "infer_parts", "sample_parts", "datasets")


def check() -> None:
    """Raises UserError for parameters that don't fit together, or a prompt that isn't as it should be."""
    shape, section = common.structure(), common.section("infer", infer.Infer)
    templates = {"sft": common.section("sft", SftConfig).template, "dpo": common.section("dpo", DpoConfig).template}
    for epoch, spec in shape.epochs.train.items():
        for before in sorted({spec.start, spec.attempts} - {"base"}):
            trained = shape.epochs.train[before].trainer
            if templates[trained] != templates[spec.trainer]:
                raise UserError(
                    f"{common.PARAMS}: `{spec.trainer}.template` is {templates[spec.trainer]}, but {epoch} builds on "
                    f"{before}, and `{trained}.template` is {templates[trained]}; make them the same"
                )
    for name in shape.strategies:
        if (canonical := strategies.strategy(name).name) != name:
            raise UserError(
                f"{common.PARAMS}: `strategies` has {name!r}, the old name of {canonical!r}; write the new one"
            )
        infer.prompt_of(section, name)


def trainers() -> set[str]:
    """The sections of the trainers that the pipeline uses."""
    return {epoch.trainer for epoch in common.structure().epochs.train.values()}


def headline(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Checkpoint to its headline accuracy with interval, from metrics/summary.json."""
    return {label: own["first_attempt"] for label, own in summary.items()
            if isinstance(own, dict) and "first_attempt" in own}  # fmt: skip


def typical(count: int) -> list[tuple[str, Sampling]]:
    """Prompts of `count` training problems, as the base model is sampled with: what a measurement of speed samples."""
    section, options = common.section("problems", problems.Problems), common.section("infer", infer.Infer)
    frame, _ = problems.generated(section.world) if section.world else problems.loaded(section)
    prompts = [infer.prompt_of(options, name) for name in common.structure().strategies]
    return [
        (
            prompt.render(question, options.shots),
            Sampling(options.max_tokens, options.temperature, options.top_p, stop=tuple(prompt.stop)),
        )
        for prompt in prompts
        for question in frame.head(count)["question"]
    ]
