"""`pre_hooks` and `post_hooks`: functions that run before and after a run, to check or change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from kern._error_text import NOBODY_CANCELLED, error_text, only_error
from kern._json import jsonable
from kern._sync.shield import run_in_child_task
from kern.errors import CheckError, HookError, RetryAgentRun
from kern.run.events import (
    PostHookCompletedEvent,
    PostHookStartedEvent,
    PreHookCompletedEvent,
    PreHookStartedEvent,
)
from kern.runner.definition import Definition
from kern.runtime.hook_step import hook_after, hook_before
from kern.runtime.invoke import invoke
from kern.runtime.run_tree import Run, RunnerSpec, Step
from kern.tools.inject import call_kwargs
from kern.tools.signature import signature_of

Hook = Callable[..., Any]


def with_hooks(spec: RunnerSpec, definition: Definition) -> RunnerSpec:
    """Return `spec` with the hooks of `definition` before and after its runs."""
    before: list[Step] = [partial(_before, hook) for hook in definition.pre_hooks]
    after: list[Step] = [partial(_after, hook) for hook in definition.post_hooks]
    if not before and not after:
        return spec
    return replace(spec, before=(*spec.before, *before), after=(*after, *spec.after))


async def _before(hook: Hook, run: Run) -> None:
    name = _name(hook)
    run.out.event(PreHookStartedEvent(run.source, name))
    await hook_before(run, name, lambda: _call(run, hook, name, _offered(run)))
    run.out.event(PreHookCompletedEvent(run.source, name))


async def _after(hook: Hook, run: Run) -> None:
    name, output = _name(hook), run.output
    content = output.content
    run.out.event(PostHookStartedEvent(run.source, name))
    await hook_after(run, name, lambda: _call(run, hook, name, {**_offered(run), "run_output": output}))
    if output.content is not content:
        _replaced(run, content, name)
    run.out.event(PostHookCompletedEvent(run.source, name))


def _replaced(run: Run, before: Any, hook: str) -> None:
    """A hook replaced the answer: replace it in the stored conversation, too.

    Raises:
        HookError: The new answer is not JSON.
    """
    output = run.output
    try:
        text = output.get_content_as_string()
        jsonable(output.content)
    except (ValueError, RecursionError) as error:
        new, output.content = type(output.content).__name__, before
        raise HookError(
            f"{hook} has set run_output.content to a value of type {new}, "
            f"which cannot be written as JSON: {error}",
            hook=hook,
        ) from error
    output.content_type = type(output.content).__name__
    output.last_turn = None
    last = run.messages[-1]
    if last.role == "assistant":
        run.messages[-1] = replace(last.plain(), content=text)
    if not isinstance(before, str):
        return
    for at, message in enumerate(run.messages):  # texts before a call were a part of the old answer
        if message.tool_calls and message.content and not message.from_history:
            run.messages[at] = replace(message.plain(), content=None)


def _offered(run: Run) -> dict[str, Any]:
    source, request = run.source, run.tree.request
    return {
        "run_input": run.input,
        "run_context": None,  # made for the call
        "run_id": run.run_id,
        "session_id": source.session_id,
        "user_id": request.user_id,
        "agent_id": source.agent_id,
        "team_id": source.team_id,
        "metadata": request.metadata,
        "dependencies": request.dependencies,
        "debug_mode": request.debug > 0,
    }


async def _call(run: Run, hook: Hook, name: str, offered: dict[str, Any]) -> None:
    signature = signature_of(hook)
    try:
        await run_in_child_task(
            partial(
                invoke,
                run,
                hook,
                signature.kind,
                call_kwargs(hook, offered),
                context_parameter=signature.context_parameter,
                label=name,
            )
        )
    except asyncio.CancelledError as raised:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise HookError(f"the hook {name} raised CancelledError: {NOBODY_CANCELLED}", hook=name) from raised
    except Exception as raised:
        error = only_error(raised)
        if isinstance(error, CheckError):
            raise error from error.__cause__
        hint = _ONLY_TOOLS if isinstance(error, RetryAgentRun) else ""
        raise HookError(f"the hook {name} raised {error_text(error)}{hint}", hook=name) from raised


_ONLY_TOOLS = (
    "; only a tool sends the model back. Refuse with InputCheckError or OutputCheckError, or let the model "
    "give its answer to a tool with stop_after_tool_call=True that checks it"
)


def _name(hook: Hook) -> str:
    return getattr(hook, "__name__", None) or type(hook).__name__
