from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kern.console._progress import StreamedText
from kern.console._tail import MarkdownTail
from kern.console._text import clean, content_text, encodable, format_call, format_seconds


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text,\n\ttabs stay", "plain text,\n\ttabs stay"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x9b31m", "\ufffd31m"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("\x7f\x00", "␡␀"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("日本語 😎 é", "日本語 😎 é"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters(codec=None, categories=None)))
def test_no_text_keeps_a_character_that_a_terminal_obeys_or_utf8_lacks(text: str) -> None:
    shown = clean(text)
    shown.encode()
    assert not [char for char in shown if (ord(char) < 32 or 127 <= ord(char) < 160) and char not in "\n\t"]


def test_an_encoding_gets_what_it_can_write() -> None:
    assert encodable("café 😎", "ascii") == "caf? ?"
    assert encodable("café", "latin-1") == "café"
    assert encodable("café", None) == "café"


def test_a_call_is_one_line_of_bounded_length() -> None:
    assert format_call("add", {"item": "a\nb", "n": 2}) == 'add(item="a\\nb", n=2)'
    assert format_call("now", {}) == "now()"
    long = format_call("add", {"item": "x" * 1000}, limit=50)
    assert len(long) == 50
    assert long.endswith("…)")
    assert "object at" in format_call("odd", {"x": object()})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (1.26, "1.3s"), (59.94, "59.9s"), (59.99, "1m 00s"), (125, "2m 05s")],
)
def test_seconds_are_written_as_a_person_reads_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


class Recipe(BaseModel):
    title: str
    steps: list[str]


def test_structured_content_is_indented_json() -> None:
    text = '{\n  "title": "Soup",\n  "steps": [\n    "boil"\n  ]\n}'
    assert content_text(Recipe(title="Soup", steps=["boil"])) == (text, True)
    assert content_text({"title": "Soup", "steps": ["boil"]}) == (text, True)
    assert content_text("Soup") == ("Soup", False)
    assert content_text(None) == ("", False)


def test_a_voided_turn_leaves_the_turns_before_it() -> None:
    pieces = StreamedText()
    pieces.start_turn()
    pieces.append("one")
    pieces.start_turn()
    assert pieces.append("tw") == "\n\ntw"
    assert pieces.append("o") == "o"
    assert pieces.turn == "two"
    pieces.void_turn()
    assert pieces.text == "one"
    pieces.append("2")
    assert pieces.text == "one\n\n2"


def test_the_tail_of_a_code_block_opens_the_block_again() -> None:
    tail = MarkdownTail()
    text = "intro\n\n```python\n" + "\n".join(f"line_{i} = {i}" for i in range(1000))
    cut = tail.cut(text, 100)
    assert cut.startswith("```python\nline_")
    assert text.endswith(cut.removeprefix("```python\n"))
    assert len(cut) < 300
    after = tail.cut(f"{text}\n```\n\n{'word ' * 200}", 100)
    assert "```" not in after


def test_the_tail_begins_at_a_paragraph() -> None:
    text = "\n\n".join(f"paragraph {i} " + "word " * 20 for i in range(100))
    cut = MarkdownTail().cut(text, 300)
    assert cut.startswith("paragraph ")
    assert text.endswith(cut)
    assert 300 <= len(cut) < 600


@given(
    st.lists(st.sampled_from(["a", " b", "\n", "\n\n", "```\n", "```py\n", "~~~\n", "\ttext\n"]), max_size=60)
)
def test_the_tail_does_not_depend_on_how_the_text_arrived(pieces: list[str]) -> None:
    whole = "".join(pieces)
    grown = MarkdownTail()
    for end in range(len(pieces) + 1):
        grown.cut("".join(pieces[:end]), 10)
    assert grown.cut(whole, 10) == MarkdownTail().cut(whole, 10)
    assert whole.endswith(grown.cut(whole, 10).split("\n", 1)[-1])


def test_text_that_is_taken_back_is_forgotten_by_the_tail() -> None:
    tail = MarkdownTail()
    tail.cut("```\n" + "code\n" * 50, 20)
    assert "```" not in tail.cut("prose\n" * 50, 20)


def test_two_different_calls_never_look_the_same() -> None:
    """A person decides by the line of a call: its text keeps its order, names are no values."""
    assert (
        format_call("pay", {"to": "a\u2066b\u200b\u202ac\ufeff"}) == r'pay(to="a\u2066b\u200b\u202ac\ufeff")'
    )
    assert format_call("pay", {'to="bob", amount': 1000}) == r'pay("to=\"bob\", amount"=1000)'
    assert format_call("pay", {"to": "日本 é 😎"}) == 'pay(to="日本 é 😎")'


@pytest.mark.parametrize("code", [0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069])
def test_a_text_cannot_change_the_order_in_which_it_is_shown(code: int) -> None:
    assert clean(f"a{chr(code)}b") == "a\ufffdb"
