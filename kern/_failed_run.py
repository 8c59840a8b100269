"""The types of a failed run as its error shows it, defined in a lower layer than the outputs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class FailedCall(Protocol):
    """A tool call of a run that failed. The object is a `ToolExecution`."""

    @property
    def tool_name(self) -> str:
        """The name of the tool."""
        ...

    @property
    def tool_args(self) -> dict[str, Any]:
        """The parsed arguments."""
        ...

    @property
    def result(self) -> str | None:
        """The result as the model got it; None if the call did not end."""
        ...

    @property
    def tool_call_error(self) -> bool:
        """Whether the result is an error text."""
        ...


class FailedRun(Protocol):
    """The output of a run that an error ended. The object is a `RunOutput` or `TeamRunOutput`."""

    @property
    def run_id(self) -> str:
        """The id of the run."""
        ...

    @property
    def session_id(self) -> str:
        """The id of the session."""
        ...

    @property
    def status(self) -> str:
        """A `RunStatus`, usually "ERROR"."""
        ...

    @property
    def content(self) -> object:
        """The part of the answer that was shown before the run failed."""
        ...

    @property
    def tools(self) -> Sequence[FailedCall]:
        """The tool calls that were made."""
        ...

    @property
    def session_state(self) -> dict[str, Any] | None:
        """The session state at the end of the run."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The output as JSON."""
        ...
