"""What a method can live on: how each of the two bases errs, untuned.

    python -m benchmarks.organism                      # both, on 1,000 test problems each
    python -m benchmarks.organism --base models/reasoner --problems 100

`models/base` solves its world by chain of thought, its strategy forced; `models/reasoner` its ledgers, and its logic
beside them. Written to benchmarks/results/organism.json.
"""

from __future__ import annotations

import json
import platform
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import click
import numpy as np
import pandas as pd

from whetstone.engines.base import Completion, Engine, Request, Sampling
from whetstone.evaluation.intervals import compare, wilson
from whetstone.grading import extract, grade
from whetstone.problems import steps
from whetstone.problems.steps import checking
from whetstone.problems.steps.corpus import BREAK, FEEDBACK
from whetstone.records import seed_of

RESULTS = Path(__file__).parent / "results/organism.json"
SAMPLES, DEEP, GROUP, ROLLOUTS = 16, 64, 8, 8  # of a problem, of some, of a group, of a state
TRIES, LEARNT = 4, 1000  # samples of a problem that is learnt from, and how many problems are
WARMTH = 0.7  # temperature of the solutions whose states are valued, and of what goes on from them
KS = (1, 2, 4, 8, 16, 32, 64)
BETWEEN = (0.1, 0.9)
MODES = {**FEEDBACK, "incorrect, without the question": FEEDBACK["incorrect"]}


@dataclass(frozen=True)
class Task:
    """One problem as it is put to a model. `first_wrong` tells the first wrong step of a text, where a program can."""

    id: str
    level: int
    prompt: str
    answer: str
    task: str = "number"
    options: tuple[str, ...] | None = None
    states: Callable[[str], list[str]] = field(default=checking.states, repr=False)
    first_wrong: Callable[[str], int | None] | None = field(default=None, repr=False)

    def right(self, text: str) -> bool:
        return grade(text, self.answer, self.task, options=self.options).verdict == "correct"

    def told(self, text: str) -> str | None:
        return extract(text, self.task, options=self.options).canonical


def tasks_of_steps(source: str, split: str, count: int) -> list[Task]:
    def checked(problem: object) -> Callable[[str], int | None]:
        return lambda text: checking.first_wrong(problem, text)

    return [
        Task(
            f"{source}-{split}-{i:06d}",
            problem.level,
            steps.prompt_of(problem),
            problem.answer,
            "choice" if source == "logic" else "number",
            getattr(problem, "options", None),
            first_wrong=checked(problem),
        )
        for i, problem in enumerate(islice(steps.problems(source, split), count))
    ]


def tasks_of_world(split: str, count: int) -> list[Task]:
    from whetstone.problems.world import generate
    from whetstone.prompts.strategies import trained_prompt

    return [
        Task(row["id"], row["level"], trained_prompt(row["question"], "cot"), row["answer"], states=sentences)
        for row in generate(split, count)
    ]


def sentences(text: str) -> list[str]:
    """The text up to the end of each sentence."""
    return [text[: found.end()] for found in re.finditer(r"\.(?=\s|$)", text)]


class Sampler:
    """Completions of an engine by task; `spent` counts what it sampled."""

    def __init__(self, engine: Engine, tokens: int):
        self.engine, self.tokens = engine, tokens
        self.spent = {"completions": 0, "tokens": 0, "seconds": 0.0}

    def __call__(self, prompts: Sequence[str], temperature: float, n: int = 1, seed: object = 0) -> list[list[str]]:
        """n texts for each prompt."""
        sampling = Sampling(self.tokens, temperature, n=n, stop=(BREAK,))
        requests = [Request(prompt, sampling, seed_of(seed, i, prompt)) for i, prompt in enumerate(prompts)]
        began = time.perf_counter()
        found: dict[int, tuple[Completion, ...]] = dict(self.engine.generate(requests))
        self.spent["seconds"] += time.perf_counter() - began
        self.spent["completions"] += n * len(prompts)
        self.spent["tokens"] += sum(len(one.token_ids) for made in found.values() for one in made)
        return [[one.text for one in found[i]] for i in range(len(prompts))]


def pass_at(k: int, right: int, n: int) -> float:
    """Probability that k of n samples, drawn without putting back, hold one of the `right` ones (Chen et al. 2021)."""
    if n - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - right + 1, n + 1)))


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer, the first seen of equals; texts without an answer don't vote."""
    counts = Counter(answer for answer in answers if answer is not None)
    return counts.most_common(1)[0][0] if counts else None


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right solution scores above a wrong one, ties half; None without one of each."""
    from scipy.stats import rankdata

    right = np.asarray(right, bool)
    good, bad = int(right.sum()), int((~right).sum())
    if not good or not bad:
        return None
    ranks = rankdata(np.asarray(scores, float))
    return float((ranks[right].sum() - good * (good + 1) / 2) / (good * bad))


def spread(right: np.ndarray) -> dict[str, float]:
    """Of samples (problems, n): how many problems are in between, and how many groups teach nothing."""
    rate = right.mean(1)
    groups = right[:, : right.shape[1] // GROUP * GROUP].reshape(-1, GROUP).mean(1)
    return {
        "in_between": float(((rate > BETWEEN[0]) & (rate < BETWEEN[1])).mean()),
        "groups_without_spread": float(((groups == 0) | (groups == 1)).mean()),
    }


def by_level(tasks: Sequence[Task], right: np.ndarray) -> dict[str, float]:
    """Mean success by level."""
    levels = np.array([task.level for task in tasks])
    return {str(level): float(right[levels == level].mean()) for level in sorted(set(levels.tolist()))}


def outcomes(tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether each text is right: (tasks, texts of a task)."""
    return np.array([[task.right(text) for text in made] for task, made in zip(tasks, texts, strict=True)])


