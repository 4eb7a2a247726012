"""What the pipeline's results came from, as dvc.lock and the manifests tell: shared by trace, compare and plan."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages import code
from stages.run import manifest
from stages.run.terminal import Terminal
from whetstone.errors import UserError

WORKSPACE = "workspace"


@contextmanager
def opened(revision: str = WORKSPACE) -> Iterator[Any]:
    """DVC's view of the project: as it stands, or at a commit, branch, tag or experiment.

    Raises:
        UserError: there is no such revision, or the pipeline can't be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError, resolve_rev

    try:
        with Repo() as repo:
            if revision == WORKSPACE:
                yield repo
            else:
                with repo.switch(resolve_rev(repo.scm, revision)):
                    yield repo
    except SCMError:
        raise UserError(
            f"{revision!r} is no commit, branch, tag or experiment here; `dvc exp show` and `git log` list them"
        ) from None
    except DvcException as error:
        raise UserError(str(error)) from error


def folder(repo: Any) -> str:
    """Where the pipeline is in the project: empty at its root, recipes/<name> for a recipe."""
    return "/".join(repo.fs.relparts(repo.fs.getcwd(), repo.root_dir)).removeprefix(".")


def load(repo: Any, path: str | Path) -> Any:
    """The content of a YAML or JSON file beside dvc.yaml at the revision that is opened; None where there is none."""
    place = repo.fs.join(repo.fs.getcwd(), *Path(path).parts)
    if not repo.fs.exists(place):
        return None
    with repo.fs.open(place) as file:
        return json.load(file) if place.endswith(".json") else YAML(typ="safe").load(file)


def terminal() -> Terminal:
    """Where reports are printed: as wide as the terminal, and wide where there is none."""
    return Terminal(wide=160)


def pipeline(repo: Any) -> list[Any]:
    """The stages of the current folder's dvc.yaml, in its order; a recipe's are those of its own folder."""
    own = repo.fs.join(repo.fs.getcwd(), "dvc.yaml")
    return [stage for stage in repo.index.stages if stage.path == own]


def status(repo: Any) -> dict[str, list]:
    """What `dvc status` tells of this pipeline: address to changes, for the stages that have some."""
    return repo.status(targets=["dvc.yaml"])


def stage_of(repo: Any, path: str) -> Any:
    """The stage that makes `path`, or a folder around or in it; None for a file that no stage makes."""
    wanted = Path(path)
    for stage in pipeline(repo):
        for out in stage.outs:
            own = Path(out.def_path)
            if wanted == own or own in wanted.parents:
                return stage
    return None


def inputs(stage: Any) -> dict[str, Any]:
    """Path to hash of what the stage read when it ran, parameters apart."""
    return {dep.def_path: dep.hash_info.value for dep in stage.deps if not hasattr(dep, "params")}


def params(stage: Any) -> dict[str, Any]:
    """The parameters that the stage ran with."""
    own = [dep.hash_info.value for dep in stage.deps if hasattr(dep, "params")]
    return {key: value for found in own for key, value in (found or {}).items()}


def modules(stage: Any) -> dict[str, str]:
    """Module to digest of the stage's code, as the stage `code` wrote it at the revision that is opened."""
    found: dict[str, str] = {}
    for script in filter(None, (code.script_of(dep.def_path) for dep in stage.deps)):
        place = stage.repo.fs.join(stage.repo.root_dir, *code.place(script).parts)
        if stage.repo.fs.exists(place):
            with stage.repo.fs.open(place) as file:
                found |= json.load(file)
    return found


def record(stage: Any) -> dict[str, Any] | None:
    """The stage's manifest where it is about what dvc.lock says, this machine's before the recorded one; a stage that
    was restored from a cache may have none."""
    both = [load(stage.repo, f"{folder}/{stage.name}.json") for folder in (manifest.LOCAL, manifest.FOLDER)]
    own = [one for one in both if one and (one["inputs"], one["params"]) == (inputs(stage), params(stage))]
    return own[0] if own else None


def manifests() -> dict[str, dict[str, Any]]:
    """The last manifest of each stage, whatever it is about: this machine's, or else the recorded one."""
    both = (sorted(Path(folder).glob("*.json")) for folder in (manifest.FOLDER, manifest.LOCAL))
    return {path.stem: json.loads(path.read_text()) for paths in both for path in paths}


def revision(stage: Any) -> str:
    """The commit at which the stage ran; without a manifest, the one that brought its result to dvc.lock."""
    if found := record(stage):
        return (found["git"]["revision"] or "?")[:8] + (" with edits" if found["git"]["dirty"] else "")
    hashes = [out.hash_info.value for out in stage.outs if out.hash_info]
    if not hashes:
        return "never run"
    log = ["git", "log", "--format=%h", f"-S{hashes[0]}", "--", str(Path(stage.path).with_suffix(".lock"))]
    found = subprocess.run(log, capture_output=True, text=True, check=False).stdout.split()
    return f"{found[-1]} (where it was committed)" if found else "not committed"
