"""The tables of several seeds, from runs made up: translations of a problem and repetitions under seeds aren't new."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import star
from whetstone.evaluation.intervals import wilson

PROBLEMS = [f"p{i}-{language}" for language in ("de", "en", "sw") for i in range(120)]


class MadeUp(star.Run):
    """A run whose base model is greedy, right in all languages of a problem or in none; tuned ones differ by seed."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        number = np.array([int(problem[1:].split("-")[0]) for problem in PROBLEMS])
        self.language = {problem: problem[-2:] for problem in PROBLEMS}
        self.group = {problem: problem[:-3] for problem in PROBLEMS}
        base = pd.Series(number % 10 < 4, index=PROBLEMS)
        self.right = {
            (model, split): base if model == "base" else base | (rng.random(len(base)) < 0.5)
            for model in star.MODELS
            for split in ("test", "train")
        }
        share = {"accuracy": 0.5}
        one = {
            **dict.fromkeys(star.HEALTH, share),
            **dict.fromkeys(star.RATES, 0.1),
            "letters": {"bias": 0.1},
            "consistency": {"right_each_time": share},
        }
        self.metrics = {m: {"test": dict.fromkeys(("all", "de", "en", "sw"), one)} for m in star.MODELS}
        self.curation = dict.fromkeys(star.MODELS, {})


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_greedy_base_model_counts_once_however_many_seeds_and_languages(seeds):
    found = star.summarise(list(range(seeds)), [MadeUp(seed) for seed in range(seeds)])
    alone = wilson(48, 120)
    for language in ("all", "de", "en", "sw"):
        one = found["accuracy"]["base"][language]
        assert (one["low"], one["high"]) == pytest.approx((alone["low"], alone["high"]))
        assert one["groups"] == 120 and one["seeds"] == [0.4] * seeds


def test_the_tables_tell_what_was_drawn_and_bound_a_tiny_p():
    found = star.summarise([0, 1], [MadeUp(0), MadeUp(1)])
    table = star.tables(found)
    assert "over 120 problems, each with its translations, and 2 seeds" in table
    assert "p < 2e-5" in table and "e-1" not in table and "p 2e-05" not in table
    gain = found["comparisons"]["sft2 vs base"]["all"]
    right = np.mean([MadeUp(s).right["sft2", "test"].mean() - 0.4 for s in (0, 1)])
    assert gain["difference"] == pytest.approx(right) and gain["low"] < right < gain["high"]


def test_runs_that_asked_other_problems_are_not_set_side_by_side():
    other = MadeUp(1)
    other.right = {key: right.rename(index={"p0-de": "p999-de"}) for key, right in other.right.items()}
    other.language["p999-de"] = "de"
    with pytest.raises(ValueError, match="the runs asked other problems"):
        star.summarise([0, 1], [MadeUp(0), other])
