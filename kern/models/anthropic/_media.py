"""Pictures and documents as Anthropic takes them."""

from __future__ import annotations

import base64
from typing import Any

from kern.errors import UsageError
from kern.messages import File, Image, Media

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
"""The first bytes of a picture: the service refuses one whose type is not what is said."""
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
    kind = next((kind for head, kind in _PICTURES.items() if content.startswith(head)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "image/webp"
    return _base64(kind or image.guess_mime_type("image/png"), content)


def _document_source(file: File) -> dict[str, Any]:
    if (source := _elsewhere(file)) is not None:
        return source
    content = _read(file)
    kind = _PDF if content.startswith(b"%PDF-") else file.guess_mime_type("text/plain")
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
    if media.url is not None:
        return {"type": "url", "url": media.url}
    if is_uploaded(media):
        return {"type": "file", "file_id": media.id}
    return None


def _read(media: Media) -> bytes:
    if media.content is None and media.filepath is None:
        kind = type(media).__name__.lower()
        raise UsageError(
            f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are not stored any more"
        )
    return media.read()


def _base64(kind: str, content: bytes) -> dict[str, Any]:
    return {"type": "base64", "media_type": kind, "data": base64.b64encode(content).decode("ascii")}
