"""The progress bar of a batch, drawn with rich."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Bar:
    """A bar with the number of items that have ended and failed, and the estimated remaining time."""

    def __init__(self, name: str, total: int, console: Console) -> None:
        self._failed = 0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            TextColumn("left:", style="dim"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(name, total=total, failed="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, *, failed: bool) -> None:
        """One more item has ended."""
        self._failed += failed
        self._progress.update(self._task, advance=1, failed=f"{self._failed} failed" if self._failed else "")
