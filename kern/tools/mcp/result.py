"""What a server's tool returned, as the text that the model is told.

The format: https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from kern.errors import ToolError
from kern.tools.result import result_text

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock


def text_of(result: CallToolResult, tool: str) -> str:
    """The result as text: the content, and the structured content unless the content says the same.

    Args:
        result: As the server sent it.
        tool: The tool's name.

    Raises:
        ToolError: It is an error's text.
    """
    parts = [_block(block) for block in result.content]
    if result.structured_content is not None and not _said(parts, result.structured_content):
        parts.append(result_text(result.structured_content))
    text = "\n".join(parts)
    if result.is_error:
        raise ToolError(text or "the tool failed, and does not say why", tool=tool)
    return text


def _block(block: ContentBlock) -> str:
    if block.type == "text":
        return block.text
    if block.type == "resource_link":
        about = f": {block.description}" if block.description else ""
        return f"[{block.title or block.name}]({block.uri}){about}"
    if block.type == "resource":
        resource = block.resource
        if hasattr(resource, "text"):
            return resource.text
        return f"({resource.mime_type or 'binary data'}, not shown: {resource.uri})"
    return f"({block.mime_type}, not shown)"


def _said(parts: Sequence[str], value: Any) -> bool:
    """The texts are what servers send beside a structured value for those who read text only.

    That is its JSON; of a value that is no object, and so was put into one as `result`, its own JSON or text,
    and of a list its items' one by one.
    """
    values = [_parsed(part) for part in parts]
    said: list[Any] = [{"result": list(parts)}, {"result": values}]
    if len(parts) == 1:
        said += [values[0], {"result": values[0]}, {"result": parts[0]}]
    return value in said


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text
