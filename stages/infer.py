"""Few-shot attempts of the base model: one strategy, set by its worked examples, on one part of the problems."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd
from pydantic import Field

from stages import common, output, serving
from stages.run import journal
from stages.run.terminal import plain
from whetstone import records
from whetstone.engines.base import Sampling
from whetstone.prompts import strategies


class Infer(common.Strict):
    """How the base model is sampled; also what the baselines use, greedily."""

    prompts: str = "world"
    shots: int = Field(8, ge=1)
    k: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    seed: int = 0


def prompt_of(section: Infer, strategy: str) -> strategies.FewShotPrompt:
    """The strategy's worked examples. Raises UserError where there are none, or fewer than `infer.shots`."""
    return strategies.load_prompt(Path("prompts") / section.prompts / f"{strategy}.yaml", strategy)


def show(section: Infer, prompt: strategies.FewShotPrompt, problems: pd.DataFrame) -> None:
    """Prints rendered prompts and how many tokens they have, without loading a model."""
    from tokenizers import Tokenizer

    vocabulary = common.model_path("base") / "tokenizer.json"
    encode = Tokenizer.from_file(str(vocabulary)).encode if vocabulary.exists() else None
    for problem in problems.itertuples():
        text = prompt.render(problem.question, section.shots)
        size = f"{len(encode(text).ids)} tokens" if encode else f"{len(text)} characters"
        click.echo(plain(f"{text}\n\n--- {problem.id}: {size}, answer {problem.answer}\n"))


@click.command(cls=common.Stage)
@click.option("--strategy", required=True, help="cot, l2m (or sub, its old name) or pot")
@click.option("--part", required=True, type=click.IntRange(1, 5), help="which fifth of the training problems")
@click.option("--show-prompt", type=click.IntRange(1), help="only print this many rendered prompts")
def main(strategy: str, part: int, show_prompt: int | None) -> None:
    """Writes data/attempts/base/STRATEGY-PART.parquet."""
    section, name = common.section("infer", Infer), strategies.strategy(strategy).name
    prompt = prompt_of(section, name)
    problems = records.read(f"data/problems/part-{part}.parquet", records.PROBLEM)
    if show_prompt:
        return show(section, prompt, problems.head(show_prompt))
    sampling = Sampling(section.max_tokens, section.temperature, section.top_p, stop=tuple(prompt.stop))
    with serving.open_engine("base") as engine:
        from whetstone import policy, rollouts

        attempts = rollouts.attempts(
            engine,
            policy.few_shot(problems, prompt, section.shots, section.k),
            sampling,
            model="base",
            seed=section.seed,
            store=journal(f"infer-{name}-{part}"),
            label=f"base, {name}",
        )
    out = Path("data/attempts/base") / f"{name}-{part}.parquet"
    rows = records.write(attempts, records.ATTEMPT, out)
    output.count_attempts(problems, attempts)
    verdicts = attempts["verdict"].value_counts().to_dict()
    output.finish(f"infer {name} {part}", problems=len(problems), attempts=rows, verdicts=verdicts, path=out)


if __name__ == "__main__":
    main()
