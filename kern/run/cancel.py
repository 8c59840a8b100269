"""The result of `cancel_run`."""

from __future__ import annotations

from enum import StrEnum


class CancelResult(StrEnum):
    """The result of `cancel_run`; true in a condition only for `cancelled`."""

    cancelled = "cancelled"
    """The run was stopped in time, and is stored with status CANCELLED."""
    requested = "requested"
    """This process does not drive the run. If another one does, it sees the request within a second or so."""
    too_late = "too_late"
    """The run has ended, or its end is being written."""
    unknown = "unknown"
    """The run is not known, and no other process could drive it."""

    def __bool__(self) -> bool:
        return self is CancelResult.cancelled

    def __int__(self) -> int:  # like a bool
        return int(bool(self))
