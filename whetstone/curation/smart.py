"""Attempts to training data, as SMART does it: the strategy that worked at last is taught as the first choice.

An episode tries strategies one after the other, each at most once, until one is right (arXiv 2410.16128; the
objective credits each action with its own outcome only). What is trained on is (problem, strategy, solution) of the
success under the trained prompt: no failed attempt leaves a trace in it ("implicit biasing"), and this happens before
the update, so the very next model has it.

For attempts of a few-shot model, where every strategy was forced by its own prompt, nobody chose: the episodes are
constructed from the outcome matrix, the first strategy drawn by `first`. A tuned model's attempts are episodes.
With a deterministic matrix the kept strategy is then distributed as `first` conditioned on the right set, and every
solvable problem weighs 1, however many attempts it took.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from whetstone.curation.order import strategy_order
from whetstone.errors import UserError
from whetstone.prompts import strategies
from whetstone.records import fingerprint, seed_of


class Curation(BaseModel):
    """How attempts become examples and pairs."""

    model_config = ConfigDict(extra="forbid")
    first: Literal["uniform"] | strategies.Name | dict[strategies.Name, float] = "uniform"
    max_attempts: int = Field(3, ge=1)
    keep: Literal["first", "all"] = "first"
    within_strategy: bool = True
    pairs_per_problem: int = Field(3, ge=0)
    balance: bool = True
    seed: int = 0

    def first_weights(self, names: Iterable[str]) -> dict[str, float]:
        """How likely each of the given strategies is to open a constructed episode, unnormalised."""
        given = self.first if isinstance(self.first, dict) else {self.first: 1.0}
        return {name: 1.0 if self.first == "uniform" else given.get(name, 0.0) for name in names}


class Attempt(NamedTuple):
    """The columns of an attempt that curation looks at, and why it may not be trained on."""

    id: str
    problem_id: str
    strategy: str | None
    sample: int
    turn: int
    probability: float | None
    text: str
    verdict: str
    fault: str | None  # of a right answer only: its format isn't the strategy's, or it was cut off

    @property
    def success(self) -> bool:
        return self.verdict == "correct" and self.fault is None


class Curated(NamedTuple):
    """Rows of records.EXAMPLE and records.PAIR, and the counts behind them."""

    examples: list[dict]
    pairs: list[dict]
    statistics: dict


def _fault(strategy: str | None, text: str, finish_reason: str) -> str | None:
    if finish_reason == "length":
        return "cut off by max_tokens"
    return strategies.format_fault(text.strip(), strategy) if strategy else "no known strategy"


def _load(attempts: pd.DataFrame) -> list[Attempt]:
    columns = ["id", "problem_id", "strategy", "sample", "turn", "probability", "text", "verdict", "finish_reason"]
    rows = attempts[columns].astype(object).where(attempts[columns].notna(), None).itertuples(index=False, name=None)
    loaded = [
        Attempt(*row[:8], _fault(row[2], row[6], row[8]) if row[7] == "correct" or row[8] == "length" else None)
        for row in rows
    ]
    return sorted(loaded, key=lambda a: (a.problem_id, a.sample, a.turn, a.strategy or "", a.id))


def _construct(attempts: list[Attempt], options: Curation) -> Iterator[list[Attempt]]:
    """Episodes of one problem from its outcome matrix; episode e takes the e-th sample of each strategy."""
    by_strategy: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.strategy:
            by_strategy[attempt.strategy].append(attempt)
    for episode in range(max(map(len, by_strategy.values()), default=0)):
        drawn = {name: by_strategy[name][episode] for name in sorted(by_strategy) if episode < len(by_strategy[name])}
        order = strategy_order(options.first_weights(drawn), seed_of(options.seed, attempts[0].problem_id, episode))
        yield [drawn[name] for name, _ in order]


def _until_solved(episode: list[Attempt], max_attempts: int) -> list[Attempt]:
    """The episode up to its first success, `max_attempts` long at most."""
    for position, attempt in enumerate(episode[:max_attempts], 1):
        if attempt.success:
            return episode[:position]
    return episode[:max_attempts]


def _example(question: str, same: list[Attempt], weight: float) -> dict:
    one = same[0]
    return {
        "id": f"{one.problem_id}:{one.strategy}:{fingerprint(one.text.strip())}",
        "problem_id": one.problem_id,
        "strategy": one.strategy,
        "prompt": strategies.trained_prompt(question),
        "completion": strategies.trained_completion(one.strategy, one.text),
        "weight": weight,
        "attempt_ids": [attempt.id for attempt in same],
    }


def _examples(question: str, attempts: list[Attempt], episodes: list[list[Attempt]], keep: str) -> list[dict]:
    """Examples of one problem; identical solutions are one example, and the weights add up to 1."""
    kept = [a for a in attempts if a.success] if keep == "all" else [e[-1] for e in episodes if e[-1].success]
    distinct: dict[tuple, list[Attempt]] = defaultdict(list)
    for attempt in kept:
        distinct[attempt.strategy, attempt.text.strip()].append(attempt)
    shares = {key: 1 / len(distinct) if keep == "all" else len(same) / len(kept) for key, same in distinct.items()}
    return [_example(question, same, shares[key]) for key, same in distinct.items()]


def _pairs(question: str, attempts: list[Attempt], options: Curation) -> list[dict]:
    """Pairs of one problem: a success over a failure of a strategy that succeeds less often on it, and, if asked for,
    over a failure of its own strategy; at most `pairs_per_problem` of each of the two kinds."""
    outcomes: dict[str | None, list[bool]] = defaultdict(list)
    for attempt in attempts:
        outcomes[attempt.strategy].append(attempt.verdict == "correct")
    rate = {name: sum(right) / len(right) for name, right in outcomes.items()}
    right = list({(a.strategy, a.text.strip()): a for a in reversed(attempts) if a.success}.values())
    failed = [
        a for a in reversed(attempts) if a.verdict != "correct" and a.fault is None and a.strategy and a.text.strip()
    ]
    wrong = list({(a.strategy, a.text.strip()): a for a in failed}.values())
    across = [(a, b) for a in right for b in wrong if rate[a.strategy] > rate[b.strategy]]
    within = [(a, b) for a in right for b in wrong if a.strategy == b.strategy] if options.within_strategy else []
    rng = random.Random(seed_of(options.seed, "pairs", attempts[0].problem_id))
    rows = []
    for kind in (across, within):
        rng.shuffle(kind)
        for chosen, rejected in kind[: options.pairs_per_problem]:
            rows.append(
                {
                    "id": f"{chosen.problem_id}:{fingerprint(chosen.id, rejected.id)}",
                    "problem_id": chosen.problem_id,
                    "prompt": strategies.trained_prompt(question),
                    "chosen": strategies.trained_completion(chosen.strategy, chosen.text),
                    "rejected": strategies.trained_completion(rejected.strategy, rejected.text),
                    "chosen_strategy": chosen.strategy,
                    "rejected_strategy": rejected.strategy,
                    "attempt_ids": [chosen.id, rejected.id],
                }
            )
    return rows


def _balance(pairs: list[dict], seed: int) -> list[dict]:
    """As many pairs a > b as b > a for every two strategies, so that the pairs as a whole favour no strategy and only
    the problem tells them apart. Unbalanced pairs collapse the choice onto one strategy."""
    directions: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda p: fingerprint(seed, p["id"])):
        directions[pair["chosen_strategy"], pair["rejected_strategy"]].append(pair)
    return [pair for (a, b), some in directions.items() for pair in some[: len(directions.get((b, a), ()))]]


def curate(attempts: pd.DataFrame, questions: Mapping[str, str], options: Curation) -> Curated:
    """Training data from a table of attempts (records.ATTEMPT); `questions` maps problem id to question.

    Raises:
        UserError: an attempt names an unknown problem, or no attempt can be trained on (with the counts that say why).
    """
    rows = _load(attempts)
    unknown = {a.problem_id for a in rows} - set(questions)
    if unknown:
        raise UserError(f"{len(unknown)} problems of the attempts aren't among the problems, such as {min(unknown)!r}")
    chosen_by_model = any(a.probability is not None for a in rows)
    examples, pairs, lengths, episodes_of, unsolved = [], [], Counter(), 0, 0
    for problem_id, group in groupby(rows, key=lambda a: a.problem_id):
        own = list(group)
        sampled = (list(e) for _, e in groupby(own, key=lambda a: a.sample))
        episodes = [
            _until_solved(e, options.max_attempts) for e in (sampled if chosen_by_model else _construct(own, options))
        ]
        episodes_of += len(episodes)
        lengths.update(len(e) for e in episodes if e[-1].success)
        own_examples = _examples(questions[problem_id], own, episodes, options.keep)
        unsolved += not own_examples
        examples += own_examples
        pairs += _pairs(questions[problem_id], own, options)
    counts = Counter(a.verdict for a in rows)
    if not examples:
        raise UserError(
            f"{counts['correct']} of {len(rows)} attempts are correct and none can be trained on "
            f"({counts['wrong']} wrong, {counts['unparsed']} unparsed, "
            f"{sum(a.verdict == 'correct' for a in rows)} in the wrong format or cut off): no training data. "
            "Look at the attempts' texts, raise `k` or `max_tokens`, add worked examples, or take another model"
        )
    kept_pairs = _balance(pairs, options.seed) if options.balance else pairs
    problems = len({a.problem_id for a in rows})
    total = sum(e["weight"] for e in examples)
    names = [name for name in strategies.STRATEGIES if any(a.strategy == name for a in rows)]
    statistics = {
        "problems": problems,
        "attempts": len(rows),
        "episodes": episodes_of,
        "solved_at_attempt": {str(n): lengths[n] for n in sorted(lengths)},
        "coverage": (problems - unsolved) / problems,
        "verdicts": {name: _verdicts(a.verdict for a in rows if a.strategy == name) for name in names},
        "dropped": {
            "problems_unsolved": unsolved,
            "attempts_without_strategy": sum(a.strategy is None for a in rows),
            "correct_but": dict(sorted(Counter(a.fault for a in rows if a.verdict == "correct" and a.fault).items())),
            "pairs_to_balance": len(pairs) - len(kept_pairs),
        },
        "examples": len(examples),
        "strategy_share": {n: sum(e["weight"] for e in examples if e["strategy"] == n) / total for n in names},
        "pairs": len(kept_pairs),
        "pairs_by_strategy": {
            f"{a}>{b}": n
            for (a, b), n in sorted(
                Counter((p["chosen_strategy"], p["rejected_strategy"]) for p in kept_pairs).items()
            )
        },
    }
    return Curated(examples, kept_pairs, statistics)


def _verdicts(verdicts: Iterable[str]) -> dict[str, int]:
    counts = Counter(verdicts)
    return {verdict: counts[verdict] for verdict in ("correct", "wrong", "unparsed")}
