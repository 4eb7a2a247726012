"""The shrunken pipeline runs once for all the tests that begin with a finished one.

`make test` has two processes (pytest-xdist): those tests are one process's, and first, since they take longest; every
other file stays whole, so that what a module prepares is prepared once.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        together = "finished" if "finished" in item.fixturenames else item.path.name
        item.add_marker(pytest.mark.xdist_group(together))
    items.sort(key=lambda item: ("finished" not in item.fixturenames, item.get_closest_marker("slow") is None))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The project after a first run of everything. Not to be changed: tests work on copies of it."""
    from tests.project import ALL, Copy

    made = Copy.made(tmp_path_factory.mktemp("finished") / "project")
    assert made.ran("repro") == ALL | {"code"}
    made.run("python", "-m", "tools.record")
    made.commit()
    return made


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """A finished project of the test module's own."""
    return finished.copied(tmp_path_factory.mktemp("copy") / "project")
