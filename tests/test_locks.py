"""Locks on files and GPUs: one process at a time, however it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from whetstone.errors import UserError
from whetstone.locks import device_lock, held


@pytest.mark.parametrize(
    ("visible", "device", "names"),
    [
        ("0,1", "cuda", ["0", "1"]),
        ("3", "cuda", ["3"]),
        ("2, 5", "cuda:1", ["5"]),
        ("GPU-ab12", "cuda:0", ["GPU-ab12"]),
        ("0", "cpu", []),
    ],
)
def test_one_lock_for_each_gpu_that_is_used(visible, device, names, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with device_lock(device, folder=tmp_path):
        assert sorted(p.name for p in tmp_path.glob("*.lock")) == sorted(f"whetstone-gpu-{n}.lock" for n in names)
        if names:
            other = f"from whetstone.locks import *\nwith device_lock({device!r}, folder={str(tmp_path)!r}): pass"
            result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
            assert result.returncode == 1 and f"GPU {names[0]} is in use by process" in result.stderr
    with device_lock(device, folder=tmp_path):
        pass


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path):
    code = f"import time\nfrom whetstone.locks import held\nwith held({str(tmp_path / 'l')!r}, 'it'):\n"
    process = subprocess.Popen([sys.executable, "-c", code + " print(1, flush=True)\n time.sleep(60)"], stdout=-1)
    process.stdout.readline()
    with pytest.raises(UserError, match=f"it is in use by process {process.pid}"), held(tmp_path / "l", "it"):
        pass
    process.kill()
    process.communicate()
    with held(tmp_path / "l", "it"):
        pass


def test_several_gpus_are_held_together_or_not_at_all(tmp_path, monkeypatch):
    """So that of two that want each other's, one is told and the other goes on: nobody waits."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with device_lock("cuda:1", folder=tmp_path):
        with pytest.raises(UserError, match="GPU 1 is in use"), device_lock("cuda:0", "cuda:1", folder=tmp_path):
            pass
        with device_lock("cuda:0", folder=tmp_path):  # given back
            pass
