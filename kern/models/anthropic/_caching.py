"""Places the marks up to which the service caches a prompt. Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern.messages import CacheMark

MOST_MARKS = 4
"""How many marks the service accepts in one request."""

MARK = "cache_control"
_UNMARKABLE = ("thinking", "redacted_thinking")


def put_mark(blocks: list[dict[str, Any]], mark: CacheMark) -> None:
    """Mark the last of the blocks that may have a mark, so that all blocks up to it are cached."""
    for block in reversed(blocks):
        if block.get("type") not in _UNMARKABLE and not block.get("defer_loading"):
            block.setdefault(MARK, {"type": "ephemeral", "ttl": mark})
            return


def settle_marks(body: dict[str, Any], automatic: CacheMark | None) -> None:
    """Add the automatic marks, and reduce all marks to a number and an order that the service accepts.

    One automatic mark goes after the tools and the system text, which are the same in all requests of an
    agent, and one at the end of the conversation, up to which the next request will be the same.
    """
    if automatic is not None:
        put_mark(body.get("system") or body.get("tools") or [], automatic)
        if body["messages"]:
            put_mark(body["messages"][-1]["content"], automatic)
    marked = list(_marked(body))
    for block in marked[:-MOST_MARKS]:  # the last marks cover the longest prompts
        del block[MARK]
    long = False
    for block in reversed(marked[-MOST_MARKS:]):  # the service rejects "1h" after "5m"
        long = long or block[MARK]["ttl"] == "1h"
        if long:
            block[MARK]["ttl"] = "1h"


def _marked(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The blocks with a mark, in the order of the prompt."""
    for block in (*body.get("tools", ()), *body.get("system", ())):
        if MARK in block:
            yield block
    for message in body["messages"]:
        for block in message["content"]:
            if MARK in block:
                yield block
