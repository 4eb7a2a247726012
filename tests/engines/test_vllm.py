"""The vllm engine, and the openai engine on `vllm serve`, with a real model: `make test-vllm`. Elsewhere skipped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from whetstone.engines import journal, open_engine
from whetstone.engines.base import Request, Sampling
from whetstone.errors import UserError
from whetstone.records import weights_digest

ROOT = Path(__file__).parents[2]
BASE = str(ROOT / "models" / "base")
SHOTS = "".join(f"Question: There are {i} apples and {i} pears. How many?\nAnswer: {2 * i}\n\n" for i in range(2, 10))
CHOICES = [" steps", " questions", " program"]
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
# float32 so that tokens can be compared; eager since compiling takes longer than these tests
QUICK = {"dtype": "float32", "slots": 32, "enforce_eager": True}


def prompts(count: int) -> list[str]:
    return [f"{SHOTS}Question: There are {3 * i} apples and {i} pears. How many?\nAnswer:" for i in range(count)]


def completed(engine, requests):
    found = dict(engine.generate(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


@contextlib.contextmanager
def opened(model: str = BASE, **settings):
    engine = open_engine("vllm", model, **(QUICK | settings))
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def reference():
    return open_engine("transformers", BASE, dtype="float32")


def agree(ours, theirs) -> None:
    """Equal tokens and log-probabilities up to a near tie, after which greedy texts may part."""
    same = sum(one.token_ids == other.token_ids for (one,), (other,) in zip(ours, theirs, strict=True))
    assert same >= 0.9 * len(ours)
    for (one,), (other,) in zip(ours, theirs, strict=True):
        if one.token_ids == other.token_ids:
            assert one.finish_reason == other.finish_reason
            assert one.text == other.text.rstrip("\ufffd")  # vLLM leaves out a character that isn't complete
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-3)


class TestOffline:
    @pytest.fixture(scope="class")
    def engine(self):
        with opened() as engine:
            yield engine

    def test_its_greedy_tokens_texts_and_logprobs_are_those_of_the_transformers_engine(self, engine, reference):
        requests = [Request(p, Sampling(24, stop=("\n\n",))) for p in prompts(20)] + [Request("Hi", Sampling(24))]
        assert engine.encode(requests[0].prompt) == reference.encode(requests[0].prompt)
        agree(completed(engine, requests), completed(reference, requests))

    def test_a_stop_string_is_cut_and_its_tokens_are_kept(self, engine):
        ((free,),) = completed(engine, [Request(prompts(3)[2], Sampling(40))])
        stop = free.text[6:9]
        ((cut,),) = completed(engine, [Request(prompts(3)[2], Sampling(40, stop=(stop,)))])
        assert (cut.text, cut.finish_reason) == (free.text[: free.text.find(stop)], "stop")
        assert cut.token_ids == free.token_ids[: len(cut.token_ids)] and len(cut.logprobs) == len(cut.token_ids)
        assert stop in engine.tokenizer.decode(cut.token_ids)

    def test_seeds_repeat_and_samples_differ(self, engine):
        sampling = Sampling(16, temperature=1.5, n=4)
        one, two, again = completed(engine, [Request("Question: Ann", sampling, seed) for seed in (1, 2, 1)])
        assert [c.token_ids for c in one] == [c.token_ids for c in again]
        assert len({c.token_ids for c in one + two}) == 8

    def test_seeds_repeat_when_prompts_fill_more_than_a_batch(self, engine):
        requests = [Request(f"Number {i}. {p}", Sampling(4, temperature=1.0), i) for i, p in enumerate(prompts(64))]
        assert sum(len(engine.encode(request.prompt)) for request in requests) > 10_000
        first, again = completed(engine, requests), completed(engine, requests)
        assert sum(one == other for one, other in zip(first, again, strict=True)) >= 60

    def test_a_prompt_that_does_not_fit_says_so(self, engine):
        with pytest.raises(UserError, match=r"prompt 1 has \d+ tokens; the model's context of 2048"):
            list(engine.generate([Request("Hi", Sampling(1)), Request("apples " * 3000, Sampling(1))]))
        assert len(completed(engine, [Request("Hi", Sampling(2))])) == 1

    def test_choices_have_their_mass_among_all_tokens(self, engine, reference):
        asked = ["Question: What is 2 plus 3?\nAnswer by", "Hi", *prompts(3)]
        table = engine.choice_logprobs(asked, CHOICES)
        np.testing.assert_allclose(table, reference.choice_logprobs(asked, CHOICES), atol=2e-3)
        assert table[0].max() < 0 and np.exp(table[1]).sum() < 0.1
        with pytest.raises(UserError, match="share their first token"):
            engine.choice_logprobs(["Hi"], [" steps", " steps too"])
        assert engine.choice_logprobs([], CHOICES).shape == (0, 3)

    def test_completions_arrive_while_others_are_sampled(self, engine):
        requests = [Request(p, Sampling(200 if i % 2 else 1)) for i, p in enumerate(prompts(12))]
        order = [index for index, _ in engine.generate(requests)]
        assert sorted(order) == list(range(12)) and all(i % 2 == 0 for i in order[:6])

    def test_more_requests_than_are_queued_at_a_time(self, engine):
        many = [Request(f"{i} apples", Sampling(1)) for i in range(engine.ahead + 100)]
        assert len(completed(engine, many)) == len(many)

    def test_an_abandoned_run_leaves_the_engine_usable(self, engine):
        stream = engine.generate([Request(p, Sampling(64)) for p in prompts(12)])
        next(stream)
        stream.close()
        ((one,),) = completed(engine, [Request("Hi", Sampling(4))])
        assert len(one.token_ids) == 4 and not engine.llm.llm_engine.has_unfinished_requests()

    def test_a_journal_takes_what_it_has(self, engine, tmp_path, monkeypatch):
        requests = [Request(p, Sampling(8, temperature=1.0), seed=i) for i, p in enumerate(prompts(12))]
        rows = list(journal.run(engine, requests, tmp_path / "journal.sqlite"))
        monkeypatch.setattr(engine, "generate", None)
        assert list(journal.run(engine, requests, tmp_path / "journal.sqlite")) == rows

    def test_the_fingerprint_names_version_weights_and_precision(self, engine):
        import vllm

        kind, weights, dtype, option = engine.fingerprint.split(":")
        assert (kind, len(weights), dtype, option) == (f"vllm-{vllm.__version__}", 16, "float32", "enforce_eager=True")


def test_replicas_share_the_work_and_a_shorter_context_ends_completions():
    with opened(max_model_len=64, data_parallel_size=2) as engine:
        pids = children()
        ((one,),) = completed(engine, [Request("apples " * 20, Sampling(100))])
        assert len(engine.encode("apples " * 20)) + len(one.token_ids) <= 64 and one.finish_reason == "length"
        requests = [Request(f"Question: {i}", Sampling(8, temperature=1.0, n=2), i) for i in range(40)]
        results = completed(engine, requests)
        assert all(len(one) == 2 for one in results) and results == completed(engine, requests)
        assert engine.choice_logprobs(["Hi"] * 9, CHOICES).std(axis=0).max() < 1e-3
        assert ":max_model_len=64" in engine.fingerprint
    assert gone(pids)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """A model whose heads can be split over two workers, and an adapter for it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).float()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    settings = LoraConfig(r=5, target_modules="all-linear", init_lora_weights=False, lora_alpha=20)
    tuned = get_peft_model(model, settings)
    tuned.save_pretrained(folder / "adapter")
    return str(folder / "model"), str(folder / "adapter")


