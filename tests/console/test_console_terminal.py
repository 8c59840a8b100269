"""The views in a real (pseudo-)terminal, as an emulator shows it: screen and scrollback."""

from __future__ import annotations

import re

import pytest

from tests.console.console_pty import Terminal

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

PREAMBLE = """
import asyncio, sys, threading, time
from tests.console.console_events import *
from kern.console import ViewOptions, open_view
from kern.run import *
TEXT = "\\n\\n".join(f"Paragraph {i}: " + "some words of text " * 6 for i in range(40))
PIECES = [TEXT[i:i + 7] for i in range(0, len(TEXT), 7)]
"""

STREAM = (
    PREAMBLE
    + """
async def main():
    options = ViewOptions(markdown="markdown" in sys.argv, show_member_responses=True)
    with open_view("Buy milk", options, stream=True) as view:
        for number, event in enumerate(team_run(*PIECES)):
            view.event(event)
            if number % 10 == 0:
                await asyncio.sleep(0.02)
        view.finish(team_output(TEXT))
    print("after")
asyncio.run(main())
"""
)


def titles(lines: list[str]) -> list[str]:
    """What stands at the beginning of a line or in a frame, without the times."""
    starts = (line for line in lines if line.startswith(("╭", ">")) or re.fullmatch(r"\w+ \(.*\)", line))
    return [line.strip("╭─╮ ").rsplit(" (", 1)[0] for line in starts]


