"""Cache points: blocks up to which the service may keep a prompt.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
"""

from __future__ import annotations

from typing import Any

from kern.messages import CacheMark

MOST_POINTS = 4
"""So many cache points does a model take in one request."""

POINT = "cachePoint"
Blocks = list[dict[str, Any]]


def cache_point(mark: CacheMark) -> dict[str, Any]:
    """The block. Five minutes are what every model keeps a prompt for; only some know the word for it."""
    point = {"type": "default"}
    return {POINT: point if mark == "5m" else {**point, "ttl": mark}}


def add_point(blocks: Blocks, mark: CacheMark) -> None:
    """Put a point behind the blocks, if there are any."""
    if blocks and POINT not in blocks[-1]:
        blocks.append(cache_point(mark))


def settle_points(body: dict[str, Any], automatic: CacheMark | None) -> None:
    """Add the automatic points, and see that there are no more than a model takes, in an order it takes.

    One stands behind the system text, or the tools, which are the same in all requests of an agent, and one
    at the end of the conversation, up to where the next request will be the same.
    """
    if automatic is not None:
        add_point(body.get("system") or body.get("toolConfig", {}).get("tools") or [], automatic)
        if body["messages"]:
            add_point(body["messages"][-1]["content"], automatic)
    lists: list[Blocks] = [body.get("toolConfig", {}).get("tools", []), body.get("system", [])]
    lists += [turn["content"] for turn in body["messages"]]
    points = [(blocks, block) for blocks in lists for block in blocks if POINT in block]
    for blocks, block in points[:-MOST_POINTS]:  # the last ones hold the longest prompts
        blocks[:] = [other for other in blocks if other is not block]
    long = False
    for _, block in reversed(points[-MOST_POINTS:]):  # one for an hour may not follow one for five minutes
        long = long or block[POINT].get("ttl") == "1h"
        if long:
            block[POINT]["ttl"] = "1h"
