"""The grader on public data: gold answers, agreement with published verdicts, speed, memory.

    python -m benchmarks.grading [folder of the public data sets]

writes benchmarks/results/grading.json and the tables of docs/grading.md.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import re
import resource
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.commit import commit
from benchmarks.grading_page import page
from whetstone.grading import Answer, extract, grade
from whetstone.grading.attempts import grade_attempts, program_of
from whetstone.grading.sandbox import Outcome, run_programs

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("WHETSTONE_DATA", ROOT / ".." / "shared" / "data"))
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
COT = ("gsm8k", "svamp", "multiarith", "singleeq", "addsub", "aqua")
POT_TOLERANCE = 1e-3  # Program-of-Thoughts counts a value within 0.1 % (at least 0.001) as right
LETTERS = "ABCDEFGHIJ"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- gold answers -----------------------------------------------------------------------------------------------


def golds(data: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """(data set, task, rows): a gold as the set writes it, and what it has to be read as."""
    for part in ("train", "test"):
        rows = lines(data / f"gsm8k/{part}.jsonl")
        yield f"GSM8K {part}", "number", [(r["answer"], r["answer"].split("#### ")[1].replace(",", "")) for r in rows]
    rows = json.loads((data / "svamp/SVAMP.json").read_text())
    yield "SVAMP", "number", [(str(r["Answer"]), _exact(r["Answer"])) for r in rows]
    answers = [p.findtext("Answer") or "" for p in ET.parse(data / "asdiv/ASDiv.xml").iter("Problem")]
    yield "ASDiv, one number", "number", [(a, _exact(m[1])) for a in answers if (m := _ASDIV.fullmatch(a))]
    for name in ("MultiArith", "AddSub", "SingleEq"):
        rows = json.loads((data / f"mawps/{name}.json").read_text())
        yield name, "number", [(str(r["lSolutions"][0]), _exact(r["lSolutions"][0])) for r in rows]
    rows = lines(data / "aqua/dev.json") + lines(data / "aqua/test.json")
    yield "AQuA dev + test", "choice", [(r["correct"], r["correct"]) for r in rows]
    rows = [r for name in ("dev.txt", "test.txt", "ood_test.jsonl") for r in lines(data / "logiqa2" / name)]
    yield "LogiQA 2.0", "choice", [(f"({LETTERS[r['answer']].lower()})", LETTERS[r["answer"]]) for r in rows]
    files = sorted((data / "mmlu").glob("*/*.csv"))
    rows = [row for file in files for row in csv.reader(file.open(encoding="utf-8", newline=""))]
    yield "MMLU dev + val + test", "choice", [(row[5], row[5]) for row in rows]
    files = sorted((data / "mgsm").glob("*.tsv"))
    rows = [line.split("\t") for file in files for line in file.read_text().splitlines()]
    yield "MGSM, 11 languages", "number", [(row[1], row[1].replace(",", "")) for row in rows]
    rows = lines(data / "math/test500.jsonl")
    yield "MATH-500, `answer`", "math", [(r["answer"], r["solution"]) for r in rows]
    yield "MATH-500, box of `solution`", "math", [(r["solution"], r["answer"]) for r in rows]


_ASDIV = re.compile(r"\s*(-?\(?[\d.,/]+\)?)\s*(?:\([^()]*\))?\s*")


def _exact(number: float | str) -> str:
    """The value of a gold without our grader: the standard library's reading of its digits."""
    return str(Fraction(str(number).strip("()").replace("-(", "-")))


def gold_parsing(data: Path) -> list[dict[str, Any]]:
    table = []
    for name, task, rows in golds(data):
        read = [extract(raw, task) for raw, _ in rows]
        wrong = [raw[-60:] for answer, (raw, value) in zip(read, rows, strict=True)
                 if grade(answer, value, task).verdict != "correct"]  # fmt: skip
        rules = Counter(answer.rule for answer in read)
        table.append({"set": name, "rows": len(rows), "parsed": sum(a.value is not None for a in read),
                      "right": len(rows) - len(wrong), "rules": dict(rules), "wrong": wrong})  # fmt: skip
        if name.startswith("GSM8K"):
            table[-1]["thousands_separators"] = sum("," in raw.split("#### ")[1] for raw, _ in rows)
    return table


