"""Conversations that OpenAI stores: a request continues an earlier response by its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern.messages import Message
from kern.models._history import record_of

PROVIDER = "openai"
"""The key under which `Message.provider_data` holds what belongs to the message as a whole."""


def chained_to(response_id: str, model: str) -> dict[str, Any]:
    """Return the `provider_data` of a message that can be continued by its response id."""
    return {PROVIDER: {"model": model, "response_id": response_id}}


def after_last_response(messages: Sequence[Message], model: str) -> tuple[str | None, Sequence[Message]]:
    """Return the id of this model's last response, and the messages after it; None and all without one."""
    for at in range(len(messages) - 1, -1, -1):
        record = record_of(messages[at].provider_data, PROVIDER, model)
        response_id = record.get("response_id") if record is not None else None
        if isinstance(response_id, str) and response_id and messages[at + 1 :]:
            return response_id, messages[at + 1 :]
    return None, messages
