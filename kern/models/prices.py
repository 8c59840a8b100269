"""The cost of requests: by the `price` of a model, or by the price list of the extra `prices`.

The list is part of the package genai-prices; nothing is fetched. An unknown model has the price None, not 0.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any, Final

from pydantic_core import to_json

from kern.errors import UsageError
from kern.messages import Image, Media
from kern.models._exact_price import exact_price
from kern.models.base import Model, ModelRequest, ToolDefinition
from kern.models.servers import SERVERS
from kern.usage import CUT_OFF, Price, Usage

_Priced = Callable[[Usage], float | None]

LISTED: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "bedrock": "aws",
    "google": "google",
    **{server.name: server.price_list for server in SERVERS.values() if server.price_list is not None},
}
"""The providers that the list knows, and their names there."""

_PER_MILLION: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_CHARS_PER_TOKEN: Final = 4  # in English; good enough for an estimate

_FULL_NAME: Final = re.compile(r"^(models/|arn:[^:]*:bedrock:[^:]*:[^:]*:foundation-model/)")
"""What stands before the id of a model where Google and AWS name it in full."""

_GUARDED: Final = frozenset({"guardrail_units", "guardrail_checks"})
"""A guardrail of Bedrock's is paid for by the length of what it reads, as the tokens are."""

_MANY: Final = 1_000_000
_TOKENS_PER_PICTURE: Final = 1_500
_TOKENS_ELSEWHERE: Final = 20_000
"""For a document that the provider fetches, or that is read when the request is built: some tens of pages."""

_lock: Final = threading.Lock()


def is_to_load(model: Model) -> bool:
    """Whether the price list is needed for this model, and not loaded yet."""
    return model.price is None and _is_listed(model) and not _snapshot.cache_info().currsize


def load() -> None:
    """Load the price list. That takes most of a second: do it in a thread."""
    with _lock:
        _snapshot()


def cost_of(model: Model, usage: Usage, answered: str | None = None, *, wrote: bool = False) -> float | None:
    """Return the cost of a request in US dollars; None if it is unknown.

    Args:
        model: The model that was asked.
        usage: The usage that the provider reported. Every request has input, so counts without input tokens
            mean that the usage is unknown.
        answered: The model that answered, if the provider reports it.
        wrote: The model wrote something, so that there must be output tokens.
    """
    if usage.cost is not None:
        return usage.cost
    is_cut = CUT_OFF in (usage.billed or ())
    is_reported = usage.input_tokens > 0 and (usage.output_tokens > 0 or not wrote)
    if is_reported or is_cut:
        cost = _reckoned(model, usage, answered)
        if cost is not None or not is_cut:
            return cost
    billed = {name: number for name, number in (usage.billed or {}).items() if name != CUT_OFF}
    anything = replace(usage, input_tokens=_MANY, output_tokens=_MANY, billed=billed)
    return 0.0 if _reckoned(model, anything, answered) == 0 else None  # where all is free, this was


def is_bounded(usage: Usage) -> bool:
    """Whether a request with an unknown cost only used what is billed by the length of its texts."""
    return not usage.terms and all(name == CUT_OFF or name in _GUARDED for name in usage.billed or ())


def _reckoned(model: Model, usage: Usage, answered: str | None) -> float | None:
    """Return the cost of the usage, by the model's price or the price list; None if it is unknown."""
    if model.price is not None:
        return model.price.of(usage)
    if not _is_listed(model):
        return None
    priced = (_listed(model.provider, answered) if answered else None) or _listed(model.provider, model.id)
    return None if priced is None else priced(usage)


