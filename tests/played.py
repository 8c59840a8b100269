"""Agents and teams whose models are played: what the proofs about the session state are made with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from kern.agent import Agent
from kern.messages import ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.run.output import RunOutput, TeamRunOutput
from kern.run.tool_execution import ToolExecution
from kern.runner.definition import id_of
from kern.team import Team
from kern.testing import FunctionModel, tool_call
from kern.tools.function import Function

Tool = Callable[..., Any] | Function[..., Any]


def calling(*calls: ToolCall) -> FunctionModel:
    """A model that asks for all of `calls` in its first turn, and answers "done" in the second."""

    def play(request: ModelRequest) -> ModelResponse:
        if request.messages[-1].role == "tool":
            return ModelResponse.of("done")
        return ModelResponse.of(None, *(tool_call(call.name, **_arguments(call)) for call in calls))

    return FunctionModel(play)


def _arguments(call: ToolCall) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(call.arguments)
    return arguments


def name_of(tool: Tool) -> str:
    return tool.name if isinstance(tool, Function) else tool.__name__


def agent_with(*tools: Tool, **options: Any) -> Agent:
    """An agent whose model calls each of `tools` once, all in one turn."""
    unique = {name_of(tool): tool for tool in tools}
    return Agent(
        model=calling(*(tool_call(name_of(tool)) for tool in tools)), tools=list(unique.values()), **options
    )


def team_of(members: Sequence[Agent], **options: Any) -> Team:
    """A team whose leader delegates to all of `members` in one turn."""
    calls = [tool_call("delegate_task_to_member", member_id=id_of(member), task="work") for member in members]
    return Team(members=list(members), model=calling(*calls), **options)


def tool_results(output: RunOutput | TeamRunOutput) -> dict[str, str]:
    """What the model was told, by tool; an error's text as it was."""
    return {execution.tool_name: execution.result or "" for execution in output.tools}


def execution_of(output: RunOutput | TeamRunOutput, tool: str) -> ToolExecution:
    """The one call of `tool`."""
    (execution,) = [execution for execution in output.tools if execution.tool_name == tool]
    return execution


async def turns(number: int = 20) -> None:
    """Let everything else on the loop that can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task or thread brings about."""
    while not condition():
        await asyncio.sleep(0.001)
