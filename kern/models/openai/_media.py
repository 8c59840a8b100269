"""Encodes images, audio and files for OpenAI, and decodes their bytes."""

from __future__ import annotations

import base64
from pathlib import PurePath

from kern.errors import UsageError
from kern.messages import Media, Message


def data_url(media: Media, default_type: str) -> str:
    """The media's bytes as a `data:` URL. Reads its file (blocking)."""
    return f"data:{media.guess_mime_type(default_type)};base64,{encoded(media)}"


def encoded(media: Media) -> str:
    """The media's bytes in base64. Reads its file (blocking)."""
    return base64.b64encode(media.read()).decode("ascii")


def decoded(base64_text: str) -> bytes | None:
    """Decode the bytes of an image or of audio; None if they are empty or not base64."""
    try:
        return base64.b64decode(base64_text, validate=True) or None
    except ValueError:
        return None


def has_bytes(media: Media) -> bool:
    """Whether the media has bytes or a file, not just a URL or an id."""
    return media.content is not None or media.filepath is not None


def file_name(media: Media) -> str:
    """The file's name for the model."""
    return media.name or (PurePath(media.filepath).name if media.filepath is not None else "file")


def audio_format(media: Media) -> str:
    """ "wav" or "mp3", the two formats that the API supports; `UsageError` for any other."""
    kind = media.guess_mime_type("audio/wav").lower()
    if "wav" in kind:
        return "wav"
    if "mpeg" in kind or "mp3" in kind:
        return "mp3"
    raise UsageError(f"OpenAI supports audio as wav or mp3, not as {kind}")


def refuse_unless_user(message: Message) -> None:
    """Raise `UsageError` for media in a message that may only have text, such as a system message."""
    if message.role != "user":
        raise UsageError(
            f"OpenAI accepts images, audio and files only in user messages, not in a {message.role} message"
        )


def no_video() -> UsageError:
    """The error for a video, which neither protocol supports."""
    return UsageError("OpenAI models do not support video; pass frames of it as images")


def no_bytes(media: Media) -> UsageError:
    """The error for media whose bytes the database no longer has."""
    kind = type(media).__name__.lower()
    return UsageError(f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are no longer stored")
