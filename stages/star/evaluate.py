"""A model on dev (which stops an arm and chooses its best), on test, and on some of the training problems."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd
from pydantic import Field

from stages import common, output, serving
from stages.run import journal
from stages.star import common as star
from whetstone import records
from whetstone.curation.degenerate import Gates
from whetstone.engines.base import Sampling
from whetstone.prompts import choices


class Evaluate(common.Strict):
    """How every model is evaluated: greedily. `orders` of the options for test; `train`: training problems."""

    max_tokens: int = Field(128, ge=1)
    orders: int = Field(2, ge=1)
    train: int = Field(300, ge=1)


def probe(problems: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many training problems, group by group in the order of a hash: the same for every model."""
    order = problems["group"].map(lambda group: records.fingerprint("probe", group))
    return problems.loc[order.sort_values(kind="stable").index[:count]].sort_index()


@click.command(cls=common.Stage)
@click.option("--model", required=True, help="base or an iteration of params.yaml, such as sft1")
def main(model: str) -> None:
    """Writes data/evaluation/MODEL/{dev,test,train}.parquet and metrics/evaluation/MODEL.json."""
    section, prompting = common.section("evaluate", Evaluate), common.section("prompt", star.Prompt)
    patience, gates = common.section("stop", star.Stop).patience, common.section("gates", Gates)
    before = [] if model == "base" else star.evaluation(star.iteration(model).after)["history"]
    out, path = Path("data/evaluation") / model, f"metrics/evaluation/{model}.json"
    if model != "base" and (best := star.stopped(star.iteration(model).after)):
        for name in ("dev", "test", "train"):
            records.write([], records.ATTEMPT, out / f"{name}.parquet")
        records.write_json(path, {"stopped": True, "best": best, "history": before})
        return click.echo(f"{model}: this arm has stopped, {best} is its best; nothing is evaluated")
    prompt = star.prompt(prompting)
    tables = {"dev": star.problems("dev"), "test": star.problems("test")}
    tables["train"] = probe(star.problems("train"), section.train)
    made, store = {}, journal(f"star-evaluate-{model}")
    with serving.open_engine(model) as engine:
        from whetstone import rollouts
        from whetstone.evaluation import star as measures

        shots = prompting.shots if model == "base" else prompting.trained_shots
        for name, problems in tables.items():
            orders = section.orders if name == "test" else 1
            asks = choices.asks(problems, prompt, think=prompting.think, shots=shots, k=orders, orders=orders)
            made[name] = rollouts.attempts(
                engine,
                asks,
                Sampling(section.max_tokens, stop=prompt.stop),
                model=model,
                seed=0,
                store=store,
                label=f"{model}, {name}",
            )
    found = {name: measures.metrics(made[name], tables[name], prompting.think, gates) for name in tables}
    for name, attempts in made.items():
        records.write(attempts, records.ATTEMPT, out / f"{name}.parquet")
    gaps = {
        language: measures.gap(one["accuracy"], found["test"][language]["accuracy"])
        for language, one in found["train"].items()
        if language in found["test"]
    }
    history = [*before, {"model": model, "dev": found["dev"]["all"]["accuracy"]["accuracy"]}]
    best = max(history, key=lambda one: one["dev"])["model"]  # the earliest of equals
    stop = {"stopped": measures.stops([one["dev"] for one in history], patience), "best": best, "history": history}
    records.write_json(path, {**stop, **found, "gap": gaps})
    output.count_attempts(pd.concat(tables.values()), pd.concat(made.values()))
    output.finish(
        f"evaluate {model}",
        **{f"test_{name}": output.interval(one["accuracy"]) for name, one in found["test"].items()},
        answered={name: one["answered"]["accuracy"] for name, one in found["test"].items()},
        dev=history[-1]["dev"],
        best_on_dev=best,
        stopped=str(stop["stopped"]).lower(),
        path=out,
    )


if __name__ == "__main__":
    main()
