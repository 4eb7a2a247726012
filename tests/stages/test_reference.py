"""docs/params.md is what the schemas and params.yaml say now, and leaves nothing unexplained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.recipe import LISTS, SECTIONS
from tools import reference

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "params.yaml").read_text()
PAGE = (ROOT / "docs/params.md").read_text()


def test_the_page_is_current():
    assert reference.page(YAML(typ="safe").load(TEXT), TEXT) == PAGE, "run `make docs` and commit docs/params.md"


@pytest.mark.parametrize("section", [*SECTIONS])
def test_every_parameter_of_a_section_is_explained(section):
    own = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in own.splitlines() if line.startswith("| `")]
    assert [row[0].strip(" `") for row in rows] == [*SECTIONS[section].model_fields]
    assert all(row[3].strip() for row in rows), [row[0] for row in rows if not row[3].strip()]


def test_lists_are_there_with_their_values():
    params = YAML(typ="safe").load(TEXT)
    for name in LISTS:
        assert re.search(rf"\| `{name}` \| `{re.escape(str(params[name]))}` \| \S", PAGE)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1, "`1`"), (True, "`true`"), (None, "`null`"), (0.0, "`0.0`"), (("\n\n",), r"`['\n\n']`"), ("a|b", r"`a\|b`")],
)
def test_values_are_shown_as_yaml_has_them(value, shown):
    assert reference.shown(value) == shown
