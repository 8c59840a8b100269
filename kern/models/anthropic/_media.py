"""Encodes images and documents for Anthropic."""

from __future__ import annotations

import base64
from typing import Any

from kern.errors import UsageError
from kern.messages import File, Image, Media
from kern.models._data_url import bytes_in

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""The first bytes of each image type: the service rejects an image whose type differs from the stated one."""
_PICTURE_TYPES = (*_PICTURES.values(), "image/webp")
_PDF = "application/pdf"


def media_block(media: Media, *, citations: bool) -> dict[str, Any]:
    """The content block of an image or a document. Reads its file (blocking).

    Args:
        media: The image or document.
        citations: The answer may cite documents.

    Raises:
        UsageError: Anthropic does not support it.
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
    raise UsageError(f"Claude models do not support {kind}; pass images, PDFs or text files")


def is_uploaded(media: Media) -> bool:
    """Whether the media has nothing but an id, which the provider gave it at its upload."""
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
        raise UsageError(f"Claude models support images as PNG, JPEG, GIF or WebP, not as {kind}")


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
            f"Claude models support files as PDF or text, not {file.name or 'a file'} of type {kind}"
        ) from None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _elsewhere(media: Media) -> dict[str, Any] | None:
    """The source block of media at a URL or uploaded to Anthropic; None if the bytes are sent."""
    if media.url is not None and not media.url.startswith("data:"):
        if isinstance(media, Image) and (kind := media.guess_mime_type("")).startswith("image/"):
            _check_picture(kind)
        return {"type": "url", "url": media.url}
    if is_uploaded(media):
        return {"type": "file", "file_id": media.id}
    return None


def _read(media: Media) -> bytes:
    if media.url is not None:
        return bytes_in(media.url)
    if media.content is None and media.filepath is None:
        kind = type(media).__name__.lower()
        raise UsageError(f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are no longer stored")
    return media.read()


def _said_type(media: Media, default: str) -> str:
    if media.url is not None and media.mime_type is None:
        return media.url[len("data:") :].partition(",")[0].partition(";")[0] or default
    return media.guess_mime_type(default)


def _base64(kind: str, content: bytes) -> dict[str, Any]:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(content).decode("ascii")}
