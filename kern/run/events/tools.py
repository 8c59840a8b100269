"""Events of tool calls: those that Kern carries out, and those that the provider does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kern.messages import ProviderCall
from kern.run.events.base import BaseRunEvent
from kern.run.tool_execution import ToolExecution


@dataclass(slots=True)
class ToolCallStartedEvent(BaseRunEvent):
    """A tool call begins. A delegation to a member is a tool call, too."""

    tool: ToolExecution
    kind: ClassVar[str] = "ToolCallStarted"


@dataclass(slots=True)
class ToolCallCompletedEvent(BaseRunEvent):
    """A tool call has ended. `tool.tool_call_error` says whether its result is an error text."""

    tool: ToolExecution
    content: str | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    kind: ClassVar[str] = "ToolCallCompleted"


@dataclass(slots=True)
class ToolCallErrorEvent(BaseRunEvent):
    """A tool call failed. The model gets the error as its result, and the run goes on.

    A `ToolCallCompletedEvent` follows.
    """

    tool: ToolExecution
    error: str = ""
    kind: ClassVar[str] = "ToolCallError"


@dataclass(slots=True)
class ToolCallArgumentsDeltaEvent(BaseRunEvent):
    """A piece of the arguments of a call, while the model is writing them.

    Args:
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        delta: A piece of the JSON text.
    """

    tool_call_id: str = ""
    tool_name: str = ""
    delta: str = ""
    kind: ClassVar[str] = "ToolCallArgumentsDelta"


@dataclass(slots=True)
class ProviderToolCallStartedEvent(BaseRunEvent):
    """The provider begins to carry out a call itself, such as a web search."""

    call: ProviderCall
    kind: ClassVar[str] = "ProviderToolCallStarted"


@dataclass(slots=True)
class ProviderToolCallCompletedEvent(BaseRunEvent):
    """The provider has carried out a call; `call.status` says whether it failed."""

    call: ProviderCall
    kind: ClassVar[str] = "ProviderToolCallCompleted"
