"""Pictures and documents as Anthropic takes them."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

from kern.errors import UsageError
from kern.messages import File, Image, Media

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""The first bytes of a picture: the service refuses one whose type is not what is said."""
_PICTURE_TYPES = (*_PICTURES.values(), "image/webp")
_PDF = "application/pdf"


def media_block(media: Media, *, citations: bool) -> dict[str, Any]:
    """The content block of a picture or a document. Reads its file: blocking.

    Args:
        media: What is shown.
        citations: Documents may be cited.

    Raises:
        UsageError: Anthropic does not take it.
    """
    match media:
        case Image():
            return {"type": "image", "source": _image_source(media)}
        case File():
            block: dict[str, Any] = {"type": "document", "source": _document_source(media)}
            if media.name:
                block["title"] = media.name
            if citations:
                block["citations"] = {"enabled": True}
            return block
    kind = type(media).__name__.lower()
    raise UsageError(f"Claude models take images, PDFs and texts, but no {kind}")


def is_uploaded(media: Media) -> bool:
    """Whether a file is known only by the id that its provider has given it."""
    return media.id is not None and media.url is None and media.content is None and media.filepath is None


def _image_source(image: Image) -> dict[str, Any]:
    if (source := _elsewhere(image)) is not None:
        return source
    content = _read(image)
    kind: str | None = next((kind for head, kind in _PICTURES.items() if content.startswith(head)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    kind = kind or _said_type(image, "image/png")
    _check_picture(kind)
    return _base64(kind, content)


def _check_picture(kind: str) -> None:
    if kind not in _PICTURE_TYPES:
        raise UsageError(f"Claude models take pictures as PNG, JPEG, GIF or WebP, not as {kind}")


def _document_source(file: File) -> dict[str, Any]:
    if (source := _elsewhere(file)) is not None:
        return source
    content = _read(file)
    kind = _PDF if content.startswith(b"%PDF-") else _said_type(file, "text/plain")
    if kind == _PDF:
        return _base64(kind, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(
            f"Claude models take files as PDF or text, not {file.name or 'one'} of type {kind}"
        ) from None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _elsewhere(media: Media) -> dict[str, Any] | None:
    """The source of what lies at a URL or with Anthropic; None for what has bytes here."""
    if media.url is not None and not media.url.startswith("data:"):
        if isinstance(media, Image) and (kind := media.guess_mime_type("")).startswith("image/"):
            _check_picture(kind)
        return {"type": "url", "url": media.url}
    if is_uploaded(media):
        return {"type": "file", "file_id": media.id}
    return None


def _read(media: Media) -> bytes:
    if media.url is not None:
        return _in_url(media.url)
    if media.content is None and media.filepath is None:
        kind = type(media).__name__.lower()
        raise UsageError(
            f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are not stored any more"
        )
    return media.read()


def _said_type(media: Media, default: str) -> str:
    if media.url is not None and media.mime_type is None:
        return media.url[len("data:") :].partition(",")[0].partition(";")[0] or default
    return media.guess_mime_type(default)


def _in_url(url: str) -> bytes:
    """The bytes that a data: URL holds; the service itself takes https: only."""
    head, _, data = url.partition(",")
    raw = unquote_to_bytes(data)
    if not head.endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("a data: URL says that it is in base64, and is not") from None


def _base64(kind: str, content: bytes) -> dict[str, Any]:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(content).decode("ascii")}
