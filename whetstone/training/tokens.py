"""Rows of text to token ids, exactly as an engine feeds a prompt and as a model goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from whetstone.errors import UserError
from whetstone.prompts.rendering import prompt_ids

Encode = Callable[[str], list[int]]  # text to ids, with the special tokens that the tokenizer adds by itself


def continuation_ids(
    encode: Encode, prompt: str, completion: str, bos: int | None, eos: int, where: str
) -> tuple[list[int], list[int]]:
    """(ids of the prompt, ids of the completion): the completion as a model writes it after the prompt, with one EOS
    at its end.

    Raises:
        UserError: the completion is empty, holds an EOS in its middle, or its first letters merge with the end of the
            prompt into one token, so that no model that was fed the prompt could have written it.
    """
    head, whole = (prompt_ids(encode(text), bos, eos) for text in (prompt, prompt + completion))
    if whole[: len(head)] != head:
        raise UserError(
            f"{where}: prompt and completion share a token where they meet: "
            f"{prompt[-12:]!r} + {completion[:12]!r}; begin the completion with a blank or a new line"
        )
    tail = whole[len(head) :]
    if not tail:
        raise UserError(f"{where}: the completion is empty")
    if eos in tail:
        raise UserError(f"{where}: the completion holds the end-of-sequence token before its end: {completion!r}")
    return head, [*tail, eos]


def turn_ids(
    encode: Encode, turns: Sequence[Mapping[str, Any]], bos: int | None, eos: int, where: str
) -> tuple[list[int], list[float | None]]:
    """(ids, weight of each id, None where it isn't trained) of turns that follow each other, with one EOS at the end
    of the last, where that is trained.

    Raises:
        UserError: two turns share a token where they meet, so that no model that was fed the one could have written
            the other.
    """

    def bare(text: str) -> list[int]:  # an EOS that the tokenizer adds of itself goes, one that is in the text stays
        ids = prompt_ids(encode(text), bos, None)
        return ids[:-1] if ends and len(ids) > 1 else ids

    ends = encode("a")[-1:] == [eos]
    text, ids, weights = "", [], []
    for number, turn in enumerate(turns, 1):
        text += turn["text"]
        longer = bare(text)
        if longer[: len(ids)] != ids or len(longer) == len(ids):
            raise UserError(
                f"{where}: turns {number - 1} and {number} share a token where they meet, at {turn['text'][:12]!r}; "
                "begin a turn with a blank or a new line"
            )
        weights += [turn["weight"]] * (len(longer) - len(ids))
        ids = longer
    if turns[-1]["weight"] is not None and ids[-1] != eos:
        ids, weights = [*ids, eos], [*weights, turns[-1]["weight"]]
    return ids, weights


def chat_turns(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], weights: Sequence[float | None], where: str
) -> list[dict[str, Any]]:
    """`turns` of a conversation in the tokenizer's chat template. What the template makes of an assistant's message,
    its end included, has that message's weight (None where it isn't trained); everything else is context.

    Raises:
        UserError: the template shows a message otherwise when another follows: no model was ever asked like that.
    """
    turns: list[dict[str, Any]] = []
    text = ""
    for number, (message, weight) in enumerate(zip(messages, weights, strict=True)):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(messages[: number + 1], tokenize=False)
        if not (before.startswith(text) and after.startswith(before)):
            raise UserError(f"{where}: the chat template shows message {number} otherwise once another follows it")
        turns += [{"text": before[len(text) :], "weight": None}, {"text": after[len(before) :], "weight": weight}]
        text = after
    return turns


def check_lengths(
    ids: Sequence[str], lengths: Sequence[int], prompts: Sequence[int], max_length: int, truncate: bool, where: str
) -> int:
    """How many rows are longer than `max_length` tokens and will be cut.

    Raises:
        UserError: some are and `truncate` is off, or a prompt alone leaves no room for its completion.
    """
    over = [i for i, length in enumerate(lengths) if length > max_length]
    if not over:
        return 0
    worst = max(over, key=lambda i: lengths[i])
    if not truncate:
        raise UserError(
            f"{where}: max_length {max_length} would cut {len(over)} of {len(lengths)} rows; the longest is "
            f"{ids[worst]!r} with {lengths[worst]} tokens. Set max_length to {lengths[worst]}, or `truncate: true`"
        )
    full = [i for i in over if prompts[i] >= max_length]
    if full:
        raise UserError(
            f"{where}: the prompt of {ids[full[0]]!r} takes {prompts[full[0]]} tokens, max_length is {max_length}: "
            f"{len(full)} of {len(lengths)} rows would keep no completion"
        )
    return len(over)


def file_encoder(model: str | Path) -> Encode | None:
    """An encoder made from `tokenizer.json` alone, without importing torch; None where the model has no such file."""
    path = Path(model) / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text).ids
