"""trace, plan, check, status and free on a finished pipeline."""

from __future__ import annotations

import hashlib
import re
import shutil

import pandas as pd
import pytest

from tests.project import ALL

pytestmark = pytest.mark.slow


def tool(copy, name: str, *arguments: str, fails: bool = False) -> str:
    return copy.run("python", "-m", f"tools.{name}", *arguments, fails=fails)


def md5(copy, path: str) -> str:
    return hashlib.md5((copy.folder / path).read_bytes()).hexdigest()[:8]


# --- trace


def test_a_checkpoint_is_traced_to_prompts_and_problems(copy):
    tree = tool(copy, "trace", "--model", "models/epoch2")
    head = copy.run("git", "rev-parse", "HEAD~1")[:8]  # the finished pipeline was committed after it ran
    lines = {re.sub(r"^[│├└─\s]+", "", line) for line in tree.splitlines()}
    for stage in ALL - {"baseline@test", "evaluate@epoch1-test", "evaluate@epoch2-test", "report"}:
        assert any(line.startswith(f"{stage}  at {head}  20") for line in lines), stage
    for path in ("prompts/world/cot.yaml", "prompts/world/pot.yaml", "data/training/epoch2/dpo.parquet",
                 "data/problems/part-1.parquet", "data/problems/dev.parquet"):  # fmt: skip
        assert any(line.startswith(f"{path}  md5 {md5(copy, path)}") for line in lines), path
    assert "'learning_rate': 0.001" in tree and "data/attempts/base" in tree and "96 rows in 3 files" in tree
    depth = {name: min(line.index(name) for line in tree.splitlines() if f"{name}  at" in line)
             for name in ("merge@epoch2", "train@epoch2", "preprocess@epoch2", "sample@epoch1-2")}  # fmt: skip
    assert sorted(depth.values()) == [*depth.values()] and len({*depth.values()}) == 4


def test_a_training_row_is_traced_to_the_sampled_texts(copy):
    pair = pd.read_parquet(copy.folder / "data/training/epoch2/dpo.parquet").iloc[3]
    attempts = pd.read_parquet(copy.folder / "data/attempts/epoch1/part-2.parquet").set_index("id")
    problem = pd.read_parquet(copy.folder / "data/problems/part-2.parquet").set_index("id").loc[pair["problem_id"]]
    told = tool(copy, "trace", "--example", pair["id"])
    assert "made by preprocess@epoch2" in told and "made by sample@epoch1-2" in told
    for identifier in pair["attempt_ids"]:
        attempt = attempts.loc[identifier]
        assert f"{identifier}, sampled by epoch1" in told and f"sampled text\n{attempt['text']}" in told
        assert f"seed {attempt['seed']}" in told and f"verdict {attempt['verdict']}" in told
    assert problem["question"] in told and f"gold answer {problem['answer']}" in told
    example = pd.read_parquet(copy.folder / "data/training/epoch1/sft.parquet").iloc[0]
    told = tool(copy, "trace", "--example", example["id"])
    prompt = f"prompts/world/{example['strategy']}.yaml"
    assert f"prompt {prompt} {md5(copy, prompt)}" in told


def test_without_manifests_the_commit_tells(copy):
    (copy.folder / "manifests").rename(copy.folder / "elsewhere")
    try:
        tree = tool(copy, "trace", "--model", "models/epoch1/adapter")
    finally:
        (copy.folder / "elsewhere").rename(copy.folder / "manifests")
    head = copy.run("git", "rev-parse", "--short", "HEAD").strip()
    assert f"train@epoch1  at {head} (where it was committed)  (no manifest" in tree


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "models/epoch9"], "models/epoch9: no stage makes that; models: models/epoch1, models/epoch2"),
        (["--example", "nobody"], "nobody: no training row has this id in data/training/epoch1/dpo.parquet"),
        ([], "give one of MODEL=models/epoch2 and EXAMPLE"),
    ],
)
def test_what_cannot_be_traced(copy, arguments, message):
    assert message in tool(copy, "trace", *arguments, fails=True)


# --- plan


