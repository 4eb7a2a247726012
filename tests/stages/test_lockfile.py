"""A DVC that is killed while it writes dvc.lock leaves a part of it: our commands put the good copy back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from stages.run import lockfile
from tools import space

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "dvc.lock", ROOT / "recipes/star/dvc.lock"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a pipeline and a recipe, each with its dvc.lock."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    for folder, lock in ((tmp_path, LOCKS[0]), (tmp_path / "recipes/star", LOCKS[1])):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dvc.yaml").write_text("stages: {}\n")
        (folder / "dvc.lock").write_bytes(lock.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("lock", LOCKS, ids=["root", "recipe"])
def test_a_lock_that_is_cut_isnt_whole(lock):
    """At every place of the last out, and here and there before; but between two outs or stages
    nothing is half told, and DVC does again what isn't there."""
    text = lock.read_text()
    assert lockfile.whole(text) and not lockfile.whole("")
    between = re.compile(r"\n    outs:\n(?:    - path: .*\n(?:      .*\n)*      size: .*\n(?:      nfiles: .*\n)?)+\Z")
    places = [*range(0, len(text), 999), *range(text.rindex("    - path:") - 9, len(text))]
    for place in places:
        assert not lockfile.whole(text[:place]) or between.search(text[:place]), text[place - 60 : place]


def test_a_lock_that_is_written_otherwise_is_whole():
    outs = "    - {path: b, hash: md5, md5: ab, size: 3, isexec: true}\n"
    text = f"schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n{outs}"
    assert lockfile.whole(text) and not lockfile.whole(text[:-1])


@pytest.mark.parametrize("where", ["dvc.lock", "recipes/star/dvc.lock"])
@pytest.mark.parametrize("left", [0, 8192])
@pytest.mark.parametrize("cwd", [".", "recipes/star"])
def test_the_copy_is_put_back_and_said(root, monkeypatch, capsys, where, left, cwd):
    monkeypatch.chdir(root / cwd)
    lockfile.mend()
    good = (root / where).read_bytes()
    (root / where).write_bytes(good[:left])
    lockfile.mend()
    assert (root / where).read_bytes() == good
    assert f"{where} was cut short" in capsys.readouterr().err
    assert (root / f".dvc/tmp/copies/{where}.torn").read_bytes() == good[:left]
    lockfile.mend()
    assert not capsys.readouterr().err


def test_the_copy_is_that_of_the_last_whole_lock(root):
    lockfile.mend()
    newer = (root / "dvc.lock").read_text().replace("models/base", "models/other")
    (root / "dvc.lock").write_text(newer)
    lockfile.mend()
    (root / "dvc.lock").write_text("")
    lockfile.mend()
    assert (root / "dvc.lock").read_text() == newer


def test_a_conflict_is_its_users_to_mend(root, capsys):
    lockfile.mend()
    good, conflict = (root / "dvc.lock").read_bytes(), "schema: '2.0'\n<<<<<<< HEAD\nstages:\n"
    (root / "dvc.lock").write_text(conflict)
    lockfile.mend()
    assert (root / "dvc.lock").read_text() == conflict and not capsys.readouterr().err
    assert (root / ".dvc/tmp/copies/dvc.lock").read_bytes() == good


def test_a_first_lock_that_was_torn_goes_away(root):
    (root / "dvc.lock").unlink()
    lockfile.mend()
    (root / "dvc.lock").write_text("schema: '2.0'\nstages:\n  infer:\n    cmd: pyth")
    lockfile.mend()
    assert not (root / "dvc.lock").exists()


def test_without_a_copy_the_message_tells_what_to_do(root):
    (root / "dvc.lock").write_text("")
    told = CliRunner().invoke(space.main)
    assert told.exit_code == 1
    assert "Error: dvc.lock was cut short" in told.output and "`git checkout dvc.lock`" in told.output


def test_a_lock_that_another_dvc_is_writing_is_left_to_it(root, capsys):
    """It is short only for a moment: what looks after it waits for DVC's own lock, and then finds it whole."""
    lockfile.mend()
    good = (root / "dvc.lock").read_bytes()
    writes = f"""if True:
        import time
        from pathlib import Path
        from dvc.lock import make_lock
        with make_lock({str(root / ".dvc/tmp/lock")!r}):
            Path("dvc.lock").write_text("")
            print(1, flush=True)
            time.sleep(1)
            Path("dvc.lock").write_bytes({good!r} + b"\\n")"""
    writer = subprocess.Popen([sys.executable, "-c", writes], stdout=subprocess.PIPE)
    writer.stdout.readline()
    lockfile.mend()
    assert (root / "dvc.lock").read_bytes() == good + b"\n" and not capsys.readouterr().err
    assert writer.wait() == 0


