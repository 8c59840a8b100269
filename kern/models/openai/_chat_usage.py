"""The usage and cost of a chat completion, as servers report them."""

from __future__ import annotations

import math
from typing import Any

from kern.models._billed import billed_of, terms_of
from kern.models._reading import count
from kern.models.servers import ChatServer
from kern.usage import Usage

_CACHED = ("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")
"""The fields of `usage` in which Moonshot, Mistral and DeepSeek report cached tokens."""


def usage_of(usage: Any, server: ChatServer, model: str = "", tier: Any = None) -> Usage:
    """Return the usage of a chat completion, for any server's way of counting.

    Args:
        usage: The usage that the server reported.
        server: The description of the server.
        model: The model that answered.
        tier: The service tier that the answer names.
    """
    spent, said = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    total = count(usage, "total_tokens")
    details = usage if isinstance(usage, dict) else {}
    reasoned = cached = written = heard = spoken = 0
    if told := details.get("completion_tokens_details"):
        reasoned, spoken = count(told, "reasoning_tokens"), count(told, "audio_tokens")
    if sent := details.get("prompt_tokens_details"):
        cached, written = count(sent, "cached_tokens"), count(sent, "cache_write_tokens")
        heard = count(sent, "audio_tokens")
    if heard and total == spent + said + heard:  # Mistral counts audio apart
        spent += heard
    is_apart = server.reasoning_apart or total == spent + said + reasoned
    if is_apart and total > spent + said:
        reasoned = reasoned or total - spent - said
        said = total - spent
    searched, sources = bool(server.searching) and server.searching in model, count(usage, "num_sources_used")
    for name in _CACHED:
        if not cached and name in details:
            cached = count(details, name)
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=max(total, spent + said),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoned or count(usage, "reasoning_tokens"),
        requests=1,
        cost=None if server.cost is None else _whole_cost(usage, server),
        billed=billed_of(
            web_searches=int(searched),
            sources_used=sources,
            input_audio_tokens=heard,
            output_audio_tokens=spoken,
        )
        if searched or sources or heard or spoken
        else None,
        terms=None if tier is None else terms_of(service_tier=tier),
    )


def _whole_cost(usage: Any, server: ChatServer) -> float | None:
    """Return the cost that the server reports, plus what a provider behind it bills to the user's own key."""
    reported = _cost(usage, server.cost or "")
    if reported is None or not usage.get("is_byok"):
        return None if reported is None else reported * server.cost_unit
    upstream = _cost(usage, "cost_details.upstream_inference_cost")
    return None if upstream is None else reported + upstream


def _cost(usage: Any, path: str) -> float | None:
    """Return the cost that the server reports."""
    for name in path.split("."):
        usage = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(usage, bool) or not isinstance(usage, int | float) or not 0 <= usage < math.inf:
        return None
    return float(usage)
