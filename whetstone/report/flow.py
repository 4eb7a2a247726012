"""How many rows and tokens went through each stage, and what came from what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def md5(path: Path) -> str:
    """Hexadecimal MD5 of a file: the name under which DVC keeps it."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def token_rows(attempts: Mapping[str, pd.DataFrame], trained: Mapping[str, int]) -> list[dict]:
    """Tokens by table of attempts, and by epoch trained: {name, attempts, prompt, generated, trained}; None where
    there are none, or a table doesn't know them."""
    rows = []
    for name, own in attempts.items():
        known = own["completion_tokens"].notna().all() and own["prompt_tokens"].notna().all()
        rows.append(
            {
                "name": name,
                "attempts": len(own),
                "prompt": int(own["prompt_tokens"].sum()) if known else None,
                "generated": int(own["completion_tokens"].sum()) if known else None,
                "trained": None,
            }
        )
    none = {"attempts": None, "prompt": None, "generated": None}
    return rows + [{"name": f"models/{name}/adapter", **none, "trained": tokens} for name, tokens in trained.items()]


def data_flow(statistics: Mapping, trained: Mapping, trainer: str, rows: pd.DataFrame) -> list[dict]:
    """The way of one epoch's data: steps {title, count, unit, lost: {reason: n}, note}.

    Args:
        statistics: of curation (metrics/preprocess).
        trained: the trainer's summary (metrics/train).
        rows: what it was trained on: examples for sft, pairs for dpo.
    """
    dropped, verdicts = statistics["dropped"], statistics["verdicts"].values()
    right = sum(one["correct"] for one in verdicts)
    failed = {kind: sum(one[kind] for one in verdicts) for kind in ("wrong", "unparsed")}
    failed["no strategy"] = dropped["attempts_without_strategy"]
    unsolved = dropped["problems_unsolved"]
    steps = [
        ("asked", statistics["problems"], "problems", {}, ""),
        ("sampled", statistics["attempts"], "attempts", {}, f"{statistics['episodes']:,} episodes"),
        ("right", right, "attempts", failed, f"{unsolved:,} problems unsolved"),
    ]
    if trainer == "sft":
        faults = dropped["correct_but"]
        kept = int(rows["attempt_ids"].map(len).sum())  # attempts; one text may come from several
        other = right - sum(faults.values()) - kept
        lost = {**faults, "beside the success kept": other, "the same text": kept - statistics["examples"]}
        steps.append(("taught", statistics["examples"], "examples", lost, ""))
    else:
        formed = statistics["pairs"] + dropped["pairs_to_balance"]
        steps.append(("paired", formed, "pairs", {}, "right over wrong"))
        lost = {"left out to balance": dropped["pairs_to_balance"]}
        steps.append(("balanced", statistics["pairs"], "pairs", lost, ""))
    steps.append((f"trained by {trainer}", trained["tokens"], "tokens", {}, f"{trained['steps']:,} steps"))
    return [
        {"title": title, "count": count, "unit": unit, "lost": {why: n for why, n in lost.items() if n}, "note": note}
        for title, count, unit, lost, note in steps
    ]


def lineage(tables: Mapping[str, pd.DataFrame], root: Path) -> list[dict]:
    """Each table with what identifies it: {path, rows, md5, models, engines}, where engines are the fingerprints
    (kind, weights, precision) that its attempts carry."""
    rows = []
    for path, table in tables.items():
        engines = sorted(set(table["engine"])) if "engine" in table else []
        rows.append({"path": path, "rows": len(table), "md5": md5(root / path), "engines": engines})
    return rows
