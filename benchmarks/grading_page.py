"""The measured part of docs/grading.md, written from the results of benchmarks/grading.py."""

from __future__ import annotations

from typing import Any


def _table(header: str, rows: list[tuple[object, ...]]) -> str:
    """A Markdown table; the names of its columns are separated by "; "."""
    names = header.split("; ")
    cells = [tuple(names), ("---",) * len(names), *rows]
    lines_ = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in cells)
    return "".join(f"| {line} |\n" for line in lines_)


def _listed(title: str, differences: list[dict[str, Any]]) -> str:
    if not differences:
        return f"{title}: none.\n"
    return f"{title} ({len(differences)}):\n\n" + _table(
        "file; row; ours; theirs; gold; why",
        [tuple(d[key] for key in ("file", "row", "ours", "theirs", "gold", "why")) for d in differences],
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def page(results: dict[str, Any]) -> str:
    """The measured part of docs/grading.md."""
    golds_, labels, cot = results["golds"], results["gsm8k_labels"], results["chain_of_thought"]
    pot, tora_, fast, kept = (results[key] for key in ("program_of_thoughts", "tora", "speed", "memory"))
    commas = sum(row.get("thousands_separators", 0) for row in golds_)
    peaks = ", ".join(f"{mib} MiB after {int(at):,}" for at, mib in kept["peak_mib_after"].items())
    sections = [
        "### Gold answers\n",
        _table(
            "set; rows; parsed; read right; rules",
            [(g["set"], g["rows"], g["parsed"], g["right"], ", ".join(g["rules"])) for g in golds_],
        ),
        f"{commas} of GSM8K's golds have a thousands separator.\n",
        "### GSM8K's labelled outputs\n",
        f"{labels['agree']} of {labels['outputs']} verdicts are `is_correct`'s: {_percent(labels['agreement'])}.\n",
        _listed("Disagreements", labels["differences"]),
        "### LLM-Adapters' chains of thought\n",
        _table(
            "file; rows; published; ours; unparsed by us",
            [
                (file, v["rows"], _percent(v["published"]), _percent(v["ours"]), _percent(v["unparsed"]))
                for file, v in cot["files"].items()
            ],
        ),
        _listed("Verdicts that differ", cot["verdicts"]),
        _listed("The same verdict on another reading", cot["readings"]),
        "### Program-of-Thoughts' programs, run again\n",
        _table(
            "file; rows; ran there; ran here; same outcome; published; ours, their protocol; ours",
            [
                (file, v["rows"], v.get("ran_there", ""), v.get("ran_here", ""), v.get("same_outcome", ""))
                + tuple(_percent(v.get(key)) for key in ("published", "ours, their protocol", "ours"))
                for file, v in pot["files"].items()
            ],
        ),
        _listed("Programs that ran there and fail here", pot["failing_here"]),
        _listed("Other differences", pot["differences"]),
        "### ToRA-70B on GSM8K\n",
        _table(
            "rows; claimed; published `pred`; our reading of the text; program's output alone; outputs reproduced",
            [
                (tora_["rows"],)
                + tuple(_percent(tora_[key]) for key in ("claimed", "published", "ours", "program_output_only"))
                + (f"{tora_['same_output']} of {tora_['ran_there']}",)
            ],
        ),
        _listed("Verdicts that differ", tora_["differences"]),
        _listed("Outputs that differ", tora_["failing_here"]),
        "### Speed and memory\n",
        f"{results['device']}, Python {results['versions']['python']}: {fast['per_second_of_cpu']:,} numeric answers "
        f"a second of CPU time; by the clock {fast['per_second_one_process']:,} a second in one process and "
        f"{fast['per_second_two_processes']:,} in two, at a load average of {fast['load_average']} "
        f"({fast['real_answers']:,} real answers, {fast['repeats']} times, both sides read from text).\n",
        f"{kept['attempts']:,} attempts in chunks of {kept['chunk']:,}, a third each cot, l2m and pot, the programs "
        f"run in the sandbox: {kept['seconds']} s. Peak memory of the grading process: {peaks}.\n",
    ]
    return "\n".join(sections)
