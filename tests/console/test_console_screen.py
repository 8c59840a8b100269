"""What a person sees on the terminal's screen at the end, at several sizes."""

from __future__ import annotations

import re
import time

import pexpect
import pytest

from tests.console.console_pty import Terminal

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SIZES = [(24, 80), (50, 160), (20, 40)]

SLOW = """
import asyncio, sys
from kern import Agent
from kern.models.base import Model, ModelResponse

PARAGRAPHS = [f"Paragraph {n}. " + "word " * 40 for n in range(1, int(sys.argv[1]) + 1)]
TEXT = "\\n\\n".join([*PARAGRAPHS, "THE END"])
PAUSE = float(sys.argv[2])

class Slow(Model):
    id, provider = "slow", "test"

    async def respond(self, request, sink):
        size = max(1, len(TEXT) // 30)
        for start in range(0, len(TEXT), size):
            sink.content(TEXT[start : start + size])
            await asyncio.sleep(PAUSE)
        return ModelResponse.of(TEXT)

agent = Agent(model=Slow(), markdown=True)
"""


def blank_rows_below(terminal: Terminal) -> int:
    filled = [bool(line.strip()) for line in terminal.screen.display]
    return filled[::-1].index(True)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("paragraphs", [1, 7, 30])
def test_after_a_streamed_answer_the_screen_holds_its_end(rows: int, columns: int, paragraphs: int) -> None:
    terminal = Terminal(
        SLOW + "agent.print_response('Tell me', stream=True)",
        str(paragraphs),
        "0.02",
        rows=rows,
        columns=columns,
    )
    assert terminal.run() == 0
    screen = terminal.screen.display
    ends = [row for row, line in enumerate(screen) if "THE END" in line]
    assert len(ends) == 1
    assert "╰" in screen[ends[0] + 1], "the answer's frame is closed below its last line"
    # The answer is above the prompt: no hole of blank rows, unless it is shorter than the screen.
    assert blank_rows_below(terminal) == max(1, rows - len(terminal.lines))
    assert sum("Paragraph 1." in line for line in terminal.lines) == 1
    assert [sum(corner in line for line in terminal.lines) for corner in "╭╰"] == [1, 1]
    assert terminal.is_clean


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_in_a_chat_each_answer_s_end_is_right_above_the_next_prompt(rows: int, columns: int) -> None:
    terminal = Terminal(SLOW + "agent.cli_app(stream=True)", "12", "0.02", rows=rows, columns=columns)
    for _ in range(2):
        terminal.child.expect_exact("User: ")
        terminal.child.sendline("Tell me")
    terminal.child.expect_exact("THE END")
    terminal.child.expect_exact("User: ")
    filled = [line.rstrip() for line in terminal.screen.display if line.strip()]
    assert filled[-1].endswith("User:")
    assert re.fullmatch(r"\d+\.\ds", filled[-2])
    assert filled[-3].startswith("╰")
    assert "THE END" in filled[-4]
    terminal.child.sendline("exit")
    assert terminal.run() == 0


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("paragraphs", [1, 20])
def test_ctrl_c_leaves_no_stray_border(rows: int, columns: int, paragraphs: int) -> None:
    code = SLOW + (
        "try:\n    agent.print_response('Tell me', stream=True)\n"
        "except KeyboardInterrupt:\n    print('stopped')"
    )
    terminal = Terminal(code, str(paragraphs), "0.3", rows=rows, columns=columns)
    terminal.child.expect_exact("Paragraph")
    painted = time.monotonic() + 0.5
    while time.monotonic() < painted:
        try:
            terminal.child.read_nonblocking(10_000, 0.05)
        except pexpect.TIMEOUT:
            continue
    terminal.child.sendintr()
    assert terminal.run() == 0
    assert terminal.lines[-1] == "stopped"
    assert [sum(corner in line for line in terminal.lines) for corner in "╭╰"] == [1, 1]
    assert "unfinished" in "".join(terminal.lines)
    assert terminal.is_clean
