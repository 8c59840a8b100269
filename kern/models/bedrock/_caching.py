"""Cache points: blocks that mark how far the service may cache a prompt.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
"""

from __future__ import annotations

from typing import Any

from kern.messages import CacheMark

MOST_POINTS = 4
"""How many cache points a request may have."""

POINT = "cachePoint"
Blocks = list[dict[str, Any]]


def cache_point(mark: CacheMark) -> dict[str, Any]:
    """The block. Five minutes are the default of all models, and some reject it as an explicit value."""
    point = {"type": "default"}
    return {POINT: point if mark == "5m" else {**point, "ttl": mark}}


def add_point(blocks: Blocks, mark: CacheMark) -> None:
    """Append a point to the blocks, if there are any."""
    if blocks and POINT not in blocks[-1]:
        blocks.append(cache_point(mark))


def settle_points(body: dict[str, Any], automatic: CacheMark | None) -> None:
    """Add the automatic points, and keep the number and the order of points that a model accepts.

    One automatic point follows the system text, or else the tools, which are the same in all requests of an
    agent. The other ends the conversation: the next request begins with the same messages.
    """
    if automatic is not None:
        add_point(body.get("system") or body.get("toolConfig", {}).get("tools") or [], automatic)
        if body["messages"]:
            add_point(body["messages"][-1]["content"], automatic)
    lists: list[Blocks] = [body.get("toolConfig", {}).get("tools", []), body.get("system", [])]
    lists += [turn["content"] for turn in body["messages"]]
    points = [(blocks, block) for blocks in lists for block in blocks if POINT in block]
    for blocks, block in points[:-MOST_POINTS]:  # the last ones cache the longest prompts
        blocks[:] = [other for other in blocks if other is not block]
    long = False
    for _, block in reversed(points[-MOST_POINTS:]):  # a point of one hour may not follow one of five minutes
        long = long or block[POINT].get("ttl") == "1h"
        if long:
            block[POINT]["ttl"] = "1h"
