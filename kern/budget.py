"""Enforces limits: of one tree of runs, or of all runs that share a budget."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

from kern._keywords import ChecksArguments
from kern.errors import UsageError, UsageLimitExceeded
from kern.usage import Usage, UsageLimits

_UNKNOWN = (
    "cannot be enforced any more: the cost of a request is unknown; the provider did not report its usage "
    "or did something that has no price (see its `Usage.billed` and `Usage.terms`): give the model a "
    "price=Price(..., others={...}) that includes it"
)
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")


class UsageBudget(ChecksArguments):
    """A limit that several runs share, such as the runs of a user, of a day, or of a batch.

    Pass the same object as `usage_limits` to every run, or to an agent. Like `UsageLimits`, it counts
    requests before they are made. It may be used in several event loops and threads at once. It lives in
    memory: to continue it in another process, store `used` and pass it there.

        budget = UsageBudget(UsageLimits(cost=5.0), name="ann, today")
        await agent.arun("...", usage_limits=budget)

    Args:
        limits: The limits.
        used: The usage before.
        name: The name of the budget in errors.
    """

    def __init__(self, limits: UsageLimits, *, used: Usage | None = None, name: str = "") -> None:
        if not isinstance(limits, UsageLimits):
            raise UsageError(f"a UsageBudget takes UsageLimits(...), not {type(limits).__name__}")
        self.limits = limits
        self.name = name
        self._lock = threading.Lock()
        self._used = replace(used) if used is not None else Usage()
        self._spent = self._used.limited_cost or 0.0
        self._requests = self._used.requests
        self._failed = 0
        self._tool_calls = 0
        self._set_aside = 0.0
        self._known: set[str] = set()
        self._unknown = used is not None and used.requests > 0 and used.limited_cost is None

    def __repr__(self) -> str:
        return f"UsageBudget({self.limits!r}, name={self.name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same object: a copied agent shares the budget with the original."""
        return self

    @property
    def used(self) -> Usage:
        """The usage so far, without requests in progress."""
        with self._lock:
            used = replace(self._used)
            if self._failed:
                used.cost = used.cost if used.requests else 0.0
                used.requests += self._failed
            return used

    def reserve_request(self, expected: float) -> None:
        """Count a request before it is made, and reserve its expected cost in US dollars.

        Raises:
            UsageLimitExceeded: The request would exceed a limit; it is not counted.
        """
        with self._lock:
            self._check("requests", self._requests, self.limits.requests)
            for name in _TOKENS:
                self._check(name.replace("_", " "), getattr(self._used, name), getattr(self.limits, name))
            self._check("US dollars", self._spent + self._set_aside, self.limits.cost)
            if self._unknown and self.limits.cost is not None:
                raise UsageLimitExceeded("US dollars", self.limits.cost, budget=self.name, why=_UNKNOWN)
            self._requests += 1
            self._set_aside += expected

    def reserve_again(self, expected: float) -> None:
        """Count another attempt of a request whose answer was discarded and counted; its reserve stays.

        Raises:
            UsageLimitExceeded: The attempt would exceed a limit; it is not counted.
        """
        with self._lock:
            self._set_aside -= expected
        try:
            self.reserve_request(expected)
        except UsageLimitExceeded:
            with self._lock:
                self._set_aside += expected
            raise

    def note(self, requests: int, tool_calls: int, expected: float = 0.0) -> None:
        """Count what was done before, without checking the limits, and reserve `expected` for it."""
        with self._lock:
            self._requests += requests
            self._set_aside += expected
            self._tool_calls += tool_calls

    def take_back_request(self, expected: float) -> None:
        """Undo `reserve_request`: the request is not made."""
        with self._lock:
            self._requests -= 1
            self._set_aside -= expected

    def remember(self, steps: Iterable[str]) -> None:
        """Remember that these steps were counted: their run was released, and repeats them when resumed."""
        with self._lock:
            self._known.update(steps)

    def knows(self, step: str) -> bool:
        """Return whether the step was counted before, and forget it: each step is asked for once."""
        with self._lock:
            known = step in self._known
            self._known.discard(step)
            return known

    def end_request(self, expected: float, *, failed: bool = False) -> None:
        """End a request, and release what was reserved for it.

        Args:
            expected: The reserved cost.
            failed: The request got no answer: only the request itself counts.
        """
        with self._lock:
            self._set_aside -= expected
            self._failed += failed

    def reserve_tool_calls(self, count: int) -> None:
        """Count the tool calls of a turn before they are made.

        Raises:
            UsageLimitExceeded: The calls would exceed the limit; none of them is counted.
        """
        with self._lock:
            if count:
                self._check("tool calls", self._tool_calls + count - 1, self.limits.tool_calls)
            self._tool_calls += count

    def take_back_tool_calls(self, count: int) -> None:
        """Undo `reserve_tool_calls`: the calls are not made."""
        with self._lock:
            self._tool_calls -= count

    def count(self, usage: Usage) -> None:
        """Add the usage of a request. A total below the sum of its parts is replaced by the sum."""
        with self._lock:
            used = self._used
            used.add(usage)
            used.total_tokens = max(used.total_tokens, used.input_tokens + used.output_tokens)
            if usage.requests > 0:
                spent = usage.limited_cost
                self._spent += spent or 0.0
                self._unknown = self._unknown or spent is None

    def resume(self, usage: Usage, tool_calls: int) -> None:
        """Count what a run used before it was paused."""
        self.count(usage)
        with self._lock:
            self._requests += max(usage.requests, 0)
            self._tool_calls += max(tool_calls, 0)

    def _check(self, what: str, used: float, limit: float | None) -> None:
        if limit is not None and used >= limit:
            raise UsageLimitExceeded(what, limit, budget=self.name)


