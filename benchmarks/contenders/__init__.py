"""Who is measured: each module does the same jobs in its own framework's way, and imports no other's."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


class Unsupported(Exception):
    """The contender has no way to do a job; the text says why."""


@dataclass(frozen=True)
class Setup:
    """What a job is made for.

    Args:
        base_url: The model server.
        model: The model's name, which tells the server what to answer.
        protocol: "chat" or "responses".
        count: How many runs, tokens or members; what the job checks its result against.
        folder: An empty folder for files.
        size: Bytes of session state.
    """

    base_url: str
    model: str
    protocol: str = "chat"
    count: int = 1
    folder: str = ""
    size: int = 0


@dataclass
class Job:
    """Something to be measured.

    Args:
        run: One unit of work, told its number; a float that it returns is the seconds to the first token.
        final: After all units: what came out, such as a counter.
        close: Lets go of what the job holds.
    """

    run: Callable[[int], Awaitable[Any]]
    final: Callable[[], Awaitable[Any]] | None = None
    close: Callable[[], Awaitable[Any]] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def job_of(contender: str, name: str, setup: Setup) -> Job:
    """The job `name` as `contender` does it.

    Raises:
        Unsupported: It cannot.
    """
    module = importlib.import_module(f"benchmarks.contenders.{contender}")
    make = getattr(module, name, None)
    if make is None:
        raise Unsupported(getattr(module, "MISSING", {}).get(name, f"{contender} has no {name}"))
    job: Job = make(setup)
    return job


def expect(value: object, wanted: object) -> None:
    """A job that does not do its work is no measurement."""
    if value != wanted:
        raise AssertionError(f"got {value!r}, not {wanted!r}")
