"""What the documents promise exists: make targets, stage commands and their options, parameters, files."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "requirements/README.md"]
TEXT = {str(path.relative_to(ROOT)): path.read_text() for path in DOCUMENTS}


def found(pattern: str) -> list[tuple[str, ...]]:
    """(document, groups of the pattern), each once."""
    return sorted({(name, *match.groups()) for name, text in TEXT.items() for match in re.finditer(pattern, text)})


@pytest.mark.parametrize(("document", "target"), found(r"(?:`|    )make ([a-z][a-z0-9-]*)"))
def test_make_targets(document, target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("document", "module", "options"), found(r"python -m ((?:stages|tools)\.\w+)((?: --[a-z-]+(?: [\w.]+)?)*)")
)
def test_commands(document, module, options):
    known = {name for option in import_module(module).main.params for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", options)) <= known


@pytest.mark.parametrize(
    ("document", "section", "key"),
    found(
        r"(?<![\w/.])(infer|preprocess|sft|dpo|sample|evaluate|model|engine|problems|runtime)\.(?!yaml|py|parquet|ipynb|temprature|generate|choice_logprobs)([a-z_]+)"
    ),
)
def test_parameters(document, section, key):
    assert key in YAML(typ="safe").load(ROOT / "params.yaml")[section]


@pytest.mark.parametrize(("document", "link"), found(r"\]\((?!http)([^)#]+)\)"))
def test_links(document, link):
    assert ((ROOT / document).parent / link).exists()


def test_the_readme_leads_to_every_page():
    linked = {link for document, link in found(r"\]\((?!http)([^)#]+)\)") if document == "README.md"}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_readme_begins_with_the_two_commands():
    opening = TEXT["README.md"].split("## ")[0]
    assert opening.index("    make  ") < opening.index("    make test")


def test_recipes_name_the_stages_that_they_have():
    text = TEXT["docs/recipes.md"]
    for name, path in (("smart", "dvc.yaml"), ("star", "recipes/star/dvc.yaml")):
        section = text.partition(f"## {name}: ")[2].partition("\n## ")[0]
        named = {stage for row in re.findall(r"^\|[^|]*\|([^|]*)\|", section, re.MULTILINE) for stage in
                 re.findall(r"`(\w+)`", row)} - {"sft", "dpo"}  # fmt: skip
        stages = set(YAML(typ="safe").load(ROOT / path)["stages"])
        assert named and named <= stages and stages - named <= {"code", "problems"}
