"""Conversations: each turn of the model has a weight of its own, what it is told has none."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.conftest import QUESTIONS, solution
from whetstone.errors import UserError
from whetstone.training.config import SftConfig
from whetstone.training.sft import tokenise, train_sft

CONFIG = {"learning_rate": 1e-2, "max_length": 200, "rank": 4, "alpha": 8, "warmup": 0.0}
RETRY = "\n\nWrong. Try again.\nAnswer by"


@pytest.fixture
def conversations(examples):
    """Two attempts at each question, the first half as heavy as the second."""
    turns = [
        [
            {"text": QUESTIONS[i], "weight": None},
            {"text": solution(i + 1), "weight": 0.5 + i % 2},
            {"text": RETRY, "weight": None},
            {"text": solution(i), "weight": 1.0},
        ]
        for i in range(12)
    ]
    return examples.iloc[:12][["id", "weight"]].assign(turns=turns)


def train(base, tmp_path, rows, name="out", **fields):
    config = SftConfig(**{**CONFIG, "batch_size": 12, "max_steps": 1, **fields})
    return train_sft(base, rows, tmp_path / name, config, scratch=tmp_path / "s")


def test_the_models_turns_are_trained_and_the_last_ends(tokenizer, conversations):
    rows, cut = tokenise(conversations, tokenizer, SftConfig(**CONFIG, epochs=1), "rows")
    assert cut == 0
    for i, (ids, labels, weights) in enumerate(
        zip(rows["input_ids"], rows["labels"], rows["token_weight"], strict=True)
    ):
        text = QUESTIONS[i] + solution(i + 1) + RETRY + solution(i)
        assert ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        first = [token for token, w in zip(labels, weights, strict=True) if w == 0.5 + i % 2 and token != -100]
        last = [token for token, w in zip(labels, weights, strict=True) if w == 1.0 and token != -100]
        if i % 2 == 0:
            assert tokenizer.decode(first) == solution(i + 1) and tokenizer.decode(last) == solution(i) + "<eos>"
        assert [t for t, w in zip(labels, weights, strict=True) if w == 0.0] == [-100] * weights.count(0.0)


def test_the_loss_weighs_each_token_by_its_turn(base, tokenizer, conversations, tmp_path):
    _, curve = train(base, tmp_path, conversations)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total = weight = 0.0
    for row in conversations.itertuples():
        ids, spans = tokenizer(row.turns[0]["text"])["input_ids"], []
        for number, turn in enumerate(row.turns[1:], 2):
            longer = tokenizer("".join(one["text"] for one in row.turns[:number]))["input_ids"]
            spans += [(t, turn["weight"]) for t in range(len(ids), len(longer)) if turn["weight"] is not None]
            ids = longer
        ids, spans = [*ids, tokenizer.eos_token_id], [*spans, (len(ids), 1.0)]
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        total -= sum(w * logp[t - 1, ids[t]].item() for t, w in spans)
        weight += sum(w for _, w in spans)
    assert curve["loss"][0] == pytest.approx(total / weight, abs=1e-4)


@pytest.mark.slow
def test_one_turn_of_weight_one_is_plain_fine_tuning(base, examples, tmp_path):
    texts = zip(examples["prompt"], examples["completion"], strict=True)
    turns = [[{"text": prompt, "weight": None}, {"text": text, "weight": 1.0}] for prompt, text in texts]
    _, plain = train(base, tmp_path, examples, "plain", max_steps=4, batch_size=8)
    _, same = train(base, tmp_path, examples[["id", "weight"]].assign(turns=turns), max_steps=4, batch_size=8)
    assert same["loss"].tolist() == pytest.approx(plain["loss"].tolist(), abs=1e-6)


@pytest.mark.slow
def test_a_turn_of_weight_zero_teaches_nothing(base, conversations, tmp_path):
    def first(text):
        return [
            [turns[0], {"text": text or turns[1]["text"], "weight": 0.0}, turns[3] | {"text": " steps: 3"}]
            for turns in conversations["turns"]
        ]

    rows = conversations.assign(turns=first(None))
    _, curve = train(base, tmp_path, rows)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = SftConfig(**CONFIG, epochs=1)
    from transformers import AutoTokenizer

    table, _ = tokenise(rows, AutoTokenizer.from_pretrained(base), config, "rows")
    total = tokens = 0.0
    for ids, weights in zip(table["input_ids"], table["token_weight"], strict=True):
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        total -= sum(logp[t - 1, ids[t]].item() for t, w in enumerate(weights) if w == 1.0)
        tokens += weights.count(1.0)
    assert curve["loss"][0] == pytest.approx(total / tokens, abs=1e-4)


@pytest.mark.parametrize(
    "turns, says",
    [
        ([], "the first turn is trained: it would have no prompt"),
        ([("Q:", 1.0)], "the first turn is trained"),
        ([("Q:", None), (" a", 0.0)], "no turn has a weight above 0"),
        ([("Q:", None), ("", 1.0)], "a turn has no text"),
        ([("Q:", None), (" a", float("nan"))], "a weight is a finite number"),
        ([("Answer by ste", None), ("ps: 3", 1.0)], "turns 1 and 2 share a token"),
    ],
)
def test_what_cant_be_trained_is_named(base, conversations, tmp_path, turns, says):
    conversations.at[3, "turns"] = [{"text": text, "weight": weight} for text, weight in turns]
    with pytest.raises(UserError, match=f"row 'e03': .*{says}"):
        train(base, tmp_path, conversations)


def test_the_first_tokens_weight_is_for_completions(base, conversations, tmp_path):
    with pytest.raises(UserError, match="first_token_weight is 20"):
        train(base, tmp_path, conversations, first_token_weight=20)
