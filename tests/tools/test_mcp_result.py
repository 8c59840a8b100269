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
        # What servers repeat for those who read text only comes once.
        (['{"a": 1, "b": [2]}'], {"b": [2], "a": 1}, '{"a": 1, "b": [2]}'),
        (["milk", "eggs"], {"result": ["milk", "eggs"]}, "milk\neggs"),
        (["It is cold."], {"celsius": -3}, "It is cold."),
        (["milk", "7"], {"result": ["milk"]}, "milk\n7"),
        # A content that says nothing makes room for it.
        ([""], {"a": 1}, '{"a":1}'),
        ([" ", "\n"], {"word": "ö"}, '{"word":"ö"}'),
        ([" "], None, " "),
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


def test_a_picture_does_not_come_once_more_as_base64() -> None:
    content: list[ContentBlock] = [ImageContent(data=DATA, mime_type="image/png")]
    result = CallToolResult(content=content, structured_content={"image": DATA, "mime_type": "image/png"})
    assert value_of(result, "t") == [Image(content=b"hello", mime_type="image/png")]


def test_the_structured_content_comes_instead_of_bytes_that_models_do_not_take() -> None:
    content: list[ContentBlock] = [*texts(" "), resource("a.zip", "application/zip")]
    result = CallToolResult(content=content, structured_content={"files": 3})
    assert value_of(result, "t") == '{"files":3}'


def test_an_error_with_a_picture_mentions_it() -> None:
    content = [*texts("no luck"), ImageContent(data=DATA, mime_type="image/png")]
    with pytest.raises(ToolError, match=r"no luck\n\[image\]"):
        value_of(CallToolResult(content=content, is_error=True), "t")


@pytest.mark.parametrize(("parts", "message"), [(["no", "luck"], "no\nluck"), ([], "gave no reason")])
def test_an_error_is_raised(parts: list[str], message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        value_of(CallToolResult(content=texts(*parts), is_error=True), "t")
    assert caught.value.tool == "t"
