"""The usage of one of Claude's answers, as Kern counts it."""

from __future__ import annotations

from typing import Any

from kern.models._billed import billed_of, terms_of
from kern.models._reading import count, items_of, text_of
from kern.usage import Usage

_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"


def usage_of(usage: Any, model: str) -> Usage:
    """Return the usage as Kern counts it: `input_tokens` includes cached tokens, and those of a compaction.

    Anthropic reports a compaction only as an iteration: its tokens are billed, but are not in the sums
    (https://platform.claude.com/docs/en/build-with-claude/compaction). An iteration of another model (an
    advisor, or the model before a fallback) has that model's price, which is unknown here, so the cost of the
    answer is unknown, too.

    Args:
        usage: The usage that the service reported.
        model: The model that answered.
    """
    told: dict[str, Any] = usage if isinstance(usage, dict) else {}
    iterations = items_of(told.get("iterations"))
    counted = [told, *(item for item in iterations if item.get("type") == "compaction")]
    read, written, sent, said = (
        sum(count(item, name) for item in counted)
        for name in (_READ, _WRITTEN, "input_tokens", "output_tokens")
    )
    sent += read + written
    hour = sum(count(item.get("cache_creation"), "ephemeral_1h_input_tokens") for item in counted)
    return Usage(
        input_tokens=sent,
        output_tokens=said,
        total_tokens=sent + said,
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=min(count(told.get("output_tokens_details"), "thinking_tokens"), said),
        requests=1,
        billed=billed_of(
            cache_write_1h_tokens=min(hour, written),
            web_searches=count(told.get("server_tool_use"), "web_search_requests"),
            answers_of_other_models=sum(_is_of_another(item, model) for item in iterations),
        ),
        terms=terms_of(
            service_tier=told.get("service_tier"),
            speed=told.get("speed"),
            inference_geo=told.get("inference_geo"),
        ),
    )


def splits(usage: Any, before: Any) -> bool:
    """Whether a later count reports all input tokens as cached, and an earlier one none."""
    if not isinstance(usage, dict) or not isinstance(before, dict) or usage.get("input_tokens") != 0:
        return False
    cached, known = (count(told, _READ) + count(told, _WRITTEN) for told in (usage, before))
    return not known and 0 < count(before, "input_tokens") <= cached


def _is_of_another(iteration: dict[str, Any], model: str) -> bool:
    used = count(iteration, "input_tokens") or count(iteration, "output_tokens")
    return bool(used) and text_of(iteration.get("model")) not in ("", model)
