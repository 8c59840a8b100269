"""What `cancel_run` has come to."""

from __future__ import annotations

from enum import StrEnum


class CancelResult(StrEnum):
    """What `cancel_run` has come to; true only for `cancelled`."""

    cancelled = "cancelled"
    """The run is stopped before its point of no return, and is stored with status CANCELLED."""
    requested = "requested"
    """Another process drives the run, if any does, and finds the request within about a second."""
    too_late = "too_late"
    """The run has ended, or its end is being written."""
    unknown = "unknown"
    """There is no such run, and no other process that could drive it."""

    def __bool__(self) -> bool:
        return self is CancelResult.cancelled

    def __int__(self) -> int:  # as a bool has it
        return int(bool(self))
