"""Experiments, parts side by side, several clones, and what an interrupt leaves."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow


# --- experiments


def test_two_experiments_at_once_keep_to_themselves(copy):
    """Both sample the same stage, so that they meet in its journal."""
    before = copy.results()
    for temperature in (0.3, 1.1):
        copy.run("dvc", "exp", "run", "--queue", "-n", f"t{temperature}".replace(".", ""), "-S",
                 f"infer.temperature={temperature}", "preprocess@epoch1")  # fmt: skip
    copy.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 300
    while (state := copy.run("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in state and time.monotonic() < deadline, state
        time.sleep(1)
    copy.run("dvc", "queue", "stop", "--kill")
    assert copy.results() == before and copy.run("git", "status", "--porcelain") == ""
    assert copy.changed() == set()

    table = copy.run("python", "-m", "tools.experiments")
    assert re.search(r"^t03 +infer\.temperature=0\.3", table, re.MULTILINE)
    assert re.search(r"^t11 +infer\.temperature=1\.1", table, re.MULTILINE)
    told = copy.run("python", "-m", "tools.compare", "--a", "t03", "--b", "t11")
    assert re.search(r"^infer\.temperature +0\.3 +1\.1", told, re.MULTILINE)
    assert re.search(r"^data/attempts/base/cot-1\.parquet +\w{8} +\w{8}", told, re.MULTILINE)
    for name in ("t03", "t11"):
        manifest = copy.run("git", "show", f"{experiment(copy, name)}:manifests/infer@cot-1.json")
        assert f'"experiment": "{name}"' in manifest


def experiment(copy, name: str) -> str:
    refs = copy.run("git", "for-each-ref", "--format=%(refname)").split()
    return next(ref for ref in refs if ref.endswith(f"/{name}"))


def test_an_experiment_elsewhere_goes_on_from_the_same_scratch(copy):
    output = copy.run("dvc", "exp", "run", "--temp", "-n", "twice", "-S", "infer.k=2", "infer@cot-1")
    assert "base, cot: reused 32, sampling 32" in output


def test_the_results_of_two_experiments_are_compared_on_the_same_problems(copy):
    copy.run("dvc", "exp", "run", "--temp", "-n", "short", "-S", "evaluate.max_tokens=12", "evaluate@epoch1-test",
             "baseline@test")  # fmt: skip
    told = copy.run("python", "-m", "tools.compare", "--a", "HEAD", "--b", "short")
    pattern = r"^epoch1-test +first attempt +([\d.]+)% +([\d.]+)% +(\S+).* (\d+) +(\d+) +24 *$"
    row = re.search(pattern, told, re.MULTILINE)
    assert row, told
    before, after, difference, won, lost = map(float, row.groups())
    assert difference == pytest.approx(after - before, abs=0.11) == pytest.approx(100 * (won - lost) / 24, abs=0.11)
    flips = told.partition("epoch1-test: what flipped")[2]
    counts = re.findall(r"^\w+ +(\d+) +(\d+) +world-", flips.partition("what flipped")[0], re.MULTILINE)
    assert [sum(map(int, column)) for column in zip(*counts, strict=True)] == [won, lost] and lost > 0


def test_nothing_to_compare_with(copy):
    assert "'nobody' is no commit, branch, tag or experiment" in copy.run(
        "python", "-m", "tools.compare", "--a", "nobody", fails=True
    )


# --- side by side, and elsewhere


@pytest.fixture(scope="module")
def parts(copy, tmp_path_factory):
    """A finished project that wants five parts answered by one strategy."""
    made = copy.copied(tmp_path_factory.mktemp("parts") / "project")
    made.edit({"infer_parts": [1, 2, 3, 4, 5], "strategies": ["cot"]})
    made.commit()
    return made


def test_parts_run_on_the_gpus_that_are_named(parts, tmp_path):
    own = parts.copied(tmp_path / "side")
    output = own.run("python", "-m", "tools.parallel", "infer", "--gpus", "0,1")
    assert output.rstrip().endswith("infer: 4 stages ran, the others were up to date")
    ran = dict(re.findall(r"^\[(infer@cot-\d) on (\d)\] Running stage", output, re.MULTILINE))
    assert {*ran} == {f"infer@cot-{n}" for n in (2, 3, 4, 5)} and {*ran.values()} == {"0", "1"}
    assert not {name for name in own.changed() if name.startswith("infer")}
    assert "infer: 0 stages ran" in own.run("python", "-m", "tools.parallel", "infer", "--gpus", "0")


def test_a_part_that_fails_is_named(parts, tmp_path):
    own = parts.copied(tmp_path / "failing")
    (own.folder / "prompts/world/cot.yaml").write_text("strategy: cot\nexamples: []\n")
    output = own.run("python", "-m", "tools.parallel", "infer", "--gpus", "0,1", fails=True)
    assert "Error: 5 of 5 failed: infer@cot-1, infer@cot-2" in output and "prompts/world/cot.yaml" in output


@pytest.mark.parametrize(("group", "gpus", "message"), [("nobody", "0", "no stages of the name nobody"),
                                                        ("infer", ",", "names no GPU")])  # fmt: skip
def test_side_by_side_of_what(parts, group, gpus, message):
    assert message in parts.run("python", "-m", "tools.parallel", group, "--gpus", gpus, fails=True)


def test_clones_divide_the_work_over_a_shared_remote(parts, tmp_path):
    """One machine answers parts 1 and 2, another 3 to 5, a third takes both and does the rest."""
    remote = tmp_path / "remote"
    first, second, third = (parts.cloned(tmp_path / name) for name in ("first", "second", "third"))
    for clone in (first, second, third):
        clone.run("dvc", "remote", "add", "-d", "shared", str(remote))
    assert first.ran("repro", "infer@cot-1", "infer@cot-2") == {"problems", "infer@cot-1", "infer@cot-2"}
    assert second.ran("repro", *(f"infer@cot-{n}" for n in (3, 4, 5))) == {"problems"} | {
        f"infer@cot-{n}" for n in (3, 4, 5)
    }
    for clone in (first, second):
        clone.run("dvc", "push", "--run-cache")
    assert third.ran("repro", "--pull", "train@epoch1") == {"preprocess@epoch1", "train@epoch1"}
    for clone, numbers in ((first, (1, 2)), (second, (3, 4, 5))):
        for n in numbers:
            path = f"data/attempts/base/cot-{n}.parquet"
            assert (third.folder / path).read_bytes() == (clone.folder / path).read_bytes()


# --- interrupts


@pytest.fixture
def long(copy, tmp_path):
    """A project whose next stage samples for a while, and what `make` needs to find installed."""
    made = copy.copied(tmp_path / "long")
    made.edit({"infer": {"k": 60}})
    shutil.rmtree(made.folder / ".scratch")
    (made.folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (made.folder / ".venv" / part.name).symlink_to(part)
    state = "cat pyproject.toml requirements/constraints.txt | cksum | cut -d' ' -f1"
    made.run("sh", "-c", f"touch .venv/installed-$({state})")
    return made


def living(folder: Path) -> list[psutil.Process]:
    """Processes that work in the project."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def named(folder: Path, *words: str) -> psutil.Process:
    return next(one for one in living(folder) if all(word in " ".join(one.cmdline()) for word in words))


