"""The sandbox's speed side by side with the usual ways to run model-written programs, and its hostile programs.

    python -m benchmarks.sandbox [folder of the public data sets]

prints the tables of docs/sandbox.md and writes benchmarks/results/sandbox.json. What executed programs answer, beside
the published values, is measured by benchmarks/grading.py.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.commit import commit
from whetstone.grading import sandbox, sandbox_prelude, sandbox_verify
from whetstone.grading.attempts import program_of
from whetstone.grading.sandbox import run_programs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/sandbox.md"
DATA = Path(os.environ.get("WHETSTONE_DATA", ROOT / ".." / "shared" / "data"))
ROUNDS, WORKERS = 5, 2
ALONE = "\ntry:\n    pass\nfinally:\n    pass\n"  # changes nothing in a program but sends it to a process of its own


def programs(data: Path) -> dict[str, list[str]]:
    """Real programs by source, in the order of the files."""
    found = {}
    for file in ("gsm8K_s0_e-1_11_17_10_20", "svamp_s0_e-1_11_24_14_38", "aqua_s0_e-1_11_06_18_38"):
        lines = (data / f"model_outputs/program_of_thoughts/{file}.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "answer" in row]
        found[f"PoT {file.split('_')[0]}"] = [
            row["generated"] if isinstance(row["generated"], str) else row["generated"][0] for row in rows
        ]
    file = data / "model_outputs/tora/tora-70b-v1.0/gsm8k/test_tora_-1_seed0_t0.0_s0_e1319.jsonl"
    found["ToRA gsm8k"] = [program_of(json.loads(line)["code"][0]) for line in file.read_text().splitlines()]
    return found


def plain(program: str) -> bool:
    """Whether the sandbox's own rule proves that a program is harmless: only those may run outside of it, below."""
    shared = sandbox_verify.plain_builtins(sandbox_prelude.LIGHT)
    ordinary = sandbox_verify.ordinary_names({*sandbox_prelude.LIGHT, *sandbox_prelude.HEAVY_NAMES}, shared)
    try:
        return sandbox_verify.plain(ast.parse(program), ordinary, sandbox_prelude.MODULES)
    except (SyntaxError, ValueError):
        return False


def fresh_interpreters(batch: list[str], *flags: str) -> None:
    def one(program: str) -> None:
        subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, stdin=subprocess.DEVNULL)

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, batch))


def nothing(_: str) -> None:
    """What a forked process of the pool does: less than any program."""


def forking_pool(batch: list[str]) -> None:
    with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=1) as pool:
        list(pool.imap(nothing, batch, chunksize=1))


def rate(way: Callable[[list[str]], object], batch: list[str]) -> float:
    """Programs a second."""
    start = time.perf_counter()
    way(batch)
    return len(batch) / (time.perf_counter() - start)


def speed(found: list[str]) -> dict[str, Any]:
    """Rounds of all ways one after another, so that a busy machine is as busy for each of them."""
    simple = [p for p in found if plain(p)]
    outcomes = run_programs(simple, timeout=1.0, workers=WORKERS)
    batch = [p for p, o in zip(simple, outcomes, strict=True) if o.error != "timeout" and o.seconds < 0.05]
    ways: dict[str, tuple[Callable, list[str]]] = {
        "sandbox": (lambda b: run_programs(b, workers=WORKERS), batch * 8),
        "sandbox, a child for each": (lambda b: run_programs([p + ALONE for p in b], workers=WORKERS), batch[:800]),
        "forking pool, doing nothing": (forking_pool, batch[:800]),
        "fresh interpreter": (fresh_interpreters, batch[:300]),
        "fresh interpreter -I -S": (lambda b: fresh_interpreters(b, "-I", "-S"), batch[:300]),
    }
    rounds = [{name: rate(way, part) for name, (way, part) in ways.items()} for _ in range(ROUNDS)]
    return {
        "programs": len(found),
        "left_out": {"not plain": len(found) - len(simple), "50 ms or more": len(simple) - len(batch)},
        "per_second": {name: round(median(r[name] for r in rounds), 1) for name in ways},
        "times_as_fast": {
            name: {"median": round(median(r["sandbox"] / r[name] for r in rounds), 1),
                   "least": round(min(r["sandbox"] / r[name] for r in rounds), 1)}
            for name in ways if name != "sandbox"
        },
        "rounds": [{name: round(r[name], 1) for name in ways} for r in rounds],
    }  # fmt: skip


