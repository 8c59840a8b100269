"""Values in the output of a run that cannot be stored: the run fails, and the rest of it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern._json import jsonable
from kern.errors import UsageError
from kern.run.output import AnyRunOutput, RunStatus
from kern.runtime.identity import end_output
from kern.runtime.run_tree import RunTree


class NotStored:
    """The values that functions of the application have put into outputs, and that are not JSON.

    They are taken out of the outputs until `put_back`, and the top run of the tree has failed.
    """

    def __init__(self, tree: RunTree) -> None:
        self._values: list[tuple[AnyRunOutput, str, Any]] = []
        self.error: UsageError | None = None
        for run in tree.runs:
            self.error = self._take_out_of(run.output) or self.error
        for output in _enclosed(tree):  # whose runs have failed for themselves
            self._take_out_of(output)
        if self.error is not None and tree.top.output.status in (RunStatus.completed, RunStatus.paused):
            end_output(tree.top.output, self.error)

    def _take_out_of(self, output: AnyRunOutput) -> UsageError | None:
        error = None
        if type(output.content) is not str and output.content is not None:
            error = self._look_at(output, "content", None)
        if output.metadata:
            error = self._look_at(output, "metadata", {}) or error
        return error

    def _look_at(self, output: AnyRunOutput, name: str, empty: Any) -> UsageError | None:
        value = getattr(output, name)
        try:
            jsonable(value)
        except (ValueError, RecursionError) as cause:
            self._values.append((output, name, value))
            setattr(output, name, empty)
            error = UsageError(
                f"the run is stored as failed and without its {name}, which cannot be written as JSON: "
                f"{cause}; `run_output` of this error has the {name}"
            )
            error.__cause__ = cause
            return error
        return None

    def put_back(self) -> None:
        """Put the values back into the outputs, for the caller of the run."""
        for output, name, value in self._values:
            setattr(output, name, value)


def _enclosed(tree: RunTree) -> Iterator[AnyRunOutput]:
    for nested in tree.enclosed:
        for run in nested.runs:
            yield run.output
        yield from _enclosed(nested)