def reused(started) -> int:
    """Reads the output up to where the stage tells how many completions its journal had."""
    said = []
    while not said or not (found := re.search(r"base, cot: reused (\d+)", said[-1])):
        said.append(started.stdout.readline())
        assert said[-1], "".join(said)  # it ended
    return int(found[1])


@pytest.mark.parametrize(
    ("whom", "sent"),
    [
        ("the terminal", signal.SIGINT),
        ("make", signal.SIGTERM),
        ("dvc", signal.SIGTERM),
        ("dvc", signal.SIGKILL),
        ("the stage", signal.SIGTERM),
    ],
)
def test_an_interrupt_leaves_no_process_and_a_state_to_go_on_from(long, whom, sent):
    started = long.start("make", "infer")
    assert reused(started) == 0
    with contextlib.closing(sqlite3.connect(long.folder / ".scratch/journal/infer-cot-1.sqlite")) as journal:
        while not journal.execute("SELECT count(*) FROM completions").fetchone()[0]:
            assert started.poll() is None
            time.sleep(0.1)
    if whom == "the terminal":
        os.killpg(started.pid, sent)
    else:
        words = {"make": ["make", "infer"], "dvc": ["dvc", "repro"], "the stage": ["stages.infer", "--strategy cot"]}
        os.kill(named(long.folder, *words[whom]).pid, sent)
    output, _ = started.communicate(timeout=60)
    assert started.returncode != 0
    deadline = time.monotonic() + 20
    while left := living(long.folder):
        assert time.monotonic() < deadline, [one.cmdline() for one in left]
        time.sleep(0.2)
    assert "Traceback" not in output

    again = long.start("dvc", "repro", "infer@cot-1")
    try:
        assert reused(again) > 0
    finally:
        os.killpg(again.pid, signal.SIGKILL)
        again.communicate()
