"""Where a checkpoint or a training row comes from.

make trace MODEL=models/epoch2     the tree from checkpoint to training set, attempts, prompts and problems
make trace EXAMPLE=<id>            the sampled text behind one row of a training set
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
from rich.markup import escape
from rich.tree import Tree

from stages import code
from stages.run import Command
from tools import lineage
from whetstone import records
from whetstone.errors import UserError

FACTS = (
    *("strategy", "verdict", "answer", "gold", "options", "rule", "error", "sample", "turn", "parent", "variant"),
    *("probability", "seed", "engine", "prompt_hash", "completion_tokens"),
)


def tables(repo: Any, *schemas: Any) -> Iterator[tuple[Path, Any]]:
    """The pipeline's tables of these kinds that are here: (file, schema)."""
    for path in [Path(out.def_path) for stage in lineage.pipeline(repo) for out in stage.outs]:
        for file in sorted(path.glob("**/*.parquet")) if path.is_dir() else [path] * (path.suffix == ".parquet"):
            if file.exists():
                names = pq.read_schema(file).names
                yield from ((file, schema) for schema in schemas if schema.names == names)


def rows_of(repo: Any, ids: list[str], *schemas: Any) -> dict[str, tuple[Path, dict]]:
    """Rows by id with the file that they are in."""
    found: dict[str, tuple[Path, dict]] = {}
    for file, schema in tables(repo, *schemas):
        for row in pq.read_table(file, filters=[("id", "in", ids)], schema=schema).to_pylist():
            found.setdefault(row["id"], (file, row))
    return found


def described(path: str, digest: str | None) -> str:
    """A file or folder in one line: path, hash, size or rows."""
    here, text = Path(path), f"[bold]{escape(path)}[/]  md5 {(digest or '?')[:8]}"
    files = sorted(here.glob("**/*.parquet")) if here.is_dir() else [here] * (here.suffix == ".parquet")
    if files and files[0].exists():
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        return f"{text}  {rows:,} rows" + (f" in {len(files)} files" if len(files) > 1 else "")
    return text + ("" if here.exists() else "  (not here)")


def ran(stage: Any) -> str:
    """A stage's run in one line."""
    text, record = f"[cyan]{stage.name}[/]  at {lineage.revision(stage)}", lineage.record(stage)
    if record is None:
        return f"{text}  (no manifest: restored from a cache, or made elsewhere)"
    packages = record["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "vllm") if name in packages)
    return f"{text}  {record['started'][:16]}  {record['seconds']:,.0f} s on {record['device']}  {versions}".rstrip()


def grow(repo: Any, branch: Tree, path: str, seen: set[str]) -> None:
    """Adds what made `path` to the branch, and what that was made from, each stage once."""
    stage = lineage.stage_of(repo, path)
    if stage is None:  # a folder that several stages fill, or a file of the project
        makers = [s for s in lineage.pipeline(repo) for out in s.outs if Path(path) in Path(out.def_path).parents]
        for maker in makers:
            grow(repo, branch, maker.outs[0].def_path, seen)
        return
    if stage.name in seen:
        branch.label = f"{branch.label}  from [cyan]{stage.name}[/] (above)"
        return
    seen.add(stage.name)
    node = branch.add(ran(stage))
    inputs = lineage.inputs(stage)
    for name, value in lineage.params(stage).items():
        node.add(f"[dim]{name}: {escape(str(value))}[/]")
    for name in inputs:
        if code.script_of(name):
            node.add(f"[dim]{name}: {len(lineage.modules(stage))} modules, together md5 {inputs[name][:8]}[/]")
        else:
            grow(repo, node.add(described(name, inputs[name])), name, seen)


def tree(repo: Any, model: str) -> Tree:
    """Everything that a model came from."""
    for path in (f"{model}/merged", f"{model}/adapter", model):
        stage = lineage.stage_of(repo, path)
        if stage is not None:
            out = next(one for one in stage.outs if Path(one.def_path) in (Path(path), *Path(path).parents))
            root = Tree(described(path, out.hash_info.value))
            grow(repo, root, path, set())
            return root
    outs = [Path(out.def_path) for stage in lineage.pipeline(repo) for out in stage.outs]
    known = sorted({str(out.parent) for out in outs if out.parts[0] == "models"})
    raise UserError(f"{model}: no stage makes that; models: {', '.join(known)}")


def story(repo: Any, identifier: str) -> Iterator[str]:
    """The sampled text behind one training row, in paragraphs."""
    found = rows_of(repo, [identifier], records.EXAMPLE, records.PAIR).get(identifier)
    if found is None:
        searched = ", ".join(str(file) for file, _ in tables(repo, records.EXAMPLE, records.PAIR))
        raise UserError(f"{identifier}: no training row has this id in {searched or 'any table, since none is here'}")
    file, row = found
    yield f"[bold]{escape(identifier)}[/], a row of {file}\nmade by {ran(lineage.stage_of(repo, str(file)))}"
    for name in ("prompt", "completion", "chosen", "rejected"):
        if name in row:
            yield f"[cyan]{name}[/]\n{escape(row[name])}"
    attempts = rows_of(repo, row["attempt_ids"], records.ATTEMPT)
    for one in row["attempt_ids"]:
        if one not in attempts:
            yield f"[bold]{escape(one)}[/]: its table isn't here any more; `dvc checkout` brings it back"
            continue
        place, attempt = attempts[one]
        stage = lineage.stage_of(repo, str(place))
        prompts = [f"{path} {digest[:8]}" for path, digest in lineage.inputs(stage).items() if "prompts/" in path]
        yield (
            f"[bold]{escape(one)}[/], sampled by {attempt['model']}, a row of {place}\nmade by {ran(stage)}\n"
            + escape(", ".join(f"{name} {attempt[name]}" for name in FACTS if attempt[name] is not None))
            + (f"\nprompt {', '.join(prompts)}" if prompts else "")
            + f"\n[cyan]sampled text[/]\n{escape(attempt['text'])}"
        )
    for place, problem in rows_of(repo, [row["problem_id"]], records.PROBLEM).values():
        yield (
            f"[bold]{escape(problem['id'])}[/], a row of {place}\n{escape(problem['question'])}\n"
            f"gold answer {escape(problem['answer'])}, source {escape(problem['source'])}"
        )


@click.command(cls=Command)
@click.option("--model", help="a model's folder, such as models/epoch2")
@click.option("--example", help="the id of a row in data/training")
def main(model: str | None, example: str | None) -> None:
    """Prints where a checkpoint, or one training row, comes from."""
    if (model is None) == (example is None):
        raise UserError("give one of MODEL=models/epoch2 and EXAMPLE=<id of a row in data/training>")
    console = lineage.terminal()
    with lineage.opened() as repo:
        if model:
            console.print(tree(repo, model.rstrip("/")))
        else:
            for paragraph in story(repo, example):
                console.print(paragraph + "\n", soft_wrap=True)


if __name__ == "__main__":
    main()
