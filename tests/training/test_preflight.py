"""What a training will take is told before its model is loaded, and what doesn't fit names the knobs."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from tests.training.test_templates import CHAT
from whetstone.errors import UserError
from whetstone.training import loading, preflight
from whetstone.training.config import DpoConfig, SftConfig
from whetstone.training.dpo import train_dpo
from whetstone.training.sft import train_sft

BASIC = {"learning_rate": 1e-4, "max_steps": 10, "dtype": "bfloat16"}
LENGTHS = [340] * 32


@pytest.fixture
def mistral(tmp_path):
    """Mistral 7B's configuration and the headers of its weights, without the weights."""
    h, f, k, v, layers = 4096, 14336, 1024, 32768, 32
    shapes = {"model.embed_tokens.weight": [v, h], "lm_head.weight": [v, h], "model.norm.weight": [h]}
    parts = {"self_attn.q_proj": [h, h], "self_attn.k_proj": [k, h], "self_attn.v_proj": [k, h],
             "self_attn.o_proj": [h, h], "mlp.gate_proj": [f, h], "mlp.up_proj": [f, h], "mlp.down_proj": [h, f],
             "input_layernorm": [h], "post_attention_layernorm": [h]}  # fmt: skip
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in parts.items()}
    head = json.dumps({name: {"dtype": "BF16", "shape": shape} for name, shape in shapes.items()}).encode()
    folder = tmp_path / "mistral"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    config = {"hidden_size": h, "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": 32,
              "num_key_value_heads": 8}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_weights_are_counted_from_the_files_headers(mistral):
    size = preflight.shape(mistral)
    assert size.weights == 7_248_023_552 and size.linear == 6_979_321_856  # as published: 7.25 billion
    assert size.adapted * 32 == 83_886_080  # PEFT's count of an adapter of rank 32 on all linear layers


@pytest.mark.parametrize(
    "fields, lengths, seen",
    [
        ({"batch_size": 16}, [5448 / 16] * 16, 42.2),
        ({"batch_size": 32}, [10358 / 32] * 32, 67.2),
        ({"batch_size": 32, "gradient_checkpointing": True}, [10358 / 32] * 32, 19.2),
        ({"batch_size": 8, "adapter": "qlora"}, [2484 / 8] * 8, 17.7),
        ({"batch_size": 8, "adapter": "qlora", "quantisation": "int8", "gradient_checkpointing": True},
         [2069 / 8] * 8, 14.5),
    ],
)
def test_memory_is_near_what_a_gpu_measured(mistral, fields, lengths, seen):
    """Peaks of benchmarks/results/training_gpu.json, with the tokens of the longest pass that they saw."""
    found = preflight.need(preflight.shape(mistral), SftConfig(**BASIC, **fields), lengths, gpu=True)
    assert found.memory / 2**30 == pytest.approx(seen, rel=0.06)


def test_what_makes_it_smaller_does(mistral):
    size = preflight.shape(mistral)

    def memory(**fields):
        return preflight.need(size, SftConfig(**{**BASIC, **fields}), LENGTHS, gpu=True).memory / 2**30

    plain = memory(batch_size=16)
    assert memory(batch_size=8) < plain and memory(batch_size=16, gradient_checkpointing=True) < plain / 2
    assert memory(batch_size=8, gradient_checkpointing=True, adapter="qlora") < 9
    assert memory(adapter="qlora", quantisation="int8") - memory(adapter="qlora") == pytest.approx(3.3, abs=0.2)
    assert memory(adapter="none", gradient_checkpointing=True) > 108  # 16 bytes each
    sharded = {"adapter": "none", "devices": 8, "sharded": True, "gradient_checkpointing": True}
    assert memory(**sharded, batch_size=8) < 24


def test_dev_is_sampled_with_a_copy_of_the_adapted_layers_where_they_are_in_float32(mistral):
    """Activations are gone by then: it counts where it is more than these."""
    size, few = preflight.shape(mistral), [50]

    def memory(gpu, **fields):
        config = SftConfig(**{**BASIC, "batch_size": 1, "checkpoints": 2, "gradient_checkpointing": True, **fields})
        return preflight.need(size, config, few, gpu).memory / 2**30

    assert memory(False, select="dev_accuracy") - memory(False) == pytest.approx(26.0, abs=0.1)
    assert memory(False, select="dev_accuracy", adapter="none") == memory(False, adapter="none")
    assert memory(True, select="dev_accuracy") == memory(True)  # bfloat16


def test_operations_count_recomputation_and_the_reference(mistral):
    size, rows = preflight.shape(mistral), [100] * 50

    def operations(cls, **fields):
        config = cls(**{"learning_rate": 1e-4, "epochs": 2, **fields})
        return preflight.need(size, config, rows, gpu=True).operations / (5000 * size.weights)

    assert operations(SftConfig) == 8  # forward and back to the activations, twice
    assert operations(SftConfig, gradient_checkpointing=True) == 12
    assert operations(SftConfig, adapter="none") == 12
    assert operations(DpoConfig) == 10


