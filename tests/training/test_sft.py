"""What supervised fine-tuning computes, compared with plain PyTorch and with TRL's own trainer."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from whetstone.records import weights_digest
from whetstone.training import loading, loop, weighted
from whetstone.training.config import SftConfig
from whetstone.training.sft import tokenise, train_sft

BASIC = {
    "learning_rate": 1e-2,
    "max_steps": 6,
    "batch_size": 8,
    "rank": 4,
    "alpha": 8,
    "warmup": 0.0,
    "max_length": 128,
}


def run(base, tmp_path, examples, name="out", dev=None, **fields):
    config = SftConfig(**{**BASIC, **fields})
    return train_sft(base, examples, tmp_path / name, config, scratch=tmp_path / "scratch", dev=dev)


def nll(model, tokenizer, examples):
    """Sum of -log p over each completion's tokens, and how many there are; row by row, without padding."""
    rows, _ = tokenise(examples, tokenizer, SftConfig(**BASIC), "examples")
    sums, counts = [], []
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        start = labels.count(-100)
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        sums.append(-sum(logp[t - 1, ids[t]].item() for t in range(start, len(ids))))
        counts.append(len(ids) - start)
    return sums, counts


def test_the_first_loss_is_the_mean_over_completion_tokens(base, tokenizer, examples, tmp_path):
    _, curve = run(base, tmp_path, examples, batch_size=24, max_steps=1)
    sums, counts = nll(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tokenizer, examples)
    assert curve["loss"][0] == pytest.approx(sum(sums) / sum(counts), abs=1e-5)


def test_weights_weigh_the_tokens_of_their_rows(base, tokenizer, examples, tmp_path):
    examples["weight"] = [0.0, 0.5, 2.0, 1.0] * 6
    _, curve = run(base, tmp_path, examples, batch_size=24, max_steps=1)
    sums, counts = nll(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tokenizer, examples)
    weighted_sum = sum(w * s for w, s in zip(examples["weight"], sums, strict=True))
    weighted_count = sum(w * n for w, n in zip(examples["weight"], counts, strict=True))
    assert curve["loss"][0] == pytest.approx(weighted_sum / weighted_count, abs=1e-5)


def test_the_first_token_counts_as_often_as_its_weight_says(base, tokenizer, examples, tmp_path):
    """The strategy's tag: weight w adds (w - 1) times the tag's own negative log-likelihood to the sum."""
    _, curve = run(base, tmp_path, examples, batch_size=24, max_steps=1, first_token_weight=20)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    sums, counts = nll(model, tokenizer, examples)
    rows, _ = tokenise(examples, tokenizer, SftConfig(**BASIC), "examples")
    tags = 0.0
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        start = labels.count(-100)
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        tags -= logp[start - 1, ids[start]].item()
    assert curve["loss"][0] == pytest.approx((sum(sums) + 19 * tags) / sum(counts), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 0.25, 7.0])
def test_equal_weights_are_trls_own_trainer(base, examples, tmp_path, weight):
    """Whole training, against SFTTrainer on the same rows in the same order."""
    from datasets import Dataset
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class Plain(SFTTrainer):
        _get_train_sampler = lambda self, dataset=None: loop.LikeLengths(lengths, 8, config.seed)  # noqa: E731

    config = SftConfig(**BASIC)
    model, tokenizer = loading.load(base, config), loading.load_tokenizer(base, config.template)
    rows, _ = tokenise(examples, tokenizer, config, "examples")
    rows.pop("weight")
    lengths = [len(ids) for ids in rows["input_ids"]]
    arguments = loop.arguments(Arguments, config, tmp_path / "trl", dataset_kwargs={"skip_prepare_dataset": True})
    plain = Plain(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(rows),
        args=arguments,
        data_collator=DataCollatorForLanguageModeling(0),
        peft_config=loading.adapter_config(config),
    )
    plain.train()
    expected = [row["loss"] for row in plain.state.log_history if "loss" in row]
    examples["weight"] = weight
    _, curve = run(base, tmp_path, examples)
    assert curve["loss"].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_a_row_of_weight_zero_teaches_nothing(base, examples, tmp_path):
    examples["weight"] = [1.0, 0.0] * 12
    other = examples.copy()
    other.loc[1::2, "completion"] = " steps: nonsense."
    first, second = (run(base, tmp_path, rows, batch_size=24)[1] for rows in (examples, other))
    assert first["loss"].tolist() == pytest.approx(second["loss"].tolist(), abs=1e-5)