@pytest.mark.parametrize(
    ("rows", "columns", "mode"),
    [(24, 80, "markdown"), (10, 40, "text"), (10, 40, "markdown"), (5, 30, "text")],
)
def test_a_long_answer_stands_in_the_terminal_once(rows: int, columns: int, mode: str) -> None:
    terminal = Terminal(STREAM, mode, rows=rows, columns=columns)
    assert terminal.run() == 0
    lines = terminal.lines
    text = "\n".join(lines)
    assert [text.count(f"Paragraph {i}:") for i in range(40)] == [1] * 40
    assert titles(lines) == ["> Buy milk", "Buyer", "Shop"]
    assert lines[-1] == "after"
    assert terminal.is_clean
    assert not any(mark in text for mark in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")


def test_while_it_streams_the_end_of_the_text_is_on_the_screen_and_none_of_it_in_the_scrollback() -> None:
    code = (
        PREAMBLE
        + """
with open_view("Buy milk", ViewOptions(), stream=True) as view:
    feed(view, team_run(*PIECES))
    while not sys.stdin.readline(): pass
"""
    )
    terminal = Terminal(code, rows=10, columns=40)
    terminal.child.expect("Paragraph 39")
    assert any("Paragraph 39" in line for line in terminal.screen.display)
    assert terminal.screen.cursor.hidden
    assert not any("Paragraph" in line for line in terminal.scrollback)
    terminal.child.sendline("")
    terminal.run()
    assert terminal.is_clean


def test_what_tools_print_stands_above_the_live_region_once() -> None:
    code = (
        PREAMBLE
        + """
with open_view("", ViewOptions(), stream=True) as view:
    for number in range(30):
        feed(view, turn(SOLO, f"text {number} "))
        time.sleep(0.02)
        print(f"printed {number}.", file=sys.stdout if number % 2 else sys.stderr)
    print("no newline", end="")
    view.finish(agent_output("text"))
print("after")
"""
    )
    terminal = Terminal(code, rows=12, columns=60)
    assert terminal.run() == 0
    lines = terminal.lines
    assert [line for line in lines if "printed" in line] == [f"printed {number}." for number in range(30)]
    assert lines.count("no newline") == 1
    assert titles(lines) == ["Solo"]
    assert terminal.is_clean


def test_prints_of_many_threads_and_a_logger_stand_whole_between_the_panels() -> None:
    code = (
        PREAMBLE
        + """
import logging
def talk(name):
    for number in range(100):
        print(f"{name}-{number}.")
        time.sleep(0.002)
options = ViewOptions(show_member_responses=True)
with open_view("", options, stream=True) as view:
    handler = logging.StreamHandler()
    logging.getLogger("x").addHandler(handler)
    threads = [threading.Thread(target=talk, args=(f"talk{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        feed(view, [*turn(member(f"M{number}"), "Done."), *end(member(f"M{number}"))])
        feed(view, turn(SOLO, "word " * 20))
        logging.getLogger("x").warning(f"log-{number}.")
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    view.finish(agent_output(None))
logging.getLogger("x").warning("log-between.")
with open_view("", options, stream=True) as view:
    feed(view, turn(SOLO, "text"))
    time.sleep(0.2)
    logging.getLogger("x").warning("log-again.")
    time.sleep(0.2)
    view.finish(agent_output("text"))
"""
    )
    terminal = Terminal(code, rows=10, columns=40)
    assert terminal.run() == 0
    lines = terminal.lines
    for name in (f"talk{i}" for i in range(4)):
        assert [line for line in lines if line.startswith(name)] == [f"{name}-{n}." for n in range(100)]
    assert [line for line in lines if line.startswith("log-")] == [
        *(f"log-{n}." for n in range(20)),
        "log-between.",
        "log-again.",
    ]
    assert titles(lines) == [*(f"M{n}" for n in range(20)), "Solo", "Solo"]
    assert terminal.is_clean


@pytest.mark.parametrize("error", ["ValueError('mine')", "KeyboardInterrupt()", "asyncio.CancelledError()"])
def test_however_the_view_is_left_the_terminal_is_clean(error: str) -> None:
    code = (
        PREAMBLE
        + f"""
try:
    with open_view("", ViewOptions(markdown=True), stream=True) as view:
        feed(view, turn(SOLO, "**Half** an answer"))
        time.sleep(0.3)
        raise {error}
except BaseException as caught:
    print(type(caught).__name__)
"""
    )
    terminal = Terminal(code)
    assert terminal.run() == 0
    assert terminal.lines[-1] == error.partition("(")[0].rpartition(".")[2]
    assert any("Solo (unfinished)" in line for line in terminal.lines)
    assert any("│ Half an answer" in line for line in terminal.lines)
    assert terminal.is_clean


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    code = (
        PREAMBLE
        + """
async def main():
    with open_view("", ViewOptions(), stream=True) as view:
        feed(view, turn(SOLO, "Half an answer"))
        await asyncio.sleep(60)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    terminal = Terminal(code)
    terminal.child.expect("Half an answer")
    terminal.child.sendintr()
    assert terminal.run() == 0
    assert terminal.lines[-1] == "interrupted"
    assert any("Solo (unfinished)" in line for line in terminal.lines)
    assert terminal.is_clean


def test_no_color_and_a_dumb_terminal_are_respected() -> None:
    code = (
        PREAMBLE
        + """
with open_view("Hi", ViewOptions(), stream=True) as view:
    feed(view, turn(SOLO, "Hello"))
    view.finish(agent_output("Hello"))
"""
    )
    colored = Terminal(code)
    colored.run()
    assert b"\x1b[1;36m>" in colored.raw
    colorless = Terminal(code, NO_COLOR="1")
    colorless.run()
    assert titles(colorless.lines) == ["> Hi", "Solo"]
    assert b"36m" not in colorless.raw
    dumb = Terminal(code, TERM="dumb")
    dumb.run()
    assert dumb.raw == b"> Hi\r\n\r\nSolo:\r\nHello\r\n\r\n1.2s\r\n"


def test_two_views_at_once_share_the_terminal() -> None:
    code = (
        PREAMBLE
        + """
async def one(name):
    with open_view(f"To {name}", ViewOptions(), stream=True) as view:
        for piece in PIECES[:60]:
            feed(view, [RunContentEvent(SOLO, piece)])
            await asyncio.sleep(0.005)
        view.finish(agent_output("".join(PIECES[:60])))
async def main():
    await asyncio.gather(one("first"), one("second"))
    print("after")
asyncio.run(main())
"""
    )
    terminal = Terminal(code, rows=10, columns=60)
    assert terminal.run() == 0
    assert sorted(titles(terminal.lines)) == ["> To first", "> To second", "Solo", "Solo"]
    assert "\n".join(terminal.lines).count("Paragraph 0:") == 2
    assert terminal.lines[-1] == "after"
    assert terminal.is_clean


def test_the_work_of_many_members_does_not_scroll() -> None:
    code = (
        PREAMBLE
        + """
members = [member(f"Member{i}") for i in range(30)]
with open_view("", ViewOptions(show_member_responses=True), stream=True) as view:
    feed(view, [RunStartedEvent(LEADER), *turn(LEADER), *(RunStartedEvent(m) for m in members)])
    time.sleep(0.3)
    for m in members:
        feed(view, [*turn(m, "Done."), *end(m)])
        time.sleep(0.03)
    feed(view, [*turn(LEADER, "All done."), *end(LEADER)])
    view.finish(team_output("All done."))
"""
    )
    terminal = Terminal(code, rows=10, columns=50)
    assert terminal.run() == 0
    assert titles(terminal.lines) == [*(f"Member{i}" for i in range(30)), "Shop"]
    told = [line for line in terminal.lines if line.strip()]
    assert len(told) == 30 + 30 * 2 + 3 + 1
    assert terminal.is_clean
