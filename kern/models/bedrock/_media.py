"""Encodes images, documents, audio and videos for Converse: as bytes, or as a location in S3.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

import base64
import re
from typing import Any

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media, Video
from kern.models._data_url import bytes_in

_S3 = "s3://"
_HEADS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"%PDF-": "pdf",
}
_FORMATS: dict[type[Media], dict[str, str]] = {
    Image: {f"image/{name}": name for name in ("png", "jpeg", "gif", "webp")},
    Audio: {
        "audio/mpeg": "mp3",
        "audio/mp3": "mp3",
        "audio/mp4": "m4a",
        "audio/x-m4a": "m4a",
        "audio/x-wav": "wav",
        **{f"audio/{name}": name for name in ("aac", "flac", "ogg", "opus", "wav", "webm")},
    },
    Video: {
        "video/3gpp": "three_gp",
        "video/quicktime": "mov",
        "video/x-flv": "flv",
        "video/x-matroska": "mkv",
        "video/x-ms-wmv": "wmv",
        **{f"video/{name}": name for name in ("mp4", "mpeg", "webm")},
    },
    File: {
        "application/msword": "doc",
        "application/pdf": "pdf",
        "application/vnd.ms-excel": "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "text/csv": "csv",
        "text/html": "html",
        "text/markdown": "md",
        "text/plain": "txt",
    },
}
_BLOCKS: dict[type[Media], str] = {Image: "image", Audio: "audio", Video: "video", File: "document"}
_DEFAULTS: dict[type[Media], str] = {Image: "image/png", Audio: "audio/wav", Video: "video/mp4"}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9 ()\[\]-]+")
_LONGEST_NAME = 180  # Bedrock allows 200; the rest is for a number


def media_block(media: Media, *, citations: bool) -> dict[str, Any]:
    """The block of an image, a document, an audio or a video. Blocking if it reads a file.

    Args:
        media: The media.
        citations: Whether documents may be cited.

    Raises:
        UsageError: Bedrock does not accept this media.
    """
    kind = next(kind for kind in _BLOCKS if isinstance(media, kind))
    content = _content(media, _BLOCKS[kind])
    form = _format(media, kind, content)
    if content is None:
        source: dict[str, Any] = {"s3Location": {"uri": media.url}}
    else:
        source = {"bytes": base64.b64encode(content).decode("ascii")}
    block: dict[str, Any] = {"format": form, "source": source}
    if kind is File:
        block["name"] = document_name(media.name)
        if citations:
            block["citations"] = {"enabled": True}
    return {_BLOCKS[kind]: block}


def document_name(given: str | None) -> str:
    """A name that Bedrock accepts: few kinds of characters, and no two spaces in a row."""
    return " ".join(_NOT_IN_NAMES.sub(" ", given or "").split())[:_LONGEST_NAME].strip() or "document"


def _content(media: Media, kind: str) -> bytes | None:
    """The bytes; None if they are in S3."""
    url = media.url
    if url is not None:
        if url.startswith("data:"):
            return bytes_in(url)
        if url.startswith(_S3):
            return None
        raise UsageError(f"Bedrock fetches the {kind} only from an s3:// URL: pass its bytes as content")
    if media.content is not None or media.filepath is not None:
        return media.read()
    what = media.name or media.id or media.sha256 or ""
    raise UsageError(
        f"Bedrock needs the bytes of the {kind} {what!r}, which has none: pass its content or filepath"
    )


def _format(media: Media, kind: type[Media], content: bytes | None) -> str:
    """The name of the format: from the first bytes if they identify it, else from the MIME type."""
    formats = _FORMATS[kind]
    if content is not None:
        found = next((name for head, name in _HEADS.items() if content.startswith(head)), None)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            found = "webp"
        if found is not None and found in formats.values():
            return found
    said = media.guess_mime_type(_DEFAULTS.get(kind, ""))
    if media.url is not None and media.url.startswith("data:") and media.mime_type is None:
        said = media.url[len("data:") :].partition(",")[0].partition(";")[0] or said
    if said in formats:
        return formats[said]
    if kind is File and (not said or said.startswith("text/")) and content is not None and _is_text(content):
        return "txt"
    known = ", ".join(dict.fromkeys(formats.values()))
    raise UsageError(
        f"Bedrock does not accept {said or 'bytes of an unknown type'} for a {_BLOCKS[kind]}: use {known}"
    )


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
