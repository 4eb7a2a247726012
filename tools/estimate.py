"""What a stage would make and take: its manifest, or that of one like it, scaled to what it would work on now."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple


class Need(NamedTuple):
    """What a stage is expected to make and take, None where nothing tells. Disk: bytes, the cache's copy included."""

    rows: float | None
    tokens: float | None
    seconds: float | None
    disk: float | None
    basis: str


def reference(name: str, manifests: Mapping[str, dict]) -> dict | None:
    """The stage's own manifest, or that of the likest of its kind: of infer@cot-2, infer@cot-1 before infer@pot-1."""
    kind, _, key = name.partition("@")
    likes = [one for one in manifests.values() if one["stage"].partition("@")[0] == kind]
    shared = {one["stage"]: len({*key.split("-")} & {*one["stage"].partition("@")[2].split("-")}) for one in likes}
    fresh = {one["stage"]: one.get("sampled", {"completions": 1})["completions"] > 0 for one in likes}
    return max(likes, key=lambda one: (fresh[one["stage"]], one["stage"] == name, shared[one["stage"]]), default=None)


def work(params: Mapping[str, Any], rows: float) -> float:
    """How much a stage does with so many rows: completions where it samples, rows of all steps where it trains."""
    for section in params.values():
        if isinstance(section, Mapping) and "max_steps" in section:
            per_step = section["batch_size"] * section["gradient_accumulation"] * section.get("devices", 1)
            return per_step * (section["max_steps"] or ceil(section["epochs"] * rows / per_step))
        if isinstance(section, Mapping) and "k" in section:
            return rows * section["k"]
        if isinstance(section, Mapping) and isinstance(section.get("world"), Mapping):
            return sum(section["world"][split] for split in section["world"] if split != "seed")
    return rows


def devices(params: Mapping[str, Any]) -> int:
    """GPUs among which a training stage divides its work; 1 for all others."""
    return max((one["devices"] for one in params.values() if isinstance(one, Mapping) and "devices" in one), default=1)


def need(stage: Any, found: dict | None, growth: float, params: Mapping[str, Any], measured: dict | None) -> Need:
    """The manifest `found`, scaled. `growth` is how many times as many input rows there are now."""
    sizes = [out.meta.size for out in stage.outs if out.meta and out.meta.size and out.hash_info]
    if found is None or found["rows"]["out"] is None:
        seconds = found and found["seconds"]
        return Need(None, None, seconds, 2.0 * sum(sizes) if sizes else None, basis(stage, found))
    ratio = work(params, found["rows"]["in"] * growth) / max(work(found["params"], found["rows"]["in"]), 1)
    training = "training" in found["tokens"]
    rows, tokens = found["rows"]["out"] * (growth if training else ratio), None
    if None not in found["tokens"].values():
        tokens = sum(found["tokens"].values()) * ratio
    same = all(found["params"].get(key) == params.get(key) for key in ("model", "engine") if key in params)
    sampled = found.get("sampled")
    reused = sampled is not None and not sampled["completions"]  # all came from a journal, which tells no speed
    other = measured is not None and (not same or reused or measured["device"] != found["device"])
    if other and sampled:
        seconds = measured["start"] + asked(found) * ratio * measured["seconds_per_completion"]
    elif other and training:
        seconds = measured["start"] + tokens * measured["seconds_per_trained_token"] / devices(params)
    elif reused or (not same and (sampled or training)):
        seconds = None
    elif sampled:
        times = asked(found) * ratio / sampled["completions"]
        seconds = found["seconds"] - sampled["seconds"] + sampled["seconds"] * times
    else:
        seconds = found["seconds"] * ratio * devices(found["params"]) / devices(params)
    disk = 2.0 * sum(sizes) * (1 if training else ratio) if sizes else None
    unknown = "another model or engine" if not same else "a run that only took up what a journal had"
    return Need(rows, tokens, seconds, disk, basis(stage, found) if seconds is not None else unknown)


def asked(found: dict) -> float:
    """How many completions the stage asked for, those that a journal had included. By their tokens where these are
    known: its rows may hold earlier attempts too."""
    sampled, tokens = found["sampled"], found["tokens"].get("completion")
    if tokens and sampled["tokens"]:
        return sampled["completions"] * tokens / sampled["tokens"]
    return found["rows"]["out"]


def basis(stage: Any, found: dict | None) -> str:
    if found is None:
        return "no manifest of its kind"
    own = "its manifest" if found["stage"] == stage.name else f"that of {found['stage']}"
    return f"{own}, {found['started'][:10]}"


def related(out: str, path: str) -> bool:
    a, b = Path(out), Path(path)
    return a == b or b in a.parents or a in b.parents


def grown(found: dict | None, feeding: list[Any], data: str | None, rows: Mapping[str, tuple[float, float]]) -> float:
    """How many times as many rows the stage would read as when its manifest was written."""
    known = [one for one in feeding if one.name in rows]
    if not known or not found or not found["rows"]["in"]:
        return 1.0
    if all(Path(data) in (Path(o.def_path), *Path(o.def_path).parents) for one in known for o in one.outs[:1]):
        return sum(rows[one.name][0] for one in known) / found["rows"]["in"]  # it reads all that they make
    return sum(rows[one.name][0] for one in known) / max(sum(rows[one.name][1] for one in known), 1)
