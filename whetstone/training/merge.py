"""An adapter into the base that it was trained against: one model that any engine loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whetstone import records
from whetstone.errors import UserError
from whetstone.prompts.rendering import TEMPLATE
from whetstone.training import checks

# Largest difference between a logit of the adapter and of the merged model, as a share of the largest logit, by the
# precision of the weights. float32: sums in another order. bfloat16: W + BA is rounded to 8 bits once more.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
SHARD = "5GB"


def merge(
    base_path: str | Path, adapter_path: str | Path, out: str | Path, *, prompts: Sequence[str]
) -> dict[str, Any]:
    """Writes base + adapter to `out` as safetensors, with the tokenizer, template and generation config that it was
    trained with.

    The sum is taken in float32 and saved in the precision of the weights that the adapter was trained against: float32
    where these were float32 (also where the base is stored in bfloat16: rounding the sum would change the model),
    bfloat16 where the frozen base was. A result of full fine-tuning is copied. Nothing is written unless the model,
    loaded again from where it was written, gives the adapter's logits on `prompts` within `TOLERANCE`, and
    other ones than the base. Nothing is ever uploaded.

    Returns:
        dtype, tolerance, difference_from_adapter, difference_from_base (shares of the largest logit), prompts, bytes.

    Raises:
        UserError: a folder isn't what it should be, the adapter was trained against another base, or a check fails.
    """
    base_path, adapter_path, out = checks.check_model(base_path), Path(adapter_path), Path(out)
    if not prompts:
        raise UserError("merge: 0 prompts to compare the merged model on; give at least one")
    origin = read_origin(adapter_path)
    check_tokenizers(base_path, adapter_path)
    digest = records.weights_digest(base_path)
    if origin["base"] != digest:
        raise UserError(
            f"{adapter_path}: trained against a base with digest {origin['base']}, but {base_path} has "
            f"{digest}: merging the two would make another model than the one trained"
        )
    if origin["adapter"] == "qlora":
        checks.need_cuda("merging a qlora adapter dequantises its 4-bit base")

    import torch

    from whetstone.training import merging

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tolerance = TOLERANCE[origin["dtype"]]
    try:
        with torch.inference_mode():
            result = merging.write(base_path, adapter_path, partial, origin, list(prompts), tolerance, SHARD)
        shutil.rmtree(out, ignore_errors=True)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in checks.weight_files(out))
    return {
        **result,
        "dtype": origin["dtype"],
        "tolerance": tolerance,
        "prompts": len(prompts),
        "bytes": size,
    }


def check_tokenizers(base: Path, adapter: Path) -> None:
    """Raises UserError where the adapter was trained with another tokenizer or chat template than the base has."""
    for name in checks.TOKENIZER_FILES:
        ours, theirs = ((path / name).read_bytes() if (path / name).is_file() else b"" for path in (base, adapter))
        if name == "tokenizer_config.json":  # training marks its template there
            ours, theirs = ({**json.loads(text or "{}"), TEMPLATE: None} for text in (ours, theirs))
        if ours != theirs:
            raise UserError(f"{adapter / name}: another than {base / name}, with which the adapter was trained")


def read_origin(path: Path) -> dict[str, str]:
    """What a training result was trained against. Raises UserError where `path` holds no training result."""
    try:
        return json.loads((path / checks.ORIGIN).read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no training result there (no {checks.ORIGIN}); run the training stage first"
        ) from None
