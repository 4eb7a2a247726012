"""The openai engine against a server that does everything wrong that servers do, in this process."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from whetstone import records
from whetstone.engines import journal, open_engine, served
from whetstone.engines.base import Request, Sampling
from whetstone.errors import UserError

ASK = Sampling(8, temperature=0.5)


class Server(ThreadingHTTPServer):
    """`faults[prompt]` lists what goes wrong with the first requests for a prompt; then it is answered by its echo."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: dict[str, list] = {}
        self.seen: list[dict] = []
        self.times: dict[str, list[float]] = {}
        self.keys: list[str] = []
        self.owner, self.in_flight, self.most = "someone", 0, 0
        self.card: dict = {}  # what /models says of the model besides
        self.mark, self.shift, self.tells = "", 0.0, True  # of its weights, in texts and log-probabilities
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def text_of(body: dict) -> str:
    prompt = body.get("prompt") or body["messages"][0]["content"]
    return prompt if isinstance(prompt, str) else "ids " + " ".join(map(str, prompt))


def reply_to(body: dict, server: Server) -> dict:
    choices = []
    for index in range(body.get("n", 1)):
        text = f"{text_of(body)}{server.mark}!{index}"
        tokens, values = [server.mark or "a", "!"], [-0.5 + server.shift, -0.25]
        said = {"text": text, "logprobs": {"tokens": tokens, "token_logprobs": values}}
        if "messages" in body:
            content = [{"token": tokens[0], "logprob": values[0]}]
            said = {"message": {"role": "assistant", "content": text}, "logprobs": {"content": content}}
        said |= {} if server.tells else {"logprobs": None}
        choices.append({"index": index, "finish_reason": "stop"} | said)
    return {"choices": choices[::-1], "usage": {"total_tokens": 10}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status: int, content: bytes, headers: dict | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        self.server.keys.append(self.headers["Authorization"])
        if self.server.owner is None:
            return self.send(404, b'{"error": {"message": "no such page"}}')
        card = {"id": "teacher", "owned_by": self.server.owner, "created": time.time_ns()}
        self.send(200, json.dumps({"data": [self.server.card | card]}).encode())

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = text_of(body)
        with server.lock:
            server.seen.append(body)
            server.keys.append(self.headers["Authorization"])
            server.times.setdefault(prompt, []).append(time.monotonic())
            server.in_flight += 1
            server.most = max(server.most, server.in_flight)
            fault = server.faults[prompt].pop(0) if server.faults.get(prompt) else None
        try:
            self.answer(body, fault)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.lock:
                server.in_flight -= 1

    def answer(self, body: dict, fault: object) -> None:
        reply = reply_to(body, self.server)
        if fault is None:
            self.send(200, json.dumps(reply).encode())
        elif isinstance(fault, float):
            time.sleep(fault)
            self.send(200, json.dumps(reply).encode())
        elif isinstance(fault, tuple):
            status, headers = fault
            error = {"error": {"message": f"because {self.headers['Authorization']}"}}
            self.send(status, json.dumps(error).encode(), headers)
        elif isinstance(fault, dict):
            self.send(200, json.dumps(fault).encode())
        elif isinstance(fault, bytes):
            self.send(200, fault)
        elif fault == "truncated":
            content = json.dumps(reply).encode()
            self.send(200, content[: len(content) // 2], length=len(content))
            self.close_connection = True
        elif fault == "hang":
            self.server.released.wait(20)
            self.close_connection = True
        elif fault == "drip":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not self.server.released.wait(0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        else:
            raise AssertionError(fault)


@pytest.fixture
def server():
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield one
    one.released.set()
    one.shutdown()
    thread.join()
    one.server_close()


@pytest.fixture
def connect(server):
    opened = []

    def one(**settings):
        opened.append(open_engine("openai", "teacher", base_url=server.url, **({"backoff": 0.01} | settings)))
        return opened[-1]

    yield one
    for engine in opened:
        engine.close()


def texts(engine, requests):
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [[completion.text for completion in found[index]] for index in range(len(requests))]


def choice(**changes):
    return {"choices": [{"index": 0, "text": "half", "finish_reason": "stop"} | changes]}


FAULTS = {
    "server errors": [(500, {}), (502, {}), (503, {}), (529, {})],
    "too many requests": [(429, {"Retry-After": "0.05"}), (429, {})],
    "request timeout and conflict": [(408, {}), (409, {})],
    "not JSON": [b"<html>gateway</html>", b"", b'{"choices": [{"ind'],
    "JSON of another kind": [b"[]", b"7", b"null", b'"text"', {"choices": []}, {"choices": None}, {"error": "busy"}],
    "choices that aren't whole": [
        choice(finish_reason=None),
        choice(text=None),
        choice(text=7),
        choice(index=1),
        choice(logprobs=[]) | {"choices": "none"},
        choice(logprobs={"token_logprobs": ["low"]}),
        choice(token_ids=["a"]),
    ],
    "a truncated stream": ["truncated", "truncated"],
    "a dropped connection": ["drop", "drop"],
    "a hanging server": ["hang", "drip"],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_request_is_asked_again_until_the_answer_is_whole(faults, server, connect):
    server.faults = {"bad": list(faults)}
    engine = connect(retries=len(faults), timeout=0.4)
    assert texts(engine, [Request("good", ASK), Request("bad", ASK), Request("fine", ASK)]) == [
        ["good!0"],
        ["bad!0"],
        ["fine!0"],
    ]
    assert Counter(map(text_of, server.seen)) == {"good": 1, "bad": len(faults) + 1, "fine": 1}


def test_answers_find_their_requests_in_any_order(server, connect):
    server.faults = {f"q{i}": [0.3 - 0.03 * i] for i in range(10)}
    requests = [Request(f"q{i}", Sampling(8, n=1 + i % 3)) for i in range(10)]
    engine = connect()
    order = [index for index, _ in engine.generate(requests)]
    assert sorted(order) == list(range(10)) and order != sorted(order)
    assert texts(engine, requests) == [[f"q{i}!{k}" for k in range(1 + i % 3)] for i in range(10)]


def test_no_more_requests_are_in_flight_than_allowed(server, connect):
    server.faults = {f"q{i}": [0.05] for i in range(24)}
    texts(connect(slots=6), [Request(f"q{i}", ASK) for i in range(24)])
    assert 1 < server.most <= 6


def test_it_waits_as_long_as_the_server_asks(server, connect):
    server.faults = {"q": [(429, {"Retry-After": "0.6"})]}
    texts(connect(), [Request("q", ASK)])
    first, second = server.times["q"]
    assert second - first >= 0.55


def test_it_waits_until_the_moment_that_the_server_names(server, connect):
    moment = math.ceil(time.time()) + 1  # a date has whole seconds
    server.faults = {"q": [(429, {"Retry-After": formatdate(moment, usegmt=True)})]}
    texts(connect(), [Request("q", ASK)])
    _, second = server.times["q"]
    assert time.time() - time.monotonic() + second >= moment - 0.05


def test_pauses_grow(server, connect):
    server.faults = {"q": [(503, {})] * 4}
    texts(connect(backoff=0.1), [Request("q", ASK)])
    at = server.times["q"]
    for number, (one, two) in enumerate(zip(at, at[1:], strict=False)):
        assert two - one >= 0.5 * 0.1 * 2**number


def test_a_server_that_asks_to_wait_for_hours_ends_the_run(server, connect):
    server.faults = {"q": [(429, {"Retry-After": "86400"})]}
    with pytest.raises(UserError, match="asks to wait 86,400 s"):
        texts(connect(), [Request("q", ASK)])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_ends_the_run_at_once_and_what_was_on_its_way_is_kept(status, server, connect):
    server.faults = {"bad": [(status, {})] * 9} | {f"q{i}": [0.2] for i in range(3)}
    requests = [Request("q0", ASK), Request("q1", ASK), Request("bad", ASK), Request("q2", ASK)]
    requests += [Request(f"late{i}", ASK) for i in range(20)]
    found = []
    with pytest.raises(UserError, match=f"refuses: status {status}"):
        found.extend(index for index, _ in connect(slots=4).generate(requests))
    assert {0, 1, 3} <= set(found) and Counter(map(text_of, server.seen))["bad"] == 1
    assert len(server.seen) < 12


def test_retries_end(server, connect):
    server.faults = {"bad": [(500, {})] * 9}
    with pytest.raises(UserError, match=r"failed 3 times; the last: status 500"):
        texts(connect(retries=2), [Request("bad", ASK)])
    assert len(server.seen) == 3


def test_a_journal_keeps_what_was_paid_for(server, connect, tmp_path):
    requests = [Request(f"q{i}", ASK) for i in range(12)]
    server.faults = {"q7": [(400, {})]}
    with pytest.raises(UserError, match="refuses"):
        list(journal.run(connect(slots=2), requests, tmp_path / "journal.sqlite"))
    before = len(server.seen)
    rows = list(journal.run(connect(slots=2), requests, tmp_path / "journal.sqlite"))
    assert [row[0].text for row in rows] == [f"q{i}!0" for i in range(12)]
    answered = {text_of(body) for body in server.seen[:before]} - {"q7", *served.PROMPTS}
    assert not answered & {text_of(body) for body in server.seen[before:]} and len(answered) >= 7


class TestTheModelBehindAName:
    """`ask` is a run of its own: it opens the engine, asks the same two questions, and tells how many it asked."""

    @pytest.fixture
    def ask(self, server, connect, tmp_path):
        def run(**settings) -> tuple[list[str], int]:
            before = len(server.seen)
            requests = [Request(f"q{i}", ASK) for i in range(2)]
            engine = connect(seen=tmp_path / "seen", **settings)
            rows = list(journal.run(engine, requests, tmp_path / "journal.sqlite"))
            self.engine = engine
            asked = [text_of(body) for body in server.seen[before:]]
            return [row[0].text for row in rows], sum(one.startswith("q") for one in asked)

        return run

    @pytest.mark.parametrize("api", ["completions", "chat"])
    def test_a_server_that_was_started_again_is_not_paid_twice(self, server, ask, api):
        """It rounds a little otherwise, and tells another time of its start."""
        assert ask(api=api) == (["q0!0", "q1!0"], 2)
        for noise in (0.0, 0.02, -0.03):
            server.shift = noise
            assert ask(api=api) == (["q0!0", "q1!0"], 0)

    @pytest.mark.parametrize("api", ["completions", "chat"])
    @pytest.mark.parametrize("change", [{"mark": "?"}, {"shift": -0.4}, {"tells": False, "mark": "?"}])
    def test_new_weights_under_the_same_name_are_sampled_anew(self, server, ask, api, change):
        server.tells = change.pop("tells", True)
        old = ask(api=api)
        for name, value in change.items():
            setattr(server, name, value)
        assert ask(api=api) == ([f"q{i}{server.mark}!0" for i in range(2)], 2)
        server.mark, server.shift = "", 0.0  # and the old ones are known again
        assert ask(api=api) == (old[0], 0)

    def test_a_tie_that_rounding_decides_otherwise_is_the_same_model(self):
        tie = [[("7", -0.9), ("1", -0.1)], [("a", -0.2)] * 8]
        assert served.same(tie, [[("8", -0.92), ("9", -3.0)], [("a", -0.2)] * 8])
        assert not served.same(tie, [[("8", -0.2), ("9", -0.1)], [("a", -0.2)] * 8])  # surer than a tie allows
        assert not served.same([[("a", -0.2)]], [[("b", -0.21)]])

    def test_what_the_server_says_that_it_loaded_counts(self, server, ask):
        server.card = {"root": "/models/a", "max_model_len": 512}
        assert ask()[1] == 2 and ask()[1] == 0
        server.card = {"root": "/models/b", "max_model_len": 512}
        assert ask()[1] == 2

    def folder(self, monkeypatch, tmp_path, content):
        (tmp_path / "teacher").mkdir(exist_ok=True)
        (tmp_path / "teacher/config.json").write_text("{}")
        (tmp_path / "teacher/model.safetensors").write_text(content)
        monkeypatch.chdir(tmp_path)

    def test_a_folder_of_that_name_counts_by_its_content(self, server, ask, monkeypatch, tmp_path):
        self.folder(monkeypatch, tmp_path, "old")
        assert ask()[1] == 2 and ask()[1] == 0
        assert self.engine.served["weights"] == records.weights_digest("teacher")
        self.folder(monkeypatch, tmp_path, "new")
        server.mark = "?"
        assert ask() == (["q0?!0", "q1?!0"], 2)

    def test_a_server_that_still_serves_replaced_weights_is_refused(self, server, ask, monkeypatch, tmp_path):
        self.folder(monkeypatch, tmp_path, "old")
        ask()
        self.folder(monkeypatch, tmp_path, "new")
        with pytest.raises(UserError, match="teacher has other weights here .* as it did then: start it again"):
            ask()
        server.shift = -0.4
        assert ask()[1] == 2

    def test_how_it_was_known_is_told(self, server, ask):
        ask()
        assert (self.engine.served["probe"], self.engine.served["weights"]) == ("tokens and log-probabilities", None)
        server.tells = False
        ask()
        assert self.engine.served["probe"] == "tokens alone"

    def test_no_probe_is_paid_for_before_a_key_is_needed(self, server, connect):
        texts(connect(), [Request("q", ASK)])
        assert [text_of(body) for body in server.seen] == ["q"]


class TestBudget:
    """A request with the prompt `qN` (2 bytes) and 8 new tokens may cost 10, which is what the server says it did."""

    requests = [Request(f"q{i}", ASK) for i in range(9)]

    def test_tokens(self, server, connect):
        found = []
        with pytest.raises(UserError, match=r"budget: 50 of 55 tokens are spent in 5 requests.*next may need 10"):
            found.extend(connect(budget_tokens=55).generate(self.requests))
        assert len(found) == len(server.seen) == 5
        assert len(dict(connect(budget_tokens=90).generate(self.requests))) == 9

    def test_requests_retries_included(self, server, connect):
        server.faults = {"q1": [(500, {}), (500, {})]}
        found = []
        with pytest.raises(UserError, match=r"budget: all 6 requests are spent \(40 tokens\)"):
            found.extend(connect(budget_requests=6, slots=1).generate(self.requests))
        assert len(found) == 4 and len(server.seen) == 6

    @pytest.mark.parametrize(("fault", "spent"), [((500, {}), 10), ("hang", 20), ("truncated", 20), (b"{", 20)])
    def test_what_the_server_may_have_done_unheard_counts(self, fault, spent, server, connect):
        server.faults = {"q0": [fault]}
        engine = connect(timeout=0.3)
        texts(engine, self.requests[:1])
        assert engine.budget.spent == spent and engine.budget.reserved == engine.budget.flying == 0


def test_what_is_sent_and_what_is_heard(server, connect):
    sampling = Sampling(8, temperature=0.5, top_p=0.9, n=2, stop=("\n\n", "Q:"))
    engine = connect()
    ((_, (one, two)),) = engine.generate([Request("Once", sampling, seed=7)])
    assert (one.text, two.text, one.finish_reason) == ("Once!0", "Once!1", "stop")
    assert (one.logprobs, one.token_ids) == ((-0.5, -0.25), ())
    assert server.seen[-1] == {
        "model": "teacher", "prompt": "Once", "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7,
        "stop": ["\n\n", "Q:"], "logprobs": 1,
    }  # fmt: skip
    ((_, (said,)),) = connect(api="chat", logprobs=False).generate([Request("Once", ASK)])
    assert said.text == "Once!0" and said.logprobs == (-0.5,)
    assert server.seen[-1] == {
        "model": "teacher", "messages": [{"role": "user", "content": "Once"}], "max_completion_tokens": 8,
        "temperature": 0.5, "top_p": 1.0, "n": 1, "seed": 0,
    }  # fmt: skip
    server.faults = {"Once": [choice(finish_reason="content_filter")]}
    ((_, (cut,)),) = engine.generate([Request("Once", ASK)])
    assert (cut.text, cut.finish_reason, cut.logprobs) == ("half", "length", ())
    assert engine.encode("né") == []  # only the server knows


def test_with_a_tokenizer_prompts_travel_as_the_ids_of_training(server, connect, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    engine = connect(tokenizer=str(tmp_path))
    texts(engine, [Request("Hi", ASK)])
    assert server.seen[-1]["prompt"] == engine.encode("Hi") == tokenizer("Hi")["input_ids"]


class TestChoices:
    def engine(self, connect, tokenizer, tmp_path, **settings):
        tokenizer.save_pretrained(tmp_path)
        return connect(tokenizer=str(tmp_path), **settings)

    def test_vllm_is_asked_for_these_tokens(self, server, connect, tokenizer, tmp_path):
        server.owner = "vllm"
        engine = self.engine(connect, tokenizer, tmp_path)
        heads = [tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab"]
        shown = {f"token_id:{heads[1]}": -2.5, f"token_id:{heads[0]}": -0.5, "token_id:9": -0.1}
        prompt = "ids " + " ".join(map(str, engine.encode("Hi")))
        server.faults = {prompt: [(500, {}), choice(logprobs={"top_logprobs": [shown]})]}
        assert engine.choice_logprobs(["Hi"], ["a", "b"]).tolist() == [[-0.5, -2.5]]
        assert server.seen[-1]["logprob_token_ids"] == heads and server.seen[-1]["max_tokens"] == 1

    def test_others_show_the_most_probable_or_score_an_echo(self, server, connect, tokenizer, tmp_path):
        engine = self.engine(connect, tokenizer, tmp_path)
        ids = engine.encode("Hi")
        heads = [tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "ab"]
        spoken = {"ids " + " ".join(map(str, [*ids, head])): head for head in heads}
        shown = [choice(logprobs={"top_logprobs": [{"a": -0.5, other: -1.5}]}) for other in "bc"]
        server.faults = {"ids " + " ".join(map(str, ids)): shown}
        assert engine.choice_logprobs(["Hi"], ["a", "b"]).tolist() == [[-0.5, -1.5]]
        for prompt, head in spoken.items():
            values = [None] + [-9.0] * (len(ids) - 1) + [-float(head), -7.0]
            server.faults[prompt] = [choice(logprobs={"token_logprobs": values})]
        assert engine.choice_logprobs(["Hi"], ["a", "b"]).tolist() == [[-float(head) for head in heads]]
        assert server.seen[-1]["echo"] is True

    def test_what_cannot_be_told_says_so(self, server, connect, tokenizer, tmp_path):
        engine = self.engine(connect, tokenizer, tmp_path, retries=1)
        with pytest.raises(UserError, match="not a completion"):
            engine.choice_logprobs(["Hi"], ["a", "b"])  # no top log-probabilities in the reply
        with pytest.raises(UserError, match="share their first token"):
            engine.choice_logprobs(["Hi"], ["apple", "avocado"])
        for blind in (connect(), self.engine(connect, tokenizer, tmp_path, api="chat")):
            with pytest.raises(UserError, match="needs `api: completions` and the model's tokenizer"):
                blind.choice_logprobs(["Hi"], ["a", "b"])


class TestKey:
    def test_it_comes_from_the_named_variable_and_shows_nowhere(self, server, connect, monkeypatch, caplog):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-asked-for")
        monkeypatch.setenv("TEACHER_KEY", "sk-secret")
        caplog.set_level("DEBUG")
        engine = connect(key_variable="TEACHER_KEY")
        server.faults = {"q": [(401, {})]}
        with pytest.raises(UserError) as failure:
            texts(engine, [Request("q", ASK)])
        assert set(server.keys) == {"Bearer sk-secret"}
        assert "because Bearer ***" in str(failure.value)
        assert not re.search("sk-secret|sk-not", f"{failure.value} {engine.fingerprint} {caplog.text}")

    def test_without_a_variable_none_is_sent(self, server, connect, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-not-asked-for")
        texts(connect(), [Request("q", ASK)])
        assert set(server.keys) == {"Bearer none"}

    def test_an_empty_variable_is_a_mistake(self, connect, monkeypatch):
        monkeypatch.delenv("TEACHER_KEY", raising=False)
        with pytest.raises(UserError, match="TEACHER_KEY holds no API key"):
            connect(key_variable="TEACHER_KEY")

    def test_the_fingerprint_has_no_credentials(self, server):
        url = server.url.replace("//", "//user:secret@") + "?key=secret"
        engine = open_engine("openai", "teacher", base_url=url)
        name, _, digest = engine.fingerprint.rpartition(":")
        assert name == f"openai:127.0.0.1:{server.server_port}/v1:teacher:completions"
        assert re.fullmatch("[0-9a-f]{16}", digest)
        engine.close()


def test_opening_finds_out_what_is_wrong(server, connect):
    server.owner = "vllm"
    with pytest.raises(UserError, match="serves teacher, not pupil"):
        open_engine("openai", "pupil", base_url=server.url)
    with pytest.raises(UserError, match="api 'assistants' is unknown"):
        connect(api="assistants")
    with pytest.raises(UserError, match=r"127.0.0.1:1/v1/models failed 2 times.*Connect"):
        open_engine("openai", "teacher", base_url="http://127.0.0.1:1/v1", retries=1, backoff=0.01)
    server.owner = None
    assert not connect().is_vllm


def test_an_abandoned_run_leaves_nothing_behind(server, connect):
    server.faults = {f"q{i}": ["hang"] for i in range(1, 9)}
    engine = connect(slots=8)
    stream = engine.generate([Request(f"q{i}", ASK) for i in range(9)])
    assert next(stream)[0] == 0
    stream.close()
    assert texts(engine, [Request("fine", ASK)]) == [["fine!0"]]
    assert engine.budget.flying == 0 and math.isfinite(engine.budget.spent)
