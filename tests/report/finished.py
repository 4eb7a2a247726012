"""A finished run without a model: problems whose number decides which strategy works, and checkpoints that choose
better and better."""

from __future__ import annotations

import pandas as pd

from whetstone import records
from whetstone.curation.smart import Curation, curate
from whetstone.report.run import Epoch, Run

STRATEGIES = ["cot", "l2m", "pot"]
FAMILIES = ["shop", "age", "clock", "area"]
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\"> & \u2028"


def problem(split: str, number: int) -> dict:
    return {
        "id": f"world-{split}-{number:06d}",
        "question": f"Problem {number} of {split}: what is {number} + 1? {HOSTILE if number == 1 else ''}",
        "answer": str(number + 1),
        "task": "number",
        "source": "world",
        "group": f"{split}-{number}",
        "split": split,
        "part": number % 5 + 1 if split == "train" else 0,
        "family": FAMILIES[number % len(FAMILIES)],
        "level": number % 3 + 1,
        "options": None,
    }


def attempt(
    problem: dict, model: str, strategy: str, turn: int, probability: float | None, sample: int = 0
) -> dict:
    """Each problem has one strategy that fails and two that work, but each seventh has none."""
    number = int(problem["answer"]) - 1
    right = STRATEGIES[number % 3] != strategy and number % 7 != 0
    crashed = strategy == "pot" and not right
    answer = problem["answer"] if right else None if crashed else "-1"
    text = {
        "cot": f"It is {answer}. The answer is {answer}. {HOSTILE if number == 2 else ''}",
        "l2m": f"Sub-question 1: How many?\nAnswer 1: {answer}\nThe answer is {answer}.",
        "pot": f"a = {number}\nanswer = a + 1" if right else "answer = missing",
    }[strategy]
    return {
        "id": f"{model}:{problem['id']}:{strategy}:{sample}",
        "problem_id": problem["id"],
        "model": model,
        "strategy": strategy,
        "sample": sample,
        "turn": turn,
        "probability": probability,
        "text": text,
        "answer": answer,
        "verdict": "correct" if right else "unparsed" if crashed else "wrong",
        "rule": None if crashed else "answer_is",
        "error": "exception" if crashed else None,
        "output": f"NameError: {HOSTILE}" if crashed else None,
        "finish_reason": "stop",
        "prompt_tokens": 40,
        "completion_tokens": 20 + len(strategy),
        "logprob": -0.25,
        "prompt_hash": "0123456789abcdef",
        "engine": f"scripted:{model}",
        "seed": 0,
    }


def policy(problem: dict, model: str, first: str) -> list[dict]:
    """The three strategies in the order of preference, `first` before the others."""
    order = [first, *(name for name in STRATEGIES if name != first)]
    return [
        attempt(problem, model, name, n, p) for n, (name, p) in enumerate(zip(order, (0.7, 0.6, 1.0), strict=True), 1)
    ]


def few_shot(problem: dict, samples: int = 1) -> list[dict]:
    return [attempt(problem, "base", name, 1, None, sample) for sample in range(samples) for name in STRATEGIES]


def table(rows: list[dict], schema) -> pd.DataFrame:
    frame = records.table(rows, schema).to_pandas(integer_object_nulls=True)
    return frame.astype(object).where(frame.notna(), None)


def learnt(number: int, epoch: int) -> str:
    """Epoch 1 knows what works for two problems of three, epoch 2 for all but each eleventh."""
    knows = number % 3 != 2 if epoch == 1 else number % 11 != 0
    return STRATEGIES[(number + 1) % 3] if knows else STRATEGIES[number % 3]


def finished(folder, train: int = 60, test: int = 42, samples: int = 1) -> Run:
    """The run, its tables written to `folder` as well."""
    problems = {split: [problem(split, n) for n in range(1, size + 1)] for split, size in
                (("train", train), ("test", test), ("test_hard", 12))}  # fmt: skip
    sampled = {
        "data/attempts/base/all.parquet": [a for p in problems["train"] for a in few_shot(p, samples)],
        "data/attempts/epoch1/all.parquet": [
            a for n, p in enumerate(problems["train"]) for a in policy(p, "epoch1", learnt(n, 1))
        ],
    }
    datasets = {}
    for name in ("test", "test_hard"):
        datasets[name] = {
            "base": [a for p in problems[name] for a in few_shot(p)],
            "base_zero_shot": [attempt(p, "base_zero_shot", "cot", 1, None) for p in problems[name]],
            **{f"epoch{e}": [a for n, p in enumerate(problems[name], 1) for a in policy(p, f"epoch{e}", learnt(n, e))]
               for e in (1, 2)},
        }  # fmt: skip
    tables = {
        **{f"data/problems/{name}.parquet": table(rows, records.PROBLEM) for name, rows in problems.items()},
        **{path: table(rows, records.ATTEMPT) for path, rows in sampled.items()},
        **{f"data/evaluation/{label}-{name}.parquet": table(rows, records.ATTEMPT)
           for name, own in datasets.items() for label, rows in own.items()},
    }  # fmt: skip
    questions = {p["id"]: p["question"] for p in problems["train"]}
    epochs = {}
    for name, attempts, trainer in (("epoch1", "base", "sft"), ("epoch2", "epoch1", "dpo")):
        made = curate(tables[f"data/attempts/{attempts}/all.parquet"], questions, Curation(balance=False))
        rows, schema = (made.examples, records.EXAMPLE) if trainer == "sft" else (made.pairs, records.PAIR)
        own = tables[f"data/training/{name}/{trainer}.parquet"] = table(rows, schema)
        trained = {"rows": len(own), "steps": 20, "chosen_step": 20, "tokens": 5000, "select": "dev_accuracy"}
        curve = pd.DataFrame({"step": range(1, 21), "loss": [1 / step for step in range(1, 21)]})
        curve["reward_margin"] = curve["step"] / 10 if trainer == "dpo" else None
        curve = curve.dropna(axis=1)
        dev = {"10": 0.5, "20": 0.75}
        epochs[name] = Epoch(attempts, trainer, own, made.statistics, {**trained, "dev": dev}, curve)
    for path, own in tables.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        own.to_parquet(folder / path)
    untaught = {"first_attempt": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "correct": 21, "n": 42}}
    return Run(
        problems={path: own for path, own in tables.items() if path.startswith("data/problems")},
        sampled={path: own for path, own in tables.items() if path.startswith("data/attempts")},
        evaluated={path: own for path, own in tables.items() if path.startswith("data/evaluation")},
        datasets={
            name: {label: tables[f"data/evaluation/{label}-{name}.parquet"] for label in own}
            for name, own in datasets.items()
        },
        untaught={name: {**untaught, "choice": {}} for name in datasets},
        epochs=epochs,
        parameters="sft:\n  rank: 32\n",
        root=folder,
    )
