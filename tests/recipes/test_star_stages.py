"""The recipe's stages, one after the other, with a scripted model: what each writes, and what it says of a mistake."""

from __future__ import annotations

import json

import pytest

from stages.star import common as star_common
from stages.star.evaluate import probe
from stages.star.train import Schedule, scheduled
from whetstone import records, rollouts
from whetstone.engines.base import Sampling
from whetstone.engines.scripted import ScriptedEngine
from whetstone.errors import UserError
from whetstone.prompts import choices
from whetstone.training.config import SftConfig


def metrics(star, name: str) -> dict:
    return json.loads((star.folder / f"metrics/{name}.json").read_text())


def baseline(star) -> None:
    star.run("evaluate", "--model", "base")
    star.run("sample", "--model", "base")


def test_problems_are_the_same_in_three_languages(star):
    for split, size in (("train", 20), ("dev", 5), ("test", 10)):
        frame = star.read(f"data/problems/{split}.parquet", records.PROBLEM)
        assert frame["source"].value_counts().to_dict() == dict.fromkeys(("world:en", "world:de", "world:sw"), size)
    assert metrics(star, "problems")["rows"]["dev"] == {"all": 15, "de": 5, "en": 5, "sw": 5}


def test_samples_see_the_options_in_several_orders_and_are_graded_by_each(star):
    baseline(star)
    attempts = star.read("data/attempts/base.parquet")
    assert len(attempts) == 60 * 4 and set(attempts["variant"]) == {"0", "1"}
    problems = star.read("data/problems/train.parquet", records.PROBLEM).set_index("id")
    one = attempts[attempts["problem_id"] == problems.index[1]].sort_values("sample")
    assert one["prompt_hash"].tolist()[0] == one["prompt_hash"].tolist()[2] != one["prompt_hash"].tolist()[1]
    for row in attempts.itertuples():
        problem = problems.loc[row.problem_id]
        assert row.variant == str(row.sample % 2)
        order = choices.order_of(row.problem_id, int(row.variant), 4)
        options, gold = choices.shown(problem["options"], problem["answer"], order)
        assert (list(row.options), row.gold) == (options, gold)
        assert (row.answer == gold) == (row.verdict == "correct")
    assert attempts["seed"].nunique() > 200


def test_tokens_that_only_a_server_knows_are_unknown(star):
    class Served(ScriptedEngine):
        def encode(self, prompt):
            return []

    problems = star.read("data/problems/dev.parquet", records.PROBLEM)
    prompt = choices.load_prompt(star.folder / "prompts/world.yaml")
    engine = Served(lambda prompt: "So the answer is A.")
    asks = choices.asks(problems, prompt, think="target", shots=0, k=1, orders=1)
    found = rollouts.attempts(engine, asks, Sampling(9), model="base", seed=0, store=None)
    assert found["prompt_tokens"].isna().all() and found["completion_tokens"].gt(0).all()


def test_hinted_tries_are_second_tries_at_what_failed(star):
    star.fails = lambda number, language, draw: number % 2 == 0
    baseline(star)
    star.requests.clear()
    star.run("sample", "--model", "base", "--hinted")
    table = star.read("data/attempts/base-hinted.parquet")
    hinted = table[table["variant"] == "hinted"]
    failed = {row for row in table["problem_id"] if int(row.split("-")[2]) % 2 == 0}
    assert set(hinted["problem_id"]) == failed and len(hinted) == 30 and (hinted["verdict"] == "correct").all()
    assert len(table) == 60 * 4 + 30
    assert all("(CORRECT)" in request.prompt for request in star.requests)


def test_a_share_of_what_failed_is_tried_again(star):
    star.fails = lambda *_: True
    baseline(star)
    star.params["rationalize"]["share"] = 0.5
    star.save()
    star.run("sample", "--model", "base", "--hinted")
    hinted = star.read("data/attempts/base-hinted.parquet").query("variant == 'hinted'")
    assert 15 < len(hinted) < 45


def test_the_stored_training_text_never_holds_the_hint(star):
    star.fails = lambda number, language, draw: number % 4 == 0
    baseline(star)
    star.run("sample", "--model", "base", "--hinted")
    star.run("curate", "--iteration", "rationalized1")
    rows = star.read("data/training/rationalized1.parquet", records.EXAMPLE)
    assert (rows["strategy"] == "hinted").sum() > 3
    assert not (rows["prompt"] + rows["completion"]).str.contains("CORRECT").any()


def test_what_is_trained_on_is_what_was_sampled_with(star):
    """The prompt of an example is that of its attempt, by its hash."""
    baseline(star)
    star.run("curate", "--iteration", "sft1")
    attempts = star.read("data/attempts/base.parquet").set_index("id")
    for row in star.read("data/training/sft1.parquet", records.EXAMPLE).itertuples():
        for one in row.attempt_ids:
            assert records.fingerprint(row.prompt) == attempts.loc[one, "prompt_hash"]
            assert row.completion == attempts.loc[one, "text"]


