"""Server-sent events: the standard's rules, and any chunking of the bytes gives the same events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kern.models._sse import EventStream


def events(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    stream = EventStream()
    return [event for chunk in chunks for event in stream.feed(chunk)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"event: x\ndata: a\n\n", [(b"x", b"a")]),
        (b"data: a\nevent: x\n\n", [(b"x", b"a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\ndata:\n\n", [(b"", b"\n")]),
        (b"event: x\n\ndata: a\n\n", [(b"", b"a")]),
        (b": comment\n\ndata: a\n: inside\n\n", [(b"", b"a")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [(b"", b"a")]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [(b"", b"b")]),
        (
            "data: a\u2028b\u2029c\x0bd\x0ce\x85f\n\n".encode(),
            [(b"", "a\u2028b\u2029c\x0bd\x0ce\x85f".encode())],
        ),
        (b"data: cut off\n", []),
        (b"database: a\nevents: b\n\n", []),
        (b"", []),
    ],
)
def test_the_standards_cases(data: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert events(data) == expected
    assert events(*(data[i : i + 1] for i in range(len(data)))) == expected


def test_a_crlf_cut_between_two_chunks_is_one_line_end() -> None:
    assert events(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [(b"", b"a\nb")]


def test_an_empty_chunk_changes_nothing() -> None:
    assert events(b"data: a\r", b"", b"\n\r", b"", b"\n", b"") == [(b"", b"a")]


def reference(data: bytes) -> list[tuple[bytes, bytes]]:
    """The standard's algorithm, line by line, on the whole text."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[tuple[bytes, bytes]] = []
    name, content = b"", None
    for line in lines[:-1]:  # what follows the last line end is no line
        if not line:
            if content is not None:
                found.append((name, content[:-1]))
            name, content = b"", None
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            name = value
        elif field == b"data":
            content = (content or b"") + value + b"\n"
    return found


FIELDS = [b"data: ", b"data:", b"data", b"event: ", b"event:x", b":", b": ping", b"id: 1", b" "]
ENDS = [b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n"]
TEXTS = [b'{"type":"response.output_text.delta"}', "é\u2028😀".encode(), b"\xef\xbb\xbf", b"[DONE]"]
pieces = st.sampled_from([*FIELDS, *ENDS, *TEXTS])


@given(st.lists(pieces, max_size=40).map(b"".join), st.data())
def test_any_chunking_gives_the_events_of_the_standard(data: bytes, draw: st.DataObject) -> None:
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=20).map(sorted))
    bounds = [0, *cuts, len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(bounds)]
    assert events(*chunks) == reference(data)


def test_a_long_event_in_many_chunks_comes_whole() -> None:
    text = b"x" * 2_000_000
    data = b"data: " + text + b"\n\n"
    chunks = [data[i : i + 1000] for i in range(0, len(data), 1000)]
    assert events(*chunks) == [(b"", text)]
