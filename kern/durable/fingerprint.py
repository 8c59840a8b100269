"""Fingerprints of the inputs of runs: a call that repeats a known run id must have the same input."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kern._json import json_bytes
from kern.errors import RunMismatch
from kern.messages import Message


def fingerprint(value: Any, messages: Sequence[Message]) -> str:
    """The fingerprint of an input: a hash of its text, and a hash of its media.

    If a file is not read yet, the fingerprint has no hash of the media, since the bytes are unknown.

    Args:
        value: The input as JSON.
        messages: The input as messages.
    """
    media = [item for message in messages for item in message.media]
    said = [[message.role, message.content] for message in messages] if media else value
    words = _hash(said)
    if not media or any(item.filepath is not None for item in media):
        return words
    return f"{words}:{_hash([item.to_dict({}) for item in media])}"


def check_same_input(run_id: str, known: str | None, asked: str | None) -> None:
    """Check that a known run had the same input, by the two fingerprints. None: no check.

    Raises:
        RunMismatch: The known run had another input.
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
    return hashlib.sha256(json_bytes(_in_order(value))).hexdigest()[:32]


def _in_order(value: Any) -> Any:
    """The value with sorted keys: a database, or a client in another language, may have reordered them."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return value
