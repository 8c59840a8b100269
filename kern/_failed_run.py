"""What an error tells of the run that it ended, as types that stand below the outputs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class FailedCall(Protocol):
    """A tool call of a run that failed; a `ToolExecution` in fact."""

    @property
    def tool_name(self) -> str:
        """The tool."""
        ...

    @property
    def tool_args(self) -> dict[str, Any]:
        """The arguments, parsed."""
        ...

    @property
    def result(self) -> str | None:
        """What the model was told; None if the call did not end."""
        ...

    @property
    def tool_call_error(self) -> bool:
        """The result is an error text."""
        ...


class FailedRun(Protocol):
    """How far a run came that an error ended; its `RunOutput` or `TeamRunOutput` in fact."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    @property
    def session_id(self) -> str:
        """Its session."""
        ...

    @property
    def status(self) -> str:
        """A `RunStatus`: "ERROR", as a rule."""
        ...

    @property
    def content(self) -> object:
        """What was shown of the answer before the run failed."""
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
        """All of it, as JSON."""
        ...
