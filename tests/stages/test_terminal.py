"""Text that others wrote reaches a terminal without characters that steer it; colours and tables stay our own."""

from __future__ import annotations

import io
import sys

import click
import pytest
from click.testing import CliRunner
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stages import output
from stages.run import Command
from stages.run.terminal import Terminal, plain
from tools import lineage
from whetstone.errors import UserError

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\r\x9b31m\u202ec\x00\x7f\ud800d"
SAFE = "a[2J]0;titleb31mcd"


def test_plain_text_keeps_its_lines_tabs_and_letters():
    assert plain(HOSTILE) == SAFE
    assert plain("one\n\ttwo — drei, четыре, 五, ستة, 🙂") == "one\n\ttwo — drei, четыре, 五, ستة, 🙂"


@pytest.mark.parametrize("shown", [HOSTILE, Text(HOSTILE), Panel(Text(HOSTILE)), "row"])
def test_no_control_character_of_a_text_reaches_the_terminal_and_colours_do(shown):
    if shown == "row":
        shown = Table(HOSTILE)
        shown.add_row(HOSTILE)
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, color_system="standard", width=100).print(shown, style="red")
    written = file.getvalue()
    assert "\x1b[31m" in written  # the red
    rest = written.replace("\x1b[31m", "").replace("\x1b[0m", "").replace("\x1b[1;31m", "").replace("\x1b[3;31m", "")
    assert plain(rest) == rest and SAFE in rest


def test_the_tables_and_the_chat_of_every_command_are_such_terminals(monkeypatch):
    from tools import chat

    assert isinstance(lineage.terminal(), Terminal) and chat.Terminal is Terminal
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    output.finish("done", fact=HOSTILE)
    assert SAFE in sys.stdout.getvalue() and "\x1b" not in sys.stdout.getvalue()


def test_no_error_carries_control_characters():
    @click.command(cls=Command)
    def fails():
        raise UserError(f"the server said {HOSTILE}")

    result = CliRunner().invoke(fails)
    assert result.exit_code == 1 and f"Error: the server said {SAFE}\n" in result.output
