"""The engine for any OpenAI-compatible server: a vLLM server or cluster, or a teacher.

A reply is believed only when it is whole: valid JSON, every choice there, finished and of the right type. Otherwise
the request is sent again, as after 408, 409, 429, 5xx, dropped connections and timeouts; other refusals end the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np

from whetstone.engines import served, tokens
from whetstone.engines.base import Completion, Request, Sampling
from whetstone.engines.concurrent import as_finished
from whetstone.errors import UserError

T = TypeVar("T")
LONGEST_WAIT = 600.0  # seconds; a server that asks for more won't be back during this run


class OpenAIEngine:
    """`model` is the name that the server at `base_url` (with its `/v1`) serves it by.

    Args:
        api: completions, or chat: the prompt as one user message under the server's template.
        tokenizer: a folder or Hub id; prompts then travel as token ids, exactly those of training (completions only).
        key_variable: the environment variable that holds the API key. Without it no key is sent.
        slots: requests in flight.
        retries: how often a request is asked again; the first after about `backoff` seconds, then twice as long each,
            a minute at most, or when the server's Retry-After says so.
        timeout: seconds for one request, from its sending to the last byte.
        budget_tokens: prompt and completion tokens that may be spent in this engine's life. Before a request is sent,
            its worst case must fit; one that the server may have answered unheard counts in full.
        budget_requests: likewise requests, retries included.
        logprobs: whether to ask for the sampled tokens' log-probabilities; some servers refuse.
        seen: the folder of the models that servers were found to answer with, see `served`.

    Raises:
        UserError: the server can't be reached, refuses the key or doesn't serve the model.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api: Literal["completions", "chat"] = "completions",
        tokenizer: str | None = None,
        key_variable: str | None = None,
        slots: int = 64,
        retries: int = 8,
        backoff: float = 1.0,
        timeout: float = 600.0,
        budget_tokens: int | None = None,
        budget_requests: int | None = None,
        logprobs: bool = True,
        seen: str | Path | None = None,
    ):
        if api not in ("completions", "chat"):
            raise UserError(f"api {api!r} is unknown; choose completions or chat")
        self.key = os.environ.get(key_variable) if key_variable else None
        if key_variable and not self.key:
            raise UserError(f"the environment variable {key_variable} holds no API key")
        from openai import AsyncOpenAI

        address = urlsplit(base_url)
        self.server = f"{address.hostname}{f':{address.port}' if address.port else ''}{address.path.rstrip('/')}"
        self.name = f"openai:{self.server}:{model}:{api}"
        self.seen, self.served = seen and Path(seen), None
        self.model, self.api, self.slots, self.logprobs = model, api, slots, logprobs
        self.retries, self.backoff, self.timeout = retries, backoff, timeout
        self.tokenizer = tokens.load(tokenizer) if tokenizer else None
        self.budget = _Budget(budget_tokens, budget_requests)
        self.loop = asyncio.new_event_loop()
        self.client = AsyncOpenAI(api_key=self.key or "none", base_url=base_url, max_retries=0, timeout=timeout)
        try:
            models = self.loop.run_until_complete(self._ask("GET", "/models", None, 0, _models))
        except BaseException:
            self.close()
            raise
        self.told = models.get(model, {})
        self.is_vllm = any(one.get("owned_by") == "vllm" for one in models.values())
        if self.is_vllm and model not in models:
            self.close()
            raise UserError(f"{self.server} serves {', '.join(models)}, not {model}")

    @property
    def fingerprint(self) -> str:
        """Names the server, the model, and what it answers with, for which it is probed when this is first asked for;
        `served` then tells how it was known.

        Raises:
            UserError: the probe fails, or the server still serves weights that have been replaced.
        """
        if self.served is None:
            spoken = dict(as_finished(self.loop, (partial(self._speak, i) for i in range(len(served.PROMPTS))), 1))
            probe = [spoken[index] for index in sorted(spoken)]
            facts = {"server": self.server, "model": self.model, "api": self.api}
            facts |= {name: self.told.get(name) for name in ("root", "max_model_len")}
            facts["weights"] = served.weights(self.model, facts["root"])
            tells = "tokens and log-probabilities" if probe[0][0][1] is not None else "tokens alone"
            self.served = facts | {"probe": tells, "id": served.identified(self.seen, facts, probe)}
        return f"{self.name}:{self.served['id']}"

    def encode(self, prompt: str) -> list[int]:
        """Empty without a tokenizer: the server turns the text into tokens that aren't known here."""
        return [] if self.tokenizer is None else tokens.encode(self.tokenizer, [prompt])[0]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yields (index of the request, its n completions) as they arrive.

        Token ids are empty where the server doesn't tell them, log-probabilities where it has none. What a seed
        repeats is the server's promise.

        Raises:
            UserError: the server refuses a request, the retries or the budget are used up. What was on its way is
                still yielded before.
        """
        jobs = (partial(self._complete, index, request) for index, request in enumerate(requests))
        return as_finished(self.loop, jobs, self.slots)

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        """Log-probability of each choice's first token right after each prompt, in nats: shape (prompts, choices).

        vLLM servers tell it for any token. Others show the most probable tokens, then score a prompt that ends in the
        token (`echo`).

        Raises:
            UserError: there is no tokenizer, or the server has no way to tell.
        """
        if self.api != "completions" or self.tokenizer is None:
            raise UserError(
                f"{self.name}: the distribution over next tokens needs `api: completions` and the model's "
                "tokenizer"
            )
        heads = tokens.heads(self.tokenizer, choices)
        table = np.empty((len(prompts), len(choices)))
        jobs = (partial(self._choose, index, prompt, heads) for index, prompt in enumerate(prompts))
        for index, row in as_finished(self.loop, jobs, self.slots):
            table[index] = row
        return table

    def close(self) -> None:
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.client.close())
            self.loop.close()

    async def _complete(self, index: int, request: Request) -> tuple[int, tuple[Completion, ...]]:
        read = partial(_chat_completions if self.api == "chat" else _completions, n=request.sampling.n)
        return index, await self._say(request, read)

    async def _speak(self, index: int) -> tuple[int, served.Spoken]:
        """What the model says after a prompt of the probe; one at a time, so that none changes another's rounding."""
        request = Request(served.PROMPTS[index], Sampling(served.TOKENS))
        return index, await self._say(request, _chat_tokens if self.api == "chat" else _tokens)

    async def _say(self, request: Request, read: Callable[[object], T]) -> T:
        s = request.sampling
        prompt = self.encode(request.prompt)
        body: dict[str, object] = {"model": self.model, "n": s.n, "temperature": s.temperature, "top_p": s.top_p}
        body |= {"seed": request.seed} | ({"stop": list(s.stop)} if s.stop else {})
        if self.api == "chat":
            body |= {"messages": [{"role": "user", "content": request.prompt}], "max_completion_tokens": s.max_tokens}
            body |= {"logprobs": True} if self.logprobs else {}
        else:
            body |= {"prompt": prompt if self.tokenizer else request.prompt, "max_tokens": s.max_tokens}
            body |= {"logprobs": 0 if self.is_vllm else 1} if self.logprobs else {}
        if self.is_vllm:
            body["return_token_ids"] = True
        path = "/chat/completions" if self.api == "chat" else "/completions"
        worst = len(prompt or request.prompt.encode()) + s.n * s.max_tokens  # no token is shorter than a byte
        return await self._ask("POST", path, body, worst, read)

    async def _choose(self, index: int, prompt: str, heads: Sequence[int]) -> tuple[int, list[float]]:
        ids = self.encode(prompt)
        body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0}
        if self.is_vllm:
            body |= {"logprobs": 1, "logprob_token_ids": list(heads), "return_tokens_as_token_ids": True}
            shown = await self._ask("POST", "/completions", body, len(ids) + 1, _top)
            return index, [shown[f"token_id:{head}"] for head in heads]
        shown = await self._ask("POST", "/completions", body | {"logprobs": 5}, len(ids) + 1, _top)
        names = [self.tokenizer.decode([head]) for head in heads]
        if all(name in shown for name in names) and len(set(names)) == len(names):
            return index, [shown[name] for name in names]
        row = []
        for head in heads:
            scored = body | {"prompt": [*ids, head], "echo": True, "logprobs": 1}
            row.append(await self._ask("POST", "/completions", scored, len(ids) + 2, partial(_echoed, place=len(ids))))
        return index, row

    async def _ask(self, method: str, path: str, body: dict | None, worst: int, read: Callable[[object], T]) -> T:
        """What `read` makes of the server's reply. `worst` is the most tokens that it can cost."""
        from openai import APIConnectionError, APIStatusError

        for attempt in range(self.retries + 1):
            await self.budget.take(worst)
            cost, wait = worst, None
            try:
                async with asyncio.timeout(self.timeout):
                    if body is None:
                        reply = await self.client.get(path, cast_to=object)
                    else:
                        reply = await self.client.post(path, body=body, cast_to=object)
                result = read(reply)
                cost = _cost(reply, worst)
                return result
            except APIStatusError as error:
                cost, reason = 0, f"status {error.status_code}: {self._quoted(error.message)}"
                if error.status_code in (404, 405) and method == "GET":
                    return read({})  # a server without this page
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise UserError(f"{self.server}{path} refuses: {reason}") from None
                wait = _retry_after(error.response.headers)
                if wait is not None and wait > LONGEST_WAIT:
                    raise UserError(f"{self.server}{path} asks to wait {wait:,.0f} s: {reason}") from None
            except APIConnectionError as error:  # its timeouts too
                unheard = "Connect" in type(error.__cause__).__name__
                cost = 0 if unheard else worst
                reason = self._quoted(f"{error} ({error.__cause__})")
            except TimeoutError:
                reason = f"no answer within {self.timeout:g} s"
            except (_Malformed, ValueError) as error:
                reason = f"not a completion: {self._quoted(str(error))}"
            finally:
                await self.budget.settle(worst, cost)
            if attempt < self.retries:
                pause = min(60.0, self.backoff * 2**attempt) * random.uniform(0.5, 1.0)
                await asyncio.sleep(pause if wait is None else wait)
        raise UserError(f"{self.server}{path} failed {self.retries + 1} times; the last: {reason}")

    def _quoted(self, message: str) -> str:
        return (message.replace(self.key, "***") if self.key else message)[:300]