def success(sample: Sampler, tasks: Sequence[Task]) -> tuple[dict, dict[float, list[list[str]]]]:
    """Accuracy, votes and spread by temperature; and the texts by temperature."""
    result, texts = {}, {}
    for temperature, n in ((0.0, 1), (WARMTH, SAMPLES), (1.0, SAMPLES)):
        texts[temperature] = sample([task.prompt for task in tasks], temperature, n)
        right = outcomes(tasks, texts[temperature])
        found: dict = {"success": float(right.mean()), "by_level": by_level(tasks, right)}
        if n == 1:
            found["interval"] = wilson(int(right.sum()), len(right))
        else:
            asked = list(zip(tasks, texts[temperature], strict=True))
            votes = [majority([task.told(text) for text in made]) for task, made in asked]
            voted = [vote is not None and task.right(vote) for task, vote in zip(tasks, votes, strict=True)]
            found |= {"majority": wilson(sum(voted), len(voted)), "oracle": float(right.any(1).mean())}
            found |= spread(right)
        result[f"{temperature:g}"] = found
    return result, texts


def pass_at_all(sample: Sampler, tasks: Sequence[Task]) -> dict[str, float]:
    """pass@k at temperature 1 from DEEP samples of each task."""
    right = outcomes(tasks, sample([task.prompt for task in tasks], 1.0, DEEP, "deep")).sum(1)
    return {str(k): float(np.mean([pass_at(k, int(count), DEEP) for count in right])) for k in KS}


