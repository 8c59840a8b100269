"""The price of a request with several kinds of tokens, or with services that are billed apart.

The package genai-prices calculates. This module knows what that package has no price for, so that no cost is
reported too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kern.usage import Usage, is_of_tokens

_AS_TEXT: Final[Mapping[str, frozenset[str]]] = {
    "google": frozenset({"audio", "image", "video"}),
}
"""Kinds of input that cost what text costs, unless the provider's price page lists them."""

_FACTORS: Final[Mapping[tuple[str, str], float]] = {("inference_geo", "us"): 1.1}
"""Terms that multiply the price of every token (https://platform.claude.com/docs/en/about-claude/pricing)."""


def exact_price(model: Any, provider: str, usage: Usage) -> float | None:
    """The price in US dollars; None if the price list lacks a part of it.

    Args:
        model: The `ModelInfo` of the price list.
        provider: Kern's name of the provider.
        usage: The usage to pay for.
    """
    from genai_prices.types import Usage as ListedUsage  # optional

    terms = dict(usage.terms or {})
    factor = 1.0
    for term in [item for item in terms.items() if item in _FACTORS]:
        factor *= _FACTORS[term]
        del terms[term[0]]
    now = datetime.now(UTC)
    if any(not _is_listed(model, term, now) for term in terms.items()):
        return None
    prices = model.get_prices(now, terms)
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    counts = _counts(usage)
    unpriced = [name for name in usage.billed or () if getattr(prices, _price_key(name), None) is None]
    if not all(_costs_as_text(name, provider) for name in unpriced):
        return None
    try:
        price = prices.calc_price(ListedUsage(**counts))
    except ValueError:  # kinds of tokens overlap by an unknown number
        return None
    tokens = float(price["input_price"] + price["output_price"])
    return float(price["total_price"]) + tokens * (factor - 1)


def _is_listed(model: Any, term: tuple[str, str], now: datetime) -> bool:
    """Whether the list has prices for a term that are valid now."""
    return any(
        dict(variant.when) == dict([term]) and (variant.constraint is None or variant.constraint.active(now))
        for variant in model.price_variants or ()
    )


def _counts(usage: Usage) -> dict[str, int]:
    """The counts under the names of the list, which counts cached tokens of a kind in that kind as well."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    billed = usage.billed or {}
    counts |= billed
    for kind in ("audio", "image", "video"):
        if cached := billed.get(f"cache_{kind}_read_tokens"):
            name = f"input_{kind}_tokens"
            counts[name] = counts.get(name, 0) + cached
    return counts


def _price_key(name: str) -> str:
    return name.removesuffix("_tokens") + "_mtok" if is_of_tokens(name) else f"{name}_kcount"


def _costs_as_text(name: str, provider: str) -> bool:
    """Whether a kind of input for which the list has no price costs what its text does."""
    kinds = _AS_TEXT.get(provider, frozenset())
    return any(name in (f"input_{kind}_tokens", f"cache_{kind}_read_tokens") for kind in kinds)
