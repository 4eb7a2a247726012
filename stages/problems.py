"""Problems into their splits: train in five parts, dev, and the evaluation sets, one table each."""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd
from pydantic import Field, model_validator

from stages import common, output
from whetstone import records
from whetstone.errors import UserError
from whetstone.problems import splits
from whetstone.problems.loaders import SourceSpec, load

OUT = Path("data/problems")
PARTS = range(1, 6)


class World(common.Strict):
    """How many problems of the generated world each split has."""

    train: int = Field(ge=1)
    dev: int = Field(ge=1)
    test: int = Field(ge=1)
    test_hard: int = Field(ge=0)
    seed: int = 0


class Problems(common.Strict):
    """Where problems come from: the generated world, or data sets."""

    world: World | None = None
    sources: list[SourceSpec] = []
    dev_share: float = Field(0.02, ge=0, lt=1)
    overlap: int = Field(13, ge=4)

    @model_validator(mode="after")
    def _one_origin(self) -> Problems:
        if (self.world is None) != bool(self.sources):
            raise ValueError("give either `world` (set the other to []) or `sources` (set `world` to null)")
        for source in self.sources:
            common.watched(source.path)
        return self


def generated(world: World) -> tuple[pd.DataFrame, dict]:
    """The generated world's problems; train is dealt into parts by hash of the group."""
    from whetstone.problems.world import generate

    sizes = {name: getattr(world, name) for name in ("train", "dev", "test", "test_hard")}
    frame = pd.DataFrame([row for name, size in sizes.items() for row in generate(name, size, world.seed)])
    parts = frame["group"].map(splits.part_of).where(frame["split"] == "train", 0)
    return frame.assign(part=parts), {}


def loaded(section: Problems) -> tuple[pd.DataFrame, dict]:
    """The data sets' problems, train without what overlaps with an evaluation set; and what was dropped, by reason."""
    tables = [load(source) for source in section.sources]
    dropped = {frame["source"].iloc[0]: frame.attrs["counts"] for frame in tables}
    frame = splits.hold_out(pd.concat(tables, ignore_index=True), section.dev_share)
    training = frame["split"].isin(["train", "dev"])
    asked = {str(name): list(own["question"]) for name, own in frame[~training].groupby("split")}
    clean, overlapping = splits.decontaminate(frame[training], asked, section.overlap)
    dropped["overlap"] = {name: len(ids) for name, ids in overlapping.items()}
    return pd.concat([clean, frame[~training]], ignore_index=True), dropped


@click.command(cls=common.Stage)
def main() -> None:
    """Writes data/problems/part-1..5, dev and one table for each evaluation set."""
    section = common.section("problems", Problems)
    frame, dropped = generated(section.world) if section.world else loaded(section)
    missing = [name for name in (*common.structure().datasets, "dev") if not (frame["split"] == name).any()]
    if missing:
        raise UserError(
            f"{common.PARAMS}: `datasets` asks for {missing}, but `problems` has {sorted(set(frame['split']))}"
        )
    if torn := splits.straddling(frame):
        raise UserError(f"{len(torn)} groups of problems are in two splits, such as that of {torn[0]!r}")
    sizes = {}
    for part in PARTS:
        own = frame[(frame["split"] == "train") & (frame["part"] == part)]
        sizes[f"part-{part}"] = records.write(own, records.PROBLEM, OUT / f"part-{part}.parquet")
    for name in sorted(set(frame["split"]) - {"train"}):
        sizes[name] = records.write(frame[frame["split"] == name], records.PROBLEM, OUT / f"{name}.parquet")
    left_out = {f"{name}: {why}": n for name, counts in dropped.items() for why, n in counts.items()
                if why not in ("read", "kept")}  # fmt: skip
    output.count(sum(sizes.values()) + sum(left_out.values()), sum(sizes.values()), left_out)
    records.write_json("metrics/problems.json", {"rows": sizes, "loaded": dropped})
    output.finish("problems", rows=sizes, loaded=dropped or "generated", path=OUT)


if __name__ == "__main__":
    main()
