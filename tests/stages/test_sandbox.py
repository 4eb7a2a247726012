"""What params.yaml accepts of the sandbox reaches it, is said by `make check`, and recorded by manifests."""

from __future__ import annotations

import os
from typing import get_args

import pytest

from stages import common
from stages.run import manifest
from tools import preflight
from whetstone.errors import UserError
from whetstone.grading import layers, sandbox
from whetstone.grading.layers import Layer

LACKING = {name: Layer(name != "seccomp", "no table") for name in layers.OPENS}


@pytest.fixture
def accept(tmp_path, monkeypatch):
    """Writes a `runtime` that accepts these layers as missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layers, "_seen", {})
    monkeypatch.setenv(layers.MAY_LACK, "landlock")  # so that what is set is undone, and kept beside what is read

    def write(*names: str) -> None:
        (tmp_path / "params.yaml").write_text(f"runtime:\n  sandbox_may_lack: [{', '.join(names)}]\n")

    return write


def test_the_layers_that_parameters_may_name_are_those_of_the_sandbox():
    (names,) = get_args(common.Runtime.model_fields["sandbox_may_lack"].annotation)
    assert get_args(names) == tuple(layers.OPENS) and common.MAY_LACK == layers.MAY_LACK


def test_what_is_accepted_is_in_the_environment_of_every_process_that_a_stage_starts(accept):
    accept()
    common.runtime()
    assert os.environ[layers.MAY_LACK] == "landlock"
    accept("seccomp", "network")
    for _ in range(2):
        common.runtime()
        assert os.environ[layers.MAY_LACK] == "landlock,seccomp,network"


def test_an_unknown_layer_is_refused_before_anything_runs(accept):
    accept("secomp")
    with pytest.raises(UserError, match=r"runtime\.sandbox_may_lack.*secomp"):
        common.runtime()


def test_the_check_tells_of_a_missing_layer_before_anything_runs(accept, monkeypatch):
    monkeypatch.setattr(sandbox, "layers", lambda: LACKING)
    accept()
    with pytest.raises(UserError, match=r"`runtime.sandbox_may_lack: \[seccomp\]`"):
        preflight.sandbox()
    accept("seccomp")
    with pytest.warns(RuntimeWarning, match="without layers"):
        assert preflight.sandbox() == "lacks seccomp, which was accepted"


def test_a_manifest_names_the_layers_that_held(accept):
    assert manifest.layers() is None
    sandbox.close()  # a lane asks once
    assert sandbox.run_programs(["answer = 1"])[0].answer == "1"
    assert manifest.layers() == dict.fromkeys(layers.OPENS, "holds")
