"""Cards for publishing: what a model or a data set is, how it was made, what it reaches, as the Hub shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO

from ruamel.yaml import YAML

from whetstone import records
from whetstone.prompts import strategies
from whetstone.report import tables

MEANS = {  # the tables of a data set's card, by the columns that they have
    "problems": "questions with their gold answers, by split",
    "attempts": "completions as sampled, with strategy, extracted answer, verdict, seed and engine",
    "training": "what each epoch was trained on; `attempt_ids` name the attempts that a row came from",
    "evaluation": "attempts at the evaluation sets",
}


def front_matter(**fields: object) -> str:
    """The YAML block at a card's head; what is None is left out."""
    text = StringIO()
    YAML().dump({name: value for name, value in fields.items() if value is not None}, text)
    return f"---\n{text.getvalue()}---\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def made_by(records_: Mapping[str, Mapping | None]) -> str:
    """Where and with what the stages ran, from their manifests; a stage without one is said to have none."""
    rows = [
        [
            stage,
            *(
                ["no manifest: restored from a cache", "", "", ""]
                if one is None
                else [
                    (one["git"]["revision"] or "?")[:12] + (" with edits" if one["git"]["dirty"] else ""),
                    one["device"],
                    f"{one['seconds']:,.0f} s",
                    ", ".join(f"{name} {version}" for name, version in one["packages"].items()),
                ]
            ),
        ]
        for stage, one in records_.items()
    ]
    return table(["stage", "commit", "machine", "time", "versions"], rows)


def model_card(
    name: str,
    checkpoint: str,
    *,
    base: str,
    revision: str | None,
    licence: str | None,
    merged: bool,
    chain: Sequence[tuple[str, str, str, Mapping]],
    summary: Mapping,
    manifests: Mapping[str, Mapping | None],
    inputs: Mapping[str, str | None],
) -> str:
    """The card of a checkpoint.

    Args:
        name: the repository, owner/name.
        chain: how it came about, in order: (epoch, trainer, whose attempts it learnt from, the trainer's summary).
        summary: metrics/summary.json.
        manifests: of the stages that made it, by name.
        inputs: path to hash of what the last of them read.
    """
    hub = base.count("/") == 1 and not base.startswith(("models/", ".", "/"))
    head = front_matter(
        license=licence,
        base_model=base if hub else None,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=["reasoning", "self-improvement", "whetstone"],
    )
    own, dataset = summary[checkpoint], summary["dataset"]
    steps = [
        [epoch, trainer, attempts, f"{one['rows']:,}", f"{one['steps']:,}", one["chosen_step"], one["select"]]
        for epoch, trainer, attempts, one in chain
    ]
    results = [
        ["first attempt", tables.percent(own["first_attempt"])],
        *([f"forced: {strategy}", tables.percent(one)] for strategy, one in own["forced"].items()),
        ["any strategy (oracle)", tables.percent(own["oracle"])],
        ["base model, best single strategy, few-shot", tables.percent(summary["base"]["best_single"])],
    ]
    compared = [
        [versus, tables.points(one, "difference"), f"{one['p_value']:.2g}"]
        for versus, one in summary["comparisons"].items()
        if versus.startswith(f"{checkpoint} vs ")
    ]
    tags = ", ".join(f"`{one.tag}` ({one.title})" for one in strategies.STRATEGIES.values())
    loading = (
        f'model = AutoModelForCausalLM.from_pretrained("{name}")'
        if merged
        else f'model = AutoPeftModelForCausalLM.from_pretrained("{name}")'
    )
    library = (
        "from transformers import AutoModelForCausalLM" if merged else "from peft import AutoPeftModelForCausalLM"
    )
    return (
        "\n\n".join(
            [
                f"{head}# {name.rpartition('/')[2]}",
                f"`{base}`{f' at `{revision}`' if revision else ''}, tuned on its own graded attempts to choose, at "
                f"its first attempt, the strategy that works for the problem at hand ({tags}). Made with Whetstone.",
                "## Use\n\nThe model's answer begins with the tag of its strategy; run a program in a sandbox.\n\n"
                f"```python\n{library}\nfrom transformers import AutoTokenizer\n\n{loading}\n"
                f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
                f"prompt = {strategies.trained_prompt('QUESTION')!r}\n```",
                "## How it was made\n\n"
                + table(["epoch", "by", "attempts of", "rows", "steps", "chosen step", "chosen by"], steps),
                f"## Results on {dataset}\n\n{summary['problems']:,} problems, greedy, percent (95 %).\n\n"
                + table(["", "accuracy"], results)
                + "\n\n"
                + table(["compared on the same problems", "difference (points)", "p (McNemar)"], compared),
                "It was evaluated on nothing else, and is what this recipe makes of its base model, not an assistant.",
                f"## To repeat it\n\n{made_by(manifests)}\n\n"
                + table(["input", "MD5"], [[f"`{path}`", md5 or "?"] for path, md5 in inputs.items()]),
            ]
        )
        + "\n"
    )


def dataset_card(
    name: str,
    found: Mapping[str, Mapping[str, int]],
    *,
    licence: str | None,
    sources: Sequence[str],
    engines: Sequence[str],
    manifests: Mapping[str, Mapping | None],
) -> str:
    """The card of a run's data.

    Args:
        name: the repository, owner/name.
        found: room (a key of MEANS) to files with their rows.
        sources: data sets that the problems come from.
        engines: fingerprints of what sampled the attempts.
    """
    configs = [{"config_name": room, "data_files": f"{room}/**/*.parquet"} for room in found]
    parts = [
        front_matter(
            license=licence, task_categories=["text-generation"], tags=["reasoning", "whetstone"], configs=configs
        )
        + f"# {name.rpartition('/')[2]}",
        f"Problems from {', '.join(sources)}, a language model's own attempts at them with verdicts, and the training "
        "data that those attempts became. Made with Whetstone.",
    ]
    for room, files in found.items():
        rows = [[f"`{path}`", f"{count:,}"] for path, count in files.items()]
        parts.append(f"## {room}\n\n{MEANS[room]}\n\n{table(['file', 'rows'], rows)}")
    columns = {"problems": records.PROBLEM, "attempts": records.ATTEMPT}
    for room, schema in columns.items():
        if room in found:
            cells = [[f"`{field.name}`", field.type, "may be empty" if field.nullable else ""] for field in schema]
            parts.append(f"### Columns of {room}\n\n{table(['column', 'type', ''], cells)}")
    sampled = "Attempts were sampled by " + ", ".join(f"`{one}`" for one in engines) + " (engine, weights, precision)."
    return "\n\n".join([*parts, sampled, f"## To repeat it\n\n{made_by(manifests)}"]) + "\n"
