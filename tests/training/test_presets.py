"""Presets: allowed values, applied and taken back without a trace, and each trains one step on a model of its kind."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML

from stages import recipe
from tests.training.conftest import QUESTIONS, solution
from tools import preset
from whetstone.training import checks
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import train_dpo
from whetstone.training.merge import merge
from whetstone.training.preflight import Shape, need
from whetstone.training.sft import train_sft
from whetstone.validation import validated

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
REAL = [name for name in NAMES if name != "tiny"]


def load(name):
    return YAML(typ="safe").load(ROOT / "presets" / f"{name}.yaml")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")

    def run(*arguments, fails=False):
        done = CliRunner().invoke(preset.main, arguments)
        assert done.exit_code == (1 if fails else 0), done.output + repr(done.exception)
        return done.output

    return run


def test_the_five_that_are_promised():
    assert {"tiny", "rtx4090-mistral-7b", "rtx4090-qwen2.5-1.5b", "h100-mistral-7b"} <= {*NAMES}
    assert any(name.startswith("h100x8-") for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_hardware_hours_and_disk(name):
    head = preset.header((ROOT / "presets" / f"{name}.yaml").read_text())
    for word in ("\nHardware: ", "\nHours: ", "\nDisk: "):
        assert word in head
    assert not head.splitlines()[0].startswith("Hardware")


def test_the_readme_tells_the_hours_and_the_disk_of_the_headers():
    row = re.compile(r"^\| `(\S+)` \|.*\| ([\d.]+) \| ([\d.]+) GB \|$", re.MULTILINE)
    told = {name: (hours, disk) for name, hours, disk in row.findall((ROOT / "README.md").read_text())}
    heads = {name: preset.header((ROOT / "presets" / f"{name}.yaml").read_text()) for name in NAMES}
    assert told == {
        name: (re.search(r"\nHours: (?:about )?([\d.]+)", head)[1], re.search(r"\nDisk: ([\d.]+) GB", head)[1])
        for name, head in heads.items()
    }


@pytest.mark.parametrize("name", REAL)
def test_applied_and_taken_back_leaves_the_same_bytes(project, tmp_path, name):
    """Comments, order and line breaks of params.yaml stay."""
    before = (tmp_path / "params.yaml").read_text()
    output = project(name)
    changed = (tmp_path / "params.yaml").read_text()
    assert "model.name: models/base -> " in output and "Hardware: " in output
    assert [line.split("#")[1] for line in changed.splitlines() if "#" in line] == [
        line.split("#")[1] for line in before.splitlines() if "#" in line
    ]
    assert "has these values already" in project(name)
    project("tiny")
    assert (tmp_path / "params.yaml").read_text() == before


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_allowed_and_every_change_is_named(project, tmp_path, name):
    before = YAML(typ="safe").load(tmp_path / "params.yaml")
    output = project(name)
    after = YAML(typ="safe").load(tmp_path / "params.yaml")
    for section, schema in recipe.SECTIONS.items():
        validated(after[section] or {}, schema, "params.yaml", section)
    for section, values in load(name).items():
        for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
            now = after[section][key] if key else after[section]
            was = before[section].get(key) if key else before[section]
            assert now == value
            assert (f"{section}.{key}: " if key else f"{section}: ") in output or now == was


def test_tiny_takes_back_every_key_that_any_preset_sets():
    tiny = {(section, key) for section, values in load("tiny").items() for key in values}
    assert not {
        (section, key)
        for name in REAL
        for section, values in load(name).items()
        if isinstance(values, dict)
        for key in values
    } - tiny


def test_a_name_that_isnt_there_lists_those_that_are(project):
    assert all(name in project("laptop", fails=True) for name in NAMES)
    assert project() and all(name in project() for name in NAMES)


def test_a_wrong_value_changes_nothing(project, tmp_path):
    before = (tmp_path / "params.yaml").read_text()
    (tmp_path / "presets/bad.yaml").write_text("# bad\nsft: {batch_size: 0, ranks: 3}\n")
    output = project("bad", fails=True)
    assert "sft.batch_size" in output and "did you mean `rank`" in output
    assert (tmp_path / "params.yaml").read_text() == before


def mistral(path):
    """As Mistral's: BPE over a text whose blanks are ▁, unknown letters in bytes, BOS in front, no padding token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(path)
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    MistralForCausalLM(MistralConfig(vocab_size=len(fast), **SMALL, **ids)).to(torch.bfloat16).save_pretrained(path)