class _Malformed(Exception):
    """A reply that isn't what was asked for."""


class _Budget:
    """Tokens and requests that may still be spent; what is in flight is reserved at its worst."""

    def __init__(self, tokens: int | None, requests: int | None):
        self.tokens, self.requests = tokens, requests
        self.spent = self.reserved = self.sent = self.flying = 0
        self.changed = asyncio.Condition()

    async def take(self, worst: int) -> None:
        """Waits for room. Raises UserError when nothing in flight can make any."""
        async with self.changed:
            while self.tokens is not None and self.spent + self.reserved + worst > self.tokens and self.flying:
                await self.changed.wait()
            if self.tokens is not None and self.spent + self.reserved + worst > self.tokens:
                raise UserError(
                    f"budget: {self.spent:,} of {self.tokens:,} tokens are spent in {self.sent:,} requests, and the "
                    f"next may need {worst:,}. What was answered is kept; raise `budget_tokens` to go on"
                )
            if self.requests is not None and self.sent >= self.requests and worst:
                raise UserError(
                    f"budget: all {self.requests:,} requests are spent ({self.spent:,} tokens). What was answered is "
                    "kept; raise `budget_requests` to go on"
                )
            self.sent += bool(worst)  # asking which models there are costs nothing
            self.reserved += worst
            self.flying += 1

    async def settle(self, worst: int, cost: int) -> None:
        async with self.changed:
            self.reserved -= worst
            self.spent += cost
            self.flying -= 1
            self.changed.notify_all()


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Whatever is missing or of the wrong type in a reply makes it malformed."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Malformed(f"{type(error).__name__} {error}") from error


