"""Everything that can be wrong in the recipe's params.yaml, found in a second and before a stage deletes its outs."""

from __future__ import annotations

from typing import Any

import click

from stages import common, serving
from stages.run import Command
from stages.star import common as star
from stages.star.evaluate import Evaluate
from stages.star.problems import Problems
from stages.star.sample import Rationalize
from stages.star.train import CONFIGS, Schedule, check_template
from whetstone.curation.degenerate import Gates
from whetstone.curation.star import Curation
from whetstone.errors import UserError
from whetstone.validation import validated

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


def check(params: dict[str, Any]) -> None:
    """Raises UserError for an unknown or missing section, or a value that it doesn't take."""
    if unknown := sorted(set(params) - set(SECTIONS)):
        raise UserError(f"{common.PARAMS}: unknown sections {unknown}; known: {', '.join(SECTIONS)}")
    sections: dict[str, Any] = {}
    for name, schema in SECTIONS.items():
        if name not in params:
            raise UserError(f"{common.PARAMS}: section `{name}` is missing")
        sections[name] = validated(params[name] or {}, schema, str(common.PARAMS), name)
    star.check_orders(sections["sample"], sections["curate"].min_right)


@click.command(cls=Command)
def main() -> None:
    """Checks the recipe's params.yaml, its iterations, its prompt and the base model."""
    check(common.read_params())
    iterations = star.iterations()
    prompt, section = common.section("prompt", star.Prompt), common.section("engine", serving.Engine)
    star.prompt(prompt)
    if section.kind != "openai":  # a server has the model
        base = common.model_path("base")
        for trainer in sorted({one.trainer for one in iterations.train.values()}):
            check_template(trainer, common.section(trainer, CONFIGS[trainer]), "base", base)


if __name__ == "__main__":
    main()
