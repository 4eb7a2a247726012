"""The record of a stage's run: what went in, fingerprinted before it ran, and what it did.

It is in manifests/local/<stage>.json, which git ignores; an experiment's, and what `make record` takes over, is in
manifests/<stage>.json, which git keeps.

DVC hashes a stage's inputs after its command has ended. An edit made meanwhile would be recorded as what the outs were
made from, and the next `dvc repro` would find nothing to do. So a stage fingerprints its inputs itself, from the same
dvc.yaml and as DVC does, before it starts and after it ends. Where the two differ its outs are put aside, and taken
back when the inputs are again what they were.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from stages import code, output
from whetstone.errors import UserError
from whetstone.records import fingerprint

FOLDER = "manifests"  # the record in git
LOCAL = f"{FOLDER}/local"  # of this machine's runs
# Whose version can change a result; a manifest names those that the stage imported
PACKAGES = (
    *("accelerate", "bitsandbytes", "datasets", "math_verify", "numpy", "openai", "pandas", "peft", "pyarrow"),
    *("safetensors", "scipy", "sympy", "tokenizers", "torch", "transformers", "trl", "vllm"),
)


def run(command: str, scratch: Callable[..., Path], work: Callable[[], Any]) -> Any:
    """Does the work of the stage that DVC started, or whose `cmd` is `command`; other work is done without a record.

    Raises:
        UserError: an input changed during the work. What it made is kept in `scratch("refused")`.
    """
    if not Path("dvc.yaml").is_file() and "DVC_STAGE" not in os.environ:
        return work()
    from dvc.repo import Repo

    with Repo() as repo:
        address = os.environ.get("DVC_STAGE", "")
        here = [one for one in repo.index.stages if Path(one.wdir) == Path.cwd()]
        own = [one for one in here if (one.name == address.rpartition(":")[2] if address else _runs(one, command))]
        stage = max(own, key=lambda one: one.addressing == address, default=None)  # two pipelines may have its name
        if stage is None:
            return work()
        started = datetime.now(UTC)
        before, revision = _inputs(stage), _revision(repo, stage)
        experiment = os.environ.get("DVC_EXP_NAME")
        place = Path(FOLDER if experiment else LOCAL, f"{stage.name}.json")
        path = os.path.relpath(Path(stage.path).parent / place)
        aside = scratch("refused") / f"{stage.name}-{fingerprint(json.dumps(before, sort_keys=True))}"
        if aside.exists():
            print(f"{stage.name}: an earlier run made its results from these very inputs; taken from {aside}")
            _move([*_outs(stage), path], aside, Path())
            return shutil.rmtree(aside)
        output.COUNTS.clear()
        result = work()
        content = {
            "stage": stage.name,
            "started": started.isoformat(timespec="seconds"),
            "seconds": output.seconds(),
            "git": revision,
            "experiment": experiment,
            "device": device(),
            "packages": packages(),
            "sandbox": layers(),
            **before,
            "code": _code(stage),
            "rows": {"in": None, "out": None, "dropped": {}},
            "tokens": {},
            **output.COUNTS,
        }
        after = _inputs(stage)
        if after != before:
            _move(_outs(stage), Path(), aside)
            write(aside / path, content)
            raise UserError(_changed(stage.name, before, after, aside))
        write(Path(path), content)
        if experiment:  # one in a temporary folder brings home what git knows of
            git("add", path)
        return result


def _runs(stage: Any, command: str) -> bool:
    """Whether the stage's `cmd` is this command, variables before it apart."""
    return f" {stage.cmd}".endswith(f" {command}")


def _outs(stage: Any) -> list[str]:
    return [out.def_path for out in stage.outs]


def _inputs(stage: Any) -> dict[str, dict]:
    """{inputs: {path: md5, None where there is nothing}, params: {key: value}} as they are now, as DVC hashes them.

    Of code, DVC hashes what the stage `code` wrote before; modules that were edited since are named beside it.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException

    found: dict[str, dict] = {"inputs": {}, "params": {}}
    for dep in stage.deps:
        try:
            dep.save()
        except DvcException:  # the stage tells what is missing, and what makes it
            found["inputs"][dep.def_path] = None
            continue
        if isinstance(dep, ParamsDependency):
            found["params"] |= dep.hash_info.value
        else:
            found["inputs"][dep.def_path] = dep.hash_info.value
            if code.script_of(dep.def_path) and (edited := code.edited(Path(dep.fs_path))):
                found["inputs"][dep.def_path] += f" before {', '.join(edited)} changed"
    return found


def _code(stage: Any) -> dict[str, str]:
    """Module to digest of all that the stage's script reaches."""
    files = [Path(dep.fs_path) for dep in stage.deps if code.script_of(dep.def_path)]
    tables = [json.loads(file.read_text()) for file in files if file.exists()]
    return {module: digest for table in tables for module, digest in table.items()}


def _changed(name: str, before: dict, after: dict, aside: Path) -> str:
    lines = [
        f"{kind} {key}: {before[kind].get(key)} at the start, {after[kind].get(key)} at the end"
        for kind in ("inputs", "params")
        for key in sorted({*before[kind], *after[kind]})
        if before[kind].get(key) != after[kind].get(key)
    ]
    return (
        f"{name}: its inputs changed while it ran, so its results are neither of the old nor of the new ones\n  "
        + "\n  ".join(lines)
        + f"\nThey are kept in {aside}. Undo the change and run again to have them back, or run again to make new ones"
    )


def _move(paths: Iterable[str], source: Path, target: Path) -> None:
    for path in paths:
        if (source / path).exists():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source / path, target / path)


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, default=str) + "\n")
    partial.replace(path)


def git(*arguments: str) -> str | None:
    """What git says; None where it fails, or where there is none: a copy of the project runs without it."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _revision(repo: Any, stage: Any) -> dict[str, Any]:
    """The commit, and whether dvc.yaml, params.yaml or an input that no stage makes differs from it."""
    made = [Path(out.fs_path) for one in repo.index.stages for out in one.outs]
    paths = [Path(dep.fs_path) for dep in stage.deps]
    sources = [path for path in paths if not any(path == out or path in out.parents or out in path.parents
                                                 for out in made)]  # fmt: skip
    changed = git("status", "--porcelain", "--", stage.path, *map(str, sources))
    return {"revision": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def device() -> str:
    """The GPUs that this process sees, or the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{cores} x {name}"


def packages() -> dict[str, str]:
    """Versions of Python and of those PACKAGES that this process has imported."""
    found = {name: _version(name) for name in PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **found}


def layers() -> dict[str, str] | None:
    """Which layers confined what the model wrote, and why one was missing; None if nothing ran in the sandbox."""
    found = sys.modules.get("whetstone.grading.layers")
    return found.seen() if found is not None else None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # installed under another name, as vLLM's CPU build is
        return str(getattr(sys.modules[name], "__version__", "unknown"))
