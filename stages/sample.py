"""Episodes of a tuned model: it picks its strategy, and after a failure another one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic import Field

from stages import common, output, serving
from stages.run import journal
from whetstone import records
from whetstone.engines.base import Sampling


class Sample(common.Strict):
    """How a tuned model is sampled."""

    k: int = Field(1, ge=1)
    max_attempts: int = Field(3, ge=1, le=3)
    explore: Literal["until_solved", "all_strategies"] = "until_solved"
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    stop: tuple[str, ...] = ("\n\n",)
    seed: int = 0


@click.command(cls=common.Stage)
@click.option("--model", required=True, help="which epoch's model samples, such as epoch1")
@click.option("--part", required=True, type=click.IntRange(1, 5), help="which fifth of the training problems")
def main(model: str, part: int) -> None:
    """Writes data/attempts/MODEL/part-PART.parquet."""
    section = common.section("sample", Sample)
    problems = records.read(f"data/problems/part-{part}.parquet", records.PROBLEM)
    with serving.open_engine(model) as engine:
        from whetstone import policy

        attempts = policy.sampled(
            engine,
            problems,
            Sampling(section.max_tokens, section.temperature, section.top_p, stop=section.stop),
            k=section.k,
            max_attempts=section.max_attempts,
            explore=section.explore,
            model=model,
            seed=section.seed,
            store=journal(f"sample-{model}-{part}"),
        )
    out = Path("data/attempts") / model / f"part-{part}.parquet"
    rows = records.write(attempts, records.ATTEMPT, out)
    output.count_attempts(problems, attempts)
    first = attempts[attempts["turn"] == 1]
    output.finish(
        f"sample {model} {part}",
        problems=len(problems),
        attempts=rows,
        verdicts=attempts["verdict"].value_counts().to_dict(),
        first_choices=first["strategy"].value_counts().to_dict(),
        first_attempts_right=float((first["verdict"] == "correct").mean()),
        path=out,
    )


if __name__ == "__main__":
    main()
