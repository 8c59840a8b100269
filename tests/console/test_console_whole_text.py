"""Nothing of an answer is lost on its way to a person: whatever it holds, and whatever standard output is."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from kern import Agent
from kern.console._panels import rendered as section_rendered
from kern.console._sections import Section
from kern.testing import ScriptedModel, tool_call

# Markdown


def rendered(text: str, width: int, form: Any = "markdown") -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(section_rendered(Section("answer", text, format=form), "default"))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_the_cells_of_a_table_are_never_cut_whatever_their_script(width: int) -> None:
    sentence = "これは非常に長い説明文でありスペースを含まないため折り返しが必要です"
    shown = rendered(
        f"| 名前 | 説明 | url |\n|---|---|---|\n| 東京都庁 | {sentence} | http://a.b/{'c' * 60} |", width
    )
    assert "…" not in shown
    assert all(shown.count(character) >= sentence.count(character) for character in sentence)
    assert shown.count("c") == 60


def test_a_tool_call_without_a_space_in_it_is_not_cut() -> None:
    console = Console(file=io.StringIO(), width=40, color_system=None)
    console.print(section_rendered(Section("step", f"検索(query={'長い文章' * 40!r})", name="係"), "default"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert shown.count("文章") + shown.count("文\n") >= 35


def test_html_is_shown_as_it_is_written() -> None:
    shown = rendered(
        "Use <b>bold</b>, a<br>b.\n\n<details>\nhidden\n</details>\n\n| x<br/>y | <i>z</i> |\n|-|-|", 80
    )
    for part in ("<b>bold</b>", "<details>", "hidden", "</details>", "<i>z</i>"):
        assert part in shown
    assert "ab" not in shown


def some_markdown(chance: random.Random) -> str:
    words = 0

    def word() -> str:
        nonlocal words
        words += 1
        return f"{words:04}" + chance.choice(["", "漢字", "x" * 30, "é" * 3])

    def piece() -> str:
        match chance.randrange(6):
            case 0:
                return " ".join(word() for _ in range(chance.randint(1, 30)))
            case 1:
                return "\n".join("  " * depth + "- " + word() for depth in range(chance.randint(1, 15)))
            case 2:
                return "> " * chance.randint(1, 14) + word()
            case 3:
                columns = chance.randint(1, 12)
                rows = ["|" + "|".join(word() for _ in range(columns)) + "|" for _ in range(4)]
                return "\n".join([rows[0], "|" + "---|" * columns, *rows[1:]])
            case 4:
                return "```py\n" + word() + "\n```"
            case _:
                return f"<div>{word()}</div>"

    return "\n\n".join(piece() for _ in range(chance.randint(1, 6)))


@pytest.mark.parametrize("width", [40, 80, 160])
def test_no_letter_of_any_markdown_is_lost(width: int) -> None:
    for seed in range(60):
        text = some_markdown(random.Random(seed))
        shown = rendered(text, width)
        for character in "0123456789漢字é":
            assert shown.count(character) >= text.count(character), (seed, character)


# Standard output


class WriteOnly:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Tee(WriteOnly):
    def flush(self) -> None:
        """Nothing waits."""


class Log(Tee):
    encoding = None
    closed = False

    def isatty(self) -> bool:
        return False


class Window(Tee):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class WindowWithoutFlush(WriteOnly):
    def isatty(self) -> bool:
        return True


class UnknownEncoding(Tee):
    encoding = "klingon"


class SilentlyLatin(Tee):
    """Over a file that cannot write everything, and does not say so."""

    def write(self, text: str) -> None:
        text.encode("latin-1")
        super().write(text)


@contextmanager
def in_place_of_stdout(file: Any) -> Iterator[None]:
    kept, sys.stdout = sys.stdout, file
    try:
        yield
    finally:
        sys.stdout = kept


def look() -> str:
    """Look."""
    return "looked"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "make",
    [WriteOnly, Tee, Log, Window, WindowWithoutFlush, UnknownEncoding, SilentlyLatin],
    ids=lambda make: make.__name__,
)
def test_whatever_print_can_write_to_is_good_enough(make: Callable[[], WriteOnly], stream: bool) -> None:
    file = make()
    agent = Agent(model=ScriptedModel([tool_call("look"), "Smile \U0001f600 – 日本"]), tools=[look])
    with in_place_of_stdout(file):
        agent.print_response("Grüße", stream=stream)
    assert "Smile" in file.text
    assert "Grüße" in file.text or make is UnknownEncoding


@pytest.mark.parametrize("stream", [True, False])
def test_a_program_without_a_standard_output_runs(stream: bool) -> None:
    with in_place_of_stdout(None):
        assert Agent(model=ScriptedModel(["Hello"])).print_response("Hi", stream=stream).content == "Hello"


def test_a_chat_in_a_pipe_writes_to_an_odd_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\nexit\n"))
    file = WriteOnly()
    with in_place_of_stdout(file):
        Agent(model=ScriptedModel(["Hello"])).cli_app()
    assert "Hello" in file.text
