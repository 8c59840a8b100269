"""Sends calls that Anthropic carried out itself back: complete, and where the service accepts them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from kern.messages import Message, ProviderCall
from kern.models.anthropic._blocks import CALLS, PROVIDER, RESULT


class Replay:
    """The blocks of the provider's calls in a conversation.

    A call and its result are sent back together: one without the other is refused, unless the next answer
    brings the result. Earlier messages come from stored rows: damaged blocks are left out.

    Args:
        messages: The conversation.
        offered: The names of the tools in this request.
        mcp: This request connects an MCP server.
    """

    def __init__(self, messages: Sequence[Message], *, offered: Collection[str], mcp: bool) -> None:
        self._offered = offered
        self._mcp = mcp
        self.sent: set[str] = set()
        """The ids of the calls that are sent back."""
        self._due: list[tuple[int, dict[str, Any]]] = []
        answers = [message for message in messages if message.role == "assistant"]
        self._last = answers[-1] if answers else None
        self._later = {
            part.id
            for message in answers
            for part in message.parts
            if isinstance(part, ProviderCall) and _block(part, "call") is None
        }
        """The ids of calls whose results came with a later answer."""
        self._goes_on = all(message.role == "tool" for message in _after(messages, self._last))

    def call(self, message: Message, at: int, part: ProviderCall) -> Iterator[dict[str, Any]]:
        """Yield the blocks of one call that belong at its place; `due` yields the rest."""
        if (other := _block(part, "block")) is not None:
            yield other
            return
        call, result = _block(part, "call"), _block(part, "result")
        if call is None:
            if result is not None and part.id in self.sent:
                yield result
            return
        if not self._takes(call, result):
            return
        if result is None:
            unfinished = message is self._last and self._goes_on
            if not unfinished and part.id not in self._later:
                return
        self.sent.add(part.id)
        yield call
        if result is not None:
            result["tool_use_id"] = call.get("id")  # a proxy may have changed one of the two
            after = part.provider_data.get("after") if part.provider_data else None
            if isinstance(after, int) and after > 0:
                self._due.append((at + after, result))
            else:
                yield result

    def due(self, at: int | None) -> Iterator[dict[str, Any]]:
        """Yield the results that follow the part at `at`; None: all that are left."""
        if not self._due:
            return
        now = [block for place, block in self._due if at is None or place <= at]
        self._due = [(place, block) for place, block in self._due if at is not None and place > at]
        yield from now

    def _takes(self, call: Mapping[str, Any], result: Mapping[str, Any] | None) -> bool:
        """Whether the service accepts the call in this request."""
        if call.get("type") == "mcp_tool_use":
            return self._mcp
        content = result.get("content") if result is not None else None
        found = content.get("tool_references") if isinstance(content, Mapping) else None
        names = [item.get("tool_name") for item in found or () if isinstance(item, Mapping)]
        return all(name in self._offered for name in names)


def _block(part: ProviderCall, name: str) -> dict[str, Any] | None:
    """Return a copy of a stored block; None if there is none, or it is damaged."""
    kept = part.provider_data
    if part.origin is None or part.origin.provider != PROVIDER or not isinstance(kept, Mapping):
        return None
    block = kept.get(name)
    if not isinstance(block, Mapping) or not isinstance(kind := block.get("type"), str):
        return None
    fits = {"call": kind in CALLS, "result": kind.endswith(RESULT), "block": True}
    return dict(block) if fits[name] else None


def _after(messages: Sequence[Message], answer: Message | None) -> Sequence[Message]:
    at = next((at for at in range(len(messages) - 1, -1, -1) if messages[at] is answer), -1)
    return messages[at + 1 :]
