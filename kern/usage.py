"""Token and request counts, and limits on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kern.errors import UsageLimitExceeded

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "requests",
)


@dataclass(slots=True)
class Usage:
    """What model requests used.

    One rule, whatever the provider's way of counting: `input_tokens` are all that were sent, those included
    that the provider has read from its cache (`cache_read_tokens`) and written into it
    (`cache_write_tokens`); `output_tokens` are all that were generated, `reasoning_tokens` included.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0

    def add(self, other: Usage) -> None:
        """Count `other` in; what is below zero, or NaN, is no count and takes nothing off a limit."""
        if other.input_tokens > 0:
            self.input_tokens += other.input_tokens
        if other.output_tokens > 0:
            self.output_tokens += other.output_tokens
        if other.total_tokens > 0:
            self.total_tokens += other.total_tokens
        if other.cache_read_tokens > 0:
            self.cache_read_tokens += other.cache_read_tokens
        if other.cache_write_tokens > 0:
            self.cache_write_tokens += other.cache_write_tokens
        if other.reasoning_tokens > 0:
            self.reasoning_tokens += other.reasoning_tokens
        if other.requests > 0:
            self.requests += other.requests

    def to_dict(self) -> dict[str, Any]:
        """The counts that are not zero."""
        return {name: value for name in _COUNTS if (value := getattr(self, name))}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Usage:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is no count.
        """
        return cls(**_counts(data))


@dataclass(slots=True, frozen=True, kw_only=True)
class UsageLimits:
    """What a run and all runs below it may use together; None means any amount.

    Requests and tool calls are counted before they are made, so that members in parallel cannot pass a limit
    together; the calls of one turn are made all or none. Tokens are known only after a request: the one that
    passes the limit is the last.

    Args:
        requests: Requests to models.
        tool_calls: Tool calls; a delegation is one.
        input_tokens, output_tokens, total_tokens: Tokens.
    """

    requests: int | None = None
    tool_calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


class UsageLedger:
    """Counts what a tree of runs uses, against its limits."""

    __slots__ = ("_limits", "_requests", "_tool_calls", "_used")

    def __init__(self, limits: UsageLimits | None) -> None:
        self._limits = limits
        self._requests = 0
        self._tool_calls = 0
        self._used = Usage()

    def reserve_request(self) -> None:
        """Count a request that is about to be made.

        Raises:
            UsageLimitExceeded: It would pass a limit; it is not counted.
        """
        limits = self._limits
        if limits is None:
            return
        _check("requests", self._requests, limits.requests)
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            _check(name.replace("_", " "), getattr(self._used, name), getattr(limits, name))
        self._requests += 1

    def reserve_tool_calls(self, count: int) -> None:
        """Count the tool calls of a turn, which are about to be made.

        Raises:
            UsageLimitExceeded: They would pass the limit; none of them is counted.
        """
        if self._limits is not None:
            if count:
                _check("tool calls", self._tool_calls + count - 1, self._limits.tool_calls)
            self._tool_calls += count

    def count(self, usage: Usage) -> None:
        """Count the tokens of a request that was made; a total that is less than its parts is their sum."""
        used = self._used
        used.add(usage)
        used.total_tokens = max(used.total_tokens, used.input_tokens + used.output_tokens)

    def resume(self, usage: Usage, tool_calls: int) -> None:
        """Count what a run used before it was paused."""
        self._used.add(usage)
        self._requests += max(usage.requests, 0)
        self._tool_calls += max(tool_calls, 0)


def _check(what: str, used: int, limit: int | None) -> None:
    if limit is not None and used >= limit:
        raise UsageLimitExceeded(what, limit)


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

    def to_dict(self) -> dict[str, Any]:
        """The counts and times that are set, as JSON."""
        data = Usage.to_dict(self)
        if self.time_to_first_token is not None:
            data["time_to_first_token"] = self.time_to_first_token
        if self.duration is not None:
            data["duration"] = self.duration
        if self.details:
            data["details"] = {model: usage.to_dict() for model, usage in self.details.items()}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Metrics:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is no count, or no time.
        """
        first, duration = data.get("time_to_first_token"), data.get("duration")
        if not all(isinstance(seconds, int | float | None) for seconds in (first, duration)):
            raise ValueError(f"metrics: times are in seconds, not {first!r:.50} and {duration!r:.50}")
        return cls(
            **_counts(data),
            time_to_first_token=first,
            duration=duration,
            details={model: Usage.from_dict(usage) for model, usage in data.get("details", {}).items()},
        )


def _counts(data: dict[str, Any]) -> dict[str, int]:
    counts = {name: data.get(name, 0) for name in _COUNTS}
    if "cached_tokens" in data:  # of a row of version 0.1
        counts["cache_read_tokens"] = data["cached_tokens"]
    for name, count in counts.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"usage: {name} is a count, not {count!r:.100}")
    return counts
