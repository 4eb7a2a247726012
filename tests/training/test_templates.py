"""One rendering of prompts, in training as in sampling: base models plainly, chat models in their template."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from tests.training.conftest import QUESTIONS, solution
from whetstone.errors import UserError
from whetstone.prompts import rendering
from whetstone.training import checks, loading
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import tokenise as tokenise_pairs
from whetstone.training.merge import merge
from whetstone.training.sft import tokenise, train_sft
from whetstone.training.tokens import chat_turns, turn_ids

CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
FORGETFUL = (  # shows the last message alone, as templates that drop earlier reasoning do
    "{{ bos_token }}{{ messages[-1].content }}{% if add_generation_prompt %} A:{% endif %}"
)
BASIC = {"learning_rate": 1e-2, "max_steps": 3, "batch_size": 8, "rank": 4, "alpha": 8, "max_length": 200}


@pytest.fixture(scope="module")
def chat(base, tmp_path_factory):
    """The tiny model with a chat template in which BOS and EOS are spelt out."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(base, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}))
    return folder


def engine_ids(folder, prompt):
    from whetstone.engines.transformers import TransformersEngine

    return TransformersEngine(folder, device="cpu").encode(prompt)


def test_a_prompts_last_line_opens_the_answer(chat):
    tokenizer = loading.load_tokenizer(chat, "chat")
    assert rendering.rendered(tokenizer, "Question: 2?\nAnswer by") == "<bos>[INST] Question: 2? [/INST]Answer by"
    assert rendering.rendered(loading.load_tokenizer(chat, "plain"), "Question: 2?\nAnswer by").startswith("Question")


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_one_bos_one_eos_and_the_prompt_that_sampling_feeds(chat, examples, pairs, tmp_path, template):
    config = SftConfig(**BASIC, template=template)
    train_sft(chat, examples, tmp_path / "adapter", config, scratch=tmp_path / "s")
    merge(chat, tmp_path / "adapter", tmp_path / "merged", prompts=QUESTIONS[:2])
    assert checks.template_of(tmp_path / "merged") == template
    tokenizer = loading.load_tokenizer(chat, template)
    rows, _ = tokenise(examples, tokenizer, config, "rows")
    table, _ = tokenise_pairs(pairs, tokenizer, DpoConfig(**BASIC, template=template), "rows")
    for i in range(4):
        fed = engine_ids(tmp_path / "merged", QUESTIONS[i])
        ids, labels = rows["input_ids"][i], rows["labels"][i]
        assert ids[: labels.count(-100)] == fed == table["prompt_ids"][i]
        assert tokenizer.decode(fed) == tokenizer.decode(fed).replace("<bos><bos>", "<bos>")
        assert [ids.count(tokenizer.bos_token_id), ids.count(tokenizer.eos_token_id), ids[-1]] == [1, 1, 2]
        assert tokenizer.decode(ids[len(fed) :]) == solution(i) + "<eos>"
        assert ("[INST]" in tokenizer.decode(fed)) == (template == "chat")


@pytest.mark.slow
def test_a_plain_result_has_the_bases_tokenizer_byte_for_byte(chat, examples, tmp_path):
    train_sft(chat, examples, tmp_path / "a", SftConfig(**BASIC), scratch=tmp_path / "s")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (chat / name).read_bytes()


def test_without_a_chat_template_there_is_no_chat(base, examples, tmp_path):
    with pytest.raises(UserError, match="its tokenizer has no chat template"):
        train_sft(base, examples, tmp_path / "a", SftConfig(**BASIC, template="chat"), scratch=tmp_path / "s")


@pytest.mark.slow
def test_another_template_than_the_one_trained_with_isnt_merged(chat, examples, tmp_path):
    train_sft(chat, examples, tmp_path / "a", SftConfig(**BASIC, template="chat"), scratch=tmp_path / "s")
    other = tmp_path / "other"
    shutil.copytree(chat, other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT.replace("INST", "ASK")}))
    with pytest.raises(UserError, match="tokenizer_config.json: another than"):
        merge(other, tmp_path / "a", tmp_path / "out", prompts=QUESTIONS[:1])
    merge(chat, tmp_path / "a", tmp_path / "epoch1", prompts=QUESTIONS[:1])
    with pytest.raises(UserError, match="epoch1: trained with template `chat`, and template is `plain`"):
        train_sft(tmp_path / "epoch1", examples, tmp_path / "b", SftConfig(**BASIC), scratch=tmp_path / "s")


def test_a_conversations_turns_are_the_templates_text(chat):
    tokenizer = AutoTokenizer.from_pretrained(chat)
    messages = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "5."},
        {"role": "user", "content": "No."},
        {"role": "assistant", "content": "4."},
    ]
    turns = chat_turns(tokenizer, messages, [None, 0.25, None, 1.0], "row 'e1'")
    assert [(turn["text"], turn["weight"]) for turn in turns] == [
        ("<bos>[INST] 2 + 2? [/INST]", None), (" 5.<eos>", 0.25), ("[INST] No. [/INST]", None), (" 4.<eos>", 1.0),
    ]  # fmt: skip
    ids, weights = turn_ids(lambda text: tokenizer(text)["input_ids"], turns, 1, 2, "row")
    assert ids.count(1) == 1 and ids.count(2) == 2 and ids[-1] == 2  # an end for each turn, none doubled
    assert [w for i, w in zip(ids, weights, strict=True) if i == 2] == [0.25, 1.0]


def test_a_template_that_rewrites_earlier_turns_is_refused(chat):
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.chat_template = FORGETFUL
    messages = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "3"}]
    with pytest.raises(UserError, match="row 'e1': the chat template shows message 1 otherwise"):
        chat_turns(tokenizer, messages, [None, 1.0], "row 'e1'")