@pytest.mark.slow
def test_gradient_accumulation_is_a_large_batch(base, examples, tmp_path):
    curves = [
        run(base, tmp_path, examples, f"b{size}", batch_size=size, gradient_accumulation=24 // size // 2)[1]
        for size in (12, 4, 3)
    ]
    for curve in curves[1:]:
        assert curve["loss"].tolist() == pytest.approx(curves[0]["loss"].tolist(), abs=1e-5)
        assert curve["grad_norm"].tolist() == pytest.approx(curves[0]["grad_norm"].tolist(), rel=1e-4)


@pytest.mark.slow
def test_an_adapter_moves_and_the_base_stays(base, examples, tmp_path):
    before = weights_digest(base)
    summary, curve = run(base, tmp_path, examples, max_steps=30)
    assert weights_digest(base) == before
    assert summary["loss_last"] < summary["loss_first"] - 0.1
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all("lora" in name for name in weights) and all(w.abs().sum() > 0 for w in weights.values())
    assert json.loads((tmp_path / "out" / "whetstone.json").read_text()) == {
        "adapter": "lora",
        "base": before,
        "dtype": "float32",
    }


@pytest.mark.slow
def test_full_fine_tuning_writes_a_model_with_tied_embeddings(base, tokenizer, examples, tmp_path):
    summary, _ = run(base, tmp_path, examples, adapter="none", max_steps=30)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    sums, counts = nll(model, tokenizer, examples)
    assert sum(sums) / sum(counts) < 0.6 * summary["loss_first"]


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes(base, examples, tmp_path):
    names = []
    for name in ("one", "two"):
        run(base, tmp_path, examples, name, dropout=0.1)
        names.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert names[0] == names[1]
    run(base, tmp_path, examples, "three", dropout=0.1, seed=1)
    assert (tmp_path / "three" / "adapter_model.safetensors").read_bytes() != names[0]["adapter_model.safetensors"]


@pytest.mark.slow
def test_what_was_trained_is_what_the_engine_samples(base, examples, tmp_path):
    """Prompt ids + sampled ids of a rollout are exactly the ids that were trained."""
    from transformers import AutoTokenizer

    few = examples.iloc[:2]
    run(base, tmp_path, few, adapter="none", max_steps=60, batch_size=2, schedule="constant")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    rows, _ = tokenise(few, tokenizer, SftConfig(**BASIC), "examples")
    for prompt, trained in zip(few["prompt"], rows["input_ids"], strict=True):
        fed = torch.tensor([tokenizer(prompt)["input_ids"]])
        rollout = model.generate(fed, attention_mask=torch.ones_like(fed), max_new_tokens=120, do_sample=False)[0]
        assert rollout.tolist() == trained


@pytest.mark.slow
@pytest.mark.parametrize(
    "values, select, chosen",
    [
        ([0.2, 0.5, 0.5], "dev_accuracy", 4),
        ([0.9, 0.5, 0.7], "dev_accuracy", 2),
        ([0.9, 0.5, 0.7], "last", 6),
    ],
)
def test_the_best_checkpoint_on_dev_is_the_result_and_the_earlier_of_equals(
    base, examples, tmp_path, values, select, chosen
):
    seen, weights = [], {}

    def dev(model, tokenizer, step):
        assert not model.training and tokenizer("x")["input_ids"][0] == 1
        torch.rand(3)  # what dev draws changes nothing
        seen.append(step)
        weights[step] = [p.detach().clone() for n, p in sorted(model.named_parameters()) if "lora_B" in n]
        return values[len(seen) - 1]

    summary, curve = run(base, tmp_path, examples, dev=dev, select=select, checkpoints=3, dropout=0.1)
    assert seen == [2, 4, 6] and summary["chosen_step"] == chosen
    assert summary["dev"] == dict(zip(["2", "4", "6"], values, strict=True))
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "out" / "adapter_model.safetensors")
    kept = [kept[name] for name in sorted(kept) if "lora_B" in name]
    assert all(torch.equal(a, b) for a, b in zip(kept, weights[chosen], strict=True))
    _, without = run(base, tmp_path, examples, "without", dropout=0.1)
    assert curve["loss"].tolist() == without["loss"].tolist()


@pytest.mark.slow
def test_dev_loss_is_the_loss_on_rows_held_out_and_the_lowest_is_the_result(base, tokenizer, examples, tmp_path):
    """Mean over completion tokens, of the weights of the moment; measuring it changes nothing."""
    kept, unseen = examples.iloc[:18], examples.iloc[18:]
    config = SftConfig(**{**BASIC, "max_steps": 6}, select="dev_loss", checkpoints=3)
    summary, curve = train_sft(base, kept, tmp_path / "out", config, scratch=tmp_path / "s", held_out=unseen)
    values = summary["dev"]
    assert list(values) == ["2", "4", "6"] and summary["chosen_step"] == int(min(values, key=values.get))
    from peft import PeftModel

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    sums, counts = nll(PeftModel.from_pretrained(plain, tmp_path / "out"), tokenizer, unseen)
    assert values[str(summary["chosen_step"])] == pytest.approx(sum(sums) / sum(counts), abs=1e-4)
    _, without = train_sft(base, kept, tmp_path / "b", SftConfig(**BASIC), scratch=tmp_path / "s")
    assert curve.to_dict() == without.to_dict()


