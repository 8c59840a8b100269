"""The usage of an answer of Bedrock's, as Kern counts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern.models._billed import billed_of, terms_of
from kern.models._reading import count, items_of
from kern.usage import Usage

_FREE = ("wordPolicyUnits", "sensitiveInformationPolicyFreeUnits")
"""What a guardrail does for nothing: https://aws.amazon.com/bedrock/pricing/ (Guardrails)."""


def usage_of(usage: Any, tier: Any, performance: Any) -> Usage:
    """The usage as Kern counts it: Bedrock does not include cached tokens in `inputTokens`, Kern does."""
    read, written = count(usage, "cacheReadInputTokens"), count(usage, "cacheWriteInputTokens")
    sent, said = count(usage, "inputTokens") + read + written, count(usage, "outputTokens")
    details = items_of(usage.get("cacheDetails")) if isinstance(usage, dict) else []
    long = sum(count(detail, "inputTokens") for detail in details if detail.get("ttl") == "1h")
    return Usage(
        input_tokens=sent,
        output_tokens=said,
        total_tokens=sent + said,
        cached_tokens=read,
        cache_write_tokens=written,
        requests=1,
        billed=billed_of(cache_write_1h_tokens=min(long, written)),
        terms=terms_of(
            service_tier=tier.get("type") if isinstance(tier, dict) else None,
            latency=performance.get("latency") if isinstance(performance, dict) else None,
        ),
    )


def guarded(trace: Any, *, asked: bool) -> dict[str, int]:
    """What a guardrail has checked, in units of text: they have their own price, which is not known here.

    Args:
        trace: The trace of the answer. It has the units only if the request asked for a trace.
        asked: Whether the request has a guardrail. Without a trace it counts as one check.
    """
    trace = trace.get("guardrail") if isinstance(trace, dict) else None
    if not isinstance(trace, dict):
        return {"guardrail_checks": int(asked)}
    return {"guardrail_units": sum(map(_units, _assessments(trace)))}


def _assessments(trace: dict[str, Any]) -> Iterator[Any]:
    for name in ("inputAssessment", "outputAssessments"):
        found = trace.get(name)
        for made in found.values() if isinstance(found, dict) else ():
            yield from made if isinstance(made, list) else [made]


def _units(assessment: Any) -> int:
    metrics = assessment.get("invocationMetrics") if isinstance(assessment, dict) else None
    used = metrics.get("usage") if isinstance(metrics, dict) else None
    names = used if isinstance(used, dict) else ()
    return sum(count(used, name) for name in names if name.endswith("Units") and name not in _FREE)
