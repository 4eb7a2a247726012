import subprocess
import sys

import pytest
from pydantic import ValidationError

from whetstone.training.config import DpoConfig, SftConfig


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"epochs": 2, "max_steps": 10}, "exactly one of epochs"),
        ({}, "exactly one of epochs"),
        ({"epochs": 2, "lr": 1e-4}, "Extra inputs"),
        ({"epochs": 2, "adapter": "full"}, "'lora', 'qlora' or 'none'"),
        ({"epochs": 0}, "greater than 0"),
        ({"epochs": 1, "sharded": True}, "devices is 1; set it to the number of GPUs"),
        ({"epochs": 1, "sharded": True, "devices": 8, "select": "dev_accuracy"}, "a sharded model can't"),
        ({"epochs": 1, "sharded": True, "devices": 8, "adapter": "qlora"}, "a quantised base can't be sharded"),
    ],
)
def test_a_wrong_field_is_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        SftConfig(learning_rate=1e-4, **fields)


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"label_smoothing": 0.1}, "has no effect on loss `sigmoid`"),
        ({"loss": "hinge", "length_normalise": True}, "not for `hinge`"),
        ({"dropout": 0.1}, "without dropout"),
        ({"reference": "base", "precompute_reference": False}, "set precompute_reference to true"),
        ({"sharded": True, "devices": 2}, "set precompute_reference to false"),
    ],
)
def test_what_a_loss_would_ignore_is_refused(fields, says):
    with pytest.raises(ValidationError, match=says):
        DpoConfig(learning_rate=1e-5, epochs=1, **fields)


def test_every_field_says_what_it_is():
    assert [name for name, field in DpoConfig.model_fields.items() if not field.description] == []


def test_params_are_validated_without_torch():
    modules = ", ".join(f"whetstone.training.{name}" for name in ("config", "sft", "dpo", "merge"))
    code = f"import sys, {modules}; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