def test_what_doesnt_fit_names_the_three_knobs(mistral, tmp_path, monkeypatch):
    config, lines = SftConfig(**BASIC, batch_size=16, max_length=512), []
    monkeypatch.setattr(preflight, "device", lambda: (True, 24 * 2**30, "NVIDIA GeForce RTX 4090"))
    says = (
        r"RTX 4090 has 24.0 GiB of memory, training would need about 43.\d \(weights 13.5, what is trained 1.2, "
        r"activations 27.\d\). Three knobs.*batch_size 16 .*max_length 512 \(the longest row has 340 tokens\), "
        r"gradient_checkpointing false. Or adapter `qlora`, now `lora`"
    )
    with pytest.raises(UserError, match=says):
        preflight.check(mistral, config, LENGTHS, tmp_path, lines.append)
    assert "7,248 million weights" in lines[0] and "about 0.0 h on NVIDIA GeForce RTX 4090" in lines[0]
    small = SftConfig(**BASIC, batch_size=8, adapter="qlora", gradient_checkpointing=True)
    preflight.check(mistral, small, LENGTHS, tmp_path, lines.append)


def test_a_full_disk_is_told_before(mistral, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "device", lambda: (True, 80 * 2**30, "H100"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12 - 10**9, 10**9))
    with pytest.raises(UserError, match=r"up to 2.8 GiB in .*, where 0.9 are free"):
        preflight.check(mistral, SftConfig(**BASIC, batch_size=8), LENGTHS, tmp_path / "s", None)


def test_it_comes_before_torch_and_before_anything_is_written(base, examples, tmp_path):
    examples.to_parquet(tmp_path / "rows.parquet")
    code = f"""if True:
        import sys, pandas
        from whetstone.errors import UserError
        from whetstone.training import preflight
        from whetstone.training.config import SftConfig
        from whetstone.training.sft import train_sft
        preflight.device = lambda: (True, 2**20, "a small GPU")
        try:
            train_sft({str(base)!r}, pandas.read_parquet({str(tmp_path / "rows.parquet")!r}), "out",
                      SftConfig(learning_rate=1e-3, max_steps=2), scratch={str(tmp_path / "s")!r})
        except UserError as error:
            print("a small GPU has 0.0 GiB" in str(error), "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("kind", ["examples", "turns", "pairs"])
def test_a_device_that_is_too_small_is_refused_before_the_model_is_loaded(
    kind, template, base, examples, pairs, tmp_path, monkeypatch
):
    """Whatever turns a row into tokens: the text as it is, a chat template, or turns of a conversation."""
    model = tmp_path / "model"
    shutil.copytree(base, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHAT}))
    monkeypatch.setattr(preflight, "device", lambda: (True, 2**10, "a GPU of 1 KiB"))
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    fields = {"learning_rate": 1e-3, "max_steps": 1, "max_length": 256, "template": template}
    with pytest.raises(UserError, match=r"a GPU of 1 KiB has 0.0 GiB of memory.*\(the longest row has \d+ tokens"):
        if kind == "pairs":
            train_dpo(model, pairs, tmp_path / "out", DpoConfig(**fields), scratch=tmp_path / "s")
        else:
            if kind == "turns":
                turns = [{"text": "2 + 2?", "weight": None}, {"text": " 4", "weight": 1.0}]
                examples = pd.DataFrame([{"id": "e", "turns": turns, "weight": 1.0}])
            train_sft(model, examples, tmp_path / "out", SftConfig(**fields), scratch=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_templates_own_text_counts(base, examples, tmp_path, monkeypatch):
    model = tmp_path / "model"
    shutil.copytree(base, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "word " * 20 + CHAT}))
    monkeypatch.setattr(preflight, "device", lambda: (True, 2**10, "a small GPU"))

    def longest(template):
        config = SftConfig(learning_rate=1e-3, max_steps=1, max_length=400, template=template)
        with pytest.raises(UserError) as refused:
            train_sft(model, examples, tmp_path / "out", config, scratch=tmp_path / "s")
        return int(re.search(r"longest row has (\d+)", str(refused.value))[1])

    assert longest("chat") > longest("plain") + 20


def test_here_it_reports_and_goes_on(base, examples, tmp_path):
    lines = []
    config = SftConfig(learning_rate=1e-3, max_steps=1, max_length=128)
    train_sft(base, examples, tmp_path / "out", config, scratch=tmp_path / "s", report=lines.append)
    assert "million weights; " in lines[0] and "GiB of memory" in lines[0]
