"""Rebuilds a base model from nothing: corpus, tokenizer and weights. One GPU, a few minutes; prints time and tokens.

    python models/rebuild_base.py models/base
    python models/rebuild_base.py recipes/star/models/base
    python models/rebuild_base.py models/reasoner

It trains on as many tokens as the shipped model did (`MODELS`), however long a GPU takes for them, and the folder
changes only when the model is finished. Another GPU adds up in another order, so its model isn't the same to the bit.

The model reads the training distribution of its generated world and nothing else. A training row is a sequence of
groups `<bos> document document ... <eos>`; a group keeps to one pool of documents, which is one strategy, or one
language and instruction (that alone teaches it to follow a few-shot prompt), and a document that names its strategy
stands in a group of its own. What a document marks as unlearnt is read and has no part in the loss.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

NAMED = "named"  # pool of documents that name their strategy
MAX_POSITIONS, ROW = 2048, 1280  # context of the model, tokens in a training row
PEAK, WARM = 3e-3, 150  # highest learning rate, and the steps until there
VOCABULARY = 2048  # an upper bound: merges run out before
UNLEARNT = "\x0e\x0f"  # shift out and shift in: what a document has between the two isn't learnt
SEPARATOR = "\n\n"  # ends a document of a few-shot prompt
PROMPT = Path(__file__).parents[1] / "recipes/star/prompts/world.yaml"


class Strategies:
    """Three strategies equally often (`models/base`)."""

    batch = 128  # rows in a step
    tokens = 8_319 * batch * ROW  # to train on
    largest = 400_000  # documents of the largest pool
    shape = {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    }
    words = r"\n| ?\d| ?[A-Za-z]+(?:-[A-Za-z]+)*| ?[^\sA-Za-z\d]+|\s+"
    switch, named = 0.12, 0.15  # probability that a document opens a new group, share of documents that stand alone

    def pools(self) -> dict[str, tuple[int, float]]:
        """Name to how often it is drawn, and how many documents it has beside the largest; the last stand alone."""
        from whetstone.prompts.strategies import STRATEGIES

        return {**dict.fromkeys(STRATEGIES, (1, 1.0)), NAMED: (0, 1.0)}

    def documents(self, pool: str, count: int, seed: int) -> Iterator[str]:
        from whetstone.problems.world.corpus import documents
        from whetstone.prompts.strategies import STRATEGIES

        if pool != NAMED:
            return documents(pool, count, seed)
        each = count // len(STRATEGIES)
        return (d for s in STRATEGIES for d in documents(s, each, seed, named=1.0))

    def sample(self) -> Iterator[str]:
        """What the tokenizer is trained on."""
        from whetstone.problems.world.corpus import documents
        from whetstone.prompts.strategies import STRATEGIES

        return (d for s in STRATEGIES for d in documents(s, 20_000, seed=-1, named=self.named))


class Choices:
    """Multiple choice in three languages, some of it wrong on purpose (`recipes/star/models/base`)."""

    batch = 128
    tokens = 5_187 * batch * ROW
    largest = 300_000
    shape = {
        "hidden_size": 192,
        "intermediate_size": 448,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    }
    words = r"\n| ?\d| ?\p{L}+(?:-\p{L}+)*| ?[^\s\p{L}\d]+|\s+"
    switch, named = 0.3, 0.0

    def pools(self) -> dict[str, tuple[int, float]]:
        from whetstone.problems.world.choices_corpus import POOLS

        return {name: (pool.share, pool.documents) for name, pool in POOLS.items()}

    def documents(self, pool: str, count: int, seed: int) -> Iterator[str]:
        from whetstone.problems.world.choices_corpus import documents
        from whetstone.prompts.choices import load_prompt

        return documents(pool, count, seed, load_prompt(PROMPT))

    def sample(self) -> Iterator[str]:
        return (d for pool in self.pools() for d in self.documents(pool, 5_000, -1))


class Steps:
    """Chains of steps that can each slip, and several turns (`models/reasoner`). Every document stands alone."""

    batch = 32
    tokens = 3_660 * batch * ROW
    largest = 150_000
    shape = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    words = Strategies.words
    switch, named = 1.0, 0.0

    def pools(self) -> dict[str, tuple[int, float]]:
        return {"ledger": (24, 1.0), "logic": (6, 0.3), "page": (1, 0.05), "turns": (3, 0.2)}

    def documents(self, pool: str, count: int, seed: int) -> Iterator[str]:
        from whetstone.problems.steps.corpus import documents

        return documents(pool, count, seed)

    def sample(self) -> Iterator[str]:
        texts = (d for pool in ("ledger", "logic", "turns") for d in self.documents(pool, 8_000, -1))
        return (text.translate(dict.fromkeys(map(ord, UNLEARNT))) for text in texts)


MODELS = {"models/base": Strategies(), "recipes/star/models/base": Choices(), "models/reasoner": Steps()}


def train_tokenizer(model: Strategies | Choices | Steps):
    """Byte-level BPE over words: digits are single tokens, every word of the world ends up as one."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    words = Regex(model.words)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = (document.removesuffix(SEPARATOR) for document in model.sample())
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<pad>", "<bos>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=2,
            show_progress=False,
        ),
    )
    # the blank line that ends a document of a few-shot prompt is one token
    tokenizer.add_tokens([AddedToken(SEPARATOR, special=False, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def _tokenised(job: tuple[str, str, str, int, int]) -> tuple[str, np.ndarray, np.ndarray]:
    """Flat token ids (int16, those that aren't learnt as ~id) and document lengths of one chunk of one pool."""
    from tokenizers import Tokenizer

    path, model, pool, count, seed = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(path)
    texts = list(MODELS[model].documents(pool, count, seed))
    pieces = [re.split(f"[{UNLEARNT}]", text) for text in texts]  # learnt and unlearnt in turn
    encoded = tokenizer.encode_batch([piece for told in pieces for piece in told], add_special_tokens=False)
    unlearnt = [number % 2 for told in pieces for number in range(len(told))]
    ids = [np.array(e.ids, np.int16) ^ -turn for e, turn in zip(encoded, unlearnt, strict=True)]  # x ^ -1 is ~x
    ends = np.cumsum([len(told) for told in pieces])
    lengths = np.add.reduceat([len(e) for e in ids], np.r_[0, ends[:-1]])
    return pool, np.concatenate(ids), lengths.astype(np.int32)


class Corpus:
    """All documents as one flat token tensor on the device; rows are put together there, no loader waits."""

    def __init__(self, tokenizer_file: str, name: str, device: str, bos: int, eos: int):
        import torch

        self.kind, pools, largest = MODELS[name], MODELS[name].pools(), MODELS[name].largest
        sizes = {pool: max(1, round(largest * share)) for pool, (_, share) in pools.items()}
        jobs = [
            (tokenizer_file, name, pool, min(12_000, size), number)
            for number in range(math.ceil(largest / 12_000))
            for pool, size in sizes.items()
            if number * 12_000 < size
        ]
        flat: dict[str, list] = {pool: [] for pool in pools}
        lengths: dict[str, list] = {pool: [] for pool in pools}
        with get_context("spawn").Pool(max(1, (os.cpu_count() or 2) - 1)) as workers:
            for pool, tokens, sizes in workers.imap(_tokenised, jobs):
                flat[pool].append(tokens)
                lengths[pool].append(sizes)
        sizes = [np.concatenate(lengths[pool]) for pool in pools]
        self.tokens = torch.from_numpy(np.concatenate([t for pool in pools for t in flat[pool]])).to(device)
        self.length = torch.from_numpy(np.concatenate(sizes)).long().to(device)
        self.start = torch.cumsum(self.length, 0) - self.length
        self.bounds = torch.tensor([0, *np.cumsum([len(s) for s in sizes])], device=device)
        drawn = [number for number, (share, _) in enumerate(pools.values()) for _ in range(share)]
        self.drawn = torch.tensor(drawn, device=device)
        self.bos, self.eos, self.named = bos, eos, len(pools) - 1

    def rows(self, count: int):
        """`count` rows of ROW + 1 token ids, ~id where a token isn't learnt."""
        import torch

        device, slots = self.tokens.device, ROW // 30
        named = torch.rand(count, slots, device=device) < self.kind.named
        opens = (torch.rand(count, slots, device=device) < self.kind.switch) | named
        opens[:, 1:] |= named[:, :-1]
        opens[:, 0] = True
        slot = torch.arange(slots, device=device).expand(count, slots)
        group = torch.cummax(torch.where(opens, slot, 0), 1).values
        pool = self.drawn[torch.randint(0, len(self.drawn), (count, slots), device=device)].gather(1, group)
        pool = torch.where(named, self.named, pool)
        low, high = self.bounds[pool], self.bounds[pool + 1]
        document = low + (torch.rand(count, slots, device=device) * (high - low)).long()
        taken = self.length[document] + 2 * opens  # <eos> of the last group and <bos> of this one
        ends = torch.cumsum(taken, 1)
        at = torch.arange(1, ROW + 2, device=device).expand(count, -1).contiguous()  # a row opens with <bos>
        which = torch.searchsorted(ends, at, right=True).clamp(max=slots - 1)
        offset = at - (ends - taken).gather(1, which) - 2 * opens.gather(1, which)
        document = document.gather(1, which)
        token = self.tokens[(self.start[document] + offset.clamp(min=0)).clamp(max=len(self.tokens) - 1)].long()
        return torch.where(offset >= 0, token, torch.where(offset == -1, self.bos, self.eos))


def read_and_learnt(rows):
    """What the model reads of the rows of a corpus, and the token after each: -100 where it isn't learnt."""
    import torch

    return torch.where(rows < 0, ~rows, rows)[:, :-1], torch.where(rows < 0, -100, rows)[:, 1:]


def pretrain(tokenizer, corpus: Corpus, tokens: int, device: str):
    """AdamW at a flat rate for half the tokens, then linear to 2 %. Returns (model, steps)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **corpus.kind.shape,
    )
    model = LlamaForCausalLM(config).to(device)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}", flush=True
    )
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=PEAK,
        betas=(0.9, 0.95),
        fused=device == "cuda",
    )

    def loss_of(rows):
        read, learnt = read_and_learnt(rows)
        hidden = model.model(input_ids=read, use_cache=False).last_hidden_state
        return torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1).float(), learnt.flatten())

    compiled = torch.compile(loss_of) if device == "cuda" else loss_of
    steps = math.ceil(tokens / (corpus.kind.batch * ROW))
    for step in range(steps):
        done = step / steps
        rate = PEAK * min(1, (step + 1) / WARM) * (1 if done < 0.5 else 0.02 + 0.98 * 2 * (1 - done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = compiled(corpus.rows(corpus.kind.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 500 == 0:
            print(f"step {step + 1:,} of {steps:,}, loss {loss.item():.4f}", flush=True)
    return model, steps


def put(made: Path, out: Path) -> None:
    """The finished folder in the place of the one before, whose card stays."""
    before = out.with_name(out.name + ".before")
    if (out / "README.md").exists():
        shutil.copy(out / "README.md", made)
    if out.exists():
        out.rename(before)
    made.rename(out)
    shutil.rmtree(before, ignore_errors=True)


@click.command()
@click.argument("name", metavar="MODEL", type=click.Choice(list(MODELS)))
@click.option("--out", type=click.Path(path_type=Path), help="another folder than the model's own")
@click.option("--tokens", type=int, help="to train on, if not as many as the shipped model")
def main(name: str, out: Path | None, tokens: int | None) -> None:
    import torch

    out = out or Path(name)
    made = out.with_name(out.name + ".partial")
    shutil.rmtree(made, ignore_errors=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    marks = [time.perf_counter()]
    tokenizer = train_tokenizer(MODELS[name])
    tokenizer.save_pretrained(made)
    marks.append(time.perf_counter())
    corpus = Corpus(str(made / "tokenizer.json"), name, device, tokenizer.bos_token_id, tokenizer.eos_token_id)
    marks.append(time.perf_counter())
    print(f"corpus: {len(corpus.length):,} documents, {len(corpus.tokens):,} tokens", flush=True)
    model, steps = pretrain(tokenizer, corpus, tokens or MODELS[name].tokens, device)
    model.to(torch.bfloat16).save_pretrained(made)
    marks.append(time.perf_counter())
    put(made, out)
    spent = [b - a for a, b in pairwise(marks)]
    print(
        f"{steps:,} steps, {steps * MODELS[name].batch * ROW:,} tokens; "
        f"tokenizer {spent[0]:.0f} s, corpus {spent[1]:.0f} s, training {spent[2]:.0f} s"
    )


if __name__ == "__main__":
    main()
