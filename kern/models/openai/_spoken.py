"""Spoken answers of the Chat Completions API, whole or in deltas.

Source: https://platform.openai.com/docs/guides/audio. The words are the text of the answer; the sound is a
part beside it. The format is the one that the request asked for with `extra_body`, and is not reported.
"""

from __future__ import annotations

from typing import Any

from kern.messages import Audio, Media, Origin
from kern.models._reading import remark, text_of
from kern.models.openai._media import decoded

_TRANSCRIBED = "transcribed"
_TYPES = (
    (b"RIFF", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\xff\xf1", "audio/aac"),
    (b"\xff\xf9", "audio/aac"),
    (b"\xff", "audio/mpeg"),
)
"""What files of each format begin with; raw samples (pcm16, the only format of a stream) have no mark."""


class Spoken:
    """Collects the sound of one answer."""

    __slots__ = ("_data", "_pieces", "_transcribed")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._data: dict[str, Any] = {}
        self._transcribed = False

    def read(self, audio: dict[str, Any], remarks: list[str], *, whole: bool) -> None:
        """Read the field `audio` of a message or a delta. A whole message may repeat its deltas."""
        for name in ("id", "expires_at"):
            if isinstance(value := audio.get(name), str | int) and value:
                self._data[name] = value
        self._transcribed = self._transcribed or bool(text_of(audio.get("transcript")))
        base64_text = text_of(audio.get("data"))
        if not base64_text or (whole and self._pieces):
            return
        piece = decoded(base64_text)
        if piece is None:
            remark(remarks, "audio that is not base64 is skipped")
        else:
            self._pieces.append(piece)

    def built(self, origin: Origin) -> Audio | None:
        """Return the sound; None if there is none."""
        if not self._pieces:
            return None
        content = b"".join(self._pieces)
        kind = next((kind for mark, kind in _TYPES if content.startswith(mark)), "audio/pcm")
        data = {**self._data, _TRANSCRIBED: True} if self._transcribed else self._data
        return Audio(content=content, mime_type=kind, provider_data=data or None, origin=origin)


def is_transcribed(media: Media) -> bool:
    """Whether the text of its message says what the sound says, so that the sound need not be sent back."""
    return isinstance(media, Audio) and bool((media.provider_data or {}).get(_TRANSCRIBED))
