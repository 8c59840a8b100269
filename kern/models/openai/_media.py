"""Pictures, sound and files as OpenAI takes them."""

from __future__ import annotations

import base64
from pathlib import PurePath

from kern.errors import UsageError
from kern.messages import Media, Message


def data_url(media: Media, default_type: str) -> str:
    """The media's bytes as a `data:` URL. Reads its file: blocking."""
    return f"data:{media.guess_mime_type(default_type)};base64,{encoded(media)}"


def encoded(media: Media) -> str:
    """The media's bytes in base64. Reads its file: blocking."""
    return base64.b64encode(media.read()).decode("ascii")


def has_bytes(media: Media) -> bool:
    """Whether the bytes are at hand, and not only a URL or an id."""
    return media.content is not None or media.filepath is not None


def file_name(media: Media) -> str:
    """The name that the model is told."""
    return media.name or (PurePath(media.filepath).name if media.filepath is not None else "file")


def audio_format(media: Media) -> str:
    """ "wav" or "mp3", the two that the API takes."""
    kind = media.guess_mime_type("audio/wav").lower()
    if "wav" in kind:
        return "wav"
    if "mpeg" in kind or "mp3" in kind:
        return "mp3"
    raise UsageError(f"OpenAI takes audio as wav or mp3, not as {kind}")


def refuse_unless_user(message: Message) -> None:
    """Raise `UsageError` for media in a message that can only be text, such as a system message."""
    if message.role != "user":
        raise UsageError(
            f"OpenAI models take images, audio and files from the user, not in a {message.role} message"
        )


def no_video() -> UsageError:
    """The error for a video, which neither protocol takes."""
    return UsageError("OpenAI models take no video; give them pictures of it, as images")


def no_bytes(media: Media) -> UsageError:
    """The error for what was read back from a database that has not its bytes."""
    kind = type(media).__name__.lower()
    return UsageError(f"the bytes of the {kind} {media.name or media.sha256 or ''!r} are not stored any more")
