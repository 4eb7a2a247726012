"""The default engine: any causal language model of transformers, on a CPU or a GPU.

Requests are grouped by the prefix that they share. Its keys and values are computed once (`attention`), rows run side
by side in slots, and a row that finishes makes room for one that waits. A model whose attention can't share a prefix
(sliding windows, recurrent layers) is found out by comparing the two at the first call, and goes through its own
`generate` instead: same tokens, same seeds, more time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from whetstone.engines import attention, decoding, tokens
from whetstone.engines.attention import BLOCK, ROWS, fast_linear, round_up
from whetstone.engines.base import Completion, Request
from whetstone.engines.decoding import Decoder, Row, extend, prefix_groups
from whetstone.engines.ending import Ending
from whetstone.errors import UserError
from whetstone.records import weights_digest

log = logging.getLogger(__name__)
WINDOW = 16_384  # requests that are encoded and sorted at a time, so that a million of them need little memory


class TransformersEngine:
    """`model` is a folder or a Hub id, `adapter` a LoRA folder that is merged into it in memory.

    Args:
        dtype: float32, bfloat16 or float16.
        device: cpu, cuda, cuda:1 ... (a GPU where there is one, by default).
        slots: rows that run side by side. It changes speed and memory, not results.

    Raises:
        UserError: the model or the adapter can't be loaded, or the device isn't there.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        revision: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        slots: int = 256,
    ):
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import cached_file

        if dtype not in ("float32", "bfloat16", "float16"):
            raise UserError(f"dtype {dtype!r} is unknown; choose float32, bfloat16 or float16")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"device {device!r}: PyTorch sees no GPU here")
        try:
            folder = Path(cached_file(str(model), "config.json", revision=revision)).parent
            loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"model {model}: {str(error).splitlines()[0]}") from error
        if adapter is not None:
            from peft import PeftModel

            try:
                loaded = PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload()
            except (OSError, ValueError) as error:
                raise UserError(f"adapter {adapter}: {str(error).splitlines()[0]}") from error
        self._set(loaded.to(device), tokenizer, slots)
        digest = weights_digest(*([folder] if adapter is None else [folder, Path(adapter)]))
        self._fingerprint = f"transformers:{digest}:{dtype}"

    @classmethod
    def from_model(
        cls, model: torch.nn.Module, tokenizer: object, slots: int = 256, fingerprint: str | None = None
    ) -> TransformersEngine:
        """An engine on a model in memory, with its weights of the moment; it is left in the mode that it was in.

        Without a fingerprint all weights are read each time that it is asked for: seconds for a large model.
        """
        engine = cls.__new__(cls)
        engine._set(model, tokenizer, slots)
        engine._fingerprint = fingerprint
        return engine

    def _set(self, model: torch.nn.Module, tokenizer: object, slots: int) -> None:
        self.outer = model
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model  # LoRA layers stay in it
        self.tokenizer, self.slots = tokenizer, round_up(max(slots, 1), ROWS)
        self.device = next(self.model.parameters()).device
        config = self.model.config.get_text_config()
        self.context = getattr(config, "max_position_embeddings", None) or 2**31
        ends = self.model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self.ending = Ending(tokenizer, {*ends, tokenizer.eos_token_id} - {None}, config.vocab_size)
        self.decoder = Decoder(self.model, self.slots, self.ending)
        self.shares: bool | None = None  # whether prefixes are shared; found out at the first call
        self._encoded: dict[str, list[int]] = {}

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        return f"transformers:{digest.hexdigest()[:16]}:{dtype}"

    def encode(self, prompt: str) -> list[int]:
        if prompt not in self._encoded:
            if len(self._encoded) >= WINDOW:
                self._encoded.clear()
            self._encoded[prompt] = tokens.encode(self.tokenizer, [prompt])[0]
        return list(self._encoded[prompt])

    def _encode(self, prompts: Sequence[str], first: int) -> list[list[int]]:
        """Of one window; they are kept until the next, since a stage counts the tokens of what it samples from."""
        known = self._encoded
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        self._encoded = {prompt: known[prompt] for prompt in prompts if prompt in known}
        self._encoded.update(zip(new, tokens.encode(self.tokenizer, new), strict=True))
        encoded = [self._encoded[prompt] for prompt in prompts]
        tokens.check(encoded, prompts, self.context, first)
        return encoded

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yields (index of the request, its n completions) as they finish, WINDOW requests after another.

        Raises:
            UserError: a prompt is empty or leaves no room in the model's context.
        """
        for start in range(0, len(requests), WINDOW):
            window = requests[start : start + WINDOW]
            prompts = self._encode([request.prompt for request in window], start)
            unfinished: dict[int, dict[int, Completion]] = {}
            with self._ready():
                for row in self._rows(window, prompts):
                    done = unfinished.setdefault(row.index, {})
                    done[row.sample] = self._completion(row)
                    if len(done) == row.request.sampling.n:
                        del unfinished[row.index]
                        yield start + row.index, tuple(done[sample] for sample in sorted(done))

    def _rows(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> Iterator[Row]:
        """One row per sample of each request, as they finish."""
        for members, prefix in self._groups(prompts):
            rows = []
            for index in members:
                sampling = requests[index].sampling
                limit = min(sampling.max_tokens, self.context - len(prompts[index]))
                rows += [Row(index, sample, prompts[index], requests[index], limit) for sample in range(sampling.n)]
            yield from self.decoder.run(rows, prefix) if self.shares else self._run_alone(rows)

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        """Log-probability of each choice's first token right after each prompt, in nats: shape (prompts, choices)."""
        heads = tokens.heads(self.tokenizer, choices)
        table = np.empty((len(prompts), len(choices)))
        for start in range(0, len(prompts), WINDOW):
            encoded = self._encode(prompts[start : start + WINDOW], start)
            with self._ready():
                for members, prefix in self._groups(encoded):
                    for indices, logits in self._next_logits(members, encoded, prefix):
                        logprobs = torch.log_softmax(logits.float(), -1)[:, heads].cpu().numpy()
                        table[start + np.array(indices)] = logprobs
        return table.round(decoding.DECIMALS)

    def _next_logits(
        self, members: Sequence[int], prompts: Sequence[Sequence[int]], prefix: int
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        if self.shares:
            yield from self.decoder.next_logits(members, prompts, prefix)
            return
        for index in members:
            yield [index], self.model(input_ids=torch.tensor([prompts[index]], device=self.device)).logits[:, -1]

    def close(self) -> None:
        self.model = self.outer = self.decoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _groups(self, prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
        if self._can_share():
            return prefix_groups(prompts)
        return [(list(range(len(prompts))), 0)] if prompts else []

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        """Evaluation mode and our attention for the time of a call; then everything as it was."""
        training = [module for module in self.model.modules() if module.training]
        before = self.model.config._attn_implementation
        self.model.eval()
        try:
            with torch.inference_mode(), fast_linear(self.model):
                yield
        finally:
            self._attend(before)
            for module in training:
                module.training = True

    def _attend(self, name: str) -> None:
        if self.model.config._attn_implementation != name:
            self.model.set_attn_implementation(name)

    def _can_share(self) -> bool:
        """Compares both ways once, on a prompt long enough to have a prefix, and keeps ours if they agree."""
        if self.shares is None:
            reason = self._difference()
            self.shares = reason is None
            if reason:
                log.warning("%s: prefixes aren't shared (%s)", type(self.model).__name__, reason)
        if self.shares:
            self._attend(attention.NAME)
        return self.shares

    def _difference(self) -> str | None:
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not getattr(self.model, "_supports_attention_backend", False) or kinds != {"full_attention"}:
            return f"layers: {', '.join(sorted(kinds))}"
        length = BLOCK + 2 * ROWS + 3
        if length > self.context:
            return f"a context of {self.context} tokens"
        before = self.model.config._attn_implementation
        ids = [1 + 7919 * i % (config.vocab_size - 1) for i in range(length)]
        try:
            whole = torch.tensor([ids], device=self.device)
            wanted = self.model(input_ids=whole, use_cache=False).logits[0, -1].float()
            self._attend(attention.NAME)
            ((_, got),) = self.decoder.next_logits([0], [ids], BLOCK + 5)
        except Exception as error:  # whatever the model's code does with a cache or an attention that it doesn't know
            self._attend(before)
            return f"{type(error).__name__}: {error}"
        apart = float((got[0].float() - wanted).abs().max() / wanted.abs().max().clamp(min=1))
        bound = 1e-3 if wanted.dtype == self.model.dtype else 0.1
        if not apart < bound:
            self._attend(before)
            return f"logits differ by {apart:.2g}"
        return None

    def _completion(self, row: Row) -> Completion:
        cut = self.ending.cut(row)
        text = self.ending.text(row) if cut is None else cut
        return Completion(text, tuple(row.tokens), row.reason, tuple(row.logprobs))

    def _run_alone(self, rows: list[Row]) -> Iterator[Row]:
        """Through the model's own `generate`, in batches of similar length; our sampler decides every token."""
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        order = sorted(rows, key=lambda row: -len(row.prompt))
        for at in range(0, len(order), self.slots):
            batch = order[at : at + self.slots]
            width = max(len(row.prompt) for row in batch)
            ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in batch], device=self.device)
            mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in batch])

            def decide(_: torch.Tensor, logits: torch.Tensor, batch: list[Row] = batch) -> torch.Tensor:
                open_rows = [i for i, row in enumerate(batch) if row.reason is None]
                extend([batch[i] for i in open_rows], logits[open_rows])
                forced = torch.full_like(logits, float("-inf"))
                forced[:, 0] = 0
                for i in open_rows:
                    forced[i, 0] = float("-inf")
                    forced[i, batch[i].tokens[-1]] = 0
                return forced

            def ended(_: torch.Tensor, __: object, batch: list[Row] = batch, **___: object) -> torch.Tensor:
                over = [row.reason is not None or self.ending(row) for row in batch]
                return torch.tensor(over, device=self.device)

            self.model.generate(
                ids,
                attention_mask=mask.to(self.device),
                generation_config=GenerationConfig(max_new_tokens=max(row.limit for row in batch), pad_token_id=0),
                logits_processor=LogitsProcessorList([decide]),
                stopping_criteria=StoppingCriteriaList([ended]),
            )
            yield from batch
