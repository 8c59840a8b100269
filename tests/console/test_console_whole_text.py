"""Nothing of an answer is lost on its way to a person: whatever it holds, and whatever standard output is."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.cells import cell_len
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


def lines_of(text: str, width: int) -> list[str]:
    """The lines between the sides of the answer's frame."""
    return [line[1:-1].strip() for line in rendered(text, width).splitlines()[1:-1]]


@pytest.mark.parametrize("form", ["markdown", "text"])
@pytest.mark.parametrize("width", [20, 40, 80])
def test_scripts_without_spaces_fill_their_lines(width: int, form: Any) -> None:
    sentence = (
        "nested: 深い入れ子の項目は、折り返しても読みやすくなければなりません。「とても長い文です」と言う。"
    )
    lines = [line[1:-1].strip() for line in rendered(sentence, width, form).splitlines()[1:-1]]
    assert "".join(lines).replace(" ", "") == sentence.replace(" ", "")
    assert all(cell_len(line) >= width - 4 - 6 for line in lines[:-1]), "no line is short while there is room"
    assert not any(line[0] in "、。」" or line[-1] == "「" for line in lines)


@pytest.mark.parametrize("width", [30, 40, 60, 80, 160])
def test_no_word_of_a_table_is_broken(width: int) -> None:
    rows = [("日本 (Japan)", "1,234,567", "renovation"), ("Deutschland", "98,765", "The whole of February")]
    table = "| Region | 売上 (Revenue) | Remark |\n|:--|--:|---|\n" + "\n".join(
        f"| {' | '.join(row)} |" for row in rows
    )
    shown = rendered(table, width)
    for word in ("(Japan)", "1,234,567", "renovation", "Deutschland", "98,765", "February", "(Revenue)"):
        assert word in shown
    if width == 30:
        lines = lines_of(table, width)
        assert "売上 (Revenue): 1,234,567" in lines
        assert "Region: Deutschland" in lines


def test_code_has_the_terminal_s_own_background() -> None:
    console = Console(file=io.StringIO(), width=40, color_system="truecolor", force_terminal=True)
    console.print(section_rendered(Section("answer", "```python\nx = 1\n```", format="markdown"), ""))
    assert "48;" not in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["step", "failure"])
def test_the_color_of_a_member_is_that_of_its_name_alone(kind: Any) -> None:
    console = Console(file=io.StringIO(), width=40, color_system="standard", force_terminal=True)
    console.print(section_rendered(Section(kind, "add(1)", name="Grocer"), "green"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[32mGrocer\x1b[0m" in shown
    assert shown.count("32") == 1


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


class OfANotebook(WriteOnly):
    """As ipykernel's, whose flush waits for another thread."""

    flush_interval = 0.2

    def flush(self) -> None:
        raise AssertionError("it flushes itself")


@pytest.mark.parametrize("stream", [True, False])
def test_a_notebook_s_stream_is_left_to_flush_itself(stream: bool) -> None:
    file = OfANotebook()
    with in_place_of_stdout(file):
        Agent(model=ScriptedModel(["Hello to all of you"])).print_response("Hi", stream=stream)
    assert "Hello to all of you" in file.text


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
