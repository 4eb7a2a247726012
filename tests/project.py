"""A copy of the project with git and DVC of its own, shrunken so that the whole pipeline runs in a minute or two."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
SMALL = {
    "infer_parts": [1],
    "sample_parts": [2],
    "datasets": ["test"],
    "problems": {"world": {"train": 150, "dev": 8, "test": 24, "test_hard": 0}},
    "infer": {"k": 1, "shots": 4, "max_tokens": 160},
    "sample": {"k": 1, "explore": "all_strategies", "max_tokens": 160},
    "preprocess": {"balance": False},
    "sft": {"max_steps": 16, "batch_size": 4, "checkpoints": 1},
    "dpo": {"max_steps": 8, "batch_size": 4, "checkpoints": 1},
    "evaluate": {"max_tokens": 160},
}
# Its stages but `code`, which runs before them
AFTER_SFT = {"train@epoch1", "merge@epoch1", "evaluate@epoch1-test", "sample@epoch1-2", "preprocess@epoch2",
             "train@epoch2", "merge@epoch2", "evaluate@epoch2-test", "report"}  # fmt: skip
ALL = AFTER_SFT | {"problems", "infer@cot-1", "infer@l2m-1", "infer@pot-1", "baseline@test", "preprocess@epoch1"}


class Copy:
    """A folder with the project's files, and how git, DVC and make run in it."""

    def __init__(self, folder: Path):
        self.folder, self.audit = folder, folder.with_name(folder.name + "-audit")
        self.audit.mkdir()

    @classmethod
    def made(cls, folder: Path) -> Self:
        """The working tree's files, without results, with git and DVC of their own."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        results = ("code/", "metrics/", "plots/", "manifests/", "dvc.lock")
        folder.mkdir(exist_ok=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file() and not re.sub("^recipes/[^/]+/", "", name).startswith(results):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        copy = cls(folder)
        copy.edit(SMALL)
        copy.run("git", "init", "-q")
        copy.commit()
        return copy

    def copied(self, folder: Path) -> Self:
        """All of it again, results, cache and scratch included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        copy = type(self)(folder)
        shutil.copytree(self.audit, copy.audit, dirs_exist_ok=True)
        return copy

    def cloned(self, folder: Path) -> Self:
        """A git clone."""
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return type(self)(folder)

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Starts a command in a session of its own, which takes an interrupt even where this process ignores it."""
        identity = {f"GIT_{who}_{what}": "a@b.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        own = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "tests/audit"),
            "AUDIT": str(self.audit),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        return subprocess.Popen(
            command, cwd=self.folder, env=inherited | identity | own | environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *command: str, fails: bool = False, **environment: str) -> str:
        started = self.start(*command, **environment)
        output, _ = started.communicate()
        assert (started.returncode != 0) == fails, f"{' '.join(command)}: {started.returncode}\n{output[-6000:]}"
        return output

    def ran(self, *command: str) -> set[str]:
        """The stages that a DVC command runs."""
        return set(re.findall(r"^Running stage '(.*)':", self.run("dvc", *command), re.MULTILINE))

    def changed(self) -> set[str]:
        return set(json.loads(self.run("dvc", "status", "--json", "dvc.yaml")))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "state")

    def edit(self, values: dict) -> None:
        """Sets values in params.yaml, keeping the rest as it is."""
        yaml, path = YAML(), self.folder / "params.yaml"
        params = yaml.load(path)

        def merge(into: dict, these: dict) -> None:
            for key, value in these.items():
                if isinstance(value, dict):
                    merge(into.setdefault(key, {}), value)
                else:
                    into[key] = value

        merge(params, values)
        yaml.dump(params, path)

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def results(self) -> dict[str, bytes]:
        """The content of every table, model, metric and plot."""
        files = [file for room in ("data", "models", "metrics", "plots") for file in self.folder.glob(f"{room}/**/*")]
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in files if file.is_file()}
