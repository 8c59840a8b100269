"""`extra_body`: what an application adds to a request's body, beside what the request itself decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kern.errors import UsageError

_STREAMED = "whether an answer is streamed is the run's choice"
SAID = "the conversation is the run's: use its input, additional_input or system_message"
SYSTEM = "the system message is the agent's: use its instructions or system_message"


@dataclass(slots=True, frozen=True)
class Extras:
    """What one protocol makes of `extra_body`.

    Args:
        refused: What it cannot set, and why, beside "stream", "messages" and "input".
        lists: Names of lists that are added to the request's own.
        objects: Names of objects that are merged into the request's own.
    """

    refused: Mapping[str, str]
    lists: tuple[str, ...]
    objects: tuple[str, ...]

    def check(self, extra: Mapping[str, Any]) -> None:
        """Raise `UsageError` for what cannot be set."""
        refused = {"stream": _STREAMED, "messages": SAID, "input": SAID, **self.refused}
        for name, reason in refused.items():
            if name in extra:
                raise UsageError(f"extra_body cannot set {name!r}: {reason}")
        for name in self.lists:
            if not isinstance(extra.get(name), list | tuple | None):
                raise UsageError(f"extra_body[{name!r}] is a list, not {type(extra[name]).__name__}")

    def add(self, body: dict[str, Any], extra: Mapping[str, Any]) -> None:
        """Put `extra` into a request's body; what is neither added nor merged goes before what the body has.

        Raises:
            UsageError: A tool in `extra` has the name of one of the request's.
        """
        for name, value in extra.items():
            own = body.get(name)
            if name in self.lists and own and value:
                body[name] = [*own, *(item for item in value if item not in own)]
            elif name in self.objects and isinstance(own, dict) and isinstance(value, Mapping):
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
