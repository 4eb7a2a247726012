"""Real outputs of three published systems on GSM8K test, graded, compared with their authors' verdicts, and curated.

    python -m benchmarks.real_outputs [folder of the public data sets]

writes benchmarks/results/real_outputs.json and the tables of docs/real_outputs.md. The three: chain-of-thought texts
that LLM-Adapters ship, Program-of-Thoughts' Codex programs, and ToRA-70B's programs with their closing sentence. What
is curated here is never to be trained on: GSM8K test is an evaluation set.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path

import pandas as pd

from benchmarks.commit import commit
from whetstone import records
from whetstone.curation.smart import Curation, curate
from whetstone.evaluation.intervals import compare, wilson
from whetstone.grading.attempts import grade_attempts, program_of
from whetstone.problems import reading
from whetstone.problems.loaders import SourceSpec, load
from whetstone.problems.splits import normalise

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("WHETSTONE_DATA", ROOT / ".." / "shared" / "data"))
FILES = {
    "cot": "model_outputs/llm_adapters_cot/gsm8k_1.json",
    "pot": "model_outputs/program_of_thoughts/gsm8K_s0_e-1_11_17_10_20.jsonl",
    "tora": "model_outputs/tora/tora-70b-v1.0/gsm8k/test_tora_-1_seed0_t0.0_s0_e1319.jsonl",
}
MODELS = {"cot": "llm-adapters", "pot": "codex", "tora": "tora-70b"}
TITLES = {
    "cot": "CoT (LLM-Adapters' texts)",
    "pot": "PoT (Codex)",
    "tora": "ToRA-70B, its text",
    "tora_program": "ToRA-70B, its program run again",
}


def read(data: Path) -> dict[str, list[tuple[str, dict]]]:
    """Rows of the three files with columns question, strategy, text, and the authors' own verdict.

    A CoT text opens with "A:", which is their prompt's, not the model's. Program-of-Thoughts' file holds two lines of
    settings. ToRA's text is program, recorded output and a sentence with the boxed answer; as a program of thoughts,
    the closing `print(x)` becomes `answer = x`.
    """
    rows: dict[str, list[tuple[str, dict]]] = {name: [] for name in TITLES}
    for where, row in reading.rows(data / FILES["cot"]):
        text = row["chain-of-thought"].strip().removeprefix("A:").strip()
        theirs = _same(row["pred"], row["answer"], 0)
        rows["cot"].append((where, {"question": row["question"], "strategy": "cot", "text": text, "theirs": theirs}))
    for where, row in reading.rows(data / FILES["pot"]):
        if "answer" in row:
            theirs = _same(row["executed"], row["answer"], max(0.001, 0.001 * abs(row["answer"])))
            one = {"question": row["question"], "strategy": "pot", "text": row["generated"][0], "theirs": theirs}
            rows["pot"].append((where, one))
    for where, row in reading.rows(data / FILES["tora"]):
        theirs = _same(row["pred"][0], row["gt"], 0)
        program = re.sub(r"^print\((\w+)\)\s*\Z", r"answer = \1", program_of(row["code"][0]), flags=re.MULTILINE)
        one = {"question": row["question"], "strategy": "cot", "text": row["code"][0], "theirs": theirs}
        rows["tora"].append((where, one))
        rows["tora_program"].append((where, {**one, "strategy": "pot", "text": program}))
    return rows


def _same(one: object, other: object, tolerance: float) -> bool:
    """Their rule: equal numbers, within their tolerance; what isn't a number is wrong."""
    try:
        return abs(float(str(one).replace(",", "")) - float(str(other).replace(",", ""))) <= tolerance
    except ValueError:
        return False


