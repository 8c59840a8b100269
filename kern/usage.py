"""Token and request counts, what they cost, and limits on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
"""In `Usage.billed`: answers that broke off before they told what they used."""


@dataclass(slots=True)
class Usage:
    """What model requests used.

    One rule, whatever the provider's way of counting: `input_tokens` are all that were sent, those included
    that the provider has read from its cache (`cached_tokens`) and written into it
    (`cache_write_tokens`); `output_tokens` are all that were generated, `reasoning_tokens` included.

    `cost` is in US dollars: as the provider told it, or by the model's price. None: nobody knows it, and so
    it is for a sum of which a part is not known; 0.0 means that it was free. `counted_cost` stands beside a
    cost that is not known, and is what a limit on the cost counts for it: what is known of it, and what was
    set aside for answers that did not tell what they used. None: that may be less than they cost.

    `billed` counts what has a price of its own: kinds of tokens that the counts above include
    ("cache_write_1h_tokens", "input_audio_tokens", which were not cached, "cache_audio_read_tokens",
    "output_image_tokens"), and what the provider itself did ("web_searches", "code_executions"). `terms` are
    the conditions under which the provider says it answered, where they are not the usual ones
    ({"service_tier": "flex"}); a sum has none.
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
        """Count `other` in; what is below zero, or NaN, is no count and takes nothing off a limit."""
        if other.requests > 0:
            cost = other.cost
            if cost is not None and not 0 <= cost < math.inf:  # one that makes no sense is not known
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
        """Count in requests whose cost is not known, but what a limit counts for it."""
        before = self.limited_cost if self.requests else 0.0
        self.cost = None
        self.counted_cost = None if before is None or counted is None else before + counted

    def to_dict(self) -> dict[str, Any]:
        """The counts that are not zero, and the cost where it is known."""
        data: dict[str, Any] = {}
        for name in _COUNTS:
            if value := getattr(self, name):
                data[name] = value
        if self.cost is not None:
            data["cost"] = self.cost
        elif self.counted_cost is not None:
            data["counted_cost"] = self.counted_cost
        if self.billed:
            data["billed"] = dict(self.billed)
        if self.terms:
            data["terms"] = dict(self.terms)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Usage:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is no count, or no cost.
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
    """What a model's tokens cost, in US dollars for a million of them.

    Args:
        input, output: Tokens that are sent, and those that are generated.
        cache_read, cache_write: Of those that are sent, the ones that the provider reads from its cache, and
            those that it writes into it; None: as `input`.
        request: Dollars for each request, beside its tokens.
        others: What has a price of its own, by its name in `Usage.billed`: dollars for a million where it is
            a kind of tokens ("cache_write_1h_tokens"), and for one of anything else ("web_searches").
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    request: float = 0.0
    others: Mapping[str, float] = field(default_factory=dict)

    def of(self, usage: Usage) -> float | None:
        """The price of `usage`, in US dollars; None if it counts something that `others` does not name."""
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
        """What a kind of tokens costs as one of those that it is counted among."""
        if name.startswith("output"):
            return self.output
        special = self.cache_read if "read" in name else self.cache_write if "write" in name else None
        return self.input if special is None else special


def is_of_tokens(name: str) -> bool:
    """Whether a name in `Usage.billed` is a kind of tokens."""
    return name.endswith("_tokens")


@dataclass(slots=True, frozen=True, kw_only=True)
class UsageLimits:
    """What a run and all runs below it may use together; None means any amount.

    Requests and tool calls are counted before they are made, so that members in parallel cannot pass a limit
    together; the calls of one turn are made all or none. Tokens and cost are known only after a request: the
    one that passes the limit is the last. What the requests under way are expected to cost is set aside for
    them: their input by its length, their output by the model's `max_output_tokens`, where it has one.

    Args:
        requests: Requests to models.
        tool_calls: Tool calls; a delegation is one.
        input_tokens, output_tokens, total_tokens: Tokens.
        cost: US dollars. A model whose price nobody knows is not asked at all, and no model any more once the
            cost of a request has turned out to be unknown.
    """

    requests: int | None = None
    tool_calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None


@dataclass(slots=True)
class Metrics(Usage):
    """What a run used: its own requests and those of all runs below it.

    Times are in seconds. `details` splits the counts by model ("openai/gpt-5.2").
    """

    time_to_first_token: float | None = None
    duration: float | None = None
    details: dict[str, Usage] = field(default_factory=dict)

    def count(self, model: str, usage: Usage) -> None:
        """Count one request's usage in, under its model."""
        self.add(usage)
        self.details.setdefault(model, Usage()).add(usage)

    def include(self, other: Metrics) -> None:
        """Count the run of a member in; times stay this run's own."""
        self.add(other)
        for model, usage in other.details.items():
            self.details.setdefault(model, Usage()).add(usage)

    def exclude(self, other: Usage) -> None:
        """The reverse of `include`, for the sums."""
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
        """The counts and times that are set, as JSON."""
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
            ValueError: A value is no count, or no time.
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
