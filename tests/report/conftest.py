"""One finished run for all tests of the report."""

from __future__ import annotations

import pytest

from tests.report.finished import finished
from whetstone.report.run import Run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Run:
    return finished(tmp_path_factory.mktemp("run"))
