"""The base model on one evaluation set: every strategy by its few-shot prompt, and what it chooses untaught."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from stages import common, output, serving
from stages.infer import Infer, prompt_of
from stages.run import journal
from whetstone import records
from whetstone.engines.base import Sampling
from whetstone.prompts.strategies import STRATEGIES


@click.command(cls=common.Stage)
@click.option("--dataset", required=True, help="which evaluation set, such as test")
def main(dataset: str) -> None:
    """Writes data/evaluation/base-DATASET.parquet (few-shot), base_zero_shot-DATASET.parquet, and their metrics."""
    infer, evaluate = common.section("infer", Infer), common.section("evaluate", common.Evaluate)
    prompts = [prompt_of(infer, name) for name in common.structure().strategies]
    problems = records.read(f"data/problems/{dataset}.parquet", records.PROBLEM)
    store = journal(f"baseline-{dataset}")
    with serving.open_engine("base") as engine:
        from whetstone import policy, rollouts

        few_shot = pd.concat(
            [
                rollouts.attempts(
                    engine,
                    policy.few_shot(problems, prompt, infer.shots, k=1),
                    Sampling(infer.max_tokens, stop=tuple(prompt.stop)),
                    model="base",
                    seed=0,
                    store=store,
                    label=f"base, {prompt.strategy}",
                )
                for prompt in prompts
            ],
            ignore_index=True,
        )
        greedy = Sampling(evaluate.max_tokens, stop=evaluate.stop)
        untaught = policy.greedy(engine, problems, greedy, model="base_zero_shot", store=store, turns=1)
        shares, _ = policy.choice_distribution(engine, list(problems["question"]))
    from whetstone.evaluation.smart import few_shot_metrics, untaught_metrics

    folder = Path("data/evaluation")
    records.write(few_shot, records.ATTEMPT, folder / f"base-{dataset}.parquet")
    records.write(untaught, records.ATTEMPT, folder / f"base_zero_shot-{dataset}.parquet")
    metrics = {
        **few_shot_metrics(few_shot),
        "zero_shot": untaught_metrics(untaught, pd.DataFrame(shares, columns=list(STRATEGIES))),
    }
    records.write_json(f"metrics/evaluation/base-{dataset}.json", metrics)
    output.count_attempts(problems, pd.concat([few_shot, untaught]))
    zero_shot = metrics["zero_shot"]
    output.finish(
        f"baseline on {dataset}",
        problems=len(problems),
        few_shot={name: output.interval(one) for name, one in metrics["forced"].items()},
        best_single=metrics["best_single"]["strategy"],
        oracle_any=output.interval(metrics["oracle"]),
        zero_shot_choice=zero_shot["choice"]["first"],
        zero_shot_first_attempt=output.interval(zero_shot["first_attempt"]),
        path=folder,
    )


if __name__ == "__main__":
    main()
