"""What is billed apart from plain tokens, and the terms of a request: see `Usage.billed`."""

from __future__ import annotations

from typing import Any, Final

_USUAL: Final = frozenset(
    {"", "auto", "default", "global", "not_available", "on_demand", "standard", "traffic_type_unspecified"}
)
"""The values that providers use for their usual terms."""

_SAME: Final = {
    ("service_tier", "batch"): ("processing", "batch"),
    ("service_tier", "on_demand_flex"): ("service_tier", "flex"),
    ("service_tier", "on_demand_priority"): ("service_tier", "priority"),
}
"""Other names of the same terms."""


def terms_of(**said: Any) -> dict[str, str] | None:
    """The terms under which a request was answered, as the provider reports them; None: the usual terms."""
    terms: dict[str, str] = {}
    for name, word in said.items():
        if isinstance(word, str) and (folded := word.casefold()) not in _USUAL:
            name, folded = _SAME.get((name, folded), (name, folded))
            terms[name] = folded
    return terms or None


def billed_of(**counts: int) -> dict[str, int] | None:
    """The counts that are not zero; None if there are none."""
    billed = {name: count for name, count in counts.items() if count > 0}
    return billed or None
