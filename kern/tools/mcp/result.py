"""Converts the result of a server's tool to the value that a tool of Kern returns.

Source of the format: https://modelcontextprotocol.io/specification/2025-11-25/server/tools#tool-result
"""

from __future__ import annotations

from base64 import b64decode
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from typing_extensions import TypeIs

from kern._json import value_text
from kern.errors import ToolError
from kern.messages import Audio, File, Image, Media
from kern.tools.result import result_of

if TYPE_CHECKING:
    from mcp.types import BlobResourceContents, CallToolResult, ContentBlock, ResourceContents

# Media of a tool's result are sent to the model, and a provider rejects a request with a type that it does
# not
# support. All providers support these.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FILES = ("application/pdf",)


def value_of(result: CallToolResult, tool: str) -> list[str | Media] | str:
    """The content of a result, or its structured content if the content has nothing for a model to read.

    Never both: the structured content repeats the content, so its tokens would be paid twice; for an image it
    repeats the base64 text.

    Args:
        result: The result as the server sent it.
        tool: The tool's name.

    Returns:
        A text, or a list of texts and media if there are media.

    Raises:
        ToolError: The result is an error.
    """
    parts: list[str | Media] = [_part(block) for block in result.content]
    if result.structured_content is not None and not any(map(_usable, parts, result.content)):
        parts = [value_text(result.structured_content)]
    texts = [part for part in parts if isinstance(part, str)]
    value = "\n".join(texts) if len(texts) == len(parts) else parts
    if result.is_error:
        raise ToolError(result_of(value).text or f"the MCP tool {tool} failed and gave no reason", tool=tool)
    return value


def _usable(part: str | Media, block: ContentBlock) -> bool:
    """Whether the part is neither an empty text nor a mention of data that models do not support."""
    if not isinstance(part, str):
        return True
    if block.type == "resource" and hasattr(block.resource, "blob"):
        return False
    return bool(part.strip()) and block.type not in ("image", "audio")


def _part(block: ContentBlock) -> str | Media:
    if block.type == "text":
        return block.text
    if block.type == "image" or block.type == "audio":
        return _media(block.data, block.mime_type, None)
    if block.type == "resource_link":
        about = f": {block.description}" if block.description else ""
        return f"[{block.title or block.name}]({block.uri}){about}"
    resource = block.resource
    if _is_blob(resource):
        return _media(resource.blob, resource.mime_type or "", resource.uri)
    return resource.text


def _is_blob(resource: ResourceContents) -> TypeIs[BlobResourceContents]:
    return hasattr(resource, "blob")


def _media(data: str, mime_type: str, uri: str | None) -> str | Media:
    """Base64 data as media, or a text that mentions it."""
    try:
        content = b64decode(data)
    except ValueError:
        return f"[{mime_type}, which cannot be read: it is not valid base64]"
    name = None if uri is None else PurePosixPath(urlsplit(uri).path).name or None
    if mime_type in _PICTURES:
        return Image(content=content, mime_type=mime_type, name=name)
    if mime_type.startswith("audio/"):
        return Audio(content=content, mime_type=mime_type, name=name)
    if mime_type in _FILES:
        return File(content=content, mime_type=mime_type, name=name)
    return f"[{mime_type or 'data'}: {uri}]" if uri else f"[{mime_type}]"
