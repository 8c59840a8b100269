"""Fingerprints of what runs are asked: whoever names a known run id has to ask for the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kern._json import json_bytes
from kern.errors import RunMismatch
from kern.messages import Message


def fingerprint(value: Any, messages: Sequence[Message]) -> str:
    """What tells one input from another: a hash of its words, and one of its media.

    The hash of the media is left out if a file is not read yet: its bytes are not known.

    Args:
        value: The input as JSON.
        messages: The same as messages.
    """
    media = [item for message in messages for item in message.media]
    said = [[message.role, message.content] for message in messages] if media else value
    words = _hash(said)
    if not media or any(item.filepath is not None for item in media):
        return words
    return f"{words}:{_hash([item.to_dict({}) for item in media])}"


def check_same_input(run_id: str, known: str | None, asked: str | None) -> None:
    """See that a known run was asked the same, by both fingerprints; None: nobody knows.

    Raises:
        RunMismatch: It was asked something else.
    """
    if known is None or asked is None or known == asked:
        return
    known_words, _, known_media = known.partition(":")
    asked_words, _, asked_media = asked.partition(":")
    if known_words != asked_words:
        raise RunMismatch(run_id, "input")
    if known_media and asked_media:
        raise RunMismatch(run_id, "media")


def _hash(value: Any) -> str:
    return hashlib.sha256(json_bytes(value)).hexdigest()[:32]
