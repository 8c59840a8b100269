"""`extra_body`: fields that an application adds to the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kern.errors import UsageError

_STREAMED = "pass stream= to the run instead"
SAID = "the run builds the conversation: use its input, additional_input or system_message"
SYSTEM = "the agent builds the system message: use its instructions or system_message"


@dataclass(slots=True, frozen=True)
class Extras:
    """How one protocol merges `extra_body` into a request.

    Args:
        refused: Fields that it cannot set, each with what to use instead; "stream", "messages" and "input"
            are refused in any case.
        lists: Fields whose lists are appended to the request's own.
        objects: Fields whose objects are merged into the request's own.
    """

    refused: Mapping[str, str]
    lists: tuple[str, ...]
    objects: tuple[str, ...]

    def check(self, extra: Mapping[str, Any]) -> None:
        """Raise `UsageError` for a field that cannot be set."""
        refused = {"stream": _STREAMED, "messages": SAID, "input": SAID, **self.refused}
        for name, reason in refused.items():
            if name in extra:
                raise UsageError(f"extra_body cannot set {name!r}: {reason}")
        for name in self.lists:
            if not isinstance(extra.get(name), list | tuple | None):
                raise UsageError(f"extra_body[{name!r}] must be a list, not {type(extra[name]).__name__}")

    def add(self, body: dict[str, Any], extra: Mapping[str, Any]) -> None:
        """Merge `extra` into the body of a request; other fields replace those of the body.

        Raises:
            UsageError: A tool in `extra` has the same name as one of the request.
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
            raise UsageError(
                f"extra_body['tools'] and the agent both have a tool {name!r}: rename one of them"
            )
        names.add(name)
