"""A tuned model on one evaluation set: its first attempt, its forced strategies, what choosing gains."""

from __future__ import annotations

from pathlib import Path

import click

from stages import common, output, serving
from stages.run import journal
from whetstone import records
from whetstone.engines.base import Sampling


@click.command(cls=common.Stage)
@click.option("--checkpoint", required=True, help="which epoch's model, such as epoch1")
@click.option("--dataset", required=True, help="which evaluation set, such as test")
def main(checkpoint: str, dataset: str) -> None:
    """Writes data/evaluation/CHECKPOINT-DATASET.parquet and metrics/evaluation/CHECKPOINT-DATASET.json."""
    section = common.section("evaluate", common.Evaluate)
    problems = records.read(f"data/problems/{dataset}.parquet", records.PROBLEM)
    with serving.open_engine(checkpoint) as engine:
        from whetstone import policy

        attempts = policy.greedy(
            engine,
            problems,
            Sampling(section.max_tokens, stop=section.stop),
            model=checkpoint,
            store=journal(f"evaluate-{checkpoint}-{dataset}"),
        )
    from whetstone.evaluation.smart import policy_metrics

    out = Path("data/evaluation") / f"{checkpoint}-{dataset}.parquet"
    records.write(attempts, records.ATTEMPT, out)
    metrics = policy_metrics(attempts)
    records.write_json(f"metrics/evaluation/{checkpoint}-{dataset}.json", metrics)
    output.count_attempts(problems, attempts)
    gain = metrics["selection_gain"]
    output.finish(
        f"evaluate {checkpoint} on {dataset}",
        problems=len(problems),
        first_attempt=output.interval(metrics["first_attempt"]),
        forced={name: output.interval(one) for name, one in metrics["forced"].items()},
        oracle_any=output.interval(metrics["oracle"]),
        selection_gain=f"{100 * gain['value']:+.1f} points ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})",
        first_choices=metrics["choice"]["first"],
        path=out,
    )


if __name__ == "__main__":
    main()
