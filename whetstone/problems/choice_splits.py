"""Multiple-choice sources put together: groups across languages, and splits that follow from the group alone.

Rows that are one question in several languages or layouts (`problems.alignment`), or share a text or a passage, share
a group, and a split is a hash of the group: no question is in train in one language and in test in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from whetstone.errors import UserError
from whetstone.problems.alignment import Row, Unaligned, align
from whetstone.problems.multiple_choice import ChoiceSource, load
from whetstone.problems.splits import uniform
from whetstone.records import fingerprint

KINDS = ("global_mmlu", "mmlu", "simple_evals", "mmmlu", "logiqa2", "aqua", "commonsenseqa")  # the surest ids first
HELD_OUT_FIRST = ("test", "dev", "train")
MOST_LOST = 0.1  # of the rows with a split by name, those whose question is named for another
WITHOUT_SUBJECTS = ("logiqa2", "aqua")  # what their families say differs between languages


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
    sources: Sequence[ChoiceSource], dev: float, test: float, train_on_test: bool, unaligned: bool = False
) -> tuple[pd.DataFrame, dict]:
    """(problems with group and split, what was read and dropped by source). A group has one split in all languages:
    rows to `divide` go to test, dev or train by its hash, unless a source puts some of its rows elsewhere by name.
    Rows named for train or dev whose question is named for test (or dev) elsewhere are dropped and counted.

    Raises:
        UserError: a source's rows go to train or dev though they were published as a test set, and `train_on_test` is
            off; sources of one data set can't be aligned, and `unaligned` is off; or more than a tenth of the rows
            with a split by name are of groups in two.
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
    names, strangers = _aligned(sources, tables)
    if strangers and not unaligned:
        first, rows = strangers[0], sum(one.rows for one in strangers)
        where, split = sources[first.source].path or sources[first.source].dataset, first.split
        raise UserError(
            f"{where}: {rows:,} rows of {len(strangers)} subjects can't be aligned with the same data set in other "
            f"languages or layouts, such as `{first.subject}` ({split}): {first.agreeing} of {first.rows} right "
            "letters agree, so a question could be in train in one language and in test in another. Give whole files "
            "in their published order, or set `problems.unaligned: true` where these are other questions"
        )
    frame = pd.concat(tables, ignore_index=True)
    frame["group"] = grouped([[*own, *name] for own, name in zip(frame["keys"], names, strict=True)])
    starts = itertools.accumulate((len(table) for table in tables), initial=0)
    for source, table, start in zip(sources, tables, starts, strict=False):
        if source.limit is not None:
            own = frame.loc[start : start + len(table) - 1, "group"]
            chosen = sorted(set(own), key=lambda group: uniform("limit", group))[: source.limit]
            frame.loc[own.index[~own.isin(chosen)], "split"] = "left"
    left = frame["split"] == "left"
    frame = frame[~left].reset_index(drop=True)
    named = frame[frame["split"] != "divide"].groupby("group")["split"].agg(lambda splits: sorted(set(splits)))
    fixed = named.map(lambda splits: min(splits, key=HELD_OUT_FIRST.index)).to_dict()
    places = zip(frame["split"], frame["group"], strict=True)
    lost = [split not in ("divide", fixed.get(group)) for split, group in places]
    torn = named[named.map(len) > 1]
    if sum(lost) > MOST_LOST * (frame["split"] != "divide").sum():
        example = frame[frame["group"] == torn.index[0]].iloc[0]
        raise UserError(
            f"{len(torn)} groups of questions are in {' and '.join(torn.iloc[0])} by name, such as that of "
            f"{example['id']!r}: {example['question'][:60]!r}; give all their sources one split, or `divide`"
        )
    frame = frame[~np.array(lost)].reset_index(drop=True)
    frame["split"] = [fixed.get(group) or _split(group, dev, test) for group in frame["group"]]
    if frame["id"].duplicated().any():
        raise UserError(f"two sources give {frame['id'][frame['id'].duplicated()].iloc[0]!r}; name each only once")
    counts = {f"{s.path or s.dataset} ({s.language})": t.attrs["counts"] for s, t in zip(sources, tables, strict=True)}
    trained = frame["split"].isin(["train", "dev"]) & (frame["published"] == "test")
    counts["trains_on_test_rows"] = int(trained.sum())
    counts["over_limit"] = int(left.sum())
    counts["in_a_held_out_split_too"] = int(sum(lost))
    counts["unaligned_rows"] = sum(one.rows for one in strangers)
    return frame.drop(columns=["keys", "published", "set", "part_of_set", "place"]), counts


def _aligned(
    sources: Sequence[ChoiceSource], tables: Sequence[pd.DataFrame]
) -> tuple[list[list[str]], list[Unaligned]]:
    """For each row, table after table, the key by which it is one question with others, or none where its set gives an
    id; and what can't be aligned. In which order sources are named changes nothing."""
    keys: list[list[list[str]]] = [[[] for _ in range(len(table))] for table in tables]
    found: list[Unaligned] = []
    ranked = sorted(range(len(sources)), key=lambda n: (KINDS.index(sources[n].kind), sources[n].model_dump_json()))
    for name in sorted({table["set"].iloc[0] for table in tables}):
        own = [number for number in ranked if tables[number]["set"].iloc[0] == name and any(tables[number]["place"])]
        rows = [_rows(sources[number], tables[number]) for number in own]
        named, strangers = align(rows)
        found += [one._replace(source=own[one.source]) for one in strangers]
        for number, places in zip(own, named, strict=True):
            keys[number] = [[f"{name}:{place}" for place in some] for some in places]
    return [key for table in keys for key in table], found


def _rows(source: ChoiceSource, table: pd.DataFrame) -> list[Row]:
    layout, subjects = (source.kind, source.language), table["family"]
    if source.kind in WITHOUT_SUBJECTS:
        subjects = [""] * len(table)
    columns = (table[name] for name in ("part_of_set", "place", "question", "options", "answer"))
    return [
        Row(subject or "", split, place, layout, question, options, answer)
        for subject, split, place, question, options, answer in zip(subjects, *columns, strict=True)
    ]


def _split(group: str, dev: float, test: float) -> str:
    at = uniform("split", group)
    return "test" if at < test else "dev" if at < test + dev else "train"
