"""What every stage shares: parameters and places."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.run import Stage as Stage
from stages.run import scratch as scratch
from whetstone.errors import UserError
from whetstone.validation import validated

PARAMS, RAW = Path("params.yaml"), Path("data/raw")
MAY_LACK = "WHETSTONE_SANDBOX_MAY_LACK"  # what whetstone/grading/layers.py reads
Section = TypeVar("Section", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Model(Strict):
    """The base model: a folder, or a Hub id whose revision is pinned."""

    name: str = "models/base"
    revision: str | None = None


class Epoch(Strict):
    """What an epoch starts from, whose attempts it learns from, and how."""

    start: str
    attempts: str
    trainer: Literal["sft", "dpo"]


class Epochs(Strict):
    train: dict[str, Epoch]
    sample: list[str]
    evaluate: list[str]


class Evaluate(Strict):
    """How tuned models are evaluated, on dev and on the evaluation sets: greedily."""

    max_tokens: int = Field(256, ge=1)
    stop: tuple[str, ...] = ("\n\n",)


class Runtime(Strict):
    """Knobs that can't change a result, so that no stage depends on them.

    `options` are those of the engine's class, such as `tensor_parallel_size` of vllm or `key_variable` of openai.
    `sandbox_may_lack` names layers of isolation without which a model's programs run all the same (docs/security.md).
    """

    device: str | None = None
    slots: int = Field(256, ge=1)
    options: dict[str, Any] = {}
    report_to: Literal["none", "trackio", "wandb", "mlflow", "dvclive"] = "none"
    sandbox_may_lack: list[Literal["limits", "network", "user", "capabilities", "landlock", "seccomp"]] = []


class Structure(NamedTuple):
    """Epochs, strategies, and the names of the evaluation sets; the first of these is the headline."""

    epochs: Epochs
    strategies: list[str]
    datasets: list[str]


def read_params() -> dict[str, Any]:
    """All of params.yaml.

    Raises:
        UserError: there is none, it isn't YAML, or it isn't a mapping of sections.
    """
    try:
        params = YAML(typ="safe").load(PARAMS)
    except FileNotFoundError:
        raise UserError(f"{PARAMS}: not found in {Path.cwd()}; run stages from the project's folder") from None
    except YAMLError as error:
        raise UserError(f"{PARAMS}: {' '.join(str(error).split())}") from error
    if not isinstance(params, dict):
        raise UserError(f"{PARAMS}: expected sections with keys, found {type(params).__name__}")
    return params


def section(name: str, schema: type[Section]) -> Section:
    """One validated section of params.yaml.

    Raises:
        UserError: the section is missing, has an unknown key, or a value of the wrong type; one line for each.
    """
    params = read_params()
    if name not in params:
        raise UserError(f"{PARAMS}: section `{name}` is missing; add it (keys: {', '.join(schema.model_fields)})")
    return validated(params[name] or {}, schema, str(PARAMS), name)


def runtime() -> Runtime:
    """The section `runtime`. What it says of the sandbox holds from now on, also in processes that this one starts.

    Raises:
        UserError: as `section` does.
    """
    found = section("runtime", Runtime)
    if found.sandbox_may_lack:
        already = os.environ.get(MAY_LACK, "").split(",")
        os.environ[MAY_LACK] = ",".join(filter(None, dict.fromkeys([*already, *found.sandbox_may_lack])))
    return found


def structure() -> Structure:
    """The pipeline's shape.

    Raises:
        UserError: an epoch starts from or learns from something that doesn't come before it.
    """
    params = read_params()
    epochs = section("epochs", Epochs)
    known = ["base"]
    for name, epoch in epochs.train.items():
        for key, value in (("start", epoch.start), ("attempts", epoch.attempts)):
            if value not in known:
                raise UserError(f"{PARAMS}: `epochs.train.{name}.{key}` is {value!r}; expected {' or '.join(known)}")
        if epoch.attempts != "base" and epoch.attempts not in epochs.sample:
            raise UserError(f"{PARAMS}: `epochs.sample` lacks {epoch.attempts}, whose attempts {name} learns from")
        known.append(name)
    for key, names in (("sample", epochs.sample), ("evaluate", epochs.evaluate)):
        if unknown := [name for name in names if name not in epochs.train]:
            raise UserError(f"{PARAMS}: `epochs.{key}` names {', '.join(unknown)}, which `epochs.train` lacks")
    return Structure(epochs, params.get("strategies") or [], params.get("datasets") or [])


def epoch_of(name: str) -> Epoch:
    """Raises UserError for an epoch that params.yaml doesn't have."""
    epochs = structure().epochs
    if name not in epochs.train:
        raise UserError(f"{PARAMS}: `epochs.train` has no {name!r}, but {', '.join(epochs.train)}")
    return epochs.train[name]


def model_path(label: str) -> Path:
    """The folder of a model: `base`, or an epoch's merged model. Fetches a Hub model at its pinned revision.

    Raises:
        UserError: there is no such model, with what makes it.
    """
    if label != "base":
        path = Path("models") / label / "merged"
        if not (path / "config.json").is_file():
            raise UserError(f"{path}: no model there (no config.json); `dvc repro merge@{label}` makes it")
        return path
    model = section("model", Model)
    path = Path(model.name)
    if (path / "config.json").is_file():
        return path
    if path.exists() or model.name.count("/") != 1 or model.name.startswith((".", "/", "models/")):
        raise UserError(f"{PARAMS}: `model.name` is {model.name!r}: no model there (no {path / 'config.json'})")
    if model.revision is None:
        raise UserError(f"{PARAMS}: `model.revision` is empty; pin {model.name} to a commit of its Hub page")
    return _fetched(model)


def watched(path: str | None) -> None:
    """Raises ValueError for a file of problems outside of data/raw, which the stage that reads it depends on."""
    if path is not None and RAW not in Path(os.path.normpath(path)).parents:
        raise ValueError(f"{path} isn't in {RAW}, where DVC notices its changes; move it or link to it there")


def _fetched(model: Model) -> Path:
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        twice = ["consolidated*", "original/*"]  # the same weights in another format, which some models come with
        return Path(
            snapshot_download(model.name, revision=model.revision, allow_patterns=wanted, ignore_patterns=twice)
        )
    except Exception as error:  # the Hub's client raises whatever its transport does
        raise UserError(
            f"{model.name} at {model.revision} can't be fetched from the Hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:160]}); check the name, the revision and the network, or set `model.name` "
            "to a local folder"
        ) from error