Limits = UsageLimits | UsageBudget | Sequence[UsageLimits | UsageBudget]
"""The type of the parameter `usage_limits`."""


class UsageLedger:
    """Counts the usage of a tree of runs towards its own limits and the budgets that it shares."""

    __slots__ = ("_budgets", "_own", "_steps", "limits_cost")

    def __init__(self, limits: Limits | None) -> None:
        given = () if limits is None else limits if isinstance(limits, Sequence) else (limits,)
        self._own = [UsageBudget(limit) for limit in given if isinstance(limit, UsageLimits)]
        self._budgets = [*self._own, *(limit for limit in given if isinstance(limit, UsageBudget))]
        self._steps: list[str] = []
        """The counted steps of a run with a journal."""
        self.limits_cost: bool = any(budget.limits.cost is not None for budget in self._budgets)
        """Whether the cost is limited, so that the price must be known before a request."""

    def reserve_request(self, expected: float = 0.0, step: str | None = None) -> None:
        """Count a request before it is made, and reserve its expected cost in US dollars.

        Raises:
            UsageLimitExceeded: The request would exceed a limit; it is not counted.
        """
        if self._budgets:
            self._reserve(
                lambda budget: budget.reserve_request(expected),
                lambda budget: budget.take_back_request(expected),
            )
        self._counted(step)

    def reserve_again(self, expected: float) -> None:
        """Count another attempt of a request whose answer was discarded.

        Raises:
            UsageLimitExceeded: The attempt would exceed a limit; it is not counted.
        """
        self._reserve(
            lambda budget: budget.reserve_again(expected),
            lambda budget: budget.note(-1, 0),
        )

    def note(self, *, requests: int = 0, tool_calls: int = 0, expected: float = 0.0, step: str) -> None:
        """Count what was done before, without checking the limits.

        Args:
            requests, tool_calls: What was done.
            expected: The expected cost of the request, which is reserved until its end.
            step: The recorded step. A shared budget that has counted it does not count it again.
        """
        for budget in self._budgets:
            if budget.knows(step):
                budget.note(0, 0, expected)
            else:
                budget.note(requests, tool_calls, expected)
        self._counted(step)

    def release(self) -> None:
        """Release the run, which may be resumed: shared budgets remember the steps that they have counted."""
        for budget in self._budgets:
            budget.remember(self._steps)

    def _counted(self, step: str | None) -> None:
        if step is not None:
            self._steps.append(step)

    def end_request(self, expected: float, *, failed: bool = False) -> None:
        """End a request, and release what was reserved; with `failed` it got no answer."""
        for budget in self._budgets:
            budget.end_request(expected, failed=failed)

    def reserve_tool_calls(self, count: int, step: str | None = None) -> None:
        """Count the tool calls of a turn before they are made.

        Raises:
            UsageLimitExceeded: The calls would exceed the limit; none of them is counted.
        """
        if self._budgets:
            self._reserve(
                lambda budget: budget.reserve_tool_calls(count),
                lambda budget: budget.take_back_tool_calls(count),
            )
        self._counted(step)

    def count(self, usage: Usage, step: str | None = None, *, on_record: bool = False) -> None:
        """Count what a request has used.

        Args:
            usage: What it has used.
            step: The step of a run with a journal.
            on_record: The step is recorded. A shared budget that has counted it does not count it again.
        """
        for budget in self._budgets:
            if not (on_record and step is not None and budget.knows(step)):
                budget.count(usage)
        self._counted(step)

    def resume(self, usage: Usage, tool_calls: int) -> None:
        """Count what a run used before it was paused. Shared budgets counted it then."""
        for budget in self._own:
            budget.resume(usage, tool_calls)

    def _reserve(self, reserve: Any, take_back: Any) -> None:
        """Reserve in all of the budgets, or in none."""
        done: list[UsageBudget] = []
        try:
            for budget in self._budgets:
                reserve(budget)
                done.append(budget)
        except UsageLimitExceeded:
            for budget in done:
                take_back(budget)
            raise


def check_limits(name: str, given: Any) -> None:
    """Check that limits are None, or valid `usage_limits`.

    Raises:
        UsageError: They are not.
    """
    several: Iterable[Any] = given if isinstance(given, list | tuple) else () if given is None else (given,)
    for limit in several:
        if not isinstance(limit, UsageLimits | UsageBudget):
            raise UsageError(
                f"{name} takes UsageLimits(requests=..., ...), a UsageBudget, or a list of them, "
                f"not {type(limit).__name__}"
            )
