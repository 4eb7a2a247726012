"""Asks the base model and a tuned one the same question: their answers side by side, programs run in the sandbox.

make chat CHECKPOINT=epoch2
python -m tools.chat --checkpoint epoch2 --question "A journey takes 3 hours and 9 minutes. How many minutes is that?"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from stages import common, serving
from stages.infer import Infer, prompt_of
from stages.run import Command
from stages.run.terminal import Terminal
from whetstone.engines.base import Engine, Request, Sampling
from whetstone.prompts import strategies


class Said(NamedTuple):
    """An answer: `how` the strategy came about, the tag if the model wrote one, the solution as written, what was read
    from it or its program."""

    how: str
    tag: str | None
    text: str
    outcome: str


def outcome(strategy: str | None, text: str) -> str:
    """The answer that a solution states, or what its program did in the sandbox."""
    if strategy == "pot":
        from whetstone.grading.attempts import program_of
        from whetstone.grading.sandbox import run_programs

        (ran,) = run_programs([program_of(text)])
        printed = f"\nprinted: {ran.stdout.strip()}" if ran.stdout.strip() else ""
        if ran.error:
            return f"program ended with {ran.error}{f': {ran.detail}' if ran.detail else ''}{printed}"
        return f"program's answer: {ran.answer}{printed}"
    from whetstone.grading import extract

    found = extract(text)
    return f"answer: {found.canonical}" if found.value is not None else f"no answer ({found.error})"


def complete(engine: Engine, prompt: str, sampling: Sampling) -> str:
    ((_, (completion,)),) = engine.generate([Request(prompt, sampling)])
    return completion.text


def few_shot(engine: Engine, question: str, strategy: str) -> Said:
    """The base model's greedy answer after worked examples of the strategy."""
    section = common.section("infer", Infer)
    prompt = prompt_of(section, strategy)
    text = complete(
        engine, prompt.render(question, section.shots), Sampling(section.max_tokens, stop=tuple(prompt.stop))
    )
    return Said(f"{section.shots} worked examples of {strategy}", None, text.strip(), outcome(strategy, text))


def first_attempt(engine: Engine, question: str) -> Said:
    """A tuned model's greedy first attempt, and how sure it was of its strategy."""
    from whetstone import policy

    section = common.section("evaluate", common.Evaluate)
    (shares,), (mass,) = policy.choice_distribution(engine, [question])
    written = complete(engine, strategies.trained_prompt(question), Sampling(section.max_tokens, stop=section.stop))
    strategy, text = strategies.split_completion(written)
    pi = ", ".join(f"{name} {share:.0%}" for name, share in zip(strategies.STRATEGIES, shares, strict=True))
    tag = f"{strategies.STRATEGIES[strategy].tag}:" if strategy else "no tag"
    return Said(f"chose among {pi} ({mass:.0%} on the tags)", tag, text, outcome(strategy, text))


def best_single(dataset: str) -> str | None:
    """The base model's best strategy, where it was evaluated."""
    path = Path(f"metrics/evaluation/base-{dataset}.json")
    return json.loads(path.read_text())["best_single"]["strategy"] if path.exists() else None


def panel(title: str, said: Said) -> Panel:
    tag = (f"{said.tag}\n", "bold cyan") if said.tag else ""
    body = Text.assemble((f"{said.how}\n\n", "dim"), tag, f"{said.text}\n\n", (said.outcome, "bold"))
    return Panel(body, title=title, title_align="left", expand=True)


def asked(question: tuple[str, ...]) -> Iterator[str]:
    """The questions given, else one a line until the input ends."""
    if question:
        yield from question
        return
    if sys.stdin.isatty():
        click.echo("A question a line; an empty line ends.")
    while line := (input("> ") if sys.stdin.isatty() else sys.stdin.readline()).strip():
        yield line


@click.command(cls=Command)
@click.option("--checkpoint", required=True, help="which epoch's model, such as epoch2")
@click.option("--strategy", help="the base model's strategy; by default its best one as evaluated")
@click.option("--question", multiple=True, help="ask this; without it, questions are read from the terminal")
def main(checkpoint: str, strategy: str | None, question: tuple[str, ...]) -> None:
    """Answers of the base model and of CHECKPOINT side by side."""
    shape = common.structure()
    common.epoch_of(checkpoint)
    name = strategies.strategy(strategy or best_single(shape.datasets[0]) or shape.strategies[0]).name
    console = Terminal()
    with serving.open_engines("base", checkpoint) as (base, tuned):
        for one in asked(question):
            answers = [panel("base", few_shot(base, one, name)), panel(checkpoint, first_attempt(tuned, one))]
            half = console.width // 2 - 1
            console.print(Text(one, style="italic"))
            console.print(Columns(answers, width=half, equal=True) if half >= 40 else answers[0])
            if half < 40:
                console.print(answers[1])


if __name__ == "__main__":
    main()
