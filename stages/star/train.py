"""One iteration's model: from its start, on its examples or pairs, merged where it was an adapter."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import Field

from stages import common, output
from stages.star import common as star
from whetstone import records
from whetstone.errors import UserError
from whetstone.locks import device_lock
from whetstone.prompts.rendering import TEMPLATE
from whetstone.training import checks
from whetstone.training.config import DpoConfig, SftConfig, TrainingConfig

CONFIGS: dict[str, type[TrainingConfig]] = {"sft": SftConfig, "dpo": DpoConfig}


class Schedule(common.Strict):
    """How training grows: iteration n takes max_steps x growth^(n-1) + add x (n-1) steps (or passes over the data,
    where `epochs` decides). `single_batch`: only the first batch, to see that the trainer can fit it at all."""

    growth: float = Field(1.2, gt=0)
    add: float = Field(0.0, ge=0)
    single_batch: bool = False


def scheduled(config: TrainingConfig, schedule: Schedule, number: int) -> TrainingConfig:
    """The trainer's settings in the arm's iteration of this number, from 1."""
    factor, more = schedule.growth ** (number - 1), schedule.add * (number - 1)
    if config.max_steps is not None:
        return config.model_copy(update={"max_steps": round(config.max_steps * factor + more)})
    return config.model_copy(update={"epochs": config.epochs * factor + more})


def check_template(trainer: str, config: TrainingConfig, name: str, path: Path) -> None:
    """Raises UserError where a model would be trained on other prompts than those that it is sampled with: engines
    render prompts as the model's folder says, and a base model's folder says nothing."""
    if (asked := checks.template_of(path)) != config.template:
        raise UserError(
            f"{common.PARAMS}: `{trainer}.template` is {config.template}, but {name} is sampled with {asked}, as "
            f"`{TEMPLATE}` in {path / 'tokenizer_config.json'} has it (plain where it is missing); make them the "
            "same, for a model of the Hub in a copy of its folder"
        )


@click.command(cls=common.Stage)
@click.option("--iteration", required=True, help="which iteration of params.yaml, such as sft1")
def main(iteration: str) -> None:
    """Writes models/ITERATION, metrics/train/ITERATION.json and plots/train/ITERATION.csv."""
    spec, schedule = star.iteration(iteration), common.section("schedule", Schedule)
    out, metrics = Path("models") / iteration, f"metrics/train/{iteration}.json"
    plot = Path("plots/train") / f"{iteration}.csv"
    plot.parent.mkdir(parents=True, exist_ok=True)
    if best := star.stopped(spec.after):
        out.mkdir(parents=True, exist_ok=True)
        records.write_json(out / "stopped.json", {"best": best})
        records.write_json(metrics, {"stopped": best})
        plot.write_text("step,loss\n")
        return click.echo(f"{iteration}: this arm has stopped, {best} is its best; nothing is trained")
    config = common.section(spec.trainer, CONFIGS[spec.trainer])
    if config.select == "dev_accuracy":
        raise UserError(f"{common.PARAMS}: `{spec.trainer}.select`: dev accuracy chooses between iterations here")
    config = scheduled(config, schedule, star.number(iteration))
    start = common.model_path(spec.start)
    check_template(spec.trainer, config, spec.start, start)
    table = Path("data/training") / f"{iteration}.parquet"
    rows = records.read(table, records.PAIR if spec.trainer == "dpo" else records.EXAMPLE)
    if schedule.single_batch:
        rows = rows.head(config.batch_size)
    if spec.trainer == "dpo":
        from whetstone.training.dpo import train_dpo as fit
    else:
        from whetstone.training.sft import train_sft as fit
    options = {"base_path": common.model_path("base")} if getattr(config, "reference", "start") == "base" else {}
    adapter = config.adapter != "none"
    trained = out / ("adapter" if adapter else "merged")
    with device_lock(*checks.gpus(config)):
        summary, curve = fit(
            start,
            rows,
            trained,
            config,
            scratch=common.scratch("train", f"star-{iteration}"),
            report=click.echo,
            **options,
        )
        if adapter:
            from whetstone.training.merge import merge

            merge(start, trained, out / "merged", prompts=list(rows["prompt"].head(8)))
    records.write_json(metrics, {name: value for name, value in summary.items() if "second" not in name})
    curve.round(6).to_csv(plot, index=False)
    output.count(len(rows), summary["rows"], training=summary["tokens"])
    output.finish(f"{spec.trainer} {iteration}", start=start, **summary, path=out)


if __name__ == "__main__":
    main()
