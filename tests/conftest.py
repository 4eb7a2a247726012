"""The shrunken pipeline runs once for all the tests that begin with a finished one.

`make test` has two processes (pytest-xdist): those tests are one process's, and first, since they take longest; every
other file stays whole, so that what a module prepares is prepared once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("whatever the machine's load", deadline=None)
settings.load_profile("whatever the machine's load")

# Whose tests begin with the finished project
FINISHED = {f"tests/test_{name}.py" for name in ("environment", "experiments", "invalidation", "pipeline", "tools")}


def pytest_collection_modifyitems(items):
    for item in items:
        file = item.path.relative_to(Path(__file__).parents[1]).as_posix()
        assert "finished" not in item.fixturenames or file in FINISHED, f"FINISHED lacks {file}"
    items.sort(key=lambda item: ("finished" not in item.fixturenames, item.get_closest_marker("slow") is None))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What prepares something together runs in one process. (Groups by mark are none where pytest is newer than what
    pytest-xdist 3.8 knows: it appends them to names that nobody reads any more.)"""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "finished" if file in FINISHED else "report" if file.startswith("tests/report/") else file

    return Together(config, log)


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
