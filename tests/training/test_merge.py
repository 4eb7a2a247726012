"""The merged model is base + adapter, and says so itself."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.training.conftest import QUESTIONS
from whetstone.errors import UserError
from whetstone.records import weights_digest
from whetstone.training import merging
from whetstone.training.config import SftConfig
from whetstone.training.merge import TOLERANCE, merge
from whetstone.training.sft import train_sft

BASIC = {"learning_rate": 1e-2, "rank": 4, "alpha": 8, "max_length": 128, "batch_size": 8, "max_steps": 8}


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    from tests.training.conftest import solution

    rows = pd.DataFrame(
        [{"id": f"e{i}", "prompt": QUESTIONS[i], "completion": solution(i), "weight": 1.0} for i in range(24)]
    )
    folder = tmp_path_factory.mktemp("trained")
    train_sft(base, rows, folder / "adapter", SftConfig(**BASIC), scratch=folder / "scratch")
    train_sft(base, rows, folder / "full", SftConfig(**BASIC, adapter="none"), scratch=folder / "scratch")
    return folder / "adapter"


def test_merged_logits_are_the_adapters(base, adapter, tmp_path):
    from peft import PeftModel

    result = merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:3])
    assert result["dtype"] == "float32" and result["difference_from_adapter"] < TOLERANCE["float32"]
    assert result["difference_from_base"] > 100 * result["difference_from_adapter"]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.dtype == torch.float32  # not the base's bfloat16, which would round the sum
    ids = torch.tensor([[1, 50, 60, 70, 80]])
    with torch.inference_mode():
        before, after = plain(ids).logits, merged(ids).logits
        expected = PeftModel.from_pretrained(plain, adapter)(ids).logits
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    assert (before - after).abs().max() > 0.01


@pytest.mark.parametrize("quantisation", ["nf4", "int8"])
def test_a_quantised_base_is_merged_as_it_was_trained_against(base, examples, tmp_path, monkeypatch, quantisation):
    """The sum is taken with the dequantised weights, which aren't the base's own. bitsandbytes' CPU code stands in for
    the GPU that the trainer asks for."""
    from whetstone.training import checks

    monkeypatch.setattr(checks, "cuda_devices", lambda: 1)
    config = SftConfig(**BASIC, adapter="qlora", quantisation=quantisation)
    summary, _ = train_sft(base, examples, tmp_path / "adapter", config, scratch=tmp_path / "s")
    assert summary["loss_last"] < summary["loss_first"]
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}  # TRL would train them in bfloat16
    origin = json.loads((tmp_path / "adapter" / "whetstone.json").read_text())
    assert (origin["adapter"], origin["quantisation"]) == ("qlora", quantisation)
    result = merge(base, tmp_path / "adapter", tmp_path / "out", prompts=QUESTIONS[:3])
    assert result["difference_from_adapter"] < result["tolerance"]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    assert (merged[name] - plain[name]).abs().max() > 0
    assert torch.equal(merged["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])


def test_tied_embeddings_stay_tied_and_untouched(base, adapter, tmp_path):
    merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:1])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in weights and not [name for name in weights if "lora" in name]
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"].float()
    assert torch.equal(weights["model.embed_tokens.weight"], before)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_tokenizer_and_generation_config_go_along_and_nothing_else(base, adapter, tmp_path):
    merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:1])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.slow
def test_a_merged_model_is_the_next_base(base, adapter, examples, tmp_path):
    merge(base, adapter, tmp_path / "epoch1", prompts=QUESTIONS[:1])
    first, _ = train_sft(base, examples, tmp_path / "a", SftConfig(**BASIC), scratch=tmp_path / "s")
    second, _ = train_sft(tmp_path / "epoch1", examples, tmp_path / "b", SftConfig(**BASIC), scratch=tmp_path / "s")
    assert second["loss_first"] < first["loss_first"]
    merge(tmp_path / "epoch1", tmp_path / "b", tmp_path / "epoch2", prompts=QUESTIONS[:1])


def test_full_fine_tuning_is_copied_and_checked(base, adapter, tmp_path):
    full = adapter.parent / "full"
    result = merge(base, full, tmp_path / "out", prompts=QUESTIONS[:2])
    assert result["difference_from_adapter"] == 0 and result["difference_from_base"] > 0
    assert (tmp_path / "out/model.safetensors").read_bytes() == (full / "model.safetensors").read_bytes()
    assert not (tmp_path / "out" / "whetstone.json").exists()


def test_an_adapters_origin_and_the_engine_of_an_attempt_name_a_model_alike(base, adapter, tmp_path):
    """Of the base that it was trained against, and of the merged model that the next one is trained against."""
    from whetstone.engines.transformers import TransformersEngine

    def sampled_by(folder):
        return TransformersEngine(str(folder), device="cpu").fingerprint

    def trained_against(folder):
        return json.loads((folder / "whetstone.json").read_text())["base"]

    merge(base, adapter, tmp_path / "epoch1", prompts=QUESTIONS[:1])
    rows = pd.DataFrame([{"id": "e", "prompt": QUESTIONS[0], "completion": " steps: 2.", "weight": 1.0}])
    config = SftConfig(**{**BASIC, "max_steps": 1})
    train_sft(tmp_path / "epoch1", rows, tmp_path / "second", config, scratch=tmp_path / "s")
    assert sampled_by(base) == f"transformers:{trained_against(adapter)}:float32"
    assert sampled_by(tmp_path / "epoch1") == f"transformers:{trained_against(tmp_path / 'second')}:float32"
    assert trained_against(adapter) != trained_against(tmp_path / "second")


def test_another_tokenizer_is_another_model_to_go_on_from(base, tmp_path):
    shutil.copytree(base, tmp_path / "other")
    before = weights_digest(tmp_path / "other")
    assert before == weights_digest(base)
    config = json.loads((tmp_path / "other/tokenizer_config.json").read_text())
    (tmp_path / "other/tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    assert weights_digest(tmp_path / "other") != before


def test_a_large_model_is_sharded(base, adapter, tmp_path, monkeypatch):
    monkeypatch.setattr("whetstone.training.merge.SHARD", "50KB")
    merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:1])
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_merging_sends_nothing_anywhere(base, adapter, tmp_path, monkeypatch):
    asked = []
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(f"socket.socket.{name}", lambda own, address: asked.append(address))
    merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:1])
    assert (tmp_path / "out/model.safetensors").exists() and asked == []


def broken(adapter, to, change):
    shutil.copytree(adapter, to)
    weights = load_file(to / "adapter_model.safetensors")
    save_file({name: change(tensor) for name, tensor in weights.items()}, to / "adapter_model.safetensors")
    return to


def test_an_adapter_that_changes_nothing_is_an_error(base, adapter, tmp_path):
    empty = broken(adapter, tmp_path / "empty", torch.zeros_like)
    with pytest.raises(UserError, match="the merged model is the base"):
        merge(base, empty, tmp_path / "out", prompts=QUESTIONS[:2])
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_an_error(base, adapter, tmp_path):
    merge(base, adapter, tmp_path / "epoch1", prompts=QUESTIONS[:1])
    with pytest.raises(UserError, match=f"digest {weights_digest(base)}"):
        merge(tmp_path / "epoch1", adapter, tmp_path / "out", prompts=QUESTIONS[:1])


@pytest.mark.parametrize("damage", [1.05, float("nan")])
def test_what_was_written_wrong_is_not_published(base, adapter, tmp_path, monkeypatch, damage):
    """The model is read again from the disk, so damage on the way there is found."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "good.txt").write_text("the last good result")
    copy = merging.checkpoints.copy_tokenizer

    def damaging(model, to):
        weights = load_file(to / "model.safetensors")
        name = "model.layers.1.mlp.down_proj.weight"
        save_file({**weights, name: weights[name] * damage}, to / "model.safetensors", metadata={"format": "pt"})
        copy(model, to)

    monkeypatch.setattr(merging.checkpoints, "copy_tokenizer", damaging)
    with pytest.raises(UserError, match="logits differ from the adapter's"):
        merge(base, adapter, tmp_path / "out", prompts=QUESTIONS[:2])
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "good.txt"]


def test_missing_parts_are_named(base, adapter, tmp_path):
    with pytest.raises(UserError, match="no model there"):
        merge(tmp_path, adapter, tmp_path / "out", prompts=["x"])
    with pytest.raises(UserError, match="no training result there"):
        merge(base, tmp_path, tmp_path / "out", prompts=["x"])
    with pytest.raises(UserError, match="0 prompts"):
        merge(base, adapter, tmp_path / "out", prompts=[])
    origin = json.loads((adapter / "whetstone.json").read_text())
    assert origin["base"] == weights_digest(base)
