"""The faces of a run: `arun` and `run`, for agents and teams alike."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Unpack, overload

import pydantic

from kern._json import jsonable
from kern.errors import UsageError
from kern.messages import MEDIA, ROLES, Message
from kern.models import resolve
from kern.run.events import Event
from kern.run.output import RunOutput, TeamRunOutput
from kern.runner.checks import needs_stream
from kern.runner.control import RunControl
from kern.runner.input_schema import Input, checked_input
from kern.runner.options import NO_OPTIONS, RunKeywords, RunOptions
from kern.runner.past_runs import ReadHistoryTool
from kern.runner.state_tool import state_tool
from kern.runner.summary import Summarize
from kern.runtime.hooked import hooked
from kern.runtime.portal import portal
from kern.runtime.scheduler import execute
from kern.runtime.spec import RunInput, RunnableTool, Step
from kern.runtime.stream import EventBuffer, RunStream, iterate

OutputT = TypeVar("OutputT", RunOutput, TeamRunOutput)


class Runner(RunControl[OutputT]):
    """Runs an agent or a team."""

    __slots__ = ()

    def with_context_tools(self, functions: Mapping[str, RunnableTool]) -> dict[str, RunnableTool]:
        """The application's own tools, and those that parameters ask for.

        Raises:
            UsageError: One of each has the same name.
        """
        tools = dict(functions)
        asked_for: list[tuple[str, RunnableTool]] = []
        if self.enable_agentic_state:
            asked_for.append(("enable_agentic_state", state_tool(self.tool_hooks)))
        if self.read_chat_history:
            asked_for.append(("read_chat_history", hooked(ReadHistoryTool(), self.tool_hooks)))
        for parameter, tool in asked_for:
            name = tool.definition.name
            if name in tools:
                raise UsageError(f"{self!r}: {parameter} brings a tool {name!r}, and there is one already")
            tools[name] = tool
        return tools

    def steps_after(self) -> list[Step]:
        """What is done once the answer is there."""
        if not self.enable_session_summaries:
            return []
        writer = self.session_summary_model
        return [Summarize(resolve(writer) if isinstance(writer, str) else writer)]

    @overload
    def arun(
        self, input: Input, *, stream: Literal[False] = False, **options: Unpack[RunKeywords]
    ) -> Coroutine[Any, Any, OutputT]: ...
    @overload
    def arun(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> RunStream[OutputT, Event]: ...
    @overload
    def arun(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[RunKeywords],
    ) -> RunStream[OutputT, Event | OutputT]: ...
    @overload
    def arun(
        self, input: Input, *, stream: bool, yield_run_output: bool = False, **options: Unpack[RunKeywords]
    ) -> Coroutine[Any, Any, OutputT] | RunStream[OutputT, Event | OutputT]: ...
    def arun(
        self,
        input: Input,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Any:
        """Run on `input`: `await agent.arun(...)`, or `async for event in agent.arun(..., stream=True)`.

        Args:
            input: What the model is asked: a text, or messages, which may be dicts of a role and a content;
                other dicts, lists and pydantic models go as JSON.
            stream: Return an async iterator of events instead of a coroutine of the output.
            yield_run_output: With `stream=True`: the output comes as the last item.
            options: See `RunOptions`.

        Raises:
            KernError: The run failed; the error's `run_output` is committed and has status ERROR.
            UsageError: The call cannot work as it is written.
        """
        chosen = RunOptions.of(options) if options else NO_OPTIONS
        request = self.request(_run_input(checked_input(self.input_schema, input), chosen), chosen)
        if not stream:
            needs_stream(chosen.stream_events, yield_run_output)
            return execute(request)
        listen = self.listens(chosen.stream_events)

        def start(buffer: EventBuffer) -> Coroutine[Any, Any, Any]:
            return execute(request, buffer, listen)

        return RunStream(start, EventBuffer(), yield_output=yield_run_output)

    @overload
    def run(
        self, input: Input, *, stream: Literal[False] = False, **options: Unpack[RunKeywords]
    ) -> OutputT: ...
    @overload
    def run(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> Iterator[Event]: ...
    @overload
    def run(
        self,
        input: Input,
        *,
        stream: Literal[True],
        yield_run_output: bool,
        **options: Unpack[RunKeywords],
    ) -> Iterator[Event | OutputT]: ...
    @overload
    def run(
        self, input: Input, *, stream: bool, yield_run_output: bool = False, **options: Unpack[RunKeywords]
    ) -> OutputT | Iterator[Event | OutputT]: ...
    def run(
        self,
        input: Input,
        *,
        stream: bool = False,
        yield_run_output: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Any:
        """`arun` for sync code: returns the output, or with `stream=True` an iterator of events.

        Works in a script, a worker thread, a sync tool, and a notebook whose loop is running. Ctrl-C cancels
        the run, waits for its commit, and is raised.
        """
        if stream:
            return iterate(self.arun(input, stream=True, yield_run_output=yield_run_output, **options))

        async def once() -> Any:
            needs_stream(None, yield_run_output)
            return await self.arun(input, **options)

        return portal.call(once)


def _run_input(input: Input, options: RunOptions) -> RunInput:
    messages = _messages(input)
    last = messages[-1]
    media: dict[str, Any] = {
        name: [*getattr(last, name), *given] for name in MEDIA if (given := getattr(options, name))
    }
    if media:
        messages[-1] = replace(last, **media)
    if not any(message.content or any(getattr(message, name) for name in MEDIA) for message in messages):
        raise UsageError("the input is empty; give the model something to answer")
    return RunInput(value=_as_json(input), messages=messages)


def _messages(input: Input) -> list[Message]:
    if isinstance(input, Message):
        return [input]
    if isinstance(input, Sequence) and not isinstance(input, str) and input:
        items: Sequence[Any] = input
        if all(isinstance(item, Message) or _is_message(item) for item in items):
            return [item if isinstance(item, Message) else Message.from_dict(item) for item in items]
        if all(isinstance(item, str) for item in items):
            return [Message("user", "\n".join(items))]
    return [Message("user", as_text(input))]


def _is_message(item: Any) -> bool:
    """A message as most of the field writes one: a dict of a role and a text."""
    return (
        isinstance(item, Mapping)
        and item.get("role") in ROLES
        and isinstance(item.get("content"), str)
        and item.keys() <= {"role", "content", "name"}
    )


def as_text(input: Any) -> str:
    """The input as the model and the person read it."""
    if isinstance(input, str):
        return input if input.strip() else ""
    if isinstance(input, Message):
        return input.content or ""
    if isinstance(input, pydantic.BaseModel):
        return input.model_dump_json()
    if isinstance(input, Mapping | Sequence) and not isinstance(input, bytes | bytearray | memoryview):
        if input and not isinstance(input, Mapping) and all(isinstance(item, str) for item in input):
            return "\n".join(input)
        return json.dumps(_as_json(input), ensure_ascii=False) if input else ""
    raise UsageError(f"input takes str, list, dict, Message or BaseModel, not {type(input).__name__}")


def _as_json(input: Input) -> Any:
    if isinstance(input, str):
        return input
    if isinstance(input, Message):
        return _without_bytes(input)
    if isinstance(input, Sequence) and any(isinstance(item, Message) for item in input):
        return [_without_bytes(item) if isinstance(item, Message) else item for item in input]
    return jsonable(input)


def _without_bytes(message: Message) -> dict[str, Any]:
    """A message as JSON; what its media are called, and their hashes, in place of bytes and files."""
    data = message.to_dict({})
    for item in (item for name in MEDIA for item in data.get(name, ())):
        if path := item.pop("filepath", None):
            item.setdefault("name", PurePath(path).name)
    return data