def expected_cost(model: Model, request: ModelRequest) -> float:
    """Estimate the cost of a request in US dollars: its input by its length, its output by the maximum.

    Raises:
        UsageError: The price of the model is unknown, and the provider does not report the cost.
    """
    said = sum(len(message.content or "") for message in request.messages)
    called = sum(len(call.arguments) for message in request.messages for call in message.tool_calls)
    shown = sum(_tokens_of(part) for message in request.messages for part in message.media)
    defined = sum(map(_length_of, request.tools))
    if request.response_format is not None:
        defined += len(to_json(request.response_format.schema))
    sent = math.ceil((said + called + defined) / _CHARS_PER_TOKEN) + shown
    usage = Usage(input_tokens=sent, output_tokens=model.longest_answer() or 0, requests=1)
    cost = _reckoned(model, usage, None)
    if cost is None and not model.tells_cost:
        how = "" if _is_installed() else ", or install kern-agents[prices]"
        raise UsageError(
            f"a limit on the cost cannot be enforced: the price of {model.provider}/{model.id} is unknown; "
            f"give the model one, price=Price(input=..., output=...){how}"
        )
    return cost or 0.0


def _length_of(tool: ToolDefinition) -> int:
    """Return the length of a tool's definition in characters."""
    return len(tool.name) + len(tool.description) + len(to_json(tool.parameters))


def _tokens_of(media: Media) -> int:
    """Estimate the tokens of an image or a document."""
    if isinstance(media, Image):
        return _TOKENS_PER_PICTURE
    return len(media.content) // _CHARS_PER_TOKEN if media.content is not None else _TOKENS_ELSEWHERE


def _is_listed(model: Model) -> bool:
    """Whether the price list is installed, and has the provider."""
    return model.provider in LISTED and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec("genai_prices") is not None


@cache
def _snapshot() -> Any:
    from genai_prices.data_snapshot import get_snapshot  # optional, and slow

    return get_snapshot()


@lru_cache(maxsize=1024)
def _listed(provider: str, model_id: str) -> _Priced | None:
    """Return a function for the cost of a model's usage by the price list; None if the model is unknown.

    The package itself takes a third of a millisecond to calculate a price. For plain tokens at the usual
    terms, as in most requests, it is calculated here, in a microsecond.
    """
    try:
        _, model = _snapshot().find_provider_model(_FULL_NAME.sub("", model_id), None, LISTED[provider], None)
    except LookupError:
        return None
    plain = _plain(model)
    if plain is None:
        return None

    def price(usage: Usage) -> float | None:
        if usage.billed or usage.terms or (usage.reasoning_tokens and has_kinds):
            return exact_price(model, provider, usage)
        return plain(usage)

    has_kinds = _has_kinds_of_output(model)
    return price


def _plain(model: Any) -> _Priced | None:
    """Return a function for the cost of plain tokens by the price list."""
    if isinstance(model.prices, list):  # by date, or hour
        return lambda usage: _rates(model.get_prices(datetime.now(UTC)), usage)
    if any(hasattr(getattr(model.prices, name, None), "tiers") for name in _PER_MILLION):
        return lambda usage: _rates(model.prices, usage)
    price = _price(model.prices, 0)
    return None if price is None else price.of


def _has_kinds_of_output(model: Any) -> bool:
    """Whether reasoning tokens have their own price."""
    listed = model.prices if isinstance(model.prices, list) else [model.prices]
    return any(getattr(getattr(item, "prices", item), "output_reasoning_mtok", None) for item in listed)


def _rates(prices: Any, usage: Usage) -> float | None:
    price = _price(prices, usage.input_tokens)
    return None if price is None else price.of(usage)


def _price(prices: Any, sent: int) -> Price | None:
    """Return the prices for a request of `sent` tokens."""
    rates = (_rate(getattr(prices, name, None), sent) for name in _PER_MILLION)
    input, output, cache_read, cache_write = rates
    if input is None or output is None:
        return None
    request = _rate(getattr(prices, "requests_kcount", None), sent) or 0.0
    return Price(
        input=input,
        output=output,
        cache_read=cache_read,
        cache_write=cache_write,
        request=request / 1000,
    )


def _rate(listed: Any, sent: int) -> float | None:
    """Return a rate; for a rate with tiers, the one for this length of the prompt."""
    for tier in reversed(getattr(listed, "tiers", ())):
        if sent > tier.start:
            return float(tier.price)
    base = getattr(listed, "base", listed)
    return None if base is None else float(base)