def _models(reply: object) -> dict[str, dict]:
    with _whole():
        return {one["id"]: one for one in reply.get("data", [])}


def _choices(reply: object, n: int) -> list[dict]:
    """The n choices in order, each finished."""
    with _whole():
        found = {choice["index"]: choice for choice in reply["choices"]}
        if set(found) != set(range(n)):
            raise _Malformed(f"choices {sorted(found)}, {n} asked")
        if not all(isinstance(choice["finish_reason"], str) for choice in found.values()):
            raise _Malformed("an unfinished choice")
        return [found[index] for index in range(n)]


def _completions(reply: object, n: int) -> tuple[Completion, ...]:
    with _whole():
        return tuple(
            _completion(choice, choice["text"], (choice.get("logprobs") or {}).get("token_logprobs") or ())
            for choice in _choices(reply, n)
        )


def _chat_completions(reply: object, n: int) -> tuple[Completion, ...]:
    with _whole():
        return tuple(
            _completion(
                choice,
                choice["message"]["content"] or "",  # null where the model ended at once
                [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or ()],
            )
            for choice in _choices(reply, n)
        )


def _tokens(reply: object) -> served.Spoken:
    """Tokens and log-probabilities of a completion, or its text where the server doesn't tell both."""
    with _whole():
        (choice,) = _choices(reply, 1)
        told = choice.get("logprobs") or {}
        values = map(float, told.get("token_logprobs") or ())
        return list(zip(told.get("tokens") or (), values, strict=False)) or [(choice["text"], None)]


def _chat_tokens(reply: object) -> served.Spoken:
    with _whole():
        (choice,) = _choices(reply, 1)
        told = (choice.get("logprobs") or {}).get("content") or ()
        return [(one["token"], float(one["logprob"])) for one in told] or [(choice["message"]["content"] or "", None)]


def _completion(choice: dict, text: object, logprobs: Sequence[float]) -> Completion:
    if not isinstance(text, str):
        raise _Malformed(f"text of type {type(text).__name__}")
    # A completion that a filter cut off didn't come to its own end, no more than one that ran out of tokens.
    reason = "stop" if choice["finish_reason"] == "stop" else "length"
    return Completion(text, tuple(map(int, choice.get("token_ids") or ())), reason, tuple(map(float, logprobs)))


def _top(reply: object) -> dict[str, float]:
    """The tokens shown for the first position, and their log-probabilities."""
    with _whole():
        return {token: float(value) for token, value in _choices(reply, 1)[0]["logprobs"]["top_logprobs"][0].items()}


def _echoed(reply: object, place: int) -> float:
    """The log-probability of the prompt's own token at this place."""
    with _whole():
        return float(_choices(reply, 1)[0]["logprobs"]["token_logprobs"][place])


def _cost(reply: object, worst: int) -> int:
    """Tokens that the server counted, or the worst case where it doesn't say."""
    try:
        return int(reply["usage"]["total_tokens"])
    except (KeyError, TypeError, ValueError):
        return worst


def _retry_after(headers: object) -> float | None:
    """Seconds that the server asks to wait, given as seconds or as a date."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        with contextlib.suppress(ValueError):
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        return None
