"""Counts of tokens and requests, their cost, and limits on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from kern._keywords import ChecksArguments
from kern.errors import UsageError

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "requests",
)


CUT_OFF = "answers_cut_off"
"""The key in `Usage.billed` for answers that were cut off before they reported their usage."""


@dataclass(slots=True)
class Usage:
    """The usage of model requests.

    The rule is the same for all providers. `input_tokens` are all tokens that were sent, including those that
    the provider read from its cache (`cached_tokens`) and wrote into it (`cache_write_tokens`).
    `output_tokens` are all tokens that were generated, including `reasoning_tokens`.

    `cost` is in US dollars, as the provider reported it or by the model's price; 0.0 means free. None means
    unknown, also for a sum of which a part is unknown. `counted_cost` is then what a limit on the cost
    counts: the known part, and the expected cost of answers that did not report their usage. If it is None,
    too, the true cost may be higher than any estimate.

    `billed` counts what has its own price: kinds of tokens that the counts above include
    ("cache_write_1h_tokens", "input_audio_tokens" without cached ones, "cache_audio_read_tokens",
    "output_image_tokens"), and work of the provider itself ("web_searches", "code_executions"). `terms` are
    the conditions of an answer that the provider reports as unusual ({"service_tier": "flex"}); a sum has
    none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    cost: float | None = None
    billed: dict[str, int] | None = None
    terms: dict[str, str] | None = None
    counted_cost: float | None = None

    @property
    def limited_cost(self) -> float | None:
        """What a limit on the cost counts: the cost, or else `counted_cost`."""
        cost = self.counted_cost if self.cost is None else self.cost
        return cost if cost is not None and 0 <= cost < math.inf else None

    def add(self, other: Usage) -> None:
        """Add `other`. Counts below zero and NaN are ignored, so that they cannot lower a total."""
        if other.requests > 0:
            cost = other.cost
            if cost is not None and not 0 <= cost < math.inf:  # an impossible cost counts as unknown
                cost = None
            if cost is None and other.counted_cost is None:
                self.cost = self.counted_cost = None
            elif cost is None:
                self._add_counted(other.limited_cost)
            elif not self.requests:
                self.cost = cost
            elif self.cost is not None:
                self.cost += cost
            elif self.counted_cost is not None:
                self.counted_cost += cost
        if other.input_tokens > 0:
            self.input_tokens += other.input_tokens
        if other.output_tokens > 0:
            self.output_tokens += other.output_tokens
        if other.total_tokens > 0:
            self.total_tokens += other.total_tokens
        if other.cached_tokens > 0:
            self.cached_tokens += other.cached_tokens
        if other.cache_write_tokens > 0:
            self.cache_write_tokens += other.cache_write_tokens
        if other.reasoning_tokens > 0:
            self.reasoning_tokens += other.reasoning_tokens
        if other.requests > 0:
            self.requests += other.requests
        if other.billed:
            self.billed = _sum(self.billed or {}, other.billed)

    def _add_counted(self, counted: float | None) -> None:
        """Add requests with an unknown cost, for which a limit counts `counted`."""
        before = self.limited_cost if self.requests else 0.0
        self.cost = None
        self.counted_cost = None if before is None or counted is None else before + counted

    def _subtract(self, other: Usage) -> None:
        """Undo `add`, for the sums."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) - getattr(other, name))
        if self.billed and other.billed:
            self.billed = _sum(self.billed, other.billed, sign=-1)
        if self.cost is not None and other.cost is not None:
            self.cost = max(self.cost - other.cost, 0.0)
        elif other.requests:
            mine, theirs = self.limited_cost, other.limited_cost
            self.cost = None
            self.counted_cost = None if mine is None or theirs is None else max(mine - theirs, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts that are not zero, and the cost if it is known, as JSON.

        An impossible count is written as 0, an impossible cost as unknown.
        """
        data: dict[str, Any] = {}
        for name in _COUNTS:
            if value := getattr(self, name):
                data[name] = value if type(value) is int and value > 0 else _whole(value)
        if self.cost is not None:
            data["cost"] = self.cost if 0 <= self.cost < math.inf else None
        elif self.counted_cost is not None:
            data["counted_cost"] = self.counted_cost if 0 <= self.counted_cost < math.inf else None
        if self.billed:
            data["billed"] = {name: _whole(count) for name, count in self.billed.items()}
        if self.terms:
            data["terms"] = {name: str(word) for name, word in self.terms.items()}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Usage:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not a count, or not a cost.
        """
        return cls(
            **_counts(data),
            cost=_cost(data),
            billed=_billed(data),
            terms=_terms(data),
            counted_cost=_cost(data, "counted_cost"),
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Price:
    """The price of a model, in US dollars per million tokens.

    Args:
        input: The price of tokens that are sent.
        output: The price of tokens that are generated.
        cache_read: The price of sent tokens that the provider reads from its cache; None: as `input`.
        cache_write: The price of sent tokens that the provider writes into its cache; None: as `input`.
        request: US dollars for each request, in addition to its tokens.
        others: Other prices, by their names in `Usage.billed`: per million for a kind of tokens
            ("cache_write_1h_tokens"), per unit for everything else ("web_searches").
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    request: float = 0.0
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("input", "output", "cache_read", "cache_write", "request")
        rates: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name, rate in (rates | dict(self.others)).items():
            if rate is None and name in ("cache_read", "cache_write"):
                continue
            if not (_is_number(rate) and 0 <= rate < math.inf):
                raise UsageError(f"Price: {name} must be a number of US dollars, 0 or more, not {rate!r:.50}")

    def of(self, usage: Usage) -> float | None:
        """Return the cost of `usage` in US dollars; None if it has an item that `others` does not name."""
        read, written = usage.cached_tokens, usage.cache_write_tokens
        plain = max(usage.input_tokens - read - written, 0)
        millions = (
            plain * self.input
            + read * (self.input if self.cache_read is None else self.cache_read)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + usage.output_tokens * self.output
        )
        dollars = millions / 1_000_000 + self.request * usage.requests
        for name, number in (usage.billed or {}).items():
            rate = self.others.get(name)
            if rate is None:
                return None
            each = (rate - self._usual(name)) / 1_000_000 if is_of_tokens(name) else rate
            dollars += number * each
        return dollars

    def _usual(self, name: str) -> float:
        """Return the price of a kind of tokens as part of the general counts."""
        if name.startswith("output"):
            return self.output
        special = self.cache_read if "read" in name else self.cache_write if "write" in name else None
        return self.input if special is None else special


