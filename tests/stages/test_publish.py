"""What publishing would upload, its cards, and the upload itself against a stand-in of the Hub's API."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
RECORD = {
    "started": "2026-01-02T03:04:05+00:00", "seconds": 75.5, "git": {"revision": "0123456789abcdef", "dirty": False},
    "device": "1 x Some GPU", "packages": {"torch": "2.13.0"}, "rows": {"in": 1, "out": 1, "dropped": {}},
    "tokens": {},
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """Takes what a client of the Hub sends, and keeps it; `refuses` answers 403."""

    def answer(self):
        server, body = self.server, self.rfile.read(int(self.headers.get("content-length") or 0))
        server.asked.append((self.command, self.path, body))
        content, status = {}, 200
        if server.refuses:
            content, status = {"error": "You don't have the rights"}, 403
        elif self.path == "/api/repos/create":
            content = {"url": f"{server.address}/{'datasets/' if b'dataset' in body else ''}me/it"}
        elif self.path.endswith("/preupload/main"):
            files = [one["path"] for one in json.loads(body)["files"]]
            content = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]}
        elif self.path.endswith("/commit/main"):
            content = {"commitUrl": f"{server.address}/me/it/commit/abc", "commitOid": "abc"}
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.refuses, server.address = [], False, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return tmp_path_factory.mktemp("made") / "project"


@pytest.fixture
def made(tuned, first):
    """A project with everything that publishing reads, known to DVC; made once, then copied."""
    if first.exists():
        shutil.copytree(first, tuned.folder, dirs_exist_ok=True)
        return tuned
    for strategy in ("cot", "l2m", "pot"):
        for part in ("1", "2"):
            tuned.run("infer", "--strategy", strategy, "--part", part)
    for part in ("3", "4", "5"):
        tuned.run("sample", "--model", "epoch1", "--part", part)
    for epoch in ("epoch1", "epoch2"):
        tuned.run("preprocess", "--epoch", epoch)
        adapter = tuned.folder / "models" / epoch / "adapter"
        adapter.mkdir()
        (adapter / "adapter_model.safetensors").write_bytes(b"weights of " + epoch.encode())
    for dataset in ("test", "test_hard"):
        tuned.run("baseline", "--dataset", dataset)
        for epoch in ("epoch1", "epoch2"):
            tuned.run("evaluate", "--checkpoint", epoch, "--dataset", dataset)
    tuned.run("report")
    shutil.copy(ROOT / "dvc.yaml", tuned.folder)
    Repo.init(str(tuned.folder), no_scm=True).close()
    shutil.copytree(tuned.folder, first)
    return tuned


def publish(project, *arguments: str, fails: bool = False) -> str:
    return project.run("publish", "--repository", "me/it", *arguments, fails=fails)


def staged(project, name: str = "README.md") -> str:
    return (project.folder / ".scratch/publish/me--it" / name).read_text()


def front(card: str) -> dict:
    return YAML(typ="safe").load(card.split("---\n")[1])


def test_a_model_is_shown_with_its_card_and_nothing_leaves(made, monkeypatch):
    monkeypatch.setattr("tools.publish.upload", lambda *_: pytest.fail("uploaded"))
    output = publish(made, "--checkpoint", "epoch2", "--licence", "apache-2.0")
    assert (
        "Nothing was uploaded" in output and "adapter_model.safetensors" in output and "private model me/it" in output
    )
    card, summary = staged(made), json.loads((made.folder / "metrics/summary.json").read_text())
    assert front(card) == {
        "license": "apache-2.0", "library_name": "peft", "pipeline_tag": "text-generation",
        "tags": ["reasoning", "self-improvement", "whetstone"],
    }  # fmt: skip
    assert f"{100 * summary['epoch2']['first_attempt']['accuracy']:.1f} (" in card
    assert "| epoch1 | sft | base |" in card and "| epoch2 | dpo | epoch1 |" in card
    assert "epoch2 vs epoch1" in card and "epoch1 vs base" not in card
    assert card.count("no manifest: restored from a cache") == 4
    assert "`steps` (chain of thought)" in card and "Answer by" in card


def test_manifests_tell_where_and_with_what(made, monkeypatch):
    monkeypatch.setattr("tools.lineage.record", lambda stage: RECORD)
    publish(made, "--checkpoint", "epoch1")
    assert "| train@epoch1 | 0123456789ab | 1 x Some GPU | 76 s | torch 2.13.0 |" in staged(made)
    assert "data/training/epoch1/sft.parquet" in staged(made)


def test_a_hub_model_is_named_as_base(made):
    made.params["model"] |= {"name": "owner/model", "revision": "0" * 40}
    made.save()
    publish(made, "--checkpoint", "epoch1")
    assert front(staged(made))["base_model"] == "owner/model" and "`" + "0" * 40 + "`" in staged(made)


def test_data_are_shown_with_rows_columns_and_configurations(made):
    output = publish(made, "--data")
    assert "private dataset me/it" in output
    card = staged(made)
    assert [one["config_name"] for one in front(card)["configs"]] == ["problems", "attempts", "training", "evaluation"]
    assert "| `problems/test.parquet` | 18 |" in card and "| `verdict` | string |" in card
    assert "scripted:base" in card and "scripted:epoch1" in card and "from world," in card
    assert (made.folder / ".scratch/publish/me--it/evaluation/epoch2-test.parquet").read_bytes() == (
        made.folder / "data/evaluation/epoch2-test.parquet"
    ).read_bytes()


def run_publish(made, hub, *arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: the Hub's client reads its address once."""
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_nothing", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tools.publish", "--repository", "me/it", *arguments]
    return subprocess.run(
        command, cwd=made.folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(("what", "path"), [(["--checkpoint", "epoch2"], "models"), (["--data"], "datasets")])
def test_what_was_shown_is_what_is_uploaded_when_told(made, hub, what, path):
    done = run_publish(made, hub, *what, "--upload")
    assert done.returncode == 0 and f"Uploaded: {hub.address}/me/it/commit/abc" in done.stdout, done.stderr
    created = next(body for _, asked, body in hub.asked if asked == "/api/repos/create")
    assert json.loads(created)["visibility"] == "private"
    (commit,) = [body for _, asked, body in hub.asked if asked == f"/api/{path}/me/it/commit/main"]
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"}
    folder = made.folder / ".scratch/publish/me--it"
    files = [file for file in folder.rglob("*") if file.is_file()]
    # The client itself leaves out a bookkeeping folder of its own, .cache
    expected = {str(file.relative_to(folder)): file.read_bytes() for file in files if ".cache" not in file.parts}
    assert sent == expected and "README.md" in sent


@pytest.mark.slow
def test_nothing_is_asked_of_the_hub_unless_told(made, hub):
    assert run_publish(made, hub, "--checkpoint", "epoch2").returncode == 0
    assert hub.asked == []


@pytest.mark.slow
def test_a_refusal_is_told(made, hub):
    hub.refuses = True
    done = run_publish(made, hub, "--checkpoint", "epoch2", "--upload")
    assert done.returncode == 1 and "me/it: the Hub refuses" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --checkpoint (a model) or --data"),
        (["--data", "--checkpoint", "epoch1"], "give either --checkpoint (a model) or --data"),
        (["--checkpoint", "epoch9"], "`epochs.train` has no 'epoch9'"),
        (["--checkpoint", "epoch1"], "models/epoch1/adapter: no model there"),
        (["--data"], "data: no table there"),
    ],
)
def test_mistakes(project, arguments, message):
    assert message in publish(project, *arguments, fails=True)


def test_a_name_without_an_owner(project):
    output = project.run("publish", "--repository", "it", "--data", fails=True)
    assert "'it' is no repository; write owner/name" in output
