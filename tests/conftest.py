"""The shrunken pipeline runs once for all the tests that begin with a finished one."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The project after a first run of everything. Not to be changed: tests work on copies of it."""
    from tests.project import ALL, Copy

    made = Copy.made(tmp_path_factory.mktemp("finished") / "project")
    assert made.ran("repro") == ALL
    made.commit()
    return made


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """A finished project of the test module's own."""
    return finished.copied(tmp_path_factory.mktemp("copy") / "project")
