"""Encodes images, audio, videos and documents for Gemini, by their bytes or their address.

Sources: `Blob` and `FileData` on https://ai.google.dev/api/caching#Part, and
https://ai.google.dev/gemini-api/docs/file-input-methods
"""

from __future__ import annotations

import base64
from typing import Any

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media, Video

_FILES = "https://generativelanguage.googleapis.com/v1beta/"
_DEFAULTS: dict[type[Media], str] = {Image: "image/png", Audio: "audio/wav", Video: "video/mp4"}


def media_part(media: Media) -> dict[str, Any]:
    """The media as a part of a message. Reads its file (blocking).

    Raises:
        UsageError: It has neither bytes nor an address.
    """
    if media.url is not None:
        return _inline(media.url) if media.url.startswith("data:") else _found_at(media, media.url)
    if media.content is not None or media.filepath is not None:
        content = media.read()
        return _blob(media.guess_mime_type(_default_type(media, content)), content)
    if media.id is not None and media.id.startswith("files/"):
        return _found_at(media, _FILES + media.id)
    kind = type(media).__name__.lower()
    if media.id is not None and media.sha256 is None:
        raise UsageError(
            f"Gemini cannot find the {kind} {media.id!r}: pass its bytes, its url, or its id in Google's "
            "Files API, which begins with 'files/'"
        )
    raise UsageError(f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are no longer stored")


def _blob(mime_type: str, content: bytes) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode("ascii")}}


def _found_at(media: Media, url: str) -> dict[str, Any]:
    """A file by its address. The service knows the type of its own files."""
    mime_type = media.guess_mime_type("" if url.startswith(_FILES) else _DEFAULTS.get(type(media), ""))
    return {"fileData": {"fileUri": url, **({"mimeType": mime_type} if mime_type else {})}}


def _inline(url: str) -> dict[str, Any]:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise UsageError("a data: URL for Gemini must be in base64: pass the bytes as content instead")
    mime_type = head.removeprefix("data:").removesuffix(";base64") or "text/plain"
    return {"inlineData": {"mimeType": mime_type, "data": data}}


def _default_type(media: Media, content: bytes) -> str:
    if isinstance(media, File):
        return "application/pdf" if content.startswith(b"%PDF") else "text/plain"
    return _DEFAULTS.get(type(media), "application/octet-stream")
