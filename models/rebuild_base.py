"""Rebuilds models/base from nothing: corpus, tokenizer and weights. One GPU, a few minutes; prints time and tokens.

    python models/rebuild_base.py --out models/base

The model reads the training distribution of the generated world and nothing else. A training row is a sequence of
groups `<bos> document document ... <eos>`; a group keeps to one strategy (that alone teaches it to follow a few-shot
prompt), and a document that names its strategy stands in a group of its own.
"""

from __future__ import annotations

import math
import os
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np

NAMED = "named"  # pool of documents that name their strategy
MAX_POSITIONS, ROW = 2048, 1280  # context of the model, tokens in a training row
VOCABULARY = 2048  # an upper bound: merges run out before
SWITCH, NAMED_SHARE = 0.12, 0.15  # probability that a document opens a new group, share of named documents
SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
}


def train_tokenizer():
    """Byte-level BPE over words: digits are single tokens, every word of the world ends up as one."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from whetstone.problems.world.corpus import SEPARATOR, documents
    from whetstone.strategies import STRATEGIES

    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\n| ?\d| ?[A-Za-z]+(?:-[A-Za-z]+)*| ?[^\sA-Za-z\d]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = (d.removesuffix(SEPARATOR) for s in STRATEGIES for d in documents(s, 20_000, seed=-1, named=NAMED_SHARE))
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


def _tokenised(job: tuple[str, str, int, int]) -> tuple[str, np.ndarray, np.ndarray]:
    """Flat token ids (int16) and document lengths of one chunk of one pool."""
    from tokenizers import Tokenizer

    from whetstone.problems.world.corpus import documents
    from whetstone.strategies import STRATEGIES

    path, pool, count, seed = job
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(path)
    if pool == NAMED:
        each = count // len(STRATEGIES)
        texts = [d for s in STRATEGIES for d in documents(s, each, seed, named=1.0)]
    else:
        texts = list(documents(pool, count, seed))
    encoded = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return (
        pool,
        np.concatenate([np.array(e, np.int16) for e in encoded]),
        np.array([len(e) for e in encoded], np.int32),
    )


class Corpus:
    """All documents as one flat token tensor on the device; rows are put together there, no loader waits."""

    def __init__(self, tokenizer_file: str, per_strategy: int, device: str, bos: int, eos: int):
        import torch

        from whetstone.strategies import STRATEGIES

        pools = [*STRATEGIES, NAMED]
        chunk = min(12_000, per_strategy)
        jobs = [
            (tokenizer_file, pool, chunk, number)
            for number in range(math.ceil(per_strategy / chunk))
            for pool in pools
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
        self.bos, self.eos, self.named = bos, eos, len(pools) - 1

    def rows(self, count: int):
        """`count` rows of ROW + 1 token ids."""
        import torch

        device, slots = self.tokens.device, ROW // 30
        named = torch.rand(count, slots, device=device) < NAMED_SHARE
        opens = (torch.rand(count, slots, device=device) < SWITCH) | named
        opens[:, 1:] |= named[:, :-1]
        opens[:, 0] = True
        slot = torch.arange(slots, device=device).expand(count, slots)
        group = torch.cummax(torch.where(opens, slot, 0), 1).values
        pool = torch.randint(0, self.named, (count, slots), device=device).gather(1, group)
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


def pretrain(tokenizer, corpus: Corpus, seconds: float, batch: int, peak: float, device: str):
    """AdamW at a flat rate for half the time, then linear to 2 %. Returns (model, steps, tokens)."""
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
        **SHAPE,
    )
    model = LlamaForCausalLM(config).to(device)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}", flush=True
    )
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.95),
        fused=device == "cuda",
    )

    def loss_of(rows):
        hidden = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        return torch.nn.functional.cross_entropy(model.lm_head(hidden).flatten(0, 1).float(), rows[:, 1:].flatten())

    compiled = torch.compile(loss_of) if device == "cuda" else loss_of
    step, began, warm = 0, None, 150
    while True:
        done = 0.0 if began is None else (time.perf_counter() - began) / seconds
        if done >= 1:
            break
        rate = peak * min(1, (step + 1) / warm) * (1 if done < 0.5 else 0.02 + 0.98 * 2 * (1 - done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = compiled(corpus.rows(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step == 3:  # compiled by now
            loss.item()
            began = time.perf_counter()
        if step % 500 == 0:
            print(f"step {step}, loss {loss.item():.4f}, {step * batch * ROW / 1e6:.0f} M tokens", flush=True)
    return model, step, step * batch * ROW


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--seconds", default=300.0, show_default=True, help="training time after compilation")
@click.option("--documents", default=400_000, show_default=True, help="documents per strategy")
@click.option("--batch", default=128, show_default=True, help=f"rows of {ROW} tokens in a step")
@click.option("--learning-rate", default=3e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(out: Path, seconds: float, documents: int, batch: int, learning_rate: float, seed: int) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    marks = [time.perf_counter()]
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(out)
    marks.append(time.perf_counter())
    corpus = Corpus(str(out / "tokenizer.json"), documents, device, tokenizer.bos_token_id, tokenizer.eos_token_id)
    marks.append(time.perf_counter())
    print(f"corpus: {len(corpus.length):,} documents, {len(corpus.tokens):,} tokens", flush=True)
    model, steps, tokens = pretrain(tokenizer, corpus, seconds, batch, learning_rate, device)
    marks.append(time.perf_counter())
    model.to(torch.bfloat16).save_pretrained(out)
    spent = [b - a for a, b in pairwise(marks)]
    print(
        f"{steps:,} steps, {tokens:,} tokens; "
        f"tokenizer {spent[0]:.0f} s, corpus {spent[1]:.0f} s, training {spent[2]:.0f} s"
    )


if __name__ == "__main__":
    main()
