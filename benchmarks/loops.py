"""Whole loops for a table of results: clones of this commit with their own parameters, and where their numbers go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from stages.run import manifest

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("torch", "transformers", "trl", "peft", "numpy")
BEGIN, END = "<!-- results -->", "<!-- /results -->"


def clone(folder: Path) -> None:
    """HEAD in `folder`; what an earlier run left there stays, so that only what changed since runs again."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "fetch", "-q", "origin", "HEAD"], check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "-q", "-f", "--detach", "FETCH_HEAD"], check=True)


def set_parameters(path: Path, values: Mapping[str, Any]) -> None:
    """Sets `section.key`s in a params.yaml."""
    yaml = YAML()
    params = yaml.load(path)
    for key, value in values.items():
        *sections, last = key.split(".")
        target = params
        for section in sections:
            target = target[section]
        target[last] = value
    yaml.dump(params, path)


def set_command(graph: Path, stage: str, command: str, code: str) -> None:
    """Another command of a stage in a dvc.yaml; `{own}` in it is the stage's own, `code` what it depends on."""
    yaml = YAML()
    stages = yaml.load(graph)
    own = stages["stages"][stage]
    own = own.get("do", own)
    own["cmd"] = command.replace("{own}", own["cmd"])
    own["deps"].append(code)
    yaml.dump(stages, graph)


def add_stage(graph: Path, name: str, stage: dict[str, Any]) -> None:
    """A further stage in a dvc.yaml."""
    yaml = YAML()
    stages = yaml.load(graph)
    stages["stages"][name] = stage
    yaml.dump(stages, graph)


def repro(folder: Path, *targets: str, threads: int | None = None) -> None:
    """`dvc repro`, told in `repro.log`, with so many threads in each stage. Ends the program where it fails."""
    environment = os.environ if threads is None else os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (folder / "repro.log").open("w") as log:
        done = subprocess.run(
            ["dvc", "repro", *targets], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    if done.returncode:
        sys.exit(f"{folder}: dvc repro failed; see {folder / 'repro.log'}")


def publish(summary: dict[str, Any], results: Path, table: str, readme: Path) -> None:
    """The numbers with commit, versions and processor to `results`, the table to the screen and between the marks of
    `readme`."""
    import torch  # noqa: F401  # without it `device` sees no GPU, which the stages take where there is one

    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}}
    told = {"revision": revision.stdout.strip(), "device": manifest.device(), "versions": versions, **summary}
    results.write_text(json.dumps(told, indent=1) + "\n")
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2] if END in rest else rest
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    click.echo(table)
