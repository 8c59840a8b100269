"""The demo's stand-in for a language model: a few rules that can keep a shopping list.

It answers for the leader and the members, behind a real HTTP server. Like a model, it receives the
conversation and the tools, and returns text and tool calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kern.cli._shopping import EDITED
from kern.testing import Answer, ReceivedRequest, tool_call

_HOUSEHOLD = ("soap", "sponge", "bag", "bleach", "detergent", "towel", "battery", "batteries", "candle")
_ADDING = re.compile(r"\b(?:add|put|need|buy|get)\b\s+(.+)", re.IGNORECASE)
_REMOVING = re.compile(r"\b(?:bought|got|remove|picked up|take off)\b\s+(.+)", re.IGNORECASE)
_TAIL = re.compile(r"\s+(?:to|on|onto|from|off)\s+(?:my|the|our)\b.*$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|a|an|some)\s+", re.IGNORECASE)
_HELP = (
    "I am only a few rules: tell me 'Add milk and soap', 'I bought the milk', or ask 'What is on my list?'."
)


class StandIn:
    """A model made of rules.

    Args:
        pace: Seconds between two words, so that a person can watch.
    """

    def __init__(self, pace: float = 0.0) -> None:
        self._pace = pace

    def __call__(self, request: ReceivedRequest) -> Answer:
        """Answer one request, as the leader or as a member."""
        if request.tool_results:
            return self._answer(_summary(request))
        text = request.user_text
        removing = _REMOVING.search(text)
        wanted = removing or _ADDING.search(text)
        leads = "show_list" in request.tool_names
        if leads and (text.rstrip().endswith("?") or wanted is None):
            asks = re.search(r"\blist\b", text) is not None
            return self._answer(None, "show_list") if asks else self._answer(_HELP)
        items = _items(wanted[1]) if wanted is not None else []
        if leads:
            return self._delegate(items, "Remove" if removing else "Add")
        tool = "remove_item" if removing else "add_item"
        return Answer(tool_calls=[tool_call(tool, item=item) for item in items], latency=10 * self._pace)

    def _answer(self, text: str | None, *tools: str) -> Answer:
        return Answer(
            text, tool_calls=[tool_call(name) for name in tools], pace=self._pace, latency=10 * self._pace
        )

    def _delegate(self, items: list[str], verb: str) -> Answer:
        """Give each member its part; the calls of one turn run at the same time."""
        household = [item for item in items if any(word in item for word in _HOUSEHOLD)]
        parts = {"grocer": [item for item in items if item not in household], "housekeeper": household}
        calls = [
            tool_call("delegate_task_to_member", member_id=member, task=f"{verb} {_listed(part)}")
            for member, part in parts.items()
            if part
        ]
        return Answer(tool_calls=calls, pace=self._pace, latency=10 * self._pace)


def _items(text: str) -> list[str]:
    """ "the eggs, soap and milk to my list." is eggs, soap, milk."""
    parts = re.split(r",|\band\b", _TAIL.sub("", text.strip().rstrip(".!")))
    return [item for part in parts if (item := _ARTICLE.sub("", part.strip()))]


def _summary(request: ReceivedRequest) -> str:
    """An answer that sums up the results of the calls."""
    results = [(message.content or "").rstrip(".") for message in request.tool_results]
    if request.tool_results[0].tool_name == "show_list":
        return f"On your list: {results[0]}."
    lists: dict[str, list[str]] = {}
    for result in results:
        verb, _, items = result.partition(" ") if result.startswith(EDITED) else ("", "", result)
        lists.setdefault(verb, []).extend(_items(items) if verb else [items])
    return " ".join(f"{verb} {_listed(items)}.".strip() for verb, items in lists.items())


def _listed(items: Iterable[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