def whole_files(everything: dict[str, list[str]]) -> dict[str, Any]:
    """Each file as it is, endless programs, equations and all, at a limit of two seconds."""
    table = {}
    for name, found in everything.items():
        start = time.perf_counter()
        outcomes = run_programs(found, timeout=2.0, workers=WORKERS)
        errors = [o.error for o in outcomes if o.error]
        table[name] = {
            "rows": len(found), "plain": sum(map(plain, found)), "seconds": round(time.perf_counter() - start, 2),
            "answers": len(found) - len(errors), "errors": {e: errors.count(e) for e in sandbox.ERRORS if e in errors},
        }  # fmt: skip
    return table


def start_up() -> dict[str, float]:
    """Seconds until the first answer of a fresh lane."""
    found = {}
    for kind, program in (("light", "answer = 1"), ("heavy", "import sympy\nanswer = sympy.Integer(1)")):
        sandbox.close()
        start = time.perf_counter()
        assert run_programs([program], workers=1)[0].answer == "1"
        found[kind] = round(time.perf_counter() - start, 3)
    return found


def hostile() -> dict[str, Any]:
    """The tests of hostile programs, as this user and (by root alone) as an ordinary one."""
    tests = ["tests/sandbox/test_hostile.py", "tests/sandbox/test_ordinary_user.py"]
    run = subprocess.run([sys.executable, "-m", "pytest", "-v", "-p", "no:xdist", *tests],
                         cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    verdicts = dict(re.findall(r"::(test_\S+) (PASSED|FAILED|SKIPPED|ERROR)", run.stdout))
    table = ROOT.joinpath(tests[0]).read_text()
    attacks = next(node.value for node in ast.walk(ast.parse(table))
                   if isinstance(node, ast.AnnAssign) and node.target.id == "ATTACKS")  # fmt: skip
    return {"programs": len(attacks.keys), "run_as": "root" if os.geteuid() == 0 else "an ordinary user",
            "tests": verdicts, "all_passed": run.returncode == 0}  # fmt: skip


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    everything = programs(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    results = {
        "device": f"{_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start",
        "revision": commit(),
        "versions": {"python": platform.python_version(), "kernel": platform.release(),
                     **{name: version(name) for name in ("numpy", "sympy")}},
        "layers": {name: list(layer) for name, layer in sandbox.layers().items()},
        "start_up_seconds": start_up(),
        "workers": WORKERS,
        "speed": {
            "Program-of-Thoughts": speed(everything["PoT gsm8K"] + everything["PoT svamp"]),
            "ToRA": speed(everything["ToRA gsm8k"]),
        },
        "whole_files": whole_files(everything),
        "hostile": hostile(),
    }  # fmt: skip
    ROOT.joinpath("benchmarks/results/sandbox.json").write_text(json.dumps(results, indent=1) + "\n")
    text = tables(results)
    before, mark, _ = PAGE.read_text().partition("<!-- from here on written by benchmarks/sandbox.py -->\n")
    PAGE.write_text(f"{before}{mark}\n{text}\n")
    print(text)


def tables(results: dict[str, Any]) -> str:
    files, attacked = results["whole_files"], results["hostile"]
    device = f"{results['device']}; Python {results['versions']['python']}, Linux {results['versions']['kernel']}"
    lines = [f"{device}; {results['workers']} programs at a time; factors are medians.", ""]
    for source, timed in results["speed"].items():
        lines += [f"| {source} | programs/s | the sandbox is … times as fast | least of {ROUNDS} rounds |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for name, per_second in timed["per_second"].items():
            factor = timed["times_as_fast"].get(name, {"median": "", "least": ""})
            lines.append(f"| {name} | {per_second:,.0f} | {factor['median']} | {factor['least']} |")
        lines.append("")
    lines += ["| file | programs | plain | answers | errors | seconds |"]
    lines.append("| --- | ---: | ---: | ---: | --- | ---: |")
    for name, row in files.items():
        errors = ", ".join(f"{count} {error}" for error, count in row["errors"].items())
        lines.append(f"| {name} | {row['rows']} | {row['plain']} | {row['answers']} | {errors} | {row['seconds']} |")
    who = attacked["run_as"] + (" and as an ordinary user" if attacked["run_as"] == "root" else "")
    verdict = "every one with its outcome and no trace" if attacked["all_passed"] else f"FAILED: {attacked['tests']}"
    return "\n".join([*lines, "", f"{attacked['programs']} hostile programs as {who}: {verdict}."])


if __name__ == "__main__":
    main()
