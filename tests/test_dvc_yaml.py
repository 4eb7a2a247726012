"""dvc.yaml declares what the stages reach: every module that a stage imports, however deep, and no other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DVC = YAML(typ="safe").load(ROOT / "dvc.yaml")
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


def body(stage: dict) -> dict:
    return stage.get("do", stage)


def scripts(name: str) -> list[str]:
    """The scripts that the stage of this name can run."""
    command = body(DVC["stages"][name])["cmd"]
    module = command.removeprefix("python -m stages.").split()[0]
    if module == "${item.trainer}":
        return sorted({epoch["trainer"] for epoch in PARAMS["epochs"]["train"].values()} | {"sft", "dpo"})
    return [module]


def file_of(module: str) -> Path | None:
    """The project's file that a dotted name imports; a package is its __init__."""
    path = ROOT.joinpath(*module.split("."))
    found = [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()]
    return found[0].relative_to(ROOT) if found else None


def says_nothing(file: Path) -> bool:
    """Empty but for a docstring and dunder assignments, such as a version."""
    tree = ast.parse((ROOT / file).read_text())
    return all(
        isinstance(node, ast.Expr)
        or isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        or isinstance(node, ast.Assign)
        and all(isinstance(t, ast.Name) and t.id.startswith("__") for t in node.targets)
        for node in tree.body
    )


@cache
def imported(file: Path) -> frozenset[Path]:
    """Files of the project that this one names in any import, inside functions too, and files that it opens beside
    itself (a worker that a sandbox starts)."""
    found = set()
    source = (ROOT / file).read_text()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {one for name in names if name.split(".")[0] in ("whetstone", "stages") and (one := file_of(name))}
        for name in names:  # importing a.b.c runs the packages a and a.b
            parts = name.split(".")
            found |= {one for n in range(1, len(parts)) if parts[0] in ("whetstone", "stages")
                      and (one := file_of(".".join(parts[:n])))}  # fmt: skip
        beside = set()  # modules of a program that a sandbox starts: it knows of no packages
        if isinstance(node, ast.Import):
            beside = {f"{alias.name}.py" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            beside = {node.value} if node.value.endswith(".py") else set()
        found |= {file.parent / name for name in beside if (ROOT / file.parent / name).is_file()}
    if "spec_from_file_location" in source:  # by names that it puts together: any module beside it
        found |= {one.relative_to(ROOT) for one in (ROOT / file).parent.glob("*.py")}
    return frozenset(one for one in found if not says_nothing(one))


def closure(start: Path) -> set[Path]:
    reached, todo = set(), [start]
    while todo:
        file = todo.pop()
        if file not in reached:
            reached.add(file)
            todo += imported(file)
    return reached


def declared(name: str, script: str) -> list[Path]:
    deps = [dep.replace("${item.trainer}", script) for dep in body(DVC["stages"][name])["deps"]]
    return [Path(dep) for dep in deps if dep.startswith(("stages/", "whetstone/"))]


CASES = [(name, script) for name in DVC["stages"] for script in scripts(name)]


@pytest.mark.parametrize(("name", "script"), CASES)
def test_every_module_that_a_stage_reaches_is_declared(name, script):
    deps = declared(name, script)
    undeclared = {f for f in closure(Path(f"stages/{script}.py")) if not any(f == d or d in f.parents for d in deps)}
    assert not undeclared


@pytest.mark.parametrize(("name", "script"), CASES)
def test_nothing_else_is_declared(name, script):
    reached = closure(Path(f"stages/{script}.py"))
    superfluous = {d for d in declared(name, script) if not any(f == d or d in f.parents for f in reached)}
    assert not superfluous
    assert all((ROOT / d).exists() for d in declared(name, script))


def test_programs_that_a_stage_starts_are_reached_too():
    room = Path("whetstone/grading")
    started = {room / f"sandbox_{name}.py" for name in ("worker", "child", "jail", "prelude", "verify")}
    assert {*started, room / "symbolic_worker.py"} <= closure(Path("stages/infer.py"))


@pytest.mark.parametrize("name", DVC["stages"])
def test_every_stage_says_what_it_does_and_names_its_parameters(name):
    stage = body(DVC["stages"][name])
    assert stage["desc"] and stage["params"]
    sections = {key.split(".")[0] for key in stage["params"] if key != "${item.trainer}"}
    assert sections <= {*PARAMS} - {"runtime"}


def test_the_pipeline_is_a_short_read():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 150
    assert all(len(file.read_text().splitlines()) < 200 for file in (ROOT / "stages").glob("*.py"))
