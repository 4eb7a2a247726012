"""Everything that can be wrong before anything runs: params.yaml in a second; with --all the rest (`make check`)."""

from __future__ import annotations

import click

from stages import common, infer, problems, sample, serving
from stages.run import Command
from whetstone.curation.smart import Curation
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


def parameters() -> None:
    """Raises UserError for what is wrong in params.yaml, in a prompt that it names, or with the base model."""
    params = common.read_params()
    if unknown := sorted(set(params) - set(SECTIONS) - set(LISTS)):
        raise UserError(f"{common.PARAMS}: unknown sections {unknown}; known: {', '.join([*LISTS, *SECTIONS])}")
    for name, schema in SECTIONS.items():
        common.section(name, schema)
    for name in LISTS:
        if not isinstance(params.get(name), list) or not params[name]:
            raise UserError(f"{common.PARAMS}: `{name}` is {params.get(name)!r}; give a list of at least one")
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
    if common.section("engine", serving.Engine).kind != "openai":  # a server has the model
        common.model_path("base")


@click.command(cls=Command)
@click.option("--all", "everything", is_flag=True, help="also dvc.yaml, tables, disk and device; says what it found")
def main(everything: bool) -> None:
    """Checks params.yaml, the prompts and the base model."""
    parameters()
    if everything:
        from tools import preflight

        preflight.run()


if __name__ == "__main__":
    main()
