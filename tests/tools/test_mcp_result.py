"""Results of MCP tools as what a tool of Kern returns."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from kern.errors import ToolError
from kern.messages import Audio, File, Image, Media
from kern.tools.mcp.result import value_of

DATA = "aGVsbG8="  # hello


def texts(*parts: str) -> list[ContentBlock]:
    return [TextContent(text=part) for part in parts]


def resource(path: str, mime_type: str | None) -> EmbeddedResource:
    contents = BlobResourceContents(uri=f"file:///{path}", blob=DATA, mime_type=mime_type)
    return EmbeddedResource(resource=contents)


@pytest.mark.parametrize(
    ("parts", "structured", "expected"),
    [
        ([], None, ""),
        (["one", "two"], None, "one\ntwo"),
        ([], {"a": 1}, '{"a":1}'),
        # What servers repeat for those who read text only comes once
        (['{"a": 1, "b": [2]}'], {"b": [2], "a": 1}, '{"a": 1, "b": [2]}'),
        (["3"], {"result": 3}, "3"),
        (["3"], {"result": "3"}, "3"),
        (["milk", "eggs"], {"result": ["milk", "eggs"]}, "milk\neggs"),
        (["1", "2"], {"result": [1, 2]}, "1\n2"),
        (["[1, 2]"], [1, 2], "[1, 2]"),
        # What the text does not say comes as well
        (["It is cold."], {"celsius": -3}, 'It is cold.\n{"celsius":-3}'),
        (["milk", "7"], {"result": ["milk"]}, 'milk\n7\n{"result":["milk"]}'),
        (["ä"], {"word": "ö"}, 'ä\n{"word":"ö"}'),
    ],
)
def test_text_and_structured_content(parts: list[str], structured: Any, expected: str) -> None:
    assert value_of(CallToolResult(content=texts(*parts), structured_content=structured), "t") == expected


def test_links_have_a_name_an_address_and_what_is_said_of_them() -> None:
    link = ResourceLink(name="report", title="The report", uri="file:///r.txt")
    assert value_of(CallToolResult(content=[link]), "t") == "[The report](file:///r.txt)"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            ImageContent(data=DATA, mime_type="image/png"),
            Image(content=b"hello", mime_type="image/png"),
        ),
        (
            AudioContent(data=DATA, mime_type="audio/wav"),
            Audio(content=b"hello", mime_type="audio/wav"),
        ),
        (
            resource("docs/a.pdf", "application/pdf"),
            File(content=b"hello", mime_type="application/pdf", name="a.pdf"),
        ),
        (
            resource("a.jpg", "image/jpeg"),
            Image(content=b"hello", mime_type="image/jpeg", name="a.jpg"),
        ),
    ],
)
def test_media_come_with_the_texts(block: ContentBlock, expected: Media) -> None:
    content = [*texts("Look:"), block, *texts("Seen?")]
    assert value_of(CallToolResult(content=content), "t") == ["Look:", expected, "Seen?"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (resource("a.zip", "application/zip"), "[application/zip: file:///a.zip]"),
        (resource("a", None), "[data: file:///a]"),
        (ImageContent(data=DATA, mime_type="image/svg+xml"), "[image/svg+xml]"),
    ],
)
def test_what_models_do_not_take_is_mentioned(block: ContentBlock, expected: str) -> None:
    assert value_of(CallToolResult(content=[block]), "t") == expected


def test_an_error_with_a_picture_mentions_it() -> None:
    content = [*texts("no luck"), ImageContent(data=DATA, mime_type="image/png")]
    with pytest.raises(ToolError, match=r"no luck\n\[image\]"):
        value_of(CallToolResult(content=content, is_error=True), "t")


@pytest.mark.parametrize(("parts", "message"), [(["no", "luck"], "no\nluck"), ([], "without a reason")])
def test_an_error_is_raised(parts: list[str], message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        value_of(CallToolResult(content=texts(*parts), is_error=True), "t")
    assert caught.value.tool == "t"
