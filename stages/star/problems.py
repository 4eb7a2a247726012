"""Multiple-choice problems into train, dev and test, grouped across languages."""

from __future__ import annotations

from typing import Literal

import click
import pandas as pd
from pydantic import Field, model_validator

from stages import common, output
from stages.star.common import BANNER, PROBLEMS
from whetstone import records
from whetstone.errors import UserError
from whetstone.problems import splits
from whetstone.problems.multiple_choice import ChoiceSource

SPLITS = ("train", "dev", "test")


class World(common.Strict):
    """Problems of the generated world, in each language."""

    train: int = Field(ge=1)
    dev: int = Field(ge=1)
    test: int = Field(ge=1)
    seed: int = 0


class Problems(common.Strict):
    """Where problems come from: the generated world, or data sets."""

    world: World | None = None
    languages: list[Literal["en", "de", "sw"]] = ["en", "de", "sw"]
    sources: list[ChoiceSource] = []
    dev_share: float = Field(0.1, gt=0, lt=0.5)  # of the groups of sources that are to be divided
    test_share: float = Field(0.1, gt=0, lt=0.5)
    train_on_test: bool = False
    unaligned: bool = False  # other questions in each language are meant

    @model_validator(mode="after")
    def _one_origin(self) -> Problems:
        if (self.world is None) != bool(self.sources):
            raise ValueError("give either `world` (set the other to []) or `sources` (set `world` to null)")
        for source in self.sources:
            common.watched(source.path)
        return self


def made(section: Problems) -> tuple[pd.DataFrame, dict]:
    """The problems and the counts of what was read and dropped."""
    if section.world is None:
        from whetstone.problems.choice_splits import assemble

        shares = section.dev_share, section.test_share
        return assemble(section.sources, *shares, section.train_on_test, section.unaligned)
    from whetstone.problems.world.choices import generate

    world = section.world
    rows = [row for name in SPLITS for row in generate(name, getattr(world, name), section.languages, world.seed)]
    return pd.DataFrame(rows), {"trains_on_test_rows": 0}


@click.command(cls=common.Stage)
def main() -> None:
    """Writes data/problems/{train,dev,test}.parquet and metrics/problems.json."""
    frame, counts = made(common.section("problems", Problems))
    if torn := splits.straddling(frame):
        raise UserError(f"{len(torn)} groups of problems are in two splits, such as that of {torn[0]!r}")
    sizes: dict[str, dict] = {}
    language = frame["language"].map(lambda name: name or "all")
    for name in SPLITS:
        own = frame["split"] == name
        if not own.any():
            raise UserError(f"{common.PARAMS}: `problems`: no row is in {name}; load more, or change the shares")
        records.write(frame[own], records.PROBLEM, PROBLEMS / f"{name}.parquet")
        sizes[name] = {"all": int(own.sum()), **language[own].value_counts().sort_index().to_dict()}
    records.write_json("metrics/problems.json", {"rows": sizes, "loaded": counts})
    output.finish("problems", **sizes, path=PROBLEMS)
    if counts["trains_on_test_rows"]:
        click.secho(BANNER.format(rows=counts["trains_on_test_rows"]), bold=True)


if __name__ == "__main__":
    main()
