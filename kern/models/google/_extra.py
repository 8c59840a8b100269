"""`extra_body`: what an application adds to a request's body, beside what the request itself decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.errors import UsageError

_THE_RUNS = {
    "contents": "the conversation is the run's: use its input, additional_input or system_message",
    "systemInstruction": "the system message is the agent's: use its instructions or system_message",
}
_OBJECTS = ("generationConfig", "toolConfig")


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raise `UsageError` for what a body's extras cannot set."""
    for name, reason in _THE_RUNS.items():
        if name in extra:
            raise UsageError(f"extra_body cannot set {name!r}: {reason}")
    if not isinstance(extra.get("tools"), list | tuple | None):
        raise UsageError(f"extra_body['tools'] is a list, not {type(extra['tools']).__name__}")


def add_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put `extra` into a request's body: tools are added to its own, objects are merged into its own."""
    for name, value in extra.items():
        own = body.get(name)
        if name == "tools" and own and value:
            body[name] = [*own, *(item for item in value if item not in own)]
        elif name in _OBJECTS and isinstance(own, dict) and isinstance(value, Mapping):
            body[name] = {**own, **value}
        else:
            body[name] = value
