"""One iteration's training data from attempts: examples or pairs, and the counts behind them."""

from __future__ import annotations

from pathlib import Path

import click

from stages import common, output
from stages.star import common as star
from whetstone import records
from whetstone.curation.degenerate import Gates
from whetstone.curation.star import Asked, Curation, curate
from whetstone.errors import UserError
from whetstone.prompts import choices


def asked(problem: object, prompt: choices.ChoicePrompt, section: star.Prompt) -> Asked:
    """How a problem is put to a tuned model, under an order of its options; never with a hint."""

    def text(number: int) -> str:
        options = choices.in_order(problem, number).options
        return prompt.render(
            problem.question, options, think=section.think, language=problem.language, shots=section.trained_shots
        )

    return Asked(choices.rationale_language(problem.language, section.think), text)


@click.command(cls=common.Stage)
@click.option("--iteration", required=True, help="which iteration of params.yaml, such as sft1")
def main(iteration: str) -> None:
    """Writes data/training/ITERATION.parquet (examples, or pairs for dpo) and metrics/curate/ITERATION.json."""
    spec, options = star.iteration(iteration), common.section("curate", Curation)
    sample, prompting = common.section("sample", star.Sample), common.section("prompt", star.Prompt)
    gates = common.section("gates", Gates)
    out, metrics = Path("data/training") / f"{iteration}.parquet", f"metrics/curate/{iteration}.json"
    schema = records.PAIR if spec.how == "dpo" else records.EXAMPLE
    if best := star.stopped(spec.after):
        records.write([], schema, out)
        records.write_json(metrics, {"stopped": best})
        return click.echo(f"{iteration}: this arm has stopped, {best} is its best; nothing is curated")
    star.check_orders(sample, options.min_right)
    table = Path("data/attempts") / f"{spec.attempts}.parquet"
    attempts, problems, prompt = records.read(table, records.ATTEMPT), star.problems("train"), star.prompt(prompting)
    ways = {problem.id: asked(problem, prompt, prompting) for problem in problems.itertuples()}
    try:
        curated = curate(attempts, problems, ways, spec.how, options, gates)
    except UserError as error:
        raise UserError(f"{table}: {error}") from error
    rows = records.write(curated.pairs or curated.examples, schema, out)
    records.write_json(metrics, curated.statistics)
    output.count(len(attempts), rows)
    output.finish(f"curate {iteration}", **curated.statistics["all"], path=out)


if __name__ == "__main__":
    main()
