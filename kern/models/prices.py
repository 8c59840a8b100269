"""What a request has cost: by the price that a model was given, or the list that the extra `prices` brings.

The list is part of the package genai-prices; nothing is fetched. An unknown model has no price, and not 0.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, Final

from kern.errors import UsageError
from kern.models.base import Model, ModelRequest
from kern.models.servers import SERVERS
from kern.usage import Price, Usage

_Priced = Callable[[Usage], float | None]

_LISTS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "google": "google",
    **{server.name: server.price_list for server in SERVERS.values() if server.price_list is not None},
}
"""The name of each provider in the list."""

_PER_MILLION: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_CHARS_PER_TOKEN: Final = 4  # of English; enough to set something aside

_lock: Final = threading.Lock()


def is_to_load(model: Model) -> bool:
    """Whether the list has yet to be loaded for this model."""
    return model.price is None and not _snapshot.cache_info().currsize and _is_listed(model)


def load() -> None:
    """Load the list: most of a second's work, which no event loop should wait for."""
    with _lock:
        _snapshot()


def cost_of(model: Model, usage: Usage, answered: str | None = None) -> float | None:
    """What a request has cost, in US dollars; None if nobody knows.

    Args:
        answered: The model that has answered, where the provider tells it.
    """
    if usage.cost is not None:
        return usage.cost
    if model.price is not None:
        return model.price.of(usage)
    if not _is_listed(model):
        return None
    priced = (_listed(model.provider, answered) if answered else None) or _listed(model.provider, model.id)
    return None if priced is None else priced(usage)


def expected_cost(model: Model, request: ModelRequest) -> float:
    """What a request is expected to cost: its input by its length, its output as long as it may become.

    Raises:
        UsageError: Nobody knows the model's price, and the provider does not tell the cost.
    """
    said = sum(len(message.content or "") for message in request.messages)
    called = sum(len(call.arguments) for message in request.messages for call in message.tool_calls)
    longest: int | None = getattr(model, "max_output_tokens", None)
    usage = Usage(input_tokens=(said + called) // _CHARS_PER_TOKEN, output_tokens=longest or 0)
    cost = cost_of(model, usage)
    if cost is None and not model.tells_cost:
        how = "" if _is_installed() else ", or install kern-agents[prices]"
        raise UsageError(
            f"a limit on the cost cannot be kept: nobody knows the price of {model.provider}/{model.id}; "
            f"give the model one, price=Price(input=..., output=...){how}"
        )
    return cost or 0.0


def _is_listed(model: Model) -> bool:
    """Whether the list is there, and knows the provider."""
    return model.provider in _LISTS and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec("genai_prices") is not None


@cache
def _snapshot() -> Any:
    from genai_prices.data_snapshot import get_snapshot  # optional, and slow

    return get_snapshot()


@lru_cache(maxsize=1024)
def _listed(provider: str, model_id: str) -> _Priced | None:
    """How the list prices a model; None if it does not know it."""
    try:
        listed_by, model = _snapshot().find_provider_model(model_id, None, _LISTS[provider], None)
    except LookupError:
        return None
    prices = getattr(model.prices, "__dict__", None)  # else there are several, by date or hour
    known = {name: value for name, value in (prices or {}).items() if value is not None}
    if not known or known.keys() - set(_PER_MILLION) or not all(_is_plain(value) for value in known.values()):
        return lambda usage: _reckoned(listed_by, model, usage)
    sent, made, read, written = (known.get(name) for name in _PER_MILLION)
    if sent is None or made is None:
        return None
    return Price(
        input=float(sent),
        output=float(made),
        cache_read=None if read is None else float(read),
        cache_write=None if written is None else float(written),
    ).of


def _is_plain(value: Any) -> bool:
    """A price is one number, and not tiers of them."""
    return hasattr(value, "is_finite")


def _reckoned(listed_by: Any, model: Any, usage: Usage) -> float | None:
    """A price that depends on the hour, on the length of the prompt, or on what else is counted."""
    try:
        return float(model.calc_price(usage, listed_by).total_price)
    except (LookupError, ValueError):  # counts that contradict each other
        return None
