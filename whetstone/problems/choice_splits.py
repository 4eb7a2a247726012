"""Multiple-choice sources put together: groups across languages, and splits that follow from the group alone.

Rows that share an id across languages, a text, or a passage share a group, and a split is a hash of the group: no
question is in train in one language and in test in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pandas as pd

from whetstone.errors import UserError
from whetstone.problems.multiple_choice import ChoiceSource, load
from whetstone.problems.splits import uniform
from whetstone.records import fingerprint


def grouped(keys: Sequence[Iterable[str]]) -> list[str]:
    """A group for each row: rows that share a key are in one group, and so are rows that are linked by others."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for own in keys:
        first, *others = own
        for other in others:
            a, b = sorted((root(first), root(other)))
            parent[b] = a
    return [fingerprint("group", root(next(iter(own)))) for own in keys]


def assemble(
    sources: Sequence[ChoiceSource], dev: float, test: float, train_on_test: bool
) -> tuple[pd.DataFrame, dict]:
    """(problems with group and split, what was read and dropped by source). A group has one split in all languages:
    rows to `divide` go to test, dev or train by its hash, unless a source puts some of its rows elsewhere by name.

    Raises:
        UserError: a source's rows go to train or dev though they were published as a test set, and `train_on_test` is
            off; or a group would be in two splits.
    """
    tables = [load(source) for source in sources]
    for source, table in zip(sources, tables, strict=True):
        exposed = int((table["published"] == "test").sum())
        if exposed and source.split != "test" and not train_on_test:
            raise UserError(
                f"{source.path or source.dataset}: `split: {source.split}` would train on {exposed} rows of a "
                "published test set; give them `split: test`, or set `problems.train_on_test: true` and know that the "
                "numbers can't be compared with any published ones"
            )
    frame = pd.concat(tables, ignore_index=True)
    frame["group"] = grouped(list(frame["keys"]))
    starts = itertools.accumulate((len(table) for table in tables), initial=0)
    for source, table, start in zip(sources, tables, starts, strict=False):
        if source.limit is not None:
            own = frame.loc[start : start + len(table) - 1, "group"]
            chosen = sorted(set(own), key=lambda group: uniform("limit", group))[: source.limit]
            frame.loc[own.index[~own.isin(chosen)], "split"] = "left"
    left = frame["split"] == "left"
    frame = frame[~left].reset_index(drop=True)
    named = frame[frame["split"] != "divide"].groupby("group")["split"].agg(lambda splits: sorted(set(splits)))
    torn = named[named.map(len) > 1]
    if len(torn):
        example = frame[frame["group"] == torn.index[0]].iloc[0]
        raise UserError(
            f"{len(torn)} groups of questions are in {' and '.join(torn.iloc[0])} by name, such as that of "
            f"{example['id']!r}: {example['question'][:60]!r}; give all their sources one split, or `divide`"
        )
    fixed = named.map(lambda splits: splits[0]).to_dict()
    frame["split"] = [fixed.get(group) or _split(group, dev, test) for group in frame["group"]]
    if frame["id"].duplicated().any():
        raise UserError(f"two sources give {frame['id'][frame['id'].duplicated()].iloc[0]!r}; name each only once")
    counts = {f"{s.path or s.dataset} ({s.language})": t.attrs["counts"] for s, t in zip(sources, tables, strict=True)}
    trained = frame["split"].isin(["train", "dev"]) & (frame["published"] == "test")
    counts["trains_on_test_rows"] = int(trained.sum())
    counts["over_limit"] = int(left.sum())
    return frame.drop(columns=["keys", "published"]), counts


def _split(group: str, dev: float, test: float) -> str:
    at = uniform("split", group)
    return "test" if at < test else "dev" if at < test + dev else "train"
