"""What the tools know of the recipe star: see stages/recipe.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages import common, serving
from stages.star import common as star
from stages.star.evaluate import Evaluate
from stages.star.problems import Problems, made
from stages.star.sample import Rationalize
from stages.star.train import CONFIGS, Schedule, check_template
from whetstone.curation.degenerate import Gates
from whetstone.curation.star import Curation
from whetstone.engines.base import Sampling
from whetstone.prompts import choices

SECTIONS = {
    "iterations": star.Iterations,
    "model": common.Model,
    "engine": serving.Engine,
    "problems": Problems,
    "prompt": star.Prompt,
    "sample": star.Sample,
    "rationalize": Rationalize,
    "curate": Curation,
    "gates": Gates,
    "schedule": Schedule,
    **CONFIGS,
    "evaluate": Evaluate,
    "stop": star.Stop,
    "runtime": common.Runtime,
}
LISTS = ()


def check() -> None:
    """Raises UserError for iterations that don't fit together, or a prompt that isn't as it should be."""
    star.iterations()
    star.check_orders(common.section("sample", star.Sample), common.section("curate", Curation).min_right)
    star.prompt(common.section("prompt", star.Prompt))
    if common.section("engine", serving.Engine).kind != "openai":  # a server has the model
        for trainer in sorted(trainers()):
            check_template(trainer, common.section(trainer, CONFIGS[trainer]), "base", common.model_path("base"))


def trainers() -> set[str]:
    return {one.trainer for one in star.iterations().train.values()}


def headline(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {label: languages["all"] for label, languages in summary.get("test", {}).items()}


def typical(count: int) -> list[tuple[str, Sampling]]:
    prompting, section = common.section("prompt", star.Prompt), common.section("sample", star.Sample)
    prompt = star.prompt(prompting)
    problems = made(common.section("problems", Problems))[0].head(count)
    asks = choices.asks(problems, prompt, think=prompting.think, shots=prompting.shots, k=1, orders=1)
    return [(ask.prompt, Sampling(section.max_tokens, section.temperature, section.top_p, stop=prompt.stop))
            for ask in asks]  # fmt: skip
