"""The text that becomes a prompt's tokens: the same in training as in sampling, plain or by a chat template."""

from __future__ import annotations

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
