"""Shows what publishing a checkpoint or the data would upload to the Hugging Face Hub; uploads only when told.

make publish REPO=me/my-model CHECKPOINT=epoch2                  what would be uploaded, card included
make publish REPO=me/my-model CHECKPOINT=epoch2 UPLOAD=1         uploads it, private unless PUBLIC=1
make publish REPO=me/my-data DATA=1                              problems, attempts, training data, evaluations
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq

from stages import common
from stages.run import Command, scratch
from tools import lineage
from whetstone import records
from whetstone.errors import UserError

ROOMS = ("problems", "attempts", "training", "evaluation")


def manifests(*kinds: str) -> tuple[dict[str, dict | None], dict[str, dict[str, str | None]]]:
    """Manifests and inputs, by stage, of the stages whose names begin so (`train@epoch1`, or `train` for all)."""
    with lineage.opened() as repo:
        own = [one for one in lineage.pipeline(repo) if one.name in kinds or one.name.partition("@")[0] in kinds]
        return {one.name: lineage.record(one) for one in own}, {one.name: lineage.inputs(one) for one in own}


def chain(checkpoint: str) -> list[tuple[str, common.Epoch]]:
    """The epochs that led to a checkpoint, in order."""
    found, label = [], checkpoint
    while label != "base":
        epoch = common.epoch_of(label)
        found.append((label, epoch))
        label = epoch.start
    return found[::-1]


def read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such metrics; run the stage that makes them (`dvc repro` does)") from None


def model(repository: str, checkpoint: str, merged: bool, licence: str | None, folder: Path) -> None:
    """Puts a checkpoint's files and its card into the folder."""
    from whetstone.report.cards import model_card

    epochs = chain(checkpoint)
    source = common.model_path(checkpoint) if merged else Path("models") / checkpoint / "adapter"
    if not source.is_dir():
        raise UserError(f"{source}: no model there; `dvc repro train@{checkpoint}` makes it")
    summary = read("metrics/summary.json")
    if checkpoint not in summary:
        raise UserError(f"metrics/summary.json has no {checkpoint}; name it in `epochs.evaluate` and run `dvc repro`")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    base = common.section("model", common.Model)
    names = [f"{stage}@{name}" for name, _ in epochs for stage in ("preprocess", "train")]
    known, inputs = manifests(*names)
    card = model_card(
        repository,
        checkpoint,
        base=base.name,
        revision=base.revision,
        licence=licence,
        merged=merged,
        chain=[(name, one.trainer, one.attempts, read(f"metrics/train/{name}.json")) for name, one in epochs],
        summary=summary,
        manifests=known,
        inputs={path: md5 for path, md5 in inputs.get(f"train@{checkpoint}", {}).items() if not path.endswith(".py")},
    )
    (folder / "README.md").write_text(card)


def data(repository: str, licence: str | None, folder: Path) -> None:
    """Puts the run's tables and their card into the folder."""
    from whetstone.report.cards import dataset_card

    found: dict[str, dict[str, int]] = {}
    engines, sources = set(), set()
    for room in ROOMS:
        for file in sorted(Path("data", room).glob("**/*.parquet")):
            place = file.relative_to("data")
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / place)
            found.setdefault(room, {})[str(place)] = pq.read_metadata(file).num_rows
            if room in ("attempts", "evaluation"):
                engines |= set(records.read(file, records.ATTEMPT)["engine"])
            if room == "problems":
                sources |= set(records.read(file, records.PROBLEM)["source"])
    if not found:
        raise UserError("data: no table there; `dvc repro` makes them")
    known, _ = manifests("problems", "infer", "sample", "preprocess")
    text = dataset_card(
        repository, found, licence=licence, sources=sorted(sources), engines=sorted(engines), manifests=known
    )
    (folder / "README.md").write_text(text)


def upload(repository: str, kind: str, folder: Path, public: bool) -> str:
    """Creates the repository where it isn't, and uploads the folder in one commit; the commit's address.

    Raises:
        UserError: the Hub refuses, or can't be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, repo_type=kind, folder_path=folder, commit_message="Published by Whetstone"
        )
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{repository}: the Hub refuses ({str(error).splitlines()[0][:200]}); `hf auth whoami` tells who you are "
            "there, `hf auth login` logs you in"
        ) from error
    return str(done.commit_url)


@click.command(cls=Command)
@click.option("--repository", required=True, help="owner/name on the Hub")
@click.option("--checkpoint", help="which epoch's model, such as epoch2")
@click.option("--data", "tables", is_flag=True, help="the run's data instead of a model")
@click.option("--merged", is_flag=True, help="the merged model instead of the adapter")
@click.option(
    "--licence", help="for the card, such as apache-2.0; yours to know: the base model's and the data's bind you"
)
@click.option("--upload", "uploads", is_flag=True, help="do it; without this, nothing leaves the machine")
@click.option("--public", is_flag=True, help="visible to everybody; private otherwise")
def main(
    repository: str,
    checkpoint: str | None,
    tables: bool,
    merged: bool,
    licence: str | None,
    uploads: bool,
    public: bool,
) -> None:
    """Shows, or uploads, a checkpoint or the data with a card."""
    if repository.count("/") != 1:
        raise UserError(f"{repository!r} is no repository; write owner/name")
    if tables == bool(checkpoint):
        raise UserError("give either --checkpoint (a model) or --data")
    folder = scratch("publish") / repository.replace("/", "--")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if checkpoint:
        model(repository, checkpoint, merged, licence, folder)
    else:
        data(repository, licence, folder)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    kind = "dataset" if tables else "model"
    for file in files:
        click.echo(f"{file.stat().st_size:>14,}  {file.relative_to(folder)}")
    total, access = sum(file.stat().st_size for file in files), "public" if public else "private"
    click.echo(f"{total:>14,}  bytes in {len(files)} files for the {access} {kind} {repository}; staged in {folder}")
    if uploads:
        click.echo(f"Uploaded: {upload(repository, kind, folder, public)}")
    else:
        click.echo("Nothing was uploaded. Read README.md there, then run this again with --upload (make: UPLOAD=1)")


if __name__ == "__main__":
    main()
