"""Progress in a terminal, and the scripted engine that the stages' tests run on."""

from __future__ import annotations

import io
import math

import pytest

from whetstone.engines.base import Request, Sampling
from whetstone.engines.progress import Progress, duration
from whetstone.engines.scripted import EOS, ScriptedEngine, token_ids
from whetstone.errors import UserError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_line_and_a_last_one():
    said = Terminal()
    progress = Progress("infer", said)
    progress.start(total=4)
    progress.advance(1, 70)
    progress.advance(3, 210)
    progress.finish()
    assert "infer: 4/4 completions, 0 reused" in said.getvalue().splitlines()[-1]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def texts(engine, **settings) -> list[str]:
    sampling = Sampling(**{"max_tokens": 20} | settings)
    return [[c.text for c in completions] for _, completions in engine.generate([Request("p", sampling, seed=1)])][0]


def test_the_scripted_engine_answers_as_it_is_told():
    engine = ScriptedEngine(lambda prompt: [f"{prompt} a\n\nrest", "b", "c d e"])
    assert texts(engine) == ["p a\n\nrest"] and texts(engine, stop=("\n\n",)) == ["p a"]
    assert texts(engine, temperature=1.0, n=4) == ["b", "c d e", "p a\n\nrest", "b"]
    ((_, (whole,)),) = engine.generate([Request("p", Sampling(3, 1.0), seed=2)])
    ((_, (cut,)),) = engine.generate([Request("p", Sampling(2, 1.0), seed=2)])
    assert (whole.token_ids, whole.finish_reason) == ((*token_ids("c d e"), EOS), "stop")
    assert (cut.text, cut.token_ids, cut.finish_reason) == ("c d", tuple(token_ids("c d")), "length")
    assert len(whole.logprobs) == len(whole.token_ids)


def test_the_scripted_engine_chooses_as_it_is_told():
    engine = ScriptedEngine(str, lambda prompt: {" steps": 0.25, " program": 0.75})
    table = engine.choice_logprobs(["a", "b"], [" steps", " questions", " program"])
    assert table.tolist() == [[math.log(0.25), -math.inf, math.log(0.75)]] * 2
    with pytest.raises(UserError, match="share their first token"):
        engine.choice_logprobs(["a"], [" one way", " one other"])
