"""The default engine: any causal language model of transformers, on a CPU or a GPU.

Requests are grouped by the prefix that they share. Its keys and values are computed once (`attention`), rows run side
by side in slots, and a row that finishes makes room for one that waits. A model whose attention can't share a prefix
(sliding windows, recurrent layers) is found out by comparing the two at the first call, and goes through its own
`generate` instead: same tokens, same seeds, more time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from whetstone.engines import attention
from whetstone.engines.attention import BLOCK, ROWS, SlotCache, attending, fast_linear, round_up
from whetstone.engines.base import Completion, Request, weights_digest
from whetstone.engines.sampling import choose, uniforms
from whetstone.errors import UserError

log = logging.getLogger(__name__)
PROMPT_TOKENS = 1024  # prompt tokens in one forward pass: enough for full speed on a CPU, little memory
SHARERS = 16  # fewer prompts than this aren't worth a prefix of their own
ENCODED = 20_000  # prompts whose token ids are kept
DECIMALS = 4  # of a log-probability: finer than any use, coarser than what another kernel rounds differently


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
    def from_model(cls, model: torch.nn.Module, tokenizer: object, slots: int = 256) -> TransformersEngine:
        """An engine on a model in memory, with its weights of the moment; it is left in the mode that it was in."""
        engine = cls.__new__(cls)
        engine._set(model, tokenizer, slots)
        engine._fingerprint = None
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
        self.eos = sorted({*ends, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        self.shares: bool | None = None  # whether prefixes are shared; found out at the first call
        self._enders: dict[tuple[str, ...], np.ndarray] = {}
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
        return list(self._encode([prompt])[0])

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Kept for a while, since a stage counts the tokens of the prompts that it samples from."""
        bos = self.tokenizer.bos_token_id
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded]
        if len(self._encoded) + len(new) > ENCODED:
            self._encoded.clear()
            new = list(dict.fromkeys(prompts))
        for prompt, ids in zip(new, self.tokenizer(new)["input_ids"] if new else (), strict=True):
            self._encoded[prompt] = ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids
        return [self._encoded[prompt] for prompt in prompts]

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yields (index of the request, its n completions) as they finish.

        Raises:
            UserError: a prompt is empty or leaves no room in the model's context.
        """
        prompts = self._checked([request.prompt for request in requests])
        with self._ready():
            for members, prefix in prefix_groups(prompts) if self._can_share() else [(list(range(len(prompts))), 0)]:
                rows = [_Row(index, sample, prompts[index], requests[index]) for index in members
                        for sample in range(requests[index].sampling.n)]  # fmt: skip
                for row in rows:
                    row.limit = min(row.request.sampling.max_tokens, self.context - len(row.prompt))
                unfinished: dict[int, dict[int, Completion]] = {}
                for row in (self._run(rows, prefix) if self.shares else self._run_alone(rows)):
                    done = unfinished.setdefault(row.index, {})
                    done[row.sample] = self._completion(row)
                    if len(done) == row.request.sampling.n:
                        del unfinished[row.index]
                        yield row.index, tuple(done[sample] for sample in sorted(done))

    def choice_logprobs(self, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
        """Log-probability of each choice's first token right after each prompt, in nats: shape (prompts, choices)."""
        heads = [self.tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in choices]
        if len(set(heads)) < len(heads):
            raise UserError(f"choices {list(choices)} share their first token; reword one of them")
        table = np.empty((len(prompts), len(choices)))
        encoded = self._checked(prompts)
        with self._ready():
            for members, prefix in prefix_groups(encoded) if self._can_share() else [(list(range(len(encoded))), 0)]:
                for indices, logits in self._next_logits(members, encoded, prefix):
                    table[indices] = torch.log_softmax(logits.float(), -1)[:, heads].cpu().numpy()
        return table.round(DECIMALS)

    def close(self) -> None:
        self.model = self.outer = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _checked(self, prompts: Sequence[str]) -> list[list[int]]:
        encoded = self._encode(prompts) if prompts else []
        for number, ids in enumerate(encoded):
            if not 0 < len(ids) < self.context:
                raise UserError(
                    f"prompt {number} has {len(ids)} tokens; the model's context of {self.context} must hold them and "
                    f"at least one more: {prompts[number][:60]!r}..."
                )
        return encoded

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
            ((_, got),) = self._next_logits([0], [ids], BLOCK + 5)
        except Exception as error:  # whatever the model's code does with a cache or an attention that it doesn't know
            self._attend(before)
            return f"{type(error).__name__}: {error}"
        apart = float((got[0].float() - wanted).abs().max() / wanted.abs().max().clamp(min=1))
        bound = 1e-3 if wanted.dtype == self.model.dtype else 0.1
        if not apart < bound:
            self._attend(before)
            return f"logits differ by {apart:.2g}"
        return None

    def _forward(self, cache: SlotCache, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits of the last position, (rows, vocabulary)."""
        with attending(cache):
            return self.model(
                input_ids=ids.to(self.device),
                position_ids=positions.to(self.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]

    def _cache(self, slots: int, own: int, shared: Sequence[int]) -> SlotCache:
        """A cache for rows of at most `own` tokens after the shared ones, whose keys and values are computed here."""
        cache = SlotCache(slots, len(shared) % BLOCK + round_up(own, ROWS))
        if shared:
            single = SlotCache(1, round_up(len(shared), ROWS))
            self._read(single, [list(shared)], [0], 0)
            cache.share(single, len(shared))
        return cache

    def _read(self, cache: SlotCache, parts: Sequence[Sequence[int]], slots: Sequence[int], shared: int) -> None:
        """Writes the keys and values of one prompt part per slot, which follows `shared` tokens, in passes of about
        PROMPT_TOKENS tokens."""
        order = sorted((i for i in range(len(parts)) if parts[i]), key=lambda i: -len(parts[i]))
        own, at = shared - cache.prefix, 0
        while at < len(order):
            width = round_up(len(parts[order[at]]), ROWS)
            batch = order[at : at + max(1, PROMPT_TOKENS // width)]
            at += len(batch)
            ids = np.zeros((len(batch), width), dtype=np.int64)
            for row, i in enumerate(batch):
                ids[row, : len(parts[i])] = parts[i]
            rows = torch.tensor([slots[i] for i in batch], device=self.device)
            for start in range(0, width, PROMPT_TOKENS):
                piece = torch.from_numpy(ids[:, start : start + PROMPT_TOKENS])
                cache.prompts(rows, own + start, piece.shape[1])
                positions = torch.arange(shared + start, shared + start + piece.shape[1]).expand(len(batch), -1)
                self._forward(cache, piece, positions)

    def _step(self, cache: SlotCache, last: np.ndarray, length: np.ndarray) -> torch.Tensor:
        """One token per row, in slots 0, 1, ..., at these own positions: logits of the next."""
        own = torch.from_numpy(length)
        cache.tokens(own.to(self.device))
        return self._forward(cache, torch.from_numpy(last)[:, None], (own + cache.prefix)[:, None])

    def _next_logits(
        self, members: Sequence[int], prompts: Sequence[Sequence[int]], prefix: int
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        members = sorted(members, key=lambda i: -len(prompts[i]))
        if self.shares is False:
            for index in members:
                yield [index], self.model(input_ids=torch.tensor([prompts[index]], device=self.device)).logits[:, -1]
            return
        slots = min(self.slots, round_up(len(members), ROWS))
        cache = self._cache(slots, len(prompts[members[0]]) - prefix, prompts[members[0]][:prefix])
        for at in range(0, len(members), cache.slots):
            batch = members[at : at + cache.slots]
            self._read(cache, [prompts[i][prefix:-1] for i in batch], range(len(batch)), prefix)
            last = np.zeros(round_up(len(batch), ROWS), dtype=np.int64)
            length = np.full_like(last, cache.tail)
            last[: len(batch)] = [prompts[i][-1] for i in batch]
            length[: len(batch)] = [len(prompts[i]) - cache.prefix - 1 for i in batch]
            yield batch, self._step(cache, last, length)[: len(batch)]

    def _run(self, rows: list[_Row], prefix: int) -> Iterator[_Row]:
        """Rows that share `prefix` tokens, as they finish."""
        own = max(len(row.prompt) + row.limit for row in rows) - prefix
        cache = self._cache(min(self.slots, round_up(len(rows), ROWS)), own, rows[0].prompt[:prefix])
        waiting = sorted(rows, key=lambda row: (len(row.prompt), row.prompt, row.index, row.sample))
        active: list[_Row] = []
        last, length = np.zeros((2, cache.slots), dtype=np.int64)
        length[:] = cache.tail  # where an empty slot writes, so that it spoils nothing
        while waiting or active:
            room = cache.slots - len(active)
            if waiting and (room >= cache.slots // 8 or not active):
                fresh = [waiting.pop() for _ in range(min(room, len(waiting)))]
                first = len(active)
                self._admit(cache, fresh, first, prefix)
                active += fresh
                last[first : len(active)] = [row.prompt[-1] for row in fresh]
                length[first : len(active)] = [len(row.prompt) - cache.prefix - 1 for row in fresh]
            count = round_up(len(active), ROWS)
            logits = self._step(cache, last[:count], length[:count])[: len(active)]
            self._choose(active, logits)
            last[: len(active)] = [row.tokens[-1] for row in active]
            length[: len(active)] += 1
            finished = [slot for slot, row in enumerate(active) if self._finished(row)]
            yield from (active[slot] for slot in finished)
            self._compact(cache, active, last, length, finished)

    def _admit(self, cache: SlotCache, fresh: list[_Row], first: int, prefix: int) -> None:
        """Reads each distinct prompt once, and copies it to the slots of its other samples."""
        slots = range(first, first + len(fresh))
        heads = {tuple(row.prompt): slot for slot, row in reversed(list(zip(slots, fresh, strict=True)))}
        self._read(cache, [list(prompt[prefix:-1]) for prompt in heads], list(heads.values()), prefix)
        copies = [(heads[tuple(row.prompt)], slot) for slot, row in zip(slots, fresh, strict=True)]
        copies = [(source, target) for source, target in copies if source != target]
        if copies:
            sources, targets = torch.tensor(copies, device=self.device).T
            cache.copy(sources, targets, max(len(row.prompt) for row in fresh) - cache.prefix)

    def _compact(
        self, cache: SlotCache, active: list[_Row], last: np.ndarray, length: np.ndarray, finished: list[int]
    ) -> None:
        """Rows from the end move into the slots that became free."""
        left = len(active) - len(finished)
        holes = [slot for slot in finished if slot < left]
        gone = set(finished)
        movers = [slot for slot in range(left, len(active)) if slot not in gone]
        if holes:
            cache.copy(torch.tensor(movers), torch.tensor(holes), int(length[movers].max()))
            last[holes], length[holes] = last[movers], length[movers]
            for hole, mover in zip(holes, movers, strict=True):
                active[hole] = active[mover]
        del active[left:]
        last[left:], length[left:] = 0, cache.tail

    def _choose(self, rows: Sequence[_Row], logits: torch.Tensor) -> None:
        settings = [row.request.sampling for row in rows]
        noise = uniforms(
            np.array([row.request.seed for row in rows]),
            np.array([row.sample for row in rows]),
            np.array([len(row.tokens) for row in rows]),
        )
        tokens, logprobs = choose(
            logits, np.array([s.temperature for s in settings]), np.array([s.top_p for s in settings]), noise
        )
        logprobs = logprobs.astype(np.float64).round(DECIMALS)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _finished(self, row: _Row) -> bool:
        """Sets the row's reason once its last token ended it."""
        token, stop = row.tokens[-1], row.request.sampling.stop
        if token in self.eos or (stop and self._may_end(stop)[token] and self._cut(row) is not None):
            row.reason = "stop"
        elif len(row.tokens) >= row.limit:
            row.reason = "length"
        return row.reason is not None

    def _may_end(self, stop: tuple[str, ...]) -> np.ndarray:
        """Which tokens can complete a stop string: those whose text has the last character of one. A token that is
        part of a character, or whose blank space may be lost when it is decoded alone, can."""
        if stop not in self._enders:
            size = max(len(self.tokenizer), self.model.config.get_text_config().vocab_size)
            texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            ends = {text[-1] for text in stop if text}
            table = np.ones(size, dtype=bool)
            table[: len(texts)] = [bool(ends & set(text)) or "\ufffd" in text or " " in ends for text in texts]
            self._enders[stop] = table
        return self._enders[stop]

    def _cut(self, row: _Row) -> str | None:
        """The text before the first stop string, if there is one."""
        text = self._text(row)
        ends = [end for stop in row.request.sampling.stop if (end := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else None

    def _text(self, row: _Row) -> str:
        """Decoded after the prompt's last token, since some tokenizers drop the blank space that opens a text."""
        ids = row.tokens[:-1] if row.tokens and row.tokens[-1] in self.eos else row.tokens
        before = self.tokenizer.decode(row.prompt[-1:], skip_special_tokens=True)
        return self.tokenizer.decode(row.prompt[-1:] + ids, skip_special_tokens=True)[len(before) :]

    def _completion(self, row: _Row) -> Completion:
        cut = self._cut(row)
        text = self._text(row) if cut is None else cut
        return Completion(text, tuple(row.tokens), row.reason, tuple(row.logprobs))

    def _run_alone(self, rows: list[_Row]) -> Iterator[_Row]:
        """Through the model's own `generate`, in batches of similar length; our sampler decides every token."""
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        order = sorted(rows, key=lambda row: -len(row.prompt))
        for at in range(0, len(order), self.slots):
            batch = order[at : at + self.slots]
            width = max(len(row.prompt) for row in batch)
            ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in batch], device=self.device)
            mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in batch])

            def decide(_: torch.Tensor, logits: torch.Tensor, batch: list[_Row] = batch) -> torch.Tensor:
                open_rows = [i for i, row in enumerate(batch) if row.reason is None]
                self._choose([batch[i] for i in open_rows], logits[open_rows])
                forced = torch.full_like(logits, float("-inf"))
                forced[:, 0] = 0
                for i in open_rows:
                    forced[i, 0] = float("-inf")
                    forced[i, batch[i].tokens[-1]] = 0
                return forced

            def ended(_: torch.Tensor, __: object, batch: list[_Row] = batch, **___: object) -> torch.Tensor:
                over = [row.reason is not None or self._finished(row) for row in batch]
                return torch.tensor(over, device=self.device)

            self.model.generate(
                ids,
                attention_mask=mask.to(self.device),
                generation_config=GenerationConfig(max_new_tokens=max(row.limit for row in batch), pad_token_id=0),
                logits_processor=LogitsProcessorList([decide]),
                stopping_criteria=StoppingCriteriaList([ended]),
            )
            yield from batch


