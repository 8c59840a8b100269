"""`tool_hooks` around built-in tools, such as the delegations of a team.

The hooks see the call like any other: its name, its arguments, and the text for the model as its result. But
such a call is not a transaction: it may take long and touch the state itself, so hooks must not hold the
state during `function_call`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from kern._error_text import only_error
from kern._json import json_bytes
from kern.errors import UsageError
from kern.models.base import ToolDefinition
from kern.runtime.hook_chain import Chain, Link, around_hooks
from kern.runtime.out import Answer
from kern.runtime.outcome import CallSite, StatefulTool, ToolOutcome, arguments_of
from kern.runtime.run_tree import DelegatingTool, Roster, Run, RunnableTool
from kern.state.stepping import Ungated
from kern.tools.options import Hook
from kern.tools.result import result_of


def hooked(tool: RunnableTool, hooks: Sequence[Hook]) -> RunnableTool:
    """Return `tool` with the `tool_hooks` of its agent or team around each call.

    Raises:
        UsageError: A hook is not a function, or has an unknown parameter.
    """
    if not hooks:
        return tool
    return HookedDelegation(tool, hooks) if isinstance(tool, DelegatingTool) else HookedTool(tool, hooks)


class _Paused(BaseException):
    """Raised through the hooks when the call waits for a person, and has no result yet."""


class HookedTool(StatefulTool):
    """A tool with hooks around it."""

    def __init__(self, tool: RunnableTool, hooks: Sequence[Hook]) -> None:
        self._tool = tool
        self._hooks = around_hooks(tool.definition.name, hooks)
        super().__init__(touches_state=any(hook.takes_context for hook in self._hooks))

    @property
    def definition(self) -> ToolDefinition:
        """The definition that the model gets."""
        return self._tool.definition

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Carry out the call through the hooks."""
        given = arguments_of(site.call)
        if given is None:  # the tool itself reports invalid JSON
            return await self._tool.run(run, site)
        inner = _Inner(self._tool, run, site)
        try:
            value = await Chain(run, site, (*self._hooks, inner), None).run(given)
        except BaseException as error:
            if not isinstance(only_error(error), _Paused):
                raise
            return ToolOutcome("", pending=True)
        outcome = inner.outcome
        if outcome is not None and outcome.pending:  # even if a hook caught `_Paused`
            return outcome
        if outcome is not None and value == outcome.content:
            return outcome
        result = result_of(value)
        if outcome is None:
            return ToolOutcome(result.text, media=result.media)
        answer = None if outcome.answer is None else Answer(result.text)
        media = [*outcome.media, *result.media]
        return replace(
            outcome, content=result.text, answer=answer, not_streamed=answer is not None, media=media
        )


class HookedDelegation(HookedTool):
    """A delegation with hooks around it."""

    _tool: DelegatingTool

    @property
    def drives_runs(self) -> bool:
        """Whether its tool drives runs."""
        return self._tool.drives_runs

    @property
    def team(self) -> Roster:
        """The members that may do the work."""
        return self._tool.team


class _Inner(Link):
    """The tool itself, at the end of a chain of hooks."""

    is_async = True
    takes_context = False

    def __init__(self, tool: RunnableTool, run: Run, site: CallSite) -> None:
        self.outcome: ToolOutcome | None = None
        self._tool = tool
        self._run = run
        self._site = site
        # The context outside the hooks' call, so that the members' work is not taken for a part of it.
        self._outside = contextvars.copy_context()

    def __call__(
        self, chain: Chain, function_call: Callable[..., Any], arguments: dict[str, Any]
    ) -> Coroutine[Any, Any, str]:
        return self._call(chain, arguments)

    async def _call(self, chain: Chain, arguments: dict[str, Any]) -> str:
        site = self._site
        name = site.call.name
        if chain.has_state and isinstance(self._tool, DelegatingTool):
            raise UsageError(
                f"a hook holds the session state while it calls {name}, whose members need it: "
                "end `with run_context.transaction() as state:` before function_call, or read "
                "run_context.snapshot()"
            )
        if self.outcome is not None:  # a hook calls `function_call` again
            site.execution.child_run_ids = None
        call = replace(site.call, arguments=json_bytes(arguments).decode())
        if site.slot is not None:  # the tool may take long, and does not touch the state itself
            site.slot.mark_passed()
        running = self._tool.run(self._run, replace(site, call=call, alone=False, slot=None))
        async with Ungated():
            self.outcome = await asyncio.create_task(running, context=self._outside)
        if self.outcome.pending:
            raise _Paused
        return self.outcome.content
