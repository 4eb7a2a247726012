"""A model's samples of the training problems, or, with --hinted, those and second tries that see the right option."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd
from pydantic import Field

from stages import common, output, serving
from stages.run import journal
from stages.star import common as star
from whetstone import records
from whetstone.engines.base import Sampling
from whetstone.prompts import choices
from whetstone.records import seed_of


class Rationalize(common.Strict):
    """Which share of the problems that no sample solved is tried again with the hint."""

    share: float = Field(1.0, gt=0, le=1)


def chosen(problem_id: str, share: float, seed: int) -> bool:
    return seed_of(seed, "rationalize", problem_id) / 2**31 < share


def unsolved(attempts: pd.DataFrame) -> list[str]:
    """Ids of the problems that no attempt got right, sorted."""
    right = set(attempts.loc[attempts["verdict"] == "correct", "problem_id"])
    return sorted(set(attempts["problem_id"]) - right)


@click.command(cls=common.Stage)
@click.option("--model", required=True, help="base or an iteration of params.yaml, such as sft1")
@click.option("--hinted", is_flag=True, help="second tries at what its samples didn't solve, after the samples")
def main(model: str, hinted: bool) -> None:
    """Writes data/attempts/MODEL.parquet, or data/attempts/MODEL-hinted.parquet."""
    section, prompting = common.section("sample", star.Sample), common.section("prompt", star.Prompt)
    share = common.section("rationalize", Rationalize).share if hinted else 0.0
    star.iterations()
    out = Path("data/attempts") / f"{model}{star.HINTED if hinted else ''}.parquet"
    if best := star.stopped(model):
        records.write([], records.ATTEMPT, out)
        return click.echo(f"{model}: this arm has stopped, {best} is its best; nothing is sampled")
    prompt = star.prompt(prompting)
    problems, shots = star.problems("train"), prompting.shots if model == "base" else prompting.trained_shots
    earlier = pd.DataFrame()
    if hinted:
        earlier = records.read(Path("data/attempts") / f"{model}.parquet", records.ATTEMPT)
        again = {one for one in unsolved(earlier) if chosen(one, share, section.seed)}
        problems = problems[problems["id"].isin(again)]
    with serving.open_engine(model) as engine:
        from whetstone import rollouts

        asks = choices.asks(
            problems,
            prompt,
            think=prompting.think,
            shots=shots,
            k=1 if hinted else section.k,
            orders=section.orders,
            hinted=hinted,
        )
        attempts = rollouts.attempts(
            engine,
            asks,
            Sampling(section.max_tokens, section.temperature, section.top_p, stop=prompt.stop),
            model=model,
            seed=section.seed,
            store=journal(f"star-{out.stem}"),
            label=f"{model}, {'hinted' if hinted else 'direct'}",
        )
    rows = records.write(pd.concat([earlier, attempts], ignore_index=True), records.ATTEMPT, out)
    output.count_attempts(problems, attempts, rows)
    output.finish(
        f"sample {out.stem}",
        problems=len(problems),
        attempts=len(attempts),
        verdicts=attempts["verdict"].value_counts().to_dict() if len(attempts) else {},
        path=out,
    )


if __name__ == "__main__":
    main()