def test_pairs_for_dpo(star):
    baseline(star)
    star.run("curate", "--iteration", "dpo1")
    attempts = star.read("data/attempts/base.parquet").set_index("id")
    rows = star.read("data/training/dpo1.parquet", records.PAIR)
    assert len(rows) and rows.groupby("problem_id").size().max() <= 2
    for row in rows.itertuples():
        chosen, rejected = (attempts.loc[one] for one in row.attempt_ids)
        assert (chosen["verdict"], rejected["verdict"]) == ("correct", "wrong")
        assert chosen["prompt_hash"] == rejected["prompt_hash"] == records.fingerprint(row.prompt)


def test_evaluation_is_greedy_and_tells_of_every_language(star):
    star.run("evaluate", "--model", "base")
    assert all(request.sampling.temperature == 0 and request.seed == 0 for request in star.requests)
    found = metrics(star, "evaluation/base")
    assert set(found["test"]) == {"all", "de", "en", "sw"} and found["test"]["sw"]["in_language"] == 1
    right = sum(number % 3 != 0 for number in range(10)) / 10
    assert found["test"]["de"]["accuracy"]["accuracy"] == right
    assert found["test"]["en"]["consistency"]["orders"] == 2
    assert found["history"] == [{"model": "base", "dev": found["dev"]["all"]["accuracy"]["accuracy"]}]
    assert (found["best"], found["stopped"]) == ("base", False)
    assert len(star.read("data/evaluation/base/test.parquet")) == 2 * 30
    assert len(star.read("data/evaluation/base/train.parquet")) == 12


def test_the_probe_is_the_same_training_problems_for_every_model(star):
    problems = star.read("data/problems/train.parquet", records.PROBLEM)
    assert probe(problems, 12)["id"].tolist() == probe(problems.iloc[::-1], 12).sort_index()["id"].tolist()
    assert set(probe(problems, 12)["id"]) <= set(probe(problems, 24)["id"])


def test_an_arm_that_falls_on_dev_stops_and_what_follows_passes(star):
    star.params["stop"]["patience"] = 1
    star.save()
    baseline(star)
    star.fails = lambda *_: True
    star.run("evaluate", "--model", "sft1")
    found = metrics(star, "evaluation/sft1")
    assert (found["stopped"], found["best"]) == (True, "base")
    assert "has stopped, base is its best; nothing is sampled" in star.run("sample", "--model", "sft1")
    assert "nothing is curated" in star.run("curate", "--iteration", "sft2")
    assert "nothing is trained" in star.run("train", "--iteration", "sft2")
    assert "nothing is evaluated" in star.run("evaluate", "--model", "sft2")
    assert metrics(star, "evaluation/sft2") == {"stopped": True, "best": "base", "history": found["history"]}
    assert star.read("data/attempts/sft1.parquet").empty


@pytest.mark.slow
def test_the_report_sets_arms_side_by_side(star):
    baseline(star)
    star.params["iterations"] = {
        "train": {name: one for name, one in star.params["iterations"]["train"].items() if name.startswith("sft")},
        "sample": ["base", "sft1"],
        "rationalize": [],
    }
    star.save()
    star.fails = lambda number, language, draw: number % 5 == 0
    for name in ("sft1", "sft2"):
        star.run("sample", "--model", "base" if name == "sft1" else "sft1")
        star.run("curate", "--iteration", name)
        star.run("evaluate", "--model", name)
    star.run("report")
    text = (star.folder / "report/report.md").read_text()
    assert "base → sft1 → sft2: best on dev is **sft1**" in text and "chance is 25.0" in text
    found = metrics(star, "summary")
    assert set(found["comparisons"]) == {"sft1 vs base", "sft2 vs base"}
    assert found["comparisons"]["sft1 vs base"]["all"]["wins"] > 0 and found["best"] == {"sft2": "sft1"}


