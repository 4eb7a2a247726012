"""What reproducibility costs and whether it holds, on the default pipeline, each part by itself.

    python -m benchmarks.reproducibility noop      # `dvc repro` with nothing to do: the default pipeline, 100 parts
    python -m benchmarks.reproducibility kills     # killed 30 times on the way, 10 of them while DVC writes its own
                                                   # files: same bytes? how much longer?
    python -m benchmarks.reproducibility clones    # two clean clones: same bytes? and with another number of threads?

Each works in clones of HEAD in .scratch/reproducibility and adds to benchmarks/results/reproducibility.json. `--small`
takes the setting of the tests instead of the default one and writes no results: it is there to try the benchmark.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from benchmarks.commit import commit
from stages.run import lockfile

ROOT = Path(__file__).resolve().parents[1]
WORK, RESULTS = ROOT / ".scratch/reproducibility", ROOT / "benchmarks/results/reproducibility.json"
KILLS, WRITING, REPEATS = 30, 10, 5


def clone(name: str, changes: dict[str, Any]) -> Path:
    """A clean clone of HEAD without results of its own, so that everything runs; `changes` go into params.yaml."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path)
    merge(params, changes)
    yaml.dump(params, path)
    return folder


def merge(into: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def environment(threads: int | None = None) -> dict[str, str]:
    """Without what would tie a clone to this project's DVC."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return own | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


# As `make` does: what looks after dvc.lock comes before DVC
REPRO = ["sh", "-c", "python -m tools.check && exec dvc repro"]


def repro(folder: Path, threads: int | None = None, command: Sequence[str] = ("dvc", "repro")) -> float:
    """Seconds of a whole `dvc repro`."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment(threads), capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"dvc repro failed in {folder}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return time.monotonic() - began


def results(folder: Path) -> dict[str, str]:
    """Hash of every table, model, metric and plot, and of dvc.lock."""
    files = [file for room in ("data", "models", "metrics", "plots") for file in sorted(folder.glob(f"{room}/**/*"))]
    files = [file for file in files if file.is_file() and not file.name.endswith(".partial")]
    return {str(file.relative_to(folder)): hashlib.md5(file.read_bytes()).hexdigest()
            for file in [*files, folder / "dvc.lock"]}  # fmt: skip


def differing(a: Path, b: Path) -> list[str]:
    one, other = results(a), results(b)
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def accuracies(folder: Path) -> dict[str, float]:
    summary = json.loads((folder / "metrics/summary.json").read_text())
    return {label: own["first_attempt"]["accuracy"] for label, own in summary.items()
            if isinstance(own, dict) and "first_attempt" in own}  # fmt: skip


def pretend(folder: Path) -> None:
    """Results of the right sizes and names for every stage, committed to DVC as if they had been made: what a no-op
    takes depends on nothing else."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        own = [stage for stage in repo.index.stages if Path(stage.path) == folder / "dvc.yaml"]
        outs = [(Path(out.fs_path), out.use_cache) for stage in own for out in stage.outs]
    table, small = os.urandom(100_000), {".json": b"{}", ".csv": b"step,loss\n1,1\n"}
    for number, (path, _) in enumerate(outs):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small.get(path.suffix, table + str(number).encode()))
    for part in ("dev", "test", "test_hard", *(f"part-{n}" for n in range(1, 101))):
        (folder / "data/problems").mkdir(parents=True, exist_ok=True)
        (folder / f"data/problems/{part}.parquet").write_bytes(table + part.encode())
    for path, cached in outs:
        if not path.exists():
            path.mkdir(parents=True)
            (path / ("dpo.parquet" if cached else "model.safetensors")).write_bytes(table * (1 if cached else 100))
            (path / "sft.parquet").write_bytes(table)
    subprocess.run(["dvc", "commit", "-q", "-f", "dvc.yaml"], cwd=folder, env=environment(), check=True)


def noop(changes: dict[str, Any]) -> dict[str, Any]:
    """Seconds of `dvc repro` with nothing to do, median of some: of the pipeline really run, and of larger ones."""
    found = {}
    folder = clone("finished", changes)
    repro(folder)
    found["finished pipeline"] = timed(folder)
    for name, parts in (("100 parts", {"sample_parts": [*range(1, 101)]}),
                        ("100 parts, each in three strategies", {"infer_parts": [*range(1, 101)]})):  # fmt: skip
        folder = clone("parts", {**changes, **parts})
        pretend(folder)
        found[name] = timed(folder)
    return found


def timed(folder: Path) -> dict[str, Any]:
    stages = subprocess.run(["dvc", "stage", "list", "--name-only"], cwd=folder, env=environment(), check=True,
                            capture_output=True, text=True).stdout.split()  # fmt: skip
    repro(folder)
    seconds = [round(repro(folder), 2) for _ in range(REPEATS)]
    return {"stages": len(stages), "seconds": statistics.median(seconds), "all": seconds}


def kills(changes: dict[str, Any], count: int = KILLS, writing: int = WRITING, seed: int = 0) -> dict[str, Any]:
    """SIGKILL to `dvc repro` and all that it started, then on: `writing` times while DVC writes one of WRITTEN, these
    in turn, otherwise at random moments spread over the whole pipeline."""
    calm = clone("calm", changes)
    undisturbed = repro(calm)
    folder, chance, began, moments = clone("killed", changes), random.Random(seed), time.monotonic(), []
    share, torn = undisturbed / count, dict.fromkeys(WRITTEN, 0)
    aims = [None] * (count - writing) + [list(WRITTEN)[number % len(WRITTEN)] for number in range(writing)]
    chance.shuffle(aims)
    for aim in aims:
        own, wait = time.monotonic(), STARTUP + chance.uniform(0, 2 * share)
        started = subprocess.Popen(REPRO, cwd=folder, env=environment(), start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        if aim is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(wait)
        else:
            emptied(started, folder / aim)
            time.sleep(chance.uniform(0, WRITTEN[aim]))
        if started.poll() is not None:
            break  # it was done before
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        moments.append(round(time.monotonic() - own, 1))
        if aim is not None:
            torn[aim] += is_torn(folder / aim)
    repro(folder, command=REPRO)
    total = time.monotonic() - began
    manifests = [json.loads(file.read_text()) for file in (calm / "manifests/local").glob("*.json")]
    starting = [one["seconds"] - one["sampled"]["seconds"] for one in manifests if "sampled" in one]
    starts = len(moments) * (STARTUP + statistics.mean(starting))
    return {
        "kills": len(moments),
        "killed_after_seconds": moments,
        "torn_by_a_kill": torn,
        "undisturbed_seconds": round(undisturbed, 1),
        "total_seconds": round(total, 1),
        "ratio": round(total / undisturbed, 3),
        "seconds_to_start_again": round(starts / max(len(moments), 1), 1),
        "ratio_without_starting_again": round((total - starts) / undisturbed, 3),
        "differing_files": differing(calm, folder),
    }


STARTUP = 3.0  # seconds that `python -m tools.check` and DVC take to begin with a stage
# What DVC empties and then writes, and how many seconds later at most a kill strikes
WRITTEN = {"dvc.lock": 0.2, ".dvc/tmp/rwlock": 0.0}


def emptied(process: subprocess.Popen, file: Path) -> None:
    """Waits until the process empties the file, or ends. A note is empty for microseconds: no pause between looks."""

    def size() -> int | None:
        try:
            return os.stat(file).st_size
        except FileNotFoundError:
            return None

    empty = size() == 0
    while not size() == 0 or empty:
        empty = empty and size() == 0  # from an earlier kill
        time.sleep(0.001 if file.suffix == ".lock" else 0)
        if process.poll() is not None:
            return


def is_torn(file: Path) -> bool:
    text = file.read_text()
    if file.name == "dvc.lock":
        return not lockfile.whole(text)
    try:
        return not json.loads(text)
    except ValueError:
        return True


def clones(changes: dict[str, Any]) -> dict[str, Any]:
    """What differs between two clean clones, and between numbers of threads."""
    folders = {name: clone(name, changes) for name in ("one", "other", "threads")}
    many = os.cpu_count() or 1
    with ThreadPoolExecutor() as beside:  # one thread each
        list(beside.map(lambda name: repro(folders[name], 1), ("one", "other")))
    repro(folders["threads"], max(many, 2))
    one, other, threads = folders.values()
    return {
        "files": len(results(one)),
        "differing_between_clones": differing(one, other),
        "threads": [1, max(many, 2)],
        "differing_between_threads": differing(one, threads),
        "accuracies": {"1 thread": accuracies(one), f"{max(many, 2)} threads": accuracies(threads)},
    }


@click.command()
@click.argument("part", type=click.Choice(["noop", "kills", "clones"]))
@click.option("--small", is_flag=True, help="the tests' setting, to try the benchmark; writes no results")
@click.option("--count", default=KILLS, show_default=True, help="how many kills")
@click.option("--writing", default=WRITING, show_default=True, help="how many of them while DVC writes its own files")
@click.option("--seed", default=0, show_default=True, help="of the moments of the kills")
def main(part: str, small: bool, count: int, writing: int, seed: int) -> None:
    """Measures one part."""
    changes: dict[str, Any] = {}
    if small:
        from tests.project import SMALL

        changes = SMALL
    began = os.getloadavg()[0]
    parts = {"noop": noop, "clones": clones, "kills": lambda changes: kills(changes, count, writing, seed)}
    found = parts[part](changes)
    machine = {"device": f"{os.cpu_count()} x {platform.machine()}", "load_average_before": round(began, 2)}
    found = {**found, "revision": commit(), **machine}
    click.echo(json.dumps(found, indent=2))
    if not small:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**known, part: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