@pytest.mark.parametrize("content", ["", '{"write": {"a": {"pid"', '{"write": {"a": {"pid": 1, "cmd": "dvc repro"}}}'])
def test_a_note_of_a_dvc_that_is_gone_goes_away(root, content):
    """Torn, or naming a process that began long after it was written: another one, with the same number."""
    note = root / ".dvc/tmp/rwlock"
    note.write_text(content.replace("1,", f"{os.getpid()},"))
    os.utime(note, (10**9, 10**9))
    lockfile.mend()
    assert not note.exists()


def test_the_note_of_a_dvc_at_work_stays(root):
    note = root / ".dvc/tmp/rwlock"
    for read in ({}, {"b": [{"pid": os.getpid(), "cmd": "dvc repro"}]}):
        note.write_text(json.dumps({"write": {}, "read": read}))
        lockfile.mend()
        assert note.exists()


def test_a_note_on_a_run_that_was_being_written_goes_away(root):
    """DVC takes the newest file of the folder for the run's."""
    folder = root / ".dvc/cache/runs/ab/abcd"
    folder.mkdir(parents=True)
    (folder / "ef01").write_text("cmd: x\n")
    (folder / ".VBpMTG7.tmp").write_text("cmd: ")
    lockfile.mend()
    assert [file.name for file in folder.iterdir()] == ["ef01"]


def test_every_target_looks_at_the_lock_before_dvc_does():
    """`params`, and whatever of ours comes first in its recipe."""
    targets = re.split(r"\n(?=\S+:)", (ROOT / "Makefile").read_text())
    calling = [target for target in targets if re.search(r"[^.]\bdvc (repro|status)", target)]
    assert len(calling) == 9
    for target in calling:
        head, recipe = target.partition("\n")[::2]
        first = re.search(r"python -m tools|dvc (?:repro|status)", recipe)
        assert re.search(r":.*\bparams\b", head) or first[0] == "python -m tools", head


@pytest.mark.slow
@pytest.mark.parametrize("struck", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("at", [0, 9000], ids=["empty", "in the middle"])
def test_dvc_is_killed_while_it_writes_its_lock(tmp_path, struck, at):
    """For real, with a stage of ours: afterwards DVC fails, or has lost what it knew, until one of our commands has
    been run."""
    values = {f"value{n}": n for n in range(4000)}  # take a while to write
    outs, command = [{"path": "o", "hash": "md5", "md5": "0" * 32, "size": 1}], f"{sys.executable} -m stages.problems"
    filler = {"cmd": "true", "params": {"params.yaml": values}, "outs": outs}
    stage = {"cmd": command, "params": ["problems", "datasets"], "outs": ["data/problems"]}
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["problems"]["world"] = {"train": 10, "dev": 2, "test": 4, "test_hard": 2, "seed": 0}
    for name, content in {"dvc.yaml": {"stages": {"problems": stage}}, "params.yaml": params,
                          "dvc.lock": {"schema": "2.0", "stages": {"filler": filler}}}.items():  # fmt: skip
        with (tmp_path / name).open("w") as file:
            YAML().dump(content, file)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*command, fails=False):
        own = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, "-m", *command], check=False, **own)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("dvc", "init", "-q", "--no-scm")
    lock = tmp_path / "dvc.lock"
    before = lock.read_bytes()
    repro = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=tmp_path, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not at <= lock.stat().st_size < len(before):
        assert repro.poll() is None, "it wrote its lock between two looks"
        time.sleep(0.001)
    os.killpg(repro.pid, struck)
    repro.wait()
    assert len(lock.read_bytes()) < len(before)
    if not at:
        assert "validation failed" in run("dvc", "status", fails=True)
    assert "dvc.lock was cut short" in run("tools.space")
    assert lock.read_bytes() == before
    assert "is cached - skipping run" in run("dvc", "repro")
    assert "up to date" in run("dvc", "status") and "cut short" not in run("tools.space")
