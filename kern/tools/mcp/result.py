"""What a server's tool returned, as a value that a tool of Kern's may return.

The format: https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic_core import from_json

from kern.errors import ToolError
from kern.messages import Audio, File, Image, Media
from kern.tools.result import result_of, result_text

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock

# Models are shown the pictures and files that a tool returns, and a request with one that they do not take is
# refused. These all providers take.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FILES = ("application/pdf",)


def value_of(result: CallToolResult, tool: str) -> list[str | Media] | str:
    """The content, and the structured content unless the content says the same.

    Args:
        result: As the server sent it.
        tool: The tool's name.

    Returns:
        A text; texts and media where there are media.

    Raises:
        ToolError: It is an error's text.
    """
    parts = [_part(block) for block in result.content]
    if result.structured_content is not None and not _said(_texts(parts), result.structured_content):
        parts.append(result_text(result.structured_content))
    texts = _texts(parts)
    value = "\n".join(texts) if len(texts) == len(parts) else parts
    if result.is_error:
        raise ToolError(result_of(value).text or "the tool failed without a reason", tool=tool)
    return value


def _texts(parts: Sequence[str | Media]) -> list[str]:
    return [part for part in parts if isinstance(part, str)]


def _part(block: ContentBlock) -> str | Media:
    if block.type == "text":
        return block.text
    if block.type == "image" or block.type == "audio":
        return _media(block.data, block.mime_type, None)
    if block.type == "resource_link":
        about = f": {block.description}" if block.description else ""
        return f"[{block.title or block.name}]({block.uri}){about}"
    resource = block.resource
    if hasattr(resource, "blob"):
        return _media(resource.blob, resource.mime_type or "", resource.uri)
    return resource.text


def _media(data: str, mime_type: str, uri: str | None) -> str | Media:
    """Bytes in base64 as media, or a text that mentions them."""
    name = None if uri is None else PurePosixPath(urlsplit(uri).path).name or None
    if mime_type in _PICTURES:
        return Image(content=b64decode(data), mime_type=mime_type, name=name)
    if mime_type.startswith("audio/"):
        return Audio(content=b64decode(data), mime_type=mime_type, name=name)
    if mime_type in _FILES:
        return File(content=b64decode(data), mime_type=mime_type, name=name)
    return f"[{mime_type or 'data'}: {uri}]" if uri else f"[{mime_type}]"


def _said(texts: Sequence[str], value: Any) -> bool:
    """The texts are what servers send beside a structured value for those who read text only.

    That is its JSON; of a value that is no object, and so was put into one as `result`, its own JSON or text,
    and of a list its items' one by one.
    """
    values = [_parsed(text) for text in texts]
    said: list[Any] = [{"result": list(texts)}, {"result": values}]
    if len(texts) == 1:
        said += [values[0], {"result": values[0]}, {"result": texts[0]}]
    return value in said


def _parsed(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        return text
