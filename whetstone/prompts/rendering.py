"""The text that becomes a prompt's tokens: the same in training as in sampling, plain or by a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TEMPLATE = "prompt_template"  # in tokenizer_config.json of a trained model, where it isn't plain


def rendered(tokenizer: Any, prompt: str) -> str:
    """The text that becomes a prompt's tokens, in training as in sampling: the prompt itself, or, for a tokenizer that
    is marked `chat`, all but its last line as a user's message in the tokenizer's chat template, and the last line as
    the beginning of the answer."""
    if tokenizer.init_kwargs.get(TEMPLATE, "plain") == "plain":
        return prompt
    message, _, opening = prompt.rpartition("\n")
    messages = [{"role": "user", "content": message}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + opening


def prompt_ids(ids: Sequence[int], bos: int | None, eos: int | None) -> list[int]:
    """A prompt's token ids, in training as in sampling, from what its tokenizer makes of it: with one BOS at most,
    also where the text spells it out too, and without an EOS at the end, after which a model has nothing to say."""
    ids = list(ids)
    while len(ids) > 1 and ids[0] == ids[1] == bos:
        del ids[0]
    if len(ids) > 1 and ids[-1] == eos:
        del ids[-1]
    return ids
