"""A folder in which stages run in this process, with parameters that a test may change."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pandas as pd
from click.testing import CliRunner
from ruamel.yaml import YAML

from whetstone import records

ROOT = Path(__file__).parents[1]


class StageFolder:
    """`params` are written by `save`; `package` holds the stages."""

    package = "stages"

    def __init__(self, folder: Path, params: Path):
        self.folder, self.params = folder, YAML(typ="safe").load(params)

    def save(self) -> None:
        with (self.folder / "params.yaml").open("w") as file:
            YAML().dump(self.params, file)

    def run(self, stage: str, *arguments: str, fails: bool = False) -> str:
        """Runs `python -m <package>.<stage> <arguments>`, or a tool's, in this process; its output."""
        package = self.package if (ROOT / self.package.replace(".", "/") / f"{stage}.py").exists() else "tools"
        result = CliRunner().invoke(import_module(f"{package}.{stage}").main, arguments)
        assert result.exit_code == (1 if fails else 0), result.output + repr(result.exception)
        if fails:
            assert "Traceback" not in result.output and re.search("^Error: ", result.output, re.MULTILINE)
        return result.output

    def read(self, path: str, schema=records.ATTEMPT) -> pd.DataFrame:
        return records.read(self.folder / path, schema)