def test_a_run_on_a_test_set_carries_its_banner(star):
    rows = ["n,Question,A,B,C,D,Answer,Subject"] + [f"{i},Q{i}?,{i},{i + 1},{i + 2},{i + 3},A,x" for i in range(60)]
    (star.folder / "data/raw").mkdir(parents=True)
    (star.folder / "data/raw/mmlu.csv").write_text("\n".join(rows))
    star.params["problems"] |= {"world": None, "sources": [{"kind": "simple_evals", "path": "data/raw/mmlu.csv"}]}
    star.save()
    assert "`split: divide` would train on 60 rows of a published test set" in star.run("problems", fails=True)
    star.params["problems"]["train_on_test"] = True
    star.save()
    assert "THIS RUN TRAINS ON" in star.run("problems")
    assert metrics(star, "problems")["loaded"]["trains_on_test_rows"] > 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "ppo"}, r"no strategy 'ppo' of the trainer sft; known: sft, sft_unique, dpo, reinforce"),
        ({"trainer": "dpo", "strategy": "sft_unique"}, "no strategy 'sft_unique' of the trainer dpo"),
        ({"after": "sft9"}, r"train.sft1.after` is 'sft9'; expected base"),
        ({"start": "sft2"}, r"train.sft1.start` is 'sft2'; expected base"),
        ({"attempts": "dpo1"}, r"attempts` is 'dpo1'; it learns from base: expected base or base-hinted"),
        ({"attempts": "base-hinted", "trainer": "dpo"}, "hinted tries are for sft"),
        ({"from": "base"}, "`iterations.train.sft1.from` is unknown"),
    ],
)
def test_mistakes_in_iterations_are_found_before_anything_runs(star, change, message):
    star.params["iterations"]["train"]["sft1"] |= change
    star.save()
    with pytest.raises(UserError, match=message):
        star_common.iterations()


@pytest.mark.parametrize(
    ("trainer", "strategy", "how"),
    [
        ("sft", None, "sft"),
        ("sft", "sft_unique", "sft_unique"),
        ("sft", "reinforce", "sft"),
        ("sft", "reinforce_unique", "sft_unique"),
        ("dpo", None, "dpo"),
        ("dpo", "dpo", "dpo"),
    ],
)
def test_strategies_and_their_old_names(trainer, strategy, how):
    one = star_common.Iteration(after="base", start="base", attempts="base", trainer=trainer, strategy=strategy)
    assert one.how == how


@pytest.mark.parametrize(("template", "mark"), [("chat", None), ("chat", "plain"), ("plain", "chat")])
def test_a_base_model_is_sampled_with_the_template_that_it_is_trained_with(star, template, mark):
    """Engines and trainers read it at one place; a base model without a mark is sampled plainly."""
    star.params["sft"]["template"] = star.params["dpo"]["template"] = template
    star.save()
    config = star.folder / "models/base/tokenizer_config.json"
    if mark:
        config.write_text(json.dumps({"prompt_template": mark}))
    baseline(star)
    star.run("sample", "--model", "base")
    star.run("curate", "--iteration", "sft1")
    told = f"`sft.template` is {template}, but base is sampled with {mark or 'plain'}"
    assert told in star.run("train", "--iteration", "sft1", fails=True)
    assert told.replace("sft", "dpo") in star.run("check", fails=True)
    config.write_text(json.dumps({"prompt_template": template}))
    star.run("check")


def test_more_orders_than_samples_are_refused(star):
    star.params["sample"]["orders"] = 5
    star.save()
    assert "orders (5) is more than k (4)" in star.run("sample", "--model", "base", fails=True)
    star.params["sample"]["orders"] = 2
    star.params["curate"]["min_right"] = 3
    star.save()
    baseline(star)
    told = "`curate.min_right` is 3, but `sample.orders` is 2"
    assert told in star.run("check", fails=True)
    assert told in star.run("curate", "--iteration", "sft1", fails=True)


@pytest.mark.parametrize(
    ("length", "schedule", "lengths"),
    [
        ({"max_steps": 40}, {"growth": 1.2}, [40, 48, 58, 69]),
        ({"max_steps": 300}, {"growth": 1.0, "add": 20}, [300, 320, 340, 360]),
        ({"epochs": 1}, {"growth": 1.0, "add": 0.2}, [1, 1.2, 1.4, 1.6]),
    ],
)
def test_training_grows_as_the_paper_and_its_code_have_it(length, schedule, lengths):
    config = SftConfig(learning_rate=1e-6, **length)
    grown = [scheduled(config, Schedule(**schedule), number) for number in (1, 2, 3, 4)]
    assert [one.max_steps or round(one.epochs, 6) for one in grown] == lengths


def test_iterations_are_numbered_along_their_arm(star):
    assert [star_common.number(name) for name in ("base", "sft1", "sft2", "dpo2")] == [0, 1, 2, 2]


def test_a_training_holds_its_gpu(star, monkeypatch):
    from whetstone.locks import device_lock
    from whetstone.training import checks, sft

    def training(*_, **__):
        with pytest.raises(UserError, match="GPU 0 is in use"), device_lock("cuda:0"):
            pass
        raise UserError("it was held")

    monkeypatch.setattr("tempfile.tempdir", str(star.folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(checks, "cuda_devices", lambda: 1)
    monkeypatch.setattr(sft, "train_sft", training)
    baseline(star)
    star.run("curate", "--iteration", "sft1")
    assert "it was held" in star.run("train", "--iteration", "sft1", fails=True)