def test_an_adapter_is_served_without_a_merge_on_two_workers(other_model, monkeypatch):
    model, adapter = other_model
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # left to itself, vLLM wants a NUMA node for each worker
    requests = [Request(p, Sampling(12)) for p in prompts(10)]
    plain, merged = (open_engine("transformers", model, adapter=one) for one in (None, adapter))
    with opened(model, adapter=adapter, tensor_parallel_size=2) as engine:
        pids = children()
        ours = completed(engine, requests)
        agree(ours, completed(merged, requests))
        table = engine.choice_logprobs(["Hi"], CHOICES)
        digest = weights_digest(Path(model), Path(adapter))  # of both, and nothing of workers
        assert engine.fingerprint.split(":")[1:] == [digest, "float32", "enforce_eager=True"]
    assert gone(pids)
    np.testing.assert_allclose(table, merged.choice_logprobs(["Hi"], CHOICES), atol=2e-3)
    others = completed(plain, requests)
    assert not any(one.token_ids == other.token_ids for (one,), (other,) in zip(ours, others, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float64"}, "dtype 'float64'"),
        ({"tensor_parallel_size": 2}, r"can't serve .*heads \(3\) must be divisible"),
        ({"adapter": "/nowhere"}, "adapter /nowhere: no readable adapter_config.json"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_what_cannot_be_served_says_so(settings, message):
    with pytest.raises(UserError, match=message):
        open_engine("vllm", BASE, **(QUICK | settings))


def children(pid: int | None = None) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return [p.pid for p in psutil.Process(pid).children(recursive=True) if "VLLM" in " ".join(p.cmdline())]
    return []


def gone(pids: list[int], seconds: float = 30) -> bool:
    import psutil

    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    assert pids
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.2)
    return not any(map(alive, pids))


SAMPLER = f"""
import sys
from whetstone.engines import open_engine
from whetstone.engines.base import Request, Sampling
if __name__ == "__main__":
    engine = open_engine("vllm", {BASE!r}, **{QUICK!r})
    print("open", flush=True)
    while True:
        list(engine.generate([Request("Once", Sampling(500, temperature=1.0), i) for i in range(64)]))
"""


@pytest.mark.parametrize("moment", ["while it loads", "while it samples"])
def test_no_process_is_left_when_the_parent_is_killed(moment, tmp_path):
    script = tmp_path / "sampler.py"
    script.write_text(SAMPLER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True)
    try:
        if moment == "while it samples":
            assert "open\n" in iter(parent.stdout.readline, "")
            time.sleep(1)
        until = time.monotonic() + 240
        while not (pids := children(parent.pid)) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(pids, 120)
    assert str(script) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


class TestServer:
    """`vllm serve` on loopback."""

    @pytest.fixture(scope="class")
    def url(self, tmp_path_factory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log"
        # `vllm serve` itself; the CPU build's command line looks for a distribution named vllm and stops
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", BASE]
        command += ["--served-model-name", "base"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-num-seqs", "32"]
        command += ["--enforce-eager", "--api-key", "sk-loopback"]
        with log.open("w") as out:
            server = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            until = time.monotonic() + 300
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                    break
                assert server.poll() is None, log.read_text()[-3000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            pids = children(server.pid)
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @pytest.fixture
    def connect(self, url, monkeypatch):
        monkeypatch.setenv("LOOPBACK_KEY", "sk-loopback")
        engines = []

        def one(**settings):
            engines.append(open_engine("openai", "base", base_url=url, key_variable="LOOPBACK_KEY", **settings))
            return engines[-1]

        yield one
        for engine in engines:
            engine.close()

    def test_completions_are_those_of_the_transformers_engine(self, connect, reference):
        requests = [Request(p, Sampling(24, stop=("\n\n",))) for p in prompts(20)]
        theirs = completed(reference, requests)
        agree(completed(connect(tokenizer=BASE), requests), theirs)
        agree(completed(connect(), requests), theirs)  # as text, made tokens by the server

    def test_samples_seeds_and_budget(self, connect):
        engine = connect(tokenizer=BASE, budget_tokens=10_000)
        one, two, again = completed(engine, [Request("Question: Ann", Sampling(16, 1.5, n=3), s) for s in (1, 9, 1)])
        assert [c.token_ids for c in one] == [c.token_ids for c in again] != [c.token_ids for c in two]
        spent = sum(len(c.token_ids) for c in one + two + again) + 3 * len(engine.encode("Question: Ann"))
        assert engine.budget.spent == spent

    def test_choices(self, connect, reference):
        asked = ["Question: What is 2 plus 3?\nAnswer by", "Hi"]
        expected = reference.choice_logprobs(asked, CHOICES)
        engine = connect(tokenizer=BASE)
        assert engine.is_vllm
        np.testing.assert_allclose(engine.choice_logprobs(asked, CHOICES), expected, atol=2e-3)
        engine.is_vllm = False  # what a server without vLLM's own parameter is asked
        np.testing.assert_allclose(engine.choice_logprobs(asked, CHOICES), expected, atol=2e-3)

    def test_a_wrong_key_and_a_wrong_name(self, connect, url, monkeypatch):
        monkeypatch.setenv("LOOPBACK_KEY", "sk-wrong")
        with pytest.raises(UserError, match="refuses: status 401"):
            connect()
        monkeypatch.setenv("LOOPBACK_KEY", "sk-loopback")
        with pytest.raises(UserError, match="serves base, not other"):
            open_engine("openai", "other", base_url=url, key_variable="LOOPBACK_KEY")

    def test_a_prompt_that_does_not_fit_is_the_servers_refusal(self, connect):
        with pytest.raises(UserError, match="refuses: status 400"):
            completed(connect(), [Request("apples " * 3000, Sampling(4))])
        assert connect().encode("Hi") == []  # what the server makes of it isn't known here