# --- agreement with published verdicts --------------------------------------------------------------------------


def difference(where: str, row: int, ours: Answer | str | None, theirs: object, gold: object, why: str) -> dict:
    said = f"{ours.canonical} ({ours.rule})" if isinstance(ours, Answer) and ours.value is not None else ""
    if isinstance(ours, Answer) and ours.value is None:
        said = f"unparsed: {ours.error}"
    return {"file": where, "row": row, "ours": said or str(ours), "theirs": str(theirs), "gold": str(gold), "why": why}


def gsm8k_labels(data: Path) -> dict[str, Any]:
    rows = lines(data / "gsm8k/example_model_solutions.jsonl")
    differences = []
    for row, (record, model) in enumerate((record, model) for record in rows for model in MODELS):
        output = record[model]
        answer = extract(output["solution"])
        if (grade(answer, record["ground_truth"]).verdict == "correct") != output["is_correct"]:
            differences.append(difference(model, row // 4, answer, output["is_correct"], record["ground_truth"], ""))
    n = len(rows) * len(MODELS)
    return {
        "outputs": n,
        "agree": n - len(differences),
        "agreement": 1 - len(differences) / n,
        "differences": differences,
    }


def chain_of_thought(data: Path) -> dict[str, Any]:
    """LLM-Adapters' texts: our verdict beside `pred == answer`, the published accuracy."""
    files, verdicts, readings = {}, [], []
    for name in COT:
        rows = json.loads((data / f"model_outputs/llm_adapters_cot/{name}_1.json").read_text())
        task = "choice" if name == "aqua" else "number"
        counts = Counter()
        for row, record in enumerate(rows):
            text, pred, gold = record["chain-of-thought"], record["pred"], record["answer"]
            answer = extract(text, task)
            right, theirs = grade(answer, str(gold), task).verdict == "correct", pred == gold
            counts.update(published=theirs, ours=right, unparsed=answer.value is None)
            if right != theirs:
                verdicts.append(difference(f"{name}_1.json", row, answer, pred, gold, _why(text, answer, pred, gold)))
            elif pred not in (None, "") and not _same(answer, pred):
                readings.append(difference(f"{name}_1.json", row, answer, pred, gold, _why(text, answer, pred, gold)))
        n = len(rows)
        files[f"{name}_1.json"] = {"rows": n, **{key: counts[key] / n for key in ("published", "ours", "unparsed")}}
    return {"files": files, "verdicts": verdicts, "readings": readings}


def _same(answer: Answer, pred: object) -> bool:
    if isinstance(pred, str):
        return answer.value == pred
    return answer.value is not None and math.isclose(float(answer.value), pred, rel_tol=1e-9)


def _why(text: str, answer: Answer, pred: object, gold: object) -> str:
    """Explains a difference from LLM-Adapters' `pred` (a comparison of floats with the text's last run of digits)."""
    if isinstance(pred, float) and isinstance(gold, float) and pred != gold and math.isclose(pred, gold, rel_tol=1e-9):
        return "they compare doubles bit by bit; the gold is a rounded double"
    if answer.error == "contradiction":
        return "the text states several different numbers; they take the last"
    if answer.error == "malformed":
        return "the statement is an expression or a time of day; they take its last or first run of digits"
    if answer.error == "no_answer":
        return "no answer is stated; they take the last digits or letter of the text"
    if isinstance(pred, float) and answer.value is not None and float(answer.value) == -pred:
        return "they lose the minus sign before the currency sign"
    if re.search(r"\d \d{3}", answer.text):
        return "they split a number at its thousands space"
    if isinstance(answer.value, Fraction) and pred == float(answer.value.denominator):
        return "they take the denominator of a fraction"
    return f"the text ends in {text.strip()[-60:]!r}"


def programs(data: Path) -> dict[str, Any]:
    """Program-of-Thoughts' programs, run again in our sandbox, beside the recorded `executed` value."""
    files, differences, failing = {}, [], []
    for file in ("gsm8K_s0_e-1_11_17_10_20", "svamp_s0_e-1_11_24_14_38"):
        rows = [r for r in lines(data / f"model_outputs/program_of_thoughts/{file}.jsonl") if "answer" in r]
        outcomes = run_programs([_program(r) for r in rows], timeout=10)
        counts = Counter()
        for row, (record, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            theirs, gold = record["executed"], str(record["answer"])
            published = theirs is not None and grade(str(theirs), gold, tolerance=POT_TOLERANCE).verdict == "correct"
            value = outcome.answer
            ours = grade(value, gold, tolerance=POT_TOLERANCE).verdict == "correct"
            magnitude = (
                grade(value and value.lstrip("-"), gold.lstrip("-"), tolerance=POT_TOLERANCE).verdict == "correct"
            )
            counts.update(published=published, ours=ours, magnitude=magnitude if "svamp" in file else ours)
            counts.update(ran_there=theirs is not None, ran_here=outcome.error is None)
            if published != ours and outcome.error is None:
                why = "they drop the sign of the result" if ours != magnitude else "another value"
                differences.append(difference(file, row, value or outcome.error, theirs, gold, why))
            if theirs is not None and outcome.error is not None:
                failing.append(difference(file, row, outcome.error, theirs, gold, outcome.detail))
        n = len(rows)
        files[file] = {"rows": n, "ran_there": counts["ran_there"], "ran_here": counts["ran_here"],
                       "published": counts["published"] / n, "ours": counts["ours"] / n,
                       "ours, their protocol": counts["magnitude"] / n}  # fmt: skip
    for file in ("aqua_s0_e-1_11_06_18_38", "aqua_zs_s0_e-1_11_19_11_56"):
        rows = [r for r in lines(data / f"model_outputs/program_of_thoughts/{file}.jsonl") if "answer" in r]
        outcomes = run_programs([_program(r) for r in rows], timeout=10)
        counts = Counter()
        for row, (record, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            letter = record["prediction"] if record["prediction"] in LETTERS else None
            theirs = record["generated_prediction"]
            ran = theirs not in (None, "None")
            nothing = outcome.error is not None or grade(outcome.answer, "0").verdict == "correct"  # they drop a 0
            same = nothing if not ran else outcome.error is None and _agree(outcome.answer or "", theirs)
            ours = extract(outcome.answer or "", "choice", options=record["options"], tolerance=math.inf).value
            protocol = letter if same else ours
            counts.update(published=(letter or "A") == record["answer"], ours=ours == record["answer"],
                          protocol=(protocol or "A") == record["answer"], same=same, ran_there=ran,
                          ran_here=outcome.error is None)  # fmt: skip
            if not same or (not ran and outcome.error is None):
                said = outcome.answer or f"{outcome.error}: {outcome.detail}"
                kind = failing if ran and outcome.error else differences
                kind.append(
                    difference(file, row, said, theirs, record["answer"], _why_run(outcome, theirs, _program(record)))
                )
        n = len(rows)
        files[file] = {"rows": n, "ran_there": counts["ran_there"], "ran_here": counts["ran_here"],
                       "same_outcome": counts["same"], "published": counts["published"] / n,
                       "ours": counts["ours"] / n, "ours, their protocol": counts["protocol"] / n}  # fmt: skip
    rows = [
        r
        for r in lines(data / "model_outputs/program_of_thoughts/aqua_gpt4_s0_e-1_03_31_22_24.jsonl")
        if "answer" in r
    ]
    right = [extract(r["generated_prediction"], "choice", options=r["options"]).value == r["answer"] for r in rows]
    files["aqua_gpt4_s0_e-1_03_31_22_24 (texts)"] = {
        "rows": len(rows),
        "published": 0.727,
        "ours": sum(right) / len(rows),
    }
    return {"files": files, "differences": differences, "failing_here": failing}


def _program(record: dict[str, Any]) -> str:
    generated = record["generated"]
    return generated[0] if isinstance(generated, list) else generated


def _agree(ours: str, theirs: str) -> bool:
    """Two outcomes of one program: equal texts, or the same numbers to the two decimals that some records keep."""
    if grade(ours, theirs, tolerance=2e-3).verdict == "correct":
        return True
    mine, recorded = (_NUMBERS.findall(text) for text in (ours, theirs))  # of a tuple, a list or a dictionary
    same = len(mine) == len(recorded) > 0 and all(
        grade(a, b, tolerance=2e-3).verdict == "correct" for a, b in zip(mine, recorded, strict=True)
    )
    rounded = same or len(mine) == len(recorded) == 1 and abs(float(mine[0]) - float(recorded[0])) <= 0.005
    return rounded or ours.replace(" ", "") == theirs.replace(" ", "")


_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def _why_run(outcome: Outcome, theirs: object, program: str) -> str:
    if theirs not in (None, "None"):
        if outcome.error == "exception" and "NameError" in outcome.detail:
            return "a name that the program never sets: there it was left over from an earlier program"
        return "fails here" if outcome.error else "another root: equation helpers differ"
    if grade(outcome.answer, "0").verdict == "correct":
        return "they code a result of 0 as no result"
    if "random." in program:
        return "the outcome depends on a random draw"
    printed = outcome.answer is not None and outcome.answer in outcome.stdout
    return "it prints its answer: they read `ans` alone" if printed else "runs here, gave nothing there"


def tora(data: Path) -> dict[str, Any]:
    folder = data / "model_outputs/tora/tora-70b-v1.0/gsm8k"
    rows = lines(folder / "test_tora_-1_seed0_t0.0_s0_e1319.jsonl")
    outcomes = run_programs([program_of(r["code"][0]) for r in rows])
    texts, failing, counts = [], [], Counter()
    for row, (record, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        text, pred, gold = record["code"][0], record["pred"][0], record["gt"]
        answer = extract(text)
        ours = grade(answer, gold).verdict == "correct"
        published = grade(pred, gold).verdict == "correct"
        recorded = re.search(r"```output\n(.*?)```", text, re.DOTALL)
        printed = outcome.answer or outcome.stdout.strip()
        counts.update(published=published, ours=ours, program=grade(printed, gold).verdict == "correct")
        if ours != published:
            why = "the sentence has no \\boxed{}: they take the program's output, we the sentence's last number"
            texts.append(difference("tora-70b", row, answer, pred, gold, why))
        if recorded and "Error" not in recorded[1]:
            counts.update(ran_there=1, same_output=_agree(printed, recorded[1].strip()))
            if outcome.error or not _agree(printed, recorded[1].strip()):
                failing.append(
                    difference("tora-70b", row, outcome.error or printed, recorded[1].strip(), gold, outcome.detail)
                )
    n = len(rows)
    return {"rows": n, "claimed": 0.843, "published": counts["published"] / n, "ours": counts["ours"] / n,
            "program_output_only": counts["program"] / n, "ran_there": counts["ran_there"],
            "same_output": counts["same_output"], "differences": texts, "failing_here": failing}  # fmt: skip


# --- speed and memory -------------------------------------------------------------------------------------------


def numeric_pairs(data: Path) -> list[tuple[str, str]]:
    """Real numeric predictions and canonical golds: GSM8K's four models, LLM-Adapters' texts, recorded PoT values."""
    pairs = []
    for record in lines(data / "gsm8k/example_model_solutions.jsonl"):
        gold = extract(record["ground_truth"]).canonical
        pairs += [(record[model]["solution"], gold) for model in MODELS]
    for name in COT[:-1]:
        rows = json.loads((data / f"model_outputs/llm_adapters_cot/{name}_1.json").read_text())
        pairs += [(r["chain-of-thought"], extract(str(r["answer"])).canonical) for r in rows]
    for record in lines(data / "model_outputs/program_of_thoughts/gsm8K_s0_e-1_11_17_10_20.jsonl"):
        if record.get("executed") is not None:
            pairs.append((str(record["executed"]), extract(str(record["answer"])).canonical))
    return pairs


def grade_all(pairs: list[tuple[str, str]], repeats: int = 1) -> int:
    return sum(grade(*pair).verdict == "correct" for _ in range(repeats) for pair in pairs)


def speed(data: Path, repeats: int = 20) -> dict[str, Any]:
    pairs = numeric_pairs(data)
    grade_all(pairs)
    start, busy = time.perf_counter(), time.process_time()
    grade_all(pairs, repeats)
    one = len(pairs) * repeats / (time.perf_counter() - start)
    cpu = len(pairs) * repeats / (time.process_time() - busy)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(grade_all, [pairs, pairs]))
        start = time.perf_counter()
        list(pool.map(grade_all, [pairs, pairs], [repeats, repeats]))
        two = 2 * len(pairs) * repeats / (time.perf_counter() - start)
    return {"real_answers": len(pairs), "repeats": repeats, "load_average": round(os.getloadavg()[0], 1),
            "per_second_of_cpu": round(cpu), "per_second_one_process": round(one),
            "per_second_two_processes": round(two)}  # fmt: skip


def symbolic_speed(data: Path, count: int = 500) -> dict[str, Any]:
    """Comparisons of different symbolic answers (MATH's golds beside each other), none of them known before."""
    rows = json.loads((data / "math/extracted_problems_and_answers.json").read_text())
    values = (extract(rf"\boxed{{{row['final_answer']}}}", "math") for row in rows)
    golds = list({answer.value: answer for answer in values if isinstance(answer.value, str)}.values())[: count + 2]
    grade(golds[0], golds[1], "math")  # the process is up
    start = time.perf_counter()
    verdicts = Counter(grade(a, b, "math").verdict for a, b in zip(golds[1:-1], golds[2:], strict=True))
    return {"pairs": count, "verdicts": dict(verdicts), "load_average": round(os.getloadavg()[0], 1),
            "per_second": round(count / (time.perf_counter() - start), 1)}  # fmt: skip


def memory(data: Path, attempts: int = 1_200_000, chunk: int = 12_000) -> dict[str, Any]:
    """Attempts of three strategies graded in chunks, programs run in the sandbox; the peak of memory along the way."""
    texts = [(text, "cot", gold) for text, gold in numeric_pairs(data)]
    questions = [(text.replace("\n", "\nAnswer to Sub-question: "), "l2m", gold) for text, _, gold in texts]
    rows = lines(data / "model_outputs/program_of_thoughts/svamp_s0_e-1_11_24_14_38.jsonl")
    runs = [(_program(r), "pot", extract(str(r["answer"])).canonical) for r in rows if "answer" in r]
    stream = (row for three in zip(cycle(texts), cycle(questions), cycle(runs), strict=False) for row in three)
    start, peaks, verdicts = time.perf_counter(), {}, Counter()
    for done in range(0, attempts, chunk):
        part, strategies, gold = zip(*islice(stream, chunk), strict=True)
        verdicts.update(graded.verdict for graded in grade_attempts(part, strategies, gold))
        peaks[done + chunk] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    kept = [chunk, attempts // 10, attempts // 2, attempts]
    return {"attempts": attempts, "chunk": chunk, "verdicts": dict(verdicts),
            "seconds": round(time.perf_counter() - start, 1),
            "peak_mib_after": {str(at): peaks[at] for at in kept}}  # fmt: skip


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def measure(data: Path) -> dict[str, Any]:
    return {
        "revision": commit(),
        "device": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("math-verify", "sympy")}},
        "golds": gold_parsing(data),
        "gsm8k_labels": gsm8k_labels(data),
        "chain_of_thought": chain_of_thought(data),
        "program_of_thoughts": programs(data),
        "tora": tora(data),
        "speed": speed(data),
        "symbolic_speed": symbolic_speed(data),
        "memory": memory(data),
    }


def main() -> None:
    results = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    out = ROOT / "benchmarks" / "results" / "grading.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    document = ROOT / "docs" / "grading.md"
    head, _, rest = document.read_text().partition("<!-- measured -->\n")
    _, _, tail = rest.partition("<!-- end -->\n")
    document.write_text(f"{head}<!-- measured -->\n{page(results)}<!-- end -->\n{tail}")
    print(page(results))


if __name__ == "__main__":
    main()
