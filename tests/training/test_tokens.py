"""A row of text becomes the tokens that a model was fed and wrote: the same in training as in sampling."""

import shutil

import pandas as pd
import pytest

from tests.training.conftest import QUESTIONS, solution
from whetstone.errors import UserError
from whetstone.prompts.strategies import STRATEGIES, load_prompt
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import tokenise as tokenise_pairs
from whetstone.training.sft import tokenise
from whetstone.training.tokens import check_lengths, continuation_ids, file_encoder

CONFIG = SftConfig(learning_rate=1e-3, epochs=1)


def encoder(tokenizer):
    return lambda text: tokenizer(text)["input_ids"]


def test_loss_is_on_the_completion_and_one_end_of_sequence(tokenizer, examples):
    rows, cut = tokenise(examples, tokenizer, CONFIG, "examples")
    assert cut == 0
    for i, (ids, labels) in enumerate(zip(rows["input_ids"], rows["labels"], strict=True)):
        trained = [token for token in labels if token != -100]
        assert labels == [-100] * (len(ids) - len(trained)) + ids[len(ids) - len(trained) :]
        assert tokenizer.decode(trained) == solution(i) + "<eos>"
        assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids[1:]) == QUESTIONS[i] + solution(i) + "<eos>"


@pytest.mark.parametrize(
    "prompt, completion",
    [
        ("<bos>Question: 2?\nAnswer by", " steps: 2."),
        ("Question: 2?\nAnswer by", " steps: 2.<eos>"),
        ("<bos>Question: 2?\nAnswer by", " steps: 2.<eos>"),
    ],
)
def test_special_tokens_that_the_text_brings_along_arent_doubled(tokenizer, prompt, completion):
    plain = continuation_ids(encoder(tokenizer), "Question: 2?\nAnswer by", " steps: 2.", 1, 2, "x")
    assert continuation_ids(encoder(tokenizer), prompt, completion, 1, 2, "x") == plain


@pytest.mark.parametrize(
    "prompt, completion, says",
    [
        ("Answer by", " ste<eos>ps", "before its end"),
        ("Answer by", "", "empty"),
        ("Answer by", "<eos>", "empty"),
        ("Answer by ste", "ps: 3", "share a token"),
    ],
)
def test_a_completion_that_no_model_could_have_written_after_the_prompt_is_refused(
    tokenizer, prompt, completion, says
):
    with pytest.raises(UserError, match=f"row 'e7'.*{says}"):
        continuation_ids(encoder(tokenizer), prompt, completion, 1, 2, "examples: row 'e7'")


@pytest.fixture(scope="module")
def ending(base, tmp_path_factory):
    """The tiny model with a tokenizer that ends every text, as many do that were made for encoders or for training."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("ending") / "model"
    shutil.copytree(base, folder)
    made = AutoTokenizer.from_pretrained(base)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    made.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("2?")["input_ids"][-1] == 2
    return folder


@pytest.mark.parametrize("model", ["base", "ending"])
def test_prompts_are_what_the_sampling_engine_feeds(model, examples, pairs, request):
    """Not ended where a completion is to follow, and begun once where the text spells the beginning out too."""
    from whetstone.engines.transformers import TransformersEngine

    engine = TransformersEngine(str(request.getfixturevalue(model)), device="cpu")
    examples["prompt"] = ["<bos>" * (number % 3) + prompt for number, prompt in enumerate(QUESTIONS)]
    rows, _ = tokenise(examples, engine.tokenizer, CONFIG, "examples")
    table, _ = tokenise_pairs(pairs, engine.tokenizer, DpoConfig(learning_rate=1e-5, epochs=1), "pairs")
    for prompt, ids, labels in zip(examples["prompt"], rows["input_ids"], rows["labels"], strict=True):
        assert ids[: labels.count(-100)] == engine.encode(prompt)
        assert (ids.count(1), ids.count(2), ids[-1]) == (1, 1, 2)
    assert table["prompt_ids"] == [engine.encode(prompt) for prompt in QUESTIONS]


def test_a_training_row_has_the_ids_that_were_sampled():
    """Of the model that ships with the project: a text that it wrote becomes the very tokens that it wrote, so that
    the likelihood that is trained is that of what was sampled."""
    from whetstone.engines.base import Request, Sampling
    from whetstone.engines.transformers import TransformersEngine

    engine = TransformersEngine("models/base", device="cpu")
    prompts = [load_prompt(f"prompts/world/{name}.yaml", name).render("What is 3 plus 4?", 2) for name in STRATEGIES]
    sampling = Sampling(60, temperature=0.8, n=4, stop=("\n\n",))
    for index, completions in engine.generate([Request(prompt, sampling, seed=1) for prompt in prompts]):
        for sampled in completions:
            row = {"id": "e", "prompt": prompts[index], "completion": sampled.text, "weight": 1.0}
            rows, _ = tokenise(pd.DataFrame([row]), engine.tokenizer, CONFIG, "examples")
            (ids,) = rows["input_ids"]
            fed = [*engine.encode(prompts[index]), *sampled.token_ids]
            assert len(sampled.token_ids) > 3 and ids[-1] == engine.tokenizer.eos_token_id
            assert fed[: len(ids) - 1] == ids[:-1]  # the end stands in the place of the stop string


def test_the_tokenizers_file_alone_gives_the_same_ids(base, tokenizer):
    encode = file_encoder(base)
    assert [encode(q) for q in QUESTIONS] == [tokenizer(q)["input_ids"] for q in QUESTIONS]


def test_pairs_share_the_prompt_and_end_once(tokenizer, pairs):
    rows, _ = tokenise_pairs(pairs, tokenizer, DpoConfig(learning_rate=1e-5, epochs=1), "pairs")
    for i in range(len(pairs)):
        assert rows["prompt_ids"][i] == tokenizer(QUESTIONS[i])["input_ids"]
        for name, text in (("chosen_ids", solution(i)), ("rejected_ids", solution((i + 1) % 24))):
            assert tokenizer.decode(rows[name][i]) == text + "<eos>"


def test_a_row_that_is_too_long_is_named(tokenizer, examples):
    lengths = [len(ids) for ids in tokenise(examples, tokenizer, CONFIG, "examples")[0]["input_ids"]]
    worst = max(range(24), key=lengths.__getitem__)
    limit = sorted(lengths)[-4]
    over = sum(length > limit for length in lengths)
    with pytest.raises(
        UserError, match=f"max_length {limit} would cut {over} of 24 rows.*'e{worst:02d}' with {lengths[worst]}"
    ):
        tokenise(examples, tokenizer, CONFIG.model_copy(update={"max_length": limit}), "examples")
    rows, cut = tokenise(
        examples, tokenizer, CONFIG.model_copy(update={"max_length": limit, "truncate": True}), "examples"
    )
    assert cut == over and max(map(len, rows["input_ids"])) == limit
    assert [len(row) for row in rows["labels"]] == [min(length, limit) for length in lengths]


def test_a_prompt_that_leaves_no_room_is_refused_even_where_cutting_is_allowed():
    with pytest.raises(UserError, match="1 of 2 rows would keep no completion"):
        check_lengths(["a", "b"], [12, 30], [5, 20], 20, True, "examples")
