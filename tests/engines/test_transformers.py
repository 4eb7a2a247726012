"""The transformers engine gives the model's own tokens, whatever else is in the batch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from whetstone.engines import decoding, open_engine
from whetstone.engines.base import Request, Sampling
from whetstone.engines.decoding import SHARERS, prefix_groups
from whetstone.engines.transformers import TransformersEngine
from whetstone.errors import UserError

SHOTS = "".join(f"Question: what is {i} plus {i}?\nAnswer: {i} + {i} = {2 * i}\n\n" for i in range(4))
OTHER = "".join(f"Q: {i} times {i}, please\nA: {i * i}\n\n" for i in range(5))
KINDS = [
    "llama, grouped queries",
    "llama, one key head for three",
    "qwen2, biases",
    "qwen3, normalised queries",
    "gpt2, learned positions",
    "granite, scaled logits",
    "mistral, a window",
    "gemma2, capped scores",
    "mamba, recurrent",
]
SHARING = KINDS[:6]


def questions(count: int, shots: str = SHOTS) -> list[str]:
    return [f"{shots}Question: what is {'9' * (i % 5)}{i} plus {7 * i}?\nAnswer:" for i in range(count)]


def completed(engine, requests):
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_and_their_logprobs_are_the_models_own(kind, make_model, tokenizer):
    model = make_model(kind)
    engine = TransformersEngine.from_model(model, tokenizer, slots=16)
    prompts = questions(20) + ["Hi", "Hello there"]
    results = completed(engine, [Request(p, Sampling(12)) for p in prompts])
    assert engine.shares is (kind in SHARING)
    for prompt, (completion,) in zip(prompts[::4] + prompts[-2:], results[::4] + results[-2:], strict=True):
        ids = engine.encode(prompt)
        with torch.no_grad():
            logits = model(torch.tensor([ids + list(completion.token_ids)])).logits[0, len(ids) - 1 : -1]
        assert completion.token_ids == tuple(logits.argmax(-1).tolist())
        expected = torch.log_softmax(logits, -1).max(-1).values
        np.testing.assert_allclose(completion.logprobs, expected, atol=2e-4)


@pytest.mark.parametrize("kind", SHARING)
def test_a_result_does_not_depend_on_the_batch_that_it_was_in(kind, make_model, tokenizer, monkeypatch):
    """Bit for bit, log-probabilities included: alone, shuffled, in few slots, with another prefix, after a resume."""
    monkeypatch.setattr(decoding, "DECIMALS", 17)
    engine = TransformersEngine.from_model(make_model(kind), tokenizer)
    requests = [
        Request(prompt, Sampling(4 + i % 17, (0, 1, 0.7)[i % 3], top_p=(1, 0.8)[i % 2], n=1 + i % 2), seed=i)
        for i, prompt in enumerate(questions(24) + questions(24, OTHER) + ["Hi", "No prefix at all " * 12])
    ]
    whole = completed(engine, requests)
    assert engine.shares
    order = random.Random(0).sample(range(len(requests)), len(requests))
    few = TransformersEngine.from_model(engine.model, tokenizer, slots=16)
    assert completed(few, [requests[i] for i in order]) == [whole[i] for i in order]
    for start in range(0, len(order), 17):
        part = order[start : start + 17]
        assert completed(engine, [requests[i] for i in part]) == [whole[i] for i in part]
    for i in order[:8]:
        assert completed(engine, [requests[i]]) == [whole[i]]
    prompts = [request.prompt for request in requests]
    table = engine.choice_logprobs(prompts, ["a", "b", "\n\n"])
    for i in order[:5]:
        assert (few.choice_logprobs([prompts[i]], ["a", "b", "\n\n"])[0] == table[i]).all()


def test_seeds_and_samples_differ_and_repeat(engine):
    (one,), (two,), (again,) = completed(
        engine, [Request("Once", Sampling(24, temperature=1.0), seed=s) for s in (1, 2, 1)]
    )
    assert one == again and one != two
    (three,) = completed(engine, [Request("Once", Sampling(24, temperature=1.0, n=3), seed=1)])
    assert three[0] == one and len({c.token_ids for c in three}) == 3


def test_samples_follow_the_models_distribution(engine):
    with torch.no_grad():
        expected = torch.softmax(engine.model(torch.tensor([engine.encode("Once")])).logits[0, -1] / 0.8, -1).numpy()
    (drawn,) = completed(engine, [Request("Once", Sampling(1, temperature=0.8, n=4000), seed=5)])
    counts = np.bincount([c.token_ids[0] for c in drawn], minlength=len(expected))
    common = expected * 4000 >= 5  # the rest goes into one bin
    seen, wanted = [np.append(x[common], x[~common].sum()) for x in (counts, 4000 * expected.astype(float))]
    assert chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > 1e-3


def test_top_p_keeps_the_smallest_set_that_reaches_it(engine):
    with torch.no_grad():
        logits = engine.model(torch.tensor([engine.encode("Once")])).logits[0, -1]
    order = logits.argsort(descending=True)
    kept = int((torch.softmax(logits, -1)[order].cumsum(0) < 0.6).sum()) + 1
    (drawn,) = completed(engine, [Request("Once", Sampling(1, temperature=1.0, top_p=0.6, n=3000), seed=5)])
    assert {c.token_ids[0] for c in drawn} == set(order[:kept].tolist())


def test_a_stop_string_ends_a_completion_wherever_tokens_cut_it(engine):
    (free,) = completed(engine, [Request("Once", Sampling(40))])
    text = free[0].text
    assert len(text) > 12 and free[0].finish_reason == "length"
    for at in (1, 5, 9):
        stop = text[at : at + 3]
        (cut,) = completed(engine, [Request("Once", Sampling(40, stop=("\x00never", stop)))])
        assert cut[0].text == text[: text.find(stop)] and cut[0].finish_reason == "stop"
        assert free[0].token_ids[: len(cut[0].token_ids)] == cut[0].token_ids
        assert stop in engine.tokenizer.decode(cut[0].token_ids)
        assert stop not in engine.tokenizer.decode(cut[0].token_ids[:-1])


def test_the_end_of_sequence_token_ends_a_completion_and_is_kept(make_model, tokenizer):
    (free,) = completed(TransformersEngine.from_model(make_model(eos=None), tokenizer), [Request("Once", Sampling(9))])
    model = make_model(eos=[2, free[0].token_ids[4]])
    (cut,) = completed(TransformersEngine.from_model(model, tokenizer), [Request("Once", Sampling(9))])
    first = free[0].token_ids.index(free[0].token_ids[4])
    assert cut[0].token_ids == free[0].token_ids[: first + 1] and cut[0].finish_reason == "stop"
    assert cut[0].text == tokenizer.decode(free[0].token_ids[:first])


@pytest.mark.parametrize("kind", ["llama, grouped queries", "gpt2, learned positions"])
def test_a_completion_ends_where_the_context_does(kind, make_model, tokenizer):
    engine = TransformersEngine.from_model(make_model(kind, eos=None), tokenizer, slots=16)
    prompt = "x" * 500
    (result,) = completed(engine, [Request(prompt, Sampling(100))])
    assert len(engine.encode(prompt)) + len(result[0].token_ids) == 512 and result[0].finish_reason == "length"
    for length in range(496, 511):  # where the last of the padding would lie outside of the context
        assert len(completed(engine, [Request("x" * length, Sampling(100))])[0][0].token_ids) == 511 - length
    with pytest.raises(UserError, match="prompt 1 has 601 tokens.*512"):
        list(engine.generate([Request("fine", Sampling(1)), Request("y" * 600, Sampling(1))]))


def test_choices_are_the_next_tokens_distribution(engine):
    prompts = questions(40) + ["Hi"]
    table = engine.choice_logprobs(prompts, ["apple", "banana", "\n\n"])
    heads = [engine.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in ("apple", "banana", "\n\n")]
    with torch.no_grad():
        for i in (0, 7, 40):
            logits = engine.model(torch.tensor([engine.encode(prompts[i])])).logits[0, -1]
            np.testing.assert_allclose(table[i], torch.log_softmax(logits, -1)[heads], atol=2e-4)
    with pytest.raises(UserError, match="share their first token"):
        engine.choice_logprobs(["Hi"], ["apple", "avocado"])
    assert engine.choice_logprobs([], ["a", "b"]).shape == (0, 2)


def test_a_prompt_has_one_beginning_of_sequence_token(engine):
    assert engine.encode("Hi").count(1) == 1
    assert engine.encode("<bos>Hi") == engine.encode("Hi")


def test_a_model_in_memory_is_left_as_it_was(make_model, tokenizer):
    model = make_model().train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()], model.config._attn_implementation
    engine = TransformersEngine.from_model(model, tokenizer)
    stream = engine.generate([Request(p, Sampling(3)) for p in questions(3)])
    next(stream)
    stream.close()
    assert ([module.training for module in model.modules()], model.config._attn_implementation) == before
    assert all("forward" not in vars(module) for module in model.modules())
    model(torch.tensor([[1, 5, 6]]), labels=torch.tensor([[1, 5, 6]])).loss.backward()


def test_the_fingerprint_names_weights_tokenizer_and_precision(make_model, tokenizer, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "a")
    first = open_engine("transformers", str(tmp_path / "a")).fingerprint
    assert open_engine("transformers", str(tmp_path / "a"), slots=16).fingerprint == first
    assert open_engine("transformers", str(tmp_path / "a"), dtype="bfloat16").fingerprint != first
    (tmp_path / "a" / "README.md").write_text("a card changes nothing")
    assert open_engine("transformers", str(tmp_path / "a")).fingerprint == first
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    model.save_pretrained(tmp_path / "a")
    assert open_engine("transformers", str(tmp_path / "a")).fingerprint != first
    memory = TransformersEngine.from_model(model, tokenizer)
    one = memory.fingerprint
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    assert memory.fingerprint != one


def test_an_adapter_counts(make_model, tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    make_model().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(make_model(), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    requests = [Request(p, Sampling(8)) for p in questions(3)]
    plain = open_engine("transformers", str(tmp_path / "base"))
    merged = open_engine("transformers", str(tmp_path / "base"), adapter=tmp_path / "adapter")
    memory = TransformersEngine.from_model(tuned, tokenizer)
    ids = [[c.token_ids for (c,) in completed(engine, requests)] for engine in (plain, merged, memory)]
    assert ids[1] == ids[2] != ids[0]
    assert plain.fingerprint != merged.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no/such-model-here"}, "model no/such-model-here"),
        ({"dtype": "float64"}, "dtype 'float64'"),
        ({"device": "cuda:7"}, "device 'cuda:7'"),
    ],
)
def test_what_cannot_be_opened_says_so(settings, message, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which the environment sets at its import
    with pytest.raises(UserError, match=message):
        open_engine("transformers", settings.pop("model", str(tmp_path)), **settings)
    with pytest.raises(UserError, match="engine 'gguf' is unknown"):
        open_engine("gguf", str(tmp_path))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs(precision, make_model, tokenizer):
    engine = TransformersEngine.from_model(make_model().to(getattr(torch, precision)), tokenizer, slots=16)
    results = completed(engine, [Request(p, Sampling(6)) for p in questions(20)])
    assert engine.shares and {len(c.token_ids) for (c,) in results} <= set(range(1, 7))


def test_many_requests_go_through_in_windows(engine, monkeypatch):
    requests = [Request(p, Sampling(5, 1.0, n=2), seed=i) for i, p in enumerate(questions(50))]
    whole, table = completed(engine, requests), engine.choice_logprobs([r.prompt for r in requests], ["a", "b"])
    monkeypatch.setattr("whetstone.engines.transformers.WINDOW", 20)
    assert completed(engine, requests) == whole
    assert (engine.choice_logprobs([r.prompt for r in requests], ["a", "b"]) == table).all()
    with pytest.raises(UserError, match="prompt 45 has"):
        list(engine.generate(requests[:45] + [Request("x" * 600, Sampling(1))]))


def test_prefix_groups_cover_every_prompt_once_and_share_what_they_say():
    rng = random.Random(3)
    heads = [[rng.randrange(50) for _ in range(length)] for length in (10, 64, 130, 200)]
    prompts = [rng.choice(heads) + [rng.randrange(50) for _ in range(rng.randrange(1, 90))] for _ in range(300)]
    groups = prefix_groups(prompts)
    assert sorted(i for members, _ in groups for i in members) == list(range(300))
    for members, prefix in groups:
        assert len({tuple(prompts[i][:prefix]) for i in members}) == 1
        assert all(len(prompts[i]) > prefix for i in members)
    assert sum(prefix * (len(members) - 1) for members, prefix in groups) > 0.8 * sum(
        len(head) * sum(p[: len(head)] == head for p in prompts) for head in heads[2:]
    )
    assert prefix_groups([]) == [] and SHARERS > 1
