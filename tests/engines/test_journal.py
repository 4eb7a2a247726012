"""The journal: what was paid for is kept, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import io
import os
import random
import resource
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.engines import journal
from whetstone.engines.base import Completion, Request, Sampling
from whetstone.engines.journal import Journal, clear, key_of, run, size
from whetstone.engines.progress import Progress
from whetstone.engines.scripted import ScriptedEngine
from whetstone.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("killed_run.py")


class Counting(ScriptedEngine):
    def __init__(self, **settings):
        super().__init__(lambda prompt: [f"{prompt} one", f"{prompt} two"], **settings)
        self.asked: list[str] = []

    def generate(self, requests):
        self.asked += [request.prompt for request in requests]
        yield from reversed(list(super().generate(requests)))  # out of order, as engines do


def requests(*prompts: str, seed: int = 0, **sampling) -> list[Request]:
    return [Request(prompt, Sampling(**{"max_tokens": 9} | sampling), seed) for prompt in prompts]


def quiet() -> Progress:
    return Progress(stream=io.StringIO())


def through(engine, asked, path, progress=None):
    return list(run(engine, asked, path, progress=progress or quiet()))


def test_a_rerun_asks_only_for_what_is_missing_and_says_so(tmp_path):
    store, engine, said = tmp_path / "a" / "j.sqlite", Counting(), io.StringIO()
    first = through(engine, requests("a", "b", "c", n=2), store)
    second = through(engine, requests("b", "d", "a", n=2), store, Progress("infer", said))
    assert engine.asked == ["a", "b", "c", "d"]
    assert second[0] == first[1] and second[2] == first[0]
    assert second[1] == dict(Counting().generate(requests("d", n=2)))[0]
    assert said.getvalue().splitlines()[0] == "infer: reused 4, sampling 2"


def test_equal_requests_are_sampled_once(tmp_path):
    engine = Counting()
    results = through(engine, requests("a", "b", "a", "a"), tmp_path / "j")
    assert engine.asked == ["a", "b"] and results[0] == results[2] == results[3] != results[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "b"},
        {"seed": 1},
        {"max_tokens": 8},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"n": 2},
        {"stop": ("x",)},
        {"stop": ("x", "y")},
        {"fingerprint": "other weights"},
    ],
    ids=str,
)
def test_whatever_decides_a_completion_is_in_its_key(changed):
    def key(prompt="a", seed=0, fingerprint="weights", **sampling):
        return key_of(fingerprint, requests(prompt, seed=seed, **sampling)[0])

    assert key() == key(temperature=0) == key(stop=())
    assert key(**changed) != key()
    assert key(stop=("x", "y")) != key(stop=("x, y",)) and key(prompt="a\0b") != key(prompt="a")


def test_another_model_shares_the_file_and_nothing_else(tmp_path):
    one, two = Counting(fingerprint="one"), Counting(fingerprint="two")
    through(one, requests("a"), tmp_path / "j")
    through(two, requests("a"), tmp_path / "j")
    assert one.asked == two.asked == ["a"]


completions = st.builds(
    Completion,
    text=st.text(),
    token_ids=st.lists(st.integers(0, 2**31 - 1)).map(tuple),
    finish_reason=st.sampled_from(["stop", "length"]),
    logprobs=st.lists(st.floats(allow_nan=False)).map(tuple),
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.lists(completions, min_size=1)))
def test_what_is_read_is_what_was_written(tmp_path_factory, records):
    records = list(records.items())
    with Journal(tmp_path_factory.mktemp("j") / "j") as store:
        store.add(records)
        keys = [key for key, _ in records]
        assert store.known(keys + [b"absent"]) == set(keys)
        assert list(store.read(keys[::-1])) == [tuple(completions) for _, completions in records[::-1]]


def test_an_engine_that_fails_loses_nothing_that_it_finished(tmp_path):
    class Failing(Counting):
        def generate(self, requests):
            for number, pair in enumerate(super().generate(requests)):
                if number == 3:
                    raise KeyboardInterrupt
                yield pair

    with pytest.raises(KeyboardInterrupt):
        through(Failing(), requests(*"abcdef"), tmp_path / "j")
    engine = Counting()
    results = through(engine, requests(*"abcdef"), tmp_path / "j")
    assert engine.asked == ["a", "b", "c"]
    assert [c.text for (c,) in results] == [f"{letter} one" for letter in "abcdef"]


def test_an_engine_that_answers_too_little_is_found_out(tmp_path):
    class Lazy(Counting):
        def generate(self, requests):
            yield from list(super().generate(requests))[1:]

    class Stingy(Counting):
        def generate(self, requests):
            for index, completions in super().generate(requests):
                yield index, completions[:1]

    with pytest.raises(UserError, match="2 of 3 requests were answered"):
        through(Lazy(), requests(*"abc"), tmp_path / "lazy")
    with pytest.raises(UserError, match="1 completions of a prompt, 2 asked for"):
        through(Stingy(), requests("a", n=2), tmp_path / "stingy")


def start(store: Path, out: Path, slowness: float = 0.02, **settings) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(store), str(out), str(slowness)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, **settings)


def test_killed_at_any_moment_it_goes_on_where_it_was(tmp_path):
    """SIGKILL at random moments: the file at the end is that of an uninterrupted run, at little extra cost."""
    assert start(tmp_path / "whole", tmp_path / "whole.json", 0).wait() == 0
    made, rng, kills = tmp_path / "out.json.made", random.Random(1), 0
    while kills < 5:
        process = start(tmp_path / "killed", tmp_path / "out.json")
        before = made.stat().st_size if made.exists() else 0
        while process.poll() is None and (made.stat().st_size if made.exists() else 0) == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    assert kills >= 3
    assert start(tmp_path / "killed", tmp_path / "out.json").wait() == 0
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    needed = (tmp_path / "whole.json.made").stat().st_size
    assert needed <= made.stat().st_size <= needed + kills * journal.COMMIT_RECORDS


def test_a_second_process_is_told_who_holds_the_journal(tmp_path):
    holder = start(tmp_path / "j", tmp_path / "out.json", 0.5)
    try:
        while not (tmp_path / "out.json.made").exists():
            time.sleep(0.01)
        with pytest.raises(UserError, match=rf"journal .*j is in use by process {holder.pid} on .+killed_run\.py"):
            through(Counting(), requests("a"), tmp_path / "j")
        with pytest.raises(UserError, match="in use"):
            clear(tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert len(through(Counting(), requests("a"), tmp_path / "j")) == 1


def test_a_full_disk_keeps_what_was_committed(tmp_path):
    """The limit on a file's size stands for the disk's."""

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    process = start(tmp_path / "j", tmp_path / "out.json", 0, preexec_fn=small)
    error = process.communicate()[1].decode()
    assert process.returncode != 0 and "make room" in error and "UserError" in error
    with Journal(tmp_path / "j") as store:
        kept = store.store.execute("SELECT count(*) FROM completions").fetchone()[0]
    assert kept > 0
    assert start(tmp_path / "j", tmp_path / "out.json", 0).wait() == 0
    assert start(tmp_path / "whole", tmp_path / "whole.json", 0).wait() == 0
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "no database", "empty"])
def test_from_a_damaged_store_what_can_be_read_is_kept(damage, tmp_path, caplog):
    store, asked = tmp_path / "j", requests(*(f"prompt number {i}" for i in range(2000)), n=2, temperature=1.0)
    whole = through(Counting(), asked, store)
    content = bytearray(store.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "overwritten":
        content[len(content) // 3 : len(content) // 2] = os.urandom(len(content) // 2 - len(content) // 3)
    else:
        content = bytearray(b"not a database " * 5000) if damage == "no database" else bytearray()
    store.write_bytes(content)
    engine = Counting()
    for _ in range(3):  # damage may show only when it is read; then the next run repairs
        try:
            results = through(engine, asked, store)
            break
        except UserError as error:
            assert "is damaged" in str(error)
    assert results == whole
    assert not list(tmp_path.glob("*.damaged*"))
    if damage == "overwritten":
        assert len(engine.asked) < 1500
    with sqlite3.connect(store) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_size_and_clear(tmp_path):
    through(Counting(), requests("a"), tmp_path / "scratch" / "infer" / "j")
    files, total = size(tmp_path / "scratch")
    assert files >= 1 and total >= (tmp_path / "scratch" / "infer" / "j").stat().st_size
    assert clear(tmp_path / "scratch") == total
    assert not (tmp_path / "scratch").exists() and size(tmp_path / "scratch") == (0, 0)


def test_progress_counts_and_says_when_it_will_be_done():
    now, said = [0.0], io.StringIO()
    progress = Progress("infer", said, clock=lambda: now[0])
    progress.start(total=1000, reused=200)
    for _ in range(40):
        now[0] += 1
        progress.advance(completions=10, tokens=750)
    progress.finish()
    lines = said.getvalue().splitlines()
    assert lines[0] == "infer: reused 200, sampling 800"
    assert len(lines) == 1 + 4 + 1
    assert lines[1] == "infer: 300/1,000 completions, 200 reused, 750 tokens/s, 0:10 elapsed, 1:10 left"
    assert progress.tokens == 30_000