def attempts(
    rows: list[tuple[str, dict]], model: str, problems: pd.DataFrame, engine: str, workers: int | None = None
) -> pd.DataFrame:
    """The rows of `read` as attempts (records.ATTEMPT) in their order, each at the problem that asks its question,
    whatever its spacing and punctuation. Of the model's prompt, seed and tokens nothing is known.

    Raises:
        KeyError: a row's question is that of no problem.
    """
    asked = {normalise(problem["question"]): problem for problem in problems.to_dict("records")}
    found = [asked[normalise(row["question"])] for _, row in rows]
    texts, used = [row["text"] for _, row in rows], [row["strategy"] for _, row in rows]
    graded = grade_attempts(
        texts, used, [problem["answer"] for problem in found], [problem["task"] for problem in found], workers=workers
    )
    unknown = ("probability", "prompt_tokens", "completion_tokens", "logprob", "prompt_hash", "seed")
    made = [
        {"id": f"{model}:{problem['id']}:{strategy}:0", "problem_id": problem["id"], "model": model, "engine": engine,
         "strategy": strategy, "turn": 1, "sample": 0, "text": text, "finish_reason": "stop",
         **dict.fromkeys(unknown), **grade._asdict()}
        for problem, strategy, text, grade in zip(found, used, texts, graded, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(made, dtype=object)


def measure(data: Path, workers: int | None = None) -> tuple[dict, pd.DataFrame, pd.DataFrame]:
    """The numbers, and the SFT and DPO rows behind their last section."""
    problems = load(SourceSpec(kind="gsm8k", path=str(data / "gsm8k" / "test.jsonl"), split="test"))
    graded, results, theirs = {}, {}, {}
    for name, rows in read(data).items():
        graded[name] = attempts(rows, MODELS.get(name, "tora-70b"), problems, f"published:{name}", workers)
        right = (graded[name]["verdict"] == "correct").to_numpy()
        results[name] = {
            **wilson(right.sum(), len(problems)),
            "attempts": len(right),
            "verdicts": graded[name]["verdict"].value_counts().to_dict(),
            "errors": graded[name]["error"].dropna().value_counts().to_dict(),
        }
        theirs[name] = pd.Series([row["theirs"] for _, row in rows], index=graded[name]["problem_id"])
        differs = theirs[name].to_numpy() != right
        results[name]["authors"] = {
            "correct": int(theirs[name].sum()),
            "only_we_say_correct": sorted(graded[name]["problem_id"][differs & right]),
            "only_they_say_correct": sorted(graded[name]["problem_id"][differs & ~right]),
        }
    matrix = pd.DataFrame(
        {name: graded[name].set_index("problem_id")["verdict"] == "correct" for name in ("cot", "pot", "tora")},
        index=problems["id"],
    ).fillna(False)
    matrix = matrix.astype(bool)
    cells = {
        " ".join(f"{name}={'right' if right else 'wrong'}" for name, right in zip(matrix, outcome, strict=True)): int(
            (matrix == list(outcome)).all(axis=1).sum()
        )
        for outcome in product((True, False), repeat=3)
    }
    best = matrix.mean().idxmax()
    both = matrix[["cot", "pot"]]
    ours = pd.concat([graded["cot"], graded["pot"], graded["tora_program"]], ignore_index=True)
    records.table(ours, records.ATTEMPT, "real outputs")
    curated = curate(ours, dict(zip(problems["id"], problems["question"], strict=True)), Curation())
    sft, dpo = pd.DataFrame(curated.examples), pd.DataFrame(curated.pairs)
    records.table(sft, records.EXAMPLE, "sft")
    records.table(dpo, records.PAIR, "dpo")
    return (
        {
            "revision": commit(),
            "device": _processor(),
            "versions": {"python": platform.python_version(), **{p: version(p) for p in ("pandas", "sympy", "numpy")}},
            "problems": len(problems),
            "systems": results,
            "matrix": cells,
            "best_single": {"system": best, **wilson(matrix[best].sum(), len(matrix))},
            "oracle": wilson(matrix.any(axis=1).sum(), len(matrix)),
            "oracle_cot_pot": wilson(both.any(axis=1).sum(), len(matrix)),
            "oracle_minus_best": compare(matrix.any(axis=1).to_numpy(), matrix[best].to_numpy()),
            "preprocess": curated.statistics,
        },
        sft,
        dpo,
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def tables(results: dict) -> str:
    """The measured part of docs/real_outputs.md."""

    def share(one: dict) -> str:
        return f"{one['correct']} ({one['accuracy']:.1%}, {one['low']:.1%} to {one['high']:.1%})"

    lines = [
        "| system | right of 1,319 (95 %) | wrong | unparsed | right to the authors | only to us | only to them |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in results["systems"].items():
        authors, verdicts = one["authors"], one["verdicts"]
        lines.append(
            f"| {TITLES[name]} | {share(one)} | {verdicts.get('wrong', 0)} | {verdicts.get('unparsed', 0)} | "
            f"{authors['correct']} | {len(authors['only_we_say_correct'])} | {len(authors['only_they_say_correct'])} |"
        )
    lines += ["", "| CoT | PoT | ToRA | problems |", "| --- | --- | --- | --- |"]
    for outcome, count in results["matrix"].items():
        lines.append("| " + " | ".join(cell.split("=")[1] for cell in outcome.split()) + f" | {count} |")
    difference, preprocess = results["oracle_minus_best"], results["preprocess"]
    lines += [
        "",
        f"- Best single system: {TITLES[results['best_single']['system']]}, {share(results['best_single'])}.",
        f"- Oracle any-of-3: {share(results['oracle'])}; of CoT and PoT alone {share(results['oracle_cot_pot'])}.",
        f"- Oracle minus best single: {difference['difference']:.1%} "
        f"({difference['low']:.1%} to {difference['high']:.1%}).",
        "",
        "```json",
        json.dumps(preprocess, indent=2),
        "```",
    ]
    return "\n".join(lines)


def main() -> None:
    results, _, _ = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    out = ROOT / "benchmarks" / "results" / "real_outputs.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")
    page = ROOT / "docs" / "real_outputs.md"
    head, _, rest = page.read_text().partition("<!-- measured -->\n")
    _, _, tail = rest.partition("<!-- end -->\n")
    page.write_text(f"{head}<!-- measured -->\n{tables(results)}\n<!-- end -->\n{tail}")
    print(tables(results))


if __name__ == "__main__":
    main()