def first_errors(tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> dict | None:
    """Where the first wrong steps of solutions are, as counts by step; None where no program can tell."""
    if tasks[0].first_wrong is None:
        return None
    wrong = Counter(task.first_wrong(text) for task, made in zip(tasks, texts, strict=True) for text in made)
    faultless = wrong.pop(None, 0)
    total = sum(wrong.values())
    lucky = sum(
        task.right(text) and task.first_wrong(text) is not None
        for task, made in zip(tasks, texts, strict=True)
        for text in made[:1]
    )
    return {
        "by_step": {str(step): wrong[step] for step in sorted(wrong)},
        "largest_share": max(wrong.values()) / total if total else None,
        "solutions": faultless + total,
        "right_in_spite_of_an_error": lucky / len(tasks),
    }


def prefixes(sample: Sampler, tasks: Sequence[Task], texts: Sequence[Sequence[str]]) -> dict:
    """Value of each state of the solutions, as the share of its completions that end right, before the answer's line.

    State 0 is the problem itself; the value of a state tells right solutions from wrong ones by its AUC.
    """
    solutions = [(task, text) for task, made in zip(tasks, texts, strict=True) for text in made]
    found = [(i, step, state) for i, (task, text) in enumerate(solutions) for step, state in _states(task, text)]
    made = sample([solutions[i][0].prompt + state for i, _, state in found], WARMTH, ROLLOUTS, "value")
    right = [task.right(text) for task, text in solutions]
    values = [
        np.mean([solutions[i][0].right(state + text) for text in texts])
        for (i, _, state), texts in zip(found, made, strict=True)
    ]
    table: dict[int, list[tuple[float, bool]]] = {}
    last: dict[int, tuple[float, bool]] = {}
    for (i, step, _), value in zip(found, values, strict=True):
        table.setdefault(step, []).append((value, right[i]))
        last[i] = (value, right[i])
    between = [0 < value < 1 for (_, step, _), value in zip(found, values, strict=True) if step]
    return {
        "solutions": len(solutions),
        "states": len(between),
        "strictly_between": _mean(between),
        "auc": {"problem": _auc(table[0]), "first": _auc(table.get(1, [])), "last": _auc(list(last.values()))},
        "by_step": {
            str(step): {
                "right": _mean([value for value, good in pairs if good]),
                "wrong": _mean([value for value, good in pairs if not good]),
                "auc": _auc(pairs),
                "states": len(pairs),
            }
            for step, pairs in sorted(table.items())
        },
    }


def _states(task: Task, text: str) -> Iterator[tuple[int, str]]:
    yield 0, ""
    yield from enumerate(task.states(text)[:-1], 1)


def _auc(pairs: Sequence[tuple[float, bool]]) -> float | None:
    return auc([value for value, _ in pairs], [good for _, good in pairs])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def retries(sample: Sampler, tasks: Sequence[Task]) -> dict:
    """A second turn after every first one, right or wrong, by what is said between them; and, to compare with, another
    first turn."""
    prompts = [task.prompt for task in tasks]
    first = [made[0] for made in sample(prompts, 1.0, seed="first turn")]
    again = {"first turn again": prompts}
    for mode, feedback in MODES.items():
        question = "Answer:\n" if mode.endswith("without the question") else None
        again[mode] = [
            f"{task.prompt}{text}{BREAK}{feedback}{question or task.prompt}"
            for task, text in zip(tasks, first, strict=True)
        ]
    right = np.array([task.right(text) for task, text in zip(tasks, first, strict=True)])
    told = [task.told(text) for task, text in zip(tasks, first, strict=True)]
    found: dict = {"first": float(right.mean())}
    for mode, prompts in again.items():
        second = [made[0] for made in sample(prompts, 1.0, seed=mode)]
        good = np.array([task.right(text) for task, text in zip(tasks, second, strict=True)])
        same = np.array([task.told(text) == one for task, text, one in zip(tasks, second, told, strict=True)])
        found[mode] = {
            "second": float(good.mean()),
            "wrong_to_right": _mean(good[~right].tolist()),
            "right_to_wrong": _mean((~good[right]).tolist()),
            "same_wrong_answer": _mean(same[~right].tolist()),
        }
    return found


def measure(engine: Engine, tasks: Sequence[Task], tokens: int, some: int) -> dict:
    """All that this benchmark tells of a base on tasks; pass@k, and the values of the states of two solutions each,
    are from the first `some` of them."""
    sample = Sampler(engine, tokens)
    found, texts = success(sample, tasks)
    chosen = tasks[:some]  # levels come in turn
    return {
        "problems": len(tasks),
        "temperature": found,
        "pass_at": {"problems": len(chosen), **pass_at_all(sample, chosen)},
        "first_errors": first_errors(tasks, texts[WARMTH]),
        "prefixes": prefixes(sample, chosen, [made[:2] for made in texts[WARMTH][:some]]),
        "retry": retries(sample, tasks),
        "sampling": {**sample.spent, "completions_per_second": sample.spent["completions"] / sample.spent["seconds"]},
    }


def tuning(
    base: str, engine: Engine, tasks: Sequence[Task], learnt: Sequence[Task], tokens: int, seed: int = 0
) -> dict:
    """Greedy accuracy on `tasks` after one round of plain fine-tuning on the right ones of TRIES samples of each task
    of `learnt`, held against the base's."""
    from whetstone.engines import open_engine
    from whetstone.training.config import SftConfig
    from whetstone.training.sft import train_sft

    texts = Sampler(engine, tokens)([task.prompt for task in learnt], WARMTH, TRIES, ("tuning", seed))
    rows = [
        {"id": f"{task.id}:{n}", "prompt": task.prompt, "completion": text, "weight": 1.0}
        for task, made in zip(learnt, texts, strict=True)
        for n, text in enumerate(dict.fromkeys(filter(task.right, made)))
    ]
    greedy = [task.prompt for task in tasks]
    before = outcomes(tasks, Sampler(engine, tokens)(greedy, 0.0))[:, 0]
    config = SftConfig(adapter="none", learning_rate=2e-4, epochs=2, batch_size=16, max_length=1024, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tuned"
        summary, _ = train_sft(base, pd.DataFrame(rows), out, config, scratch=Path(folder) / "scratch")
        tuned = open_engine("transformers", str(out), dtype="float32")
        after = outcomes(tasks, Sampler(tuned, tokens)(greedy, 0.0))[:, 0]
    return {
        "problems": len(learnt),
        "solved": len({row["prompt"] for row in rows}),
        "rows": len(rows),
        "steps": summary["steps"],
        "before": float(before.mean()),
        "after": float(after.mean()),
        "change": compare(after, before),
    }


BASES = {  # how to get tasks, and the most tokens of a solution, by source
    "models/base": {"world": (tasks_of_world, 300)},
    "models/reasoner": {
        "steps": (partial(tasks_of_steps, "steps"), 300),
        "logic": (partial(tasks_of_steps, "logic"), 400),
    },
}


@click.command()
@click.option("--base", "bases", multiple=True, type=click.Choice(list(BASES)), default=list(BASES))
@click.option("--problems", default=1000, show_default=True)
@click.option("--some", default=200, show_default=True, help="problems whose pass@k and states are measured")
@click.option("--split", type=click.Choice(["dev", "test", "test_hard"]), default="test", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(bases: Sequence[str], problems: int, some: int, split: str, out: Path) -> None:
    import torch

    from whetstone.engines import open_engine

    results = json.loads(out.read_text()) if out.exists() else {}
    for base in bases:
        engine = open_engine("transformers", base, dtype="float32")
        for name, (tasks, tokens) in BASES[base].items():
            asked = tasks(split, problems)
            found = measure(engine, asked, tokens, some)
            found["tuning"] = tuning(base, engine, asked, tasks("train", LEARNT), tokens)
            results.setdefault(base, {})[name] = found
            print(f"{base}, {name}: {json.dumps(results[base][name]['temperature'], indent=1)}", flush=True)
        engine.close()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    results["device"] = device
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