def is_of_tokens(name: str) -> bool:
    """Whether a name in `Usage.billed` is a kind of tokens."""
    return name.endswith("_tokens")


@dataclass(slots=True, frozen=True, kw_only=True)
class UsageLimits(ChecksArguments):
    """What a run and all runs below it may use together; None means no limit.

    Requests and tool calls are counted before they are made, so that concurrent team members cannot exceed a
    limit together. The calls of one turn are made all or none. Tokens and cost are known only after a
    request: the request that exceeds the limit is the last. The expected cost of requests in progress is
    reserved: for their input by its length, for their output by the model's `max_output_tokens`, if any.

    Args:
        requests: The maximum number of model requests.
        tool_calls: The maximum number of tool calls; a delegation counts as one.
        input_tokens, output_tokens, total_tokens: The maximum numbers of tokens.
        cost: The maximum cost in US dollars. A model without a known price is refused. When the cost of a
            request turns out to be unknown, no more requests are made.
    """

    requests: int | None = None
    tool_calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tool_calls", "input_tokens", "output_tokens", "total_tokens", "cost"):
            limit = getattr(self, name)
            if not (limit is None or (_is_number(limit) and limit >= 0)):
                raise UsageError(
                    f"UsageLimits: {name} must be None or a number, 0 or more, not {limit!r:.50}"
                )


@dataclass(slots=True)
class Metrics(Usage):
    """The usage of a run: of its own requests and those of all runs below it.

    Times are in seconds. `details` has the counts by model ("openai/gpt-5.2").
    """

    time_to_first_token: float | None = None
    duration: float | None = None
    details: dict[str, Usage] = field(default_factory=dict)

    def count(self, model: str, usage: Usage) -> None:
        """Add the usage of one request, under its model."""
        self.add(usage)
        self.details.setdefault(model, Usage()).add(usage)

    def include(self, other: Metrics) -> None:
        """Add the usage of a team member's run. Times are not changed."""
        self.add(other)
        for model, usage in other.details.items():
            self.details.setdefault(model, Usage()).add(usage)

    def exclude(self, other: Metrics) -> None:
        """Undo `include`."""
        self._subtract(other)
        for model, usage in other.details.items():
            if (mine := self.details.get(model)) is not None:
                mine._subtract(usage)
                if not mine.requests:
                    del self.details[model]

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and times that are set, as JSON."""
        data = Usage.to_dict(self)
        if self.time_to_first_token is not None:
            data["time_to_first_token"] = self.time_to_first_token
        if self.duration is not None:
            data["duration"] = self.duration
        if self.details:
            data["details"] = details = {}
            for model, usage in self.details.items():
                details[model] = usage.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Metrics:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not a count, or not a time.
        """
        first, duration = data.get("time_to_first_token"), data.get("duration")
        if not all(isinstance(seconds, int | float | None) for seconds in (first, duration)):
            raise ValueError(f"metrics: times must be seconds, not {first!r:.50} and {duration!r:.50}")
        return cls(
            **_counts(data),
            cost=_cost(data),
            billed=_billed(data),
            terms=None,
            counted_cost=_cost(data, "counted_cost"),
            time_to_first_token=first,
            duration=duration,
            details={model: Usage.from_dict(usage) for model, usage in data.get("details", {}).items()},
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(count: float) -> int:
    """A count as it is stored: a model outside Kern may have reported a float, or a count below zero."""
    return int(count) if 0 < count < math.inf else 0


def _counts(data: dict[str, Any]) -> dict[str, int]:
    counts = {name: data.get(name, 0) for name in _COUNTS}
    for name, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"usage: {name} must be a count, not {count!r:.100}")
    return counts


def _cost(data: dict[str, Any], name: str = "cost") -> float | None:
    cost = data.get(name)
    if cost is None:
        return None
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost) or cost < 0:
        raise ValueError(f"usage: {name} must be a number of US dollars, not {cost!r:.100}")
    return float(cost)


def _billed(data: dict[str, Any]) -> dict[str, int] | None:
    billed = data.get("billed") or {}
    counts = billed.values() if isinstance(billed, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"usage: the values of billed must be counts, not {billed!r:.100}")
    return dict(billed) or None


def _terms(data: dict[str, Any]) -> dict[str, str] | None:
    terms = data.get("terms") or {}
    if not isinstance(terms, dict) or not all(isinstance(word, str) for word in terms.values()):
        raise ValueError(f"usage: terms must be a dict of str, not {terms!r:.100}")
    return dict(terms) or None


def _sum(counts: Mapping[str, int], others: Mapping[str, int], sign: int = 1) -> dict[str, int] | None:
    names = dict.fromkeys((*counts, *others))
    sums = {name: counts.get(name, 0) + sign * max(others.get(name, 0), 0) for name in names}
    return {name: count for name, count in sums.items() if count > 0} or None
