"""Drives a run that has leases, which it may lose, or a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from kern.errors import RunDeadlineExceeded
from kern.runtime.deadline import NO_DEADLINE, Deadline
from kern.runtime.engine import drive
from kern.runtime.identity import end_output
from kern.runtime.lease import Lease
from kern.runtime.run_tree import Run


async def drive_guarded(run: Run, leases: Sequence[Lease], deadline: Deadline) -> None:
    """Drive a run that has leases, until its deadline.

    Raises:
        SessionError: A lease was lost.
        RunDeadlineExceeded: The deadline has passed; the output has that error.
    """
    async with AsyncExitStack() as guards:
        for lease in leases:
            await guards.enter_async_context(lease.guard())
        if deadline is NO_DEADLINE:
            await drive(run)
        else:
            await drive_in_time(run, deadline)


async def drive_in_time(run: Run, deadline: Deadline) -> None:
    """Drive a run until its deadline.

    Raises:
        RunDeadlineExceeded: The deadline has passed; the output has that error.
    """
    try:
        async with deadline.inside():
            run.deadline = deadline
            await drive(run)
    except RunDeadlineExceeded as error:
        end_output(run.output, error)
        raise