@dataclasses.dataclass
class _Row:
    """One completion in the making."""

    index: int
    sample: int
    prompt: list[int]
    request: Request
    limit: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    reason: str | None = None


def prefix_groups(prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
    """Splits prompts into groups (their indices) with the number of tokens that all of a group share, a multiple of
    BLOCK. A group splits where at least SHARERS of its prompts go on alike for another block."""
    groups: list[tuple[list[int], int]] = []

    def split(members: list[int]) -> None:
        first, final = prompts[members[0]], prompts[members[-1]]  # sorted: what these share, all share
        most = min(len(prompts[i]) for i in members) - 1
        same = next((i for i in range(min(len(first), len(final))) if first[i] != final[i]), most)
        prefix = min(same, most)
        prefix = prefix if prefix >= BLOCK else 0
        runs = [list(run) for _, run in groupby(members, key=lambda i: tuple(prompts[i][prefix : prefix + BLOCK]))]
        rest = [i for run in runs if len(run) < SHARERS or len(runs) == 1 for i in run]
        for run in runs:
            if len(run) >= SHARERS and len(runs) > 1:
                split(run)
        if rest:
            groups.append((rest, prefix))

    if prompts:
        split(sorted(range(len(prompts)), key=lambda i: list(prompts[i])))
    return groups
