"""Which layers of isolation must hold before a model's text meets an interpreter, and what a missing one opens.

Where one is missing, the text is refused: nothing runs, and the message says what to do. Who accepts a missing layer
names it: stages in `runtime.sandbox_may_lack` of params.yaml, other programs in the environment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from typing import NamedTuple

from whetstone.errors import UserError

MAY_LACK = "WHETSTONE_SANDBOX_MAY_LACK"  # names of layers, with commas between, for this process and those it starts
OPENS = {
    "limits": "nothing bounds what is written into files or what a crash leaves on the disk",
    "network": "nothing while seccomp holds; without seccomp also sockets, to this machine and to others",
    "user": "nothing while seccomp and Landlock hold; without them also what only root may do",
    "capabilities": "nothing while seccomp holds; without it also what root's rights allow",
    "landlock": "nothing while seccomp holds; without seccomp also every file that this user may read or delete",
    "seccomp": "every system call: sockets of this machine's services by their path, names and sizes of files, "
    "signals to the sandbox's own process, and whatever the kernel gets wrong",
}


class Layer(NamedTuple):
    """One layer of isolation: whether it holds on this machine, and what it does or why it is missing."""

    holds: bool
    detail: str


_seen: dict[str, Layer] = {}


def seen() -> dict[str, str] | None:
    """For the record: "holds", or why it is missing, for each layer that `require` was asked about in this process;
    a layer that was missing once counts as missing. None if nothing that is confined was started."""
    return {name: "holds" if layer.holds else layer.detail for name, layer in _seen.items()} or None


def require(held: Mapping[str, Layer], left_out: Collection[str] = ()) -> None:
    """Goes on only if every layer holds, or is accepted as missing, or was left out on purpose (by a test).

    Raises:
        UserError: one is missing. The message names it, what that opens, and how to accept it.
    """
    for name, layer in held.items():
        if _seen.setdefault(name, layer).holds:
            _seen[name] = layer
    accepted = {name.strip() for name in os.environ.get(MAY_LACK, "").split(",") if name.strip()}
    if unknown := sorted(accepted - set(OPENS)):
        raise UserError(f"{MAY_LACK} names {', '.join(unknown)}; the sandbox's layers are {', '.join(OPENS)}")
    missing = [name for name, layer in held.items() if not layer.holds and name not in left_out]
    told = "".join(f"\n  {name}: {held[name].detail}. Opens {OPENS[name]}" for name in missing)
    if not accepted.issuperset(missing):
        raise UserError(
            f"the sandbox isn't whole on this system, so no model's text is run or compared here. Missing:{told}\n"
            "Best is a system or container where they hold (docs/sandbox.md). If you trust the model, or the machine "
            f"holds nothing else, accept it: `runtime.sandbox_may_lack: [{', '.join(missing)}]` in params.yaml, or "
            f"{MAY_LACK}={','.join(missing)} in the environment"
        )
    if missing:
        warnings.warn(f"the sandbox runs without layers, as was asked for:{told}", RuntimeWarning, stacklevel=2)
