"""Results of MCP tools as the text for the model."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ResourceLink,
    TextContent,
)

from kern.errors import ToolError
from kern.tools.mcp.result import text_of


def texts(*parts: str) -> list[ContentBlock]:
    return [TextContent(text=part) for part in parts]


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
    assert text_of(CallToolResult(content=texts(*parts), structured_content=structured), "t") == expected


def test_links_have_a_name_an_address_and_what_is_said_of_them() -> None:
    link = ResourceLink(name="report", title="The report", uri="file:///r.txt")
    assert text_of(CallToolResult(content=[link]), "t") == "[The report](file:///r.txt)"


def test_what_is_no_text_is_named() -> None:
    blob = BlobResourceContents(uri="file:///a.zip", blob="aGVsbG8=", mime_type="application/zip")
    result = CallToolResult(content=[EmbeddedResource(resource=blob)])
    assert text_of(result, "t") == "(application/zip, not shown: file:///a.zip)"


@pytest.mark.parametrize(("parts", "message"), [(["no", "luck"], "no\nluck"), ([], "does not say why")])
def test_an_error_is_raised(parts: list[str], message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        text_of(CallToolResult(content=texts(*parts), is_error=True), "t")
    assert caught.value.tool == "t"
