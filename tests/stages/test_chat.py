"""Base and tuned model side by side: what each wrote, by which strategy, and what its program answers."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from tools.chat import few_shot
from whetstone.engines.scripted import ScriptedEngine

ROOT = Path(__file__).parents[2]

QUESTION = "How many are 3 and 4?"
COT, L2M = " It comes to 8. The answer is 8.", "\nSub-question 1: How many?\nAnswer 1: 8\nThe answer is 8."


@pytest.fixture
def chat(tuned, monkeypatch):
    """Asks with a base model that answers 8, and a tuned one that writes what it is given."""
    written = {"reply": " program:\nanswer = 3 + 4"}

    @contextlib.contextmanager
    def open_engines(*labels):
        assert labels == ("base", "epoch2")
        base = ScriptedEngine(lambda prompt: L2M if "Sub-question" in prompt else COT)
        choice = {" steps": 0.2, " questions": 0.1, " program": 0.6}
        yield [base, ScriptedEngine(lambda prompt: written["reply"], lambda _: choice)]

    monkeypatch.setattr("stages.serving.open_engines", open_engines)
    monkeypatch.setenv("COLUMNS", "140")

    def ask(*arguments: str, reply: str | None = None, fails: bool = False) -> str:
        written["reply"] = reply or written["reply"]
        return tuned.run("chat", "--checkpoint", "epoch2", "--question", QUESTION, *arguments, fails=fails)

    return ask


def test_both_answers_are_shown_with_tag_and_program(chat):
    output = chat()
    assert QUESTION in output and "The answer is 8." in output and "answer: 8" in output
    assert "program:" in output and "answer = 3 + 4" in output and "program's answer: 7" in output
    assert "cot 22%, l2m 11%, pot 67% (90% on the tags)" in output


def test_the_base_models_strategy_can_be_set(chat):
    assert "worked examples of cot" in chat()
    assert "Sub-question 1" in chat("--strategy", "sub")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (" program:\nanswer = missing", "program ended with exception: NameError"),
        (" program:\nprint('seven')\nanswer = 7", "printed: seven"),
        (" steps: I don't know.", "no answer (no_answer)"),
        (" Seven. The answer is 7.", "no tag"),
    ],
)
def test_what_goes_wrong_is_said(chat, reply, said):
    assert said in chat(reply=reply)


def test_a_checkpoint_that_is_not_there(tuned):
    output = tuned.run("chat", "--checkpoint", "epoch9", fails=True)
    assert "`epochs.train` has no 'epoch9', but epoch1, epoch2" in output


def test_neither_a_model_nor_its_program_steers_the_terminal(chat):
    output = chat(reply=" program:\nprint('\\x1b[2J\\x07 wiped')\nanswer = '\x1b]52;c;aGk=\x07'")
    assert "printed: [2J wiped" in output and "]52;c;aGk=" in output
    assert not set(output) & {"\x1b", "\x07"}


@pytest.fixture(scope="module")
def shipped():
    """The base model that comes with the project."""
    from whetstone.engines.transformers import TransformersEngine

    return TransformersEngine(ROOT / "models/base", device="cpu")


@pytest.mark.parametrize("strategy", ["cot", "l2m", "pot"])
def test_the_tutorials_question_is_one_that_the_shipped_model_answers(shipped, strategy, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = " ".join((ROOT / "docs/tutorial.md").read_text().split())
    question, told = re.search(r'echo "(.+?)" \| make chat .* the base model\'s answer, (\d+),', page).groups()
    made, hours, shipped_off = map(int, re.findall(r"\d+", question))
    assert int(told) == made * hours - shipped_off
    said = few_shot(shipped, question, strategy)
    assert said.outcome.endswith(f"answer: {told}"), said.text
