"""`extra_body`: what an application adds to a request's body, beside what the request itself decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.errors import UsageError

_THE_RUNS = {
    "stream": "whether an answer is streamed is the run's choice",
    "messages": "the conversation is the run's: use its input, additional_input or system_message",
    "input": "the conversation is the run's: use its input, additional_input or system_message",
    "instructions": "the system message is the agent's: use its instructions or system_message",
}
_LISTS = ("tools", "include")
_OBJECTS = ("text", "reasoning", "stream_options")


def check_extra(extra: Mapping[str, Any]) -> None:
    """Raise `UsageError` for what a body's extras cannot set."""
    for name, reason in _THE_RUNS.items():
        if name in extra:
            raise UsageError(f"extra_body cannot set {name!r}: {reason}")
    for name in _LISTS:
        if not isinstance(extra.get(name), list | tuple | None):
            raise UsageError(f"extra_body[{name!r}] is a list, not {type(extra[name]).__name__}")


def add_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put `extra` into a request's body.

    The lists `tools` and `include` are added to the request's own, and objects such as `text` are merged into
    it; everything else goes before what the body has.

    Raises:
        UsageError: A tool in `extra` has the name of one of the request's.
    """
    for name, value in extra.items():
        own = body.get(name)
        if name in _LISTS and own and value:
            body[name] = [*own, *(item for item in value if item not in own)]
        elif name in _OBJECTS and isinstance(own, dict) and isinstance(value, Mapping):
            body[name] = {**own, **value}
        else:
            body[name] = value
    _check_names(body.get("tools") or ())


def _check_names(tools: Any) -> None:
    names: set[str] = set()
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str):
            continue
        if name in names:
            raise UsageError(f"extra_body['tools'] has a tool {name!r}, and the agent has one of that name")
        names.add(name)