def planned(output: str) -> dict[str, list[str]]:
    """Stage to the cells of its row."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 4 and row[0] != "stage"}


def test_a_finished_pipeline_has_nothing_to_run(copy):
    assert tool(copy, "plan").startswith("nothing would run")


def test_a_fresh_clone_plans_everything_from_the_manifests(copy, tmp_path):
    clone = copy.cloned(tmp_path / "clone")
    rows = planned(tool(clone, "plan"))
    assert {*rows} == ALL | {"together"}
    manifests = {name: clone.json(f"manifests/{name}.json") for name in ALL}
    for name in ("problems", "infer@cot-1", "sample@epoch1-2", "evaluate@epoch1-test", "train@epoch1"):
        assert rows[name][0] == f"{manifests[name]['rows']['out']:,}", name
        assert "its result is neither here nor in the cache" in rows[name]
    seconds = sum(one["seconds"] for one in manifests.values())
    assert rows["together"][2] in (f"{seconds:.0f} s", f"{seconds / 60:.1f} min")


@pytest.fixture
def params(copy):
    """Edits of params.yaml that are undone."""
    yield copy.edit
    copy.run("git", "checkout", "-q", "params.yaml")


def test_more_samples_are_planned_for(copy, params):
    params({"infer": {"k": 3}})
    rows = planned(tool(copy, "plan"))
    assert rows["infer@cot-1"][0] == "96" and "infer modified" in rows["infer@cot-1"]
    assert "after infer@cot-1, infer@l2m-1, infer@pot-1" in rows["preprocess@epoch1"]
    assert "problems" not in rows and "baseline@test" not in rows


def test_a_part_that_never_ran_is_planned_like_its_sibling(copy, params):
    params({"infer_parts": [1, 2]})
    rows = planned(tool(copy, "plan"))
    assert rows["infer@pot-2"][0] == "32" and rows["infer@pot-2"][4] == "never ran"
    assert rows["infer@pot-2"][5].startswith("that of infer@pot-1") and "infer@pot-1" not in rows
    kept = copy.json("manifests/preprocess@epoch1.json")["rows"]["out"]
    assert rows["preprocess@epoch1"][0] == f"{2 * kept:,}"  # it reads twice as many attempts


def test_another_engine_leaves_times_open(copy, params):
    params({"engine": {"dtype": "bfloat16"}})
    output = tool(copy, "plan")
    assert planned(output)["infer@cot-1"][2] == "?" and "make plan CALIBRATE=1" in output


def test_measuring_gives_times(copy, params):
    params({"engine": {"dtype": "bfloat16"}})
    rows = planned(tool(copy, "plan", "--calibrate"))
    assert re.fullmatch(r"\d+ s", rows["infer@cot-1"][2])


# --- check, status, free


def test_check_looks_at_everything_without_torch(copy):
    output = tool(copy, "check", "--all")
    rows = dict(re.split(r"\s{2,}", line.strip()) for line in output.strip().splitlines())
    assert {*rows} == {"params.yaml", "dvc.yaml", "tables", "disk", "device", "sandbox"}
    assert rows["dvc.yaml"].startswith(f"{len(ALL) + 1} stages") and "7 of problems, 8 of attempts" in rows["tables"]
    code = "import sys; from tools import preflight; preflight.run(); print({'torch', 'scipy'} & {*sys.modules})"
    assert copy.run("python", "-c", code).strip().endswith("set()")


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("data/problems/dev.parquet", lambda file: file.write_text("no table"), "dev.parquet: no Parquet"),
        ("data/problems/dev.parquet", lambda file: pd.DataFrame({"a": [1]}).to_parquet(file), "no kind of records"),
        ("prompts/world/cot.yaml", lambda file: file.unlink(), "prompts/world/cot.yaml: no such prompt file"),
        ("dvc.yaml", lambda file: file.write_text(file.read_text().replace("report/templates", "report/pages")),
         "reads whetstone/report/pages, which isn't there"),
        ("params.yaml", lambda file: file.write_text(file.read_text().replace("kind: transformers", "kind: vllm")),
         "`engine.kind` is vllm, which isn't installed here"),
        ("params.yaml", lambda file: file.write_text(file.read_text().replace("adapter: lora", "adapter: qlora", 1)),
         "`sft.adapter` is qlora, which needs a GPU"),
    ],
)  # fmt: skip
def test_check_names_what_is_wrong(copy, path, change, message):
    if "vllm" in message or "qlora" in message:
        pytest.importorskip("torch")
        if shutil.which("nvidia-smi") or shutil.which("vllm"):
            pytest.skip("there is a GPU or vLLM here")
    before = (copy.folder / path).read_bytes()
    change(copy.folder / path)
    try:
        assert message in tool(copy, "check", "--all", fails=True)
    finally:
        (copy.folder / path).write_bytes(before)


def test_what_is_freed_is_made_again_and_changes_nothing(copy):
    before = copy.results()
    assert "merged models" in tool(copy, "space")
    freed = tool(copy, "space", "--free")
    assert "models/epoch1/merged: 10.9 MB freed" in freed and not (copy.folder / "models/epoch2/merged").exists()
    assert copy.ran("repro") == {"merge@epoch1", "merge@epoch2"}
    assert copy.results() == before and copy.changed() == set()
