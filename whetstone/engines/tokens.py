"""Prompts to token ids, the same for every engine, so that a rollout's ids are a prefix of its training example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from whetstone.errors import UserError
from whetstone.prompts.rendering import prompt_ids, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Raises UserError where there is no tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(f"tokenizer {model}: {str(error).splitlines()[0]}") from error


def encode(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """With the model's own template and special tokens; see `rendering.prompt_ids`."""
    lists = tokenizer([rendered(tokenizer, prompt) for prompt in prompts])["input_ids"] if prompts else []
    return [prompt_ids(ids, tokenizer.bos_token_id, tokenizer.eos_token_id) for ids in lists]


def check(encoded: Sequence[Sequence[int]], prompts: Sequence[str], context: int, first: int = 0) -> None:
    """Raises UserError where a prompt (numbered from `first`) is empty or leaves no room in the model's context."""
    for number, ids in enumerate(encoded):
        if not 0 < len(ids) < context:
            raise UserError(
                f"prompt {first + number} has {len(ids)} tokens; the model's context of {context} must hold them and "
                f"at least one more: {prompts[number][:60]!r}..."
            )


def heads(tokenizer: PreTrainedTokenizerBase, choices: Sequence[str]) -> list[int]:
    """The first token of each choice. Raises UserError where two share it."""
    found = [tokenizer(choice, add_special_tokens=False)["input_ids"][0] for choice in choices]
    if len(set(found)) < len(found):
        raise UserError(f"choices {list(choices)} share their first token; reword one of them")
    return found