def qwen(path):
    """As Qwen's: byte-level BPE, no BOS, an end of text that pads too, tied embeddings, biases in attention."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(path)
    config = Qwen2Config(vocab_size=len(fast), tie_word_embeddings=True, eos_token_id=0, bos_token_id=0, **SMALL)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(path)


TEXTS = QUESTIONS + [solution(i) for i in range(24)]
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512,
}  # fmt: skip
SIZES = {  # weights, of these linear, in + out, layers, hidden, keys, feed-forward
    "mistralai/Mistral-7B-v0.3": Shape(7_248_023_552, 6_979_321_856, 2_621_440, 32, 4096, 1024, 14336),
    "Qwen/Qwen2.5-1.5B": Shape(1_543_714_304, 1_310_195_712, 1_154_048, 28, 1536, 256, 8960),
}


@pytest.mark.parametrize("name", REAL)
def test_it_fits_the_memory_that_its_name_promises(name):
    """With all rows of a pass 512 tokens long: longer than GSM8K's and nearly all of MetaMathQA's."""
    params, gib = load(name), 24 if name.startswith("rtx4090") else 80
    for section, cls, tokens in (("sft", SftConfig, 512), ("dpo", DpoConfig, 1024)):
        config = cls(**params[section])
        found = need(SIZES[params["model"]["name"]], config, [tokens] * 1000, gpu=True)
        assert found.memory / 2**30 < 0.92 * gib


KINDS = {"mistralai/Mistral-7B-v0.3": mistral, "Qwen/Qwen2.5-1.5B": qwen}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_step_of_each_stage_on_a_model_of_its_kind(tmp_path, monkeypatch, examples, pairs, name):
    """Two random layers with the architecture's tokenizer, which meets a letter that it doesn't know. 4 bits run on
    bitsandbytes' CPU code, one process stands for eight."""
    monkeypatch.setattr(checks, "cuda_devices", lambda: 1)
    params = load(name)
    torch.manual_seed(0)
    base = tmp_path / "base"
    KINDS[params["model"]["name"]](base)
    one = {"max_steps": 1, "epochs": None, "devices": 1, "sharded": False, "select": "last", "warmup": 0.0}
    fields = {"sft": {"first_token_weight": 20}, "dpo": {"scope": "first_token", "beta": 1.0, "nll_weight": 4.0}}
    examples.loc[0, "completion"] = " steps: 2 + 30 = 32 €. The answer is 32."
    for trainer, cls, fit, rows in (("sft", SftConfig, train_sft, examples), ("dpo", DpoConfig, train_dpo, pairs)):
        config = cls(**{**fields[trainer], **params[trainer], **one})
        out = tmp_path / trainer
        summary, curve = fit(base, rows, out, config, scratch=tmp_path / "s")
        assert summary["steps"] == 1 and curve["grad_norm"][0] > 0
        result = merge(base, out, tmp_path / f"{trainer}-merged", prompts=QUESTIONS[:2])
        assert 0 < result["difference_from_base"]


@pytest.mark.parametrize(
    "text, section, key, value, expected",
    [
        ("a:\n  x: 1   # one\n  y: 2\n", "a", "x", 30, "a:\n  x: 30  # one\n  y: 2\n"),
        ("a:\n  x: 1   # one\n", "a", "x", "a long value", "a:\n  x: a long value # one\n"),
        ("a:\n  x:\n    - 1\n    - 2\n  # of y\n  y: 2\n", "a", "x", [], "a:\n  x: []\n  # of y\n  y: 2\n"),
        ("a:\n  x: {u: 1,\n      v: 2}\nb: {}\n", "a", "x", None, "a:\n  x: null\nb: {}\n"),
        ("a:\n  x: 'b # c' # d\n", "a", "x", "e", "a:\n  x: e       # d\n"),
        ("a:\n  x: 1\n\n# of b\nb:\n  x: 2\n", "a", "z", True, "a:\n  x: 1\n  z: true\n\n# of b\nb:\n  x: 2\n"),
        ("l: [1, 2] # list\na:\n  x: 1\n", None, "l", [3], "l: [3]    # list\na:\n  x: 1\n"),
    ],
)
def test_one_value_is_set_and_the_rest_stays(text, section, key, value, expected):
    assert preset.edited(text, section, key, value) == expected


def test_a_layout_that_cant_be_edited_says_what_to_set(project, tmp_path):
    text = (tmp_path / "params.yaml").read_text()
    start, end = text.index("evaluate:\n"), text.index("# --- what can't")
    before = f"{text[:start]}evaluate: {{max_tokens: 256}}\n{text[end:]}"
    (tmp_path / "params.yaml").write_text(before)
    output = project("h100-mistral-7b", fails=True)
    assert "too unusual to edit" in output and "evaluate.max_tokens: 256 -> 400" in output
    assert (tmp_path / "params.yaml").read_text() == before
