"""Which settings reach which engine."""

from __future__ import annotations

import pytest

from stages import output, serving
from whetstone import engines
from whetstone.errors import UserError


@pytest.fixture
def opened(project, monkeypatch):
    """Opens the engine of a label under some parameters; what `engines.open_engine` was asked for."""
    monkeypatch.undo()
    monkeypatch.chdir(project.folder)
    calls = []

    class Closable:
        def close(self):
            calls.append("closed")

    def run(label, engine, runtime=(), model="models/base"):
        project.params["engine"], project.params["model"]["name"] = engine, model
        project.params["runtime"] = dict(runtime)
        project.save()
        with serving.open_engine(label):
            assert len(calls) == 1
        return calls.pop(0), calls

    monkeypatch.setattr(engines, "open_engine", lambda *args, **kwargs: calls.append((args, kwargs)) or Closable())
    return run


def test_transformers(opened):
    ((kind, model), settings), rest = opened("base", {"kind": "transformers", "dtype": "bfloat16"}, {"device": "cpu"})
    assert (kind, model) == ("transformers", "models/base") and rest == ["closed"]
    assert settings == {"slots": 256, "dtype": "bfloat16", "device": "cpu"}


def test_a_run_that_a_journal_spares_all_sampling_says_so(opened, monkeypatch):
    """Else its manifest would tell `make plan` that sampling takes no longer than to read a journal."""
    monkeypatch.setattr(output, "COUNTS", {})
    opened("base", {"kind": "transformers", "dtype": "float32"}, {"device": "cpu"})
    assert output.COUNTS == {"sampled": {"completions": 0, "tokens": 0, "seconds": 0.0}}


def test_vllm(opened):
    ((kind, _), settings), _ = opened(
        "base",
        {"kind": "vllm", "dtype": "bfloat16", "options": {"max_model_len": 4096}},
        {"slots": 64, "device": "cpu", "options": {"tensor_parallel_size": 2}},
    )
    assert kind == "vllm"
    assert settings == {"slots": 64, "dtype": "bfloat16", "max_model_len": 4096, "tensor_parallel_size": 2}


@pytest.mark.parametrize(
    ("label", "asked"), [("base", "mistralai/Mistral-7B-v0.3"), ("epoch1", "models/epoch1/merged")]
)
def test_openai_needs_no_folder(opened, label, asked):
    engine = {"kind": "openai", "options": {"base_url": "http://localhost:8000/v1"}}
    ((kind, model), settings), _ = opened(label, engine, model="mistralai/Mistral-7B-v0.3")
    assert (kind, model) == ("openai", asked)
    assert settings.pop("seen").parts[-2:] == (".scratch", "served")
    assert settings == {"slots": 256, "base_url": "http://localhost:8000/v1"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            "transformers",
            {"tensor_parallel_size": 2},
            "engine transformers: .*'tensor_parallel_size'; its settings are .*slots",
        ),
        ("openai", {}, "engine openai: missing .*'base_url'"),
        ("sglang", {}, "engine 'sglang' is unknown"),
    ],
)
def test_settings_that_an_engine_does_not_have(kind, settings, message):
    with pytest.raises(UserError, match=message):
        engines.open_engine(kind, "models/base", **settings)


def test_the_manifest_tells_how_a_servers_model_was_known(monkeypatch):
    class Server:
        fingerprint, served = "openai:there:teacher:chat:ab", {"model": "teacher", "probe": "tokens alone"}

    monkeypatch.setattr(output, "COUNTS", {})
    assert serving.Metered(Server()).fingerprint == Server.fingerprint
    assert output.COUNTS["served"] == {"teacher": {"model": "teacher", "probe": "tokens alone"}}