def test_steps_and_tokens_are_counted(base, tokenizer, examples, tmp_path):
    summary, curve = run(base, tmp_path, examples, max_steps=None, epochs=2, batch_size=5, gradient_accumulation=2)
    rows, _ = tokenise(examples, tokenizer, SftConfig(**BASIC), "examples")
    assert summary["steps"] == len(curve) == 6  # three of 10, 10 and 4 rows, twice
    assert summary["tokens"] == curve["tokens"].iloc[-1] == 2 * sum(map(len, rows["input_ids"]))
    assert list(curve.columns) == ["step", "epoch", "tokens", "loss", "learning_rate", "grad_norm"]


@pytest.mark.slow
def test_a_result_is_replaced_at_once_and_scratch_left_clean(base, examples, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("of an earlier run")
    run(base, tmp_path, examples)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "whetstone.json",
    ]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scratch"]


def test_each_epoch_sees_each_row_once_and_a_step_holds_like_lengths():
    lengths = [10 + i * 37 % 90 for i in range(203)]
    sampler = loop.LikeLengths(lengths, batch_size=8, seed=3)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(203))
    assert orders[0] != orders[1]
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]
    steps = [orders[0][i : i + 8] for i in range(0, 200, 8)]
    padded = sum(max(lengths[i] for i in step) * 8 for step in steps)
    assert padded < 1.1 * sum(lengths[i] for step in steps for i in step)
    assert [max(step) for step in steps] != sorted(max(step) for step in steps)


def test_on_a_cpu_log_probabilities_are_those_of_trls_kernel(base, tokenizer, examples):
    from trl.trainer.utils import add_fused_lm_head

    from whetstone.training.head import use_own_logits

    rows, _ = tokenise(examples, tokenizer, SftConfig(**BASIC), "examples")
    batch = weighted.Collator(0)([{k: rows[k][i] for k in rows} for i in range(8)])
    batch.pop("weight")
    theirs, ours = (AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2))
    add_fused_lm_head(theirs), add_fused_lm_head(ours), use_own_logits(ours), use_own_logits(ours)
    a, b = (model(**batch, fused_lm_head=True) for model in (theirs, ours))
    assert torch.equal(a.label_mask, b.label_mask)
    torch.testing.assert_close(a.log_probs, b.log_probs)
    for output in (a, b):
        output.log_probs.sum().backward()
    for p, q in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "joins"), [("float32", True), ("bfloat16", False)])
def test_sampling_has_the_adapter_in_the_weights_and_leaves_them_as_they_were(base, tokenizer, dtype, joins):
    from peft import get_peft_model

    config = SftConfig(learning_rate=1e-2, max_steps=1, rank=4, alpha=8)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    model = get_peft_model(plain, loading.adapter_config(config)).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    asked = tokenizer("How many?", return_tensors="pt").input_ids
    with torch.no_grad():
        apart = model(asked).logits
        with loading.added(model):
            together = model(asked).logits
            changed = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
        again = model(asked).logits
    assert bool(changed) == joins
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)
    assert torch.equal(again, apart)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_machine_with_several_gpus_trains_on_one_unless_told_otherwise(tmp_path):
    """Where one process sees them all, the library would spread it over them, which TRL's trainers refuse."""
    from trl import SFTConfig as Arguments

    class Seen(Arguments):
        def __post_init__(self):
            super().__post_init__()
            self._n_gpu = 4

    config = SftConfig(learning_rate=1e-3, max_steps=1)
    assert loop.arguments(Seen, config, tmp_path).n_gpu == 1
    assert loop.arguments(Arguments, config, tmp_path).n_gpu == 0  # here


def test_devices_get_rows_of_like_lengths_in_the_steps_of_a_larger_batch():
    """They take turns by batch_size rows: device k gets batches k, k + devices, ..."""
    lengths = np.random.default_rng(0).integers(20, 300, 480)
    alone = np.array(list(loop.LikeLengths(lengths, 4, 3, passes=12))).reshape(10, 48)
    turns = np.array(list(loop.LikeLengths(lengths, 4, 3, passes=3, devices=4))).reshape(10, 3, 4, 4)
    assert [sorted(step) for step in alone.tolist()] == [sorted(step.ravel().tolist()) for step in turns]
    longest = lengths[turns].max(axis=3)  # step, pass, device
    assert (longest.max(axis=2) - longest.min(axis=2)).mean() < 3
