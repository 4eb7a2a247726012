"""What preference optimisation computes."""

import math

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from whetstone.training import loading, preference
from whetstone.training.config import DpoConfig
from whetstone.training.dpo import tokenise, train_dpo

BASIC = {
    "learning_rate": 1e-2,
    "max_steps": 5,
    "batch_size": 8,
    "rank": 4,
    "alpha": 8,
    "warmup": 0.0,
    "max_length": 128,
}


def run(base, tmp_path, pairs, name="out", **fields):
    config = DpoConfig(**{**BASIC, **fields})
    return train_dpo(base, pairs, tmp_path / name, config, scratch=tmp_path / "scratch")


def log_probability(model, prompt, completion):
    with torch.no_grad():
        logp = model(torch.tensor([prompt + completion])).logits[0].float().log_softmax(-1)
    return sum(logp[len(prompt) - 1 + t, token].item() for t, token in enumerate(completion))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"adapter": "none"},
        {"length_normalise": True},
        {"precompute_reference": False},
        {"loss": "robust", "label_smoothing": 0.1},
    ],
)
def test_it_starts_at_ln_2(base, pairs, tmp_path, fields):
    summary, curve = run(base, tmp_path, pairs, nll_weight=0.0, batch_size=24, learning_rate=2e-3, **fields)
    assert curve["loss"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(curve["reward_margin"][0]) < 1e-5
    assert summary["loss_last"] < math.log(2) and curve["reward_margin"].iloc[-1] > 0


@pytest.mark.slow
def test_a_preference_for_the_first_token_starts_at_ln_2_and_never_looks_at_the_rejected_solution(
    base, pairs, tmp_path
):
    """The choice of the strategy alone is preferred: what a failed solution shares with right ones isn't unlearnt."""
    fields = {"scope": "first_token", "nll_weight": 0.0, "batch_size": 24, "max_steps": 3}
    _, curve = run(base, tmp_path, pairs, **fields)
    other = pairs.assign(rejected=[text[:12] + " Something else. The answer is 0." for text in pairs["rejected"]])
    _, same = run(base, tmp_path, other, name="other", **fields)
    assert curve["loss"][0] == pytest.approx(math.log(2), abs=1e-5)
    assert curve["loss"].tolist() == same["loss"].tolist()


@pytest.mark.parametrize("fields", [{"loss": "ipo"}, {"length_normalise": True}])
def test_one_token_has_no_length_to_normalise_by(fields):
    with pytest.raises(ValueError, match="first_token"):
        DpoConfig(**BASIC, scope="first_token", **fields)


def test_ipo_starts_at_the_square_of_half_over_tau(base, pairs, tmp_path):
    _, curve = run(base, tmp_path, pairs, loss="ipo", beta=0.25, nll_weight=0.0, max_steps=1)
    assert curve["loss"][0] == pytest.approx((1 / (2 * 0.25)) ** 2, abs=1e-5)


def test_the_likelihood_term_is_the_chosen_completions_mean_per_token(base, tokenizer, pairs, tmp_path):
    _, curve = run(base, tmp_path, pairs, nll_weight=0.5, batch_size=24, max_steps=1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    rows, _ = tokenise(pairs, tokenizer, DpoConfig(**BASIC), "pairs")
    total = -sum(log_probability(model, p, c) for p, c in zip(rows["prompt_ids"], rows["chosen_ids"], strict=True))
    mean = total / sum(map(len, rows["chosen_ids"]))
    assert curve["loss"][0] == pytest.approx(math.log(2) + 0.5 * mean, abs=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_reference_log_probabilities_are_those_of_the_model_without_adapter(base, pairs, tmp_path, adapter):
    config = DpoConfig(**BASIC, adapter=adapter)
    model, tokenizer = loading.load(base, config), loading.load_tokenizer(base, config.template)
    rows, _ = tokenise(pairs, tokenizer, config, "pairs")
    trainer = preference.trainer(model, tokenizer, rows, config, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for column, name in (("ref_chosen_logps", "chosen_ids"), ("ref_rejected_logps", "rejected_ids")):
        expected = [log_probability(plain, p, c) for p, c in zip(rows["prompt_ids"], rows[name], strict=True)]
        assert trainer.train_dataset[column] == pytest.approx(expected, abs=1e-3)


def precomputed(base, tmp_path, pairs, **fields):
    """(tokenised rows, trainer, the rows of tokens that the model was given while the reference was computed)."""
    config = DpoConfig(**BASIC, **fields)
    model, tokenizer = loading.load(base, config), loading.load_tokenizer(base, config.template)
    rows, _ = tokenise(pairs, tokenizer, config, "pairs")
    read = []

    def note(_, __, given):
        read.extend(given["input_ids"].tolist())

    model.model.register_forward_pre_hook(note, with_kwargs=True)
    return rows, preference.trainer(model, tokenizer, rows, config, tmp_path), read


def test_the_reference_reads_no_further_than_the_preference(base, pairs, tmp_path):
    """With scope first_token: each prompt once, whatever comes after it."""
    pairs = pairs.assign(prompt=[pairs["prompt"][i // 3] for i in range(len(pairs))])
    rows, trainer, read = precomputed(base, tmp_path, pairs, scope="first_token")
    assert sorted(read) == sorted([list(one) for one in {tuple(ids) for ids in rows["prompt_ids"]}])
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for column, name in (("ref_chosen_logps", "chosen_ids"), ("ref_rejected_logps", "rejected_ids")):
        expected = [log_probability(plain, p, c[:1]) for p, c in zip(rows["prompt_ids"], rows[name], strict=True)]
        assert trainer.train_dataset[column] == pytest.approx(expected, abs=1e-4)
    assert trainer.train_dataset["chosen_ids"] == rows["chosen_ids"]  # whose likelihood is in the loss


def test_the_reference_reads_a_completion_once(base, pairs, tmp_path):
    """However many pairs it is in, as chosen or as rejected."""
    few = pairs.iloc[:4]
    again = few.assign(chosen=few["rejected"], rejected=few["chosen"])
    both = pd.concat([few, again, few], ignore_index=True)
    rows, trainer, read = precomputed(base, tmp_path, both)
    assert len(read) == 8
    values = trainer.train_dataset[:]
    assert values["ref_chosen_logps"][:4] == values["ref_rejected_logps"][4:8] == values["ref_chosen_logps"][8:]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = [log_probability(plain, p, c) for p, c in zip(rows["prompt_ids"], rows["chosen_ids"], strict=True)]
    assert values["ref_chosen_logps"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_fixed_reference_is_the_base_whatever_training_starts_from(base, tokenizer, pairs, tmp_path):
    """Epoch 2 against the base model: the first loss is the preference's between the two, not ln 2."""
    from whetstone.training.config import SftConfig
    from whetstone.training.sft import train_sft

    rows = pairs.assign(completion=pairs["chosen"], weight=1.0)
    fields = {"learning_rate": 1e-2, "max_steps": 8, "max_length": 128, "adapter": "none"}
    train_sft(base, rows, tmp_path / "epoch1", SftConfig(**fields), scratch=tmp_path / "s")
    config = DpoConfig(**{**BASIC, "batch_size": 24, "max_steps": 1}, reference="base", nll_weight=0.0)
    out, scratch = tmp_path / "out", tmp_path / "s"
    _, curve = train_dpo(tmp_path / "epoch1", pairs, out, config, scratch=scratch, base_path=base)
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (tmp_path / "epoch1", base)]
    table, _ = tokenise(pairs, tokenizer, config, "pairs")
    losses = []
    for prompt, chosen, rejected in zip(table["prompt_ids"], table["chosen_ids"], table["rejected_ids"], strict=True):
        ours, theirs = (
            log_probability(model, prompt, chosen) - log_probability(model, prompt, rejected) for model in models
        )
        losses.append(-math.log(1 / (1 + math.exp(-config.beta * (ours - theirs)))))
    assert curve["loss"][0] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert abs(curve["loss"][0] - math.log(2)) > 0.01


@pytest.mark.slow
def test_dev_loss_is_the_loss_on_pairs_held_out(base, pairs, tmp_path):
    config = DpoConfig(**{**BASIC, "max_steps": 6}, select="dev_loss", checkpoints=3, nll_weight=0.0)
    scratch = tmp_path / "s"
    summary, curve = train_dpo(
        base, pairs.iloc[:16], tmp_path / "out", config, scratch=scratch, held_out=pairs.iloc[16:]
    )
    values = summary["dev"]
    assert list(values) == ["2", "4", "6"] and summary["chosen_step"] == int(min(values, key=values.get))
    frozen = DpoConfig(**{**BASIC, "max_steps": 1, "learning_rate": 1e-12}, select="dev_loss", nll_weight=0.0)
    still, _ = train_dpo(base, pairs.iloc[:16], tmp_path / "o", frozen, scratch=scratch, held_out=pairs.iloc[16:])
    assert still["dev"]["1"] == pytest.approx(math.log(2), abs=1e-5)
    plain = DpoConfig(**{**BASIC, "max_steps": 6}, nll_weight=0.0)
    _, without = train_dpo(base, pairs.iloc[:16], tmp_path / "b", plain, scratch=scratch)
    assert curve.to_dict() == without.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("nll_weight", [0.0, 2.0])
def test_gradient_accumulation_is_a_large_batch(base, pairs, tmp_path, nll_weight):
    """A token of a short pass weighs what one of a long pass does."""
    longer = [text + " Again and again." * (4 * i % 11) for i, text in enumerate(pairs["chosen"])]
    large, small = (
        run(base, tmp_path, pairs.assign(chosen=longer), batch_size=size, gradient_accumulation=12 // size,
            nll_weight=nll_weight, max_length=256)[1]
        for size in (12, 4)
    )  # fmt: skip
    assert small["loss"].tolist() == pytest.approx(large["loss"].tolist(), abs=1e-4)
    assert small["grad_norm"].tolist() == pytest.approx(large["grad_norm"].tolist(), rel=1e-3)


@pytest.mark.slow
def test_the_curve_shows_rewards(base, pairs, tmp_path):
    _, curve = run(base, tmp_path, pairs)
    assert list(curve.columns) == [
        "step",
        "epoch",
        "tokens",
        "loss",
        "learning_rate",
        "grad_norm",
        "reward_margin",
        "reward_accuracy",
        "logprob_chosen",
        "logprob_rejected",
    ]
    assert len(curve) == 5 and curve["reward_accuracy"].between(0, 1).all() and curve.notna().all(axis=None)
