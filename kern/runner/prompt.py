"""The messages of a run's first request: system message, additional input, history, the user's input.

The developer's texts are templates that are filled in from the session state. The user's texts never are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kern._error_text import error_text, only_error
from kern._json import jsonable
from kern._sync.shield import run_in_child_task
from kern.errors import AgentSignal, HookError, KernError, UsageError
from kern.messages import Message, with_context
from kern.runner.checks import timezone_of
from kern.runner.definition import Definition
from kern.runner.options import RunOptions
from kern.runner.past_runs import History, earlier_attempt, past_runs
from kern.runner.summary import block, current_summary
from kern.runtime.invoke import invoke
from kern.runtime.prompt_step import given
from kern.runtime.run_tree import Run
from kern.runtime.step_data import messages_data, messages_from
from kern.state.templates import check_is_data, render
from kern.tools.inject import call_kwargs
from kern.tools.result import Chunks, prompt_text, result_of, without_tags
from kern.tools.signature import signature_of
from kern.tools.toolkit import instructions_of, without_sources


@dataclass(slots=True, frozen=True)
class Prompt:
    """Builds the messages for the runs of one agent or team leader.

    Args:
        definition: The agent or team.
        show_state: Add the session state to the system message.
        show_dependencies: Add the dependencies to the input.
        roster: The description of a team's members for its leader; not a template.
        history: How much of earlier runs to add before the input; None: nothing.
    """

    definition: Definition
    show_state: bool
    show_dependencies: bool
    roster: str | None = None
    history: History | None = None

    @classmethod
    def of(cls, definition: Definition, options: RunOptions, roster: str | None = None) -> Prompt:
        """Make the prompt of `definition`; the options of the run override it."""
        history = options.add_history_to_context
        wanted = definition.add_history_to_context if history is None else history
        state, dependencies = options.add_session_state_to_context, options.add_dependencies_to_context
        return cls(
            definition,
            definition.add_session_state_to_context if state is None else state,
            definition.add_dependencies_to_context if dependencies is None else dependencies,
            roster,
            _history(definition) if wanted else None,
        )

    async def __call__(self, run: Run) -> list[Message]:
        """Build the messages for `run`."""
        definition = self.definition
        system = await self._system(run)
        messages = [] if system is None else [system]
        for item in definition.additional_input or ():
            message = item if isinstance(item, Message) else Message("user", item)
            messages.append(replace(message, said=""))
        if self.history is not None:
            recall = self.history.recall
            messages += await given(run, "history", lambda: recall(run), messages_data, messages_from)
        if definition.introduction and not await given(run, "earlier_runs", lambda: _any_runs(run)):
            # The introduction is a message of the first run, and so a part of the history.
            text = _Texts(run, definition.resolve_in_context).fill(definition.introduction)
            messages.append(Message("assistant", text))
        dependencies = run.tree.request.dependencies
        messages += self._input(run) if self.show_dependencies and dependencies else run.input.messages
        if run.earlier is not None:
            messages += earlier_attempt(run)
        return messages

    def _input(self, run: Run) -> Sequence[Message]:
        dependencies = run.tree.request.dependencies
        for name, value in dependencies.items():
            check_is_data(f"dependencies[{name!r}], which add_dependencies_to_context shows,", value)
        shown = f"<additional context>\n{prompt_text(dependencies)}\n</additional context>"
        return with_context(run.input.messages, after=shown)

    async def _system(self, run: Run) -> Message | None:
        definition = self.definition
        own = definition.system_message
        texts = _Texts(run, definition.resolve_in_context)
        if isinstance(own, Message):
            return own
        if own is not None:
            content = await texts.of(own, "system_message")
        else:
            content = "\n\n".join(filter(None, await self._parts(run, texts)))
        return Message(definition.system_message_role, content) if content else None

    async def _parts(self, run: Run, texts: _Texts) -> list[str]:
        definition = self.definition
        parts: list[str] = []
        if definition.description:
            parts.append(texts.fill(definition.description))
        if definition.role:
            parts.append(f"<your_role>\n{texts.fill(definition.role)}\n</your_role>")
        if definition.instructions is not None and (instructions := await self._instructions(run, texts)):
            parts.append(instructions)
        if self.roster:
            parts.append(self.roster)
        shown = definition.markdown or definition.add_datetime_to_context or definition.add_name_to_context
        if shown or definition.tools:
            parts.append(self._information(run))
        if definition.expected_output:
            parts.append(f"<expected_output>\n{texts.fill(definition.expected_output)}\n</expected_output>")
        if definition.additional_context:
            parts.append(texts.fill(definition.additional_context))
        if definition.add_session_summary_to_context:
            summary = await given(run, "summary", lambda: _summary(run))
            if summary:
                parts.append(block("session_summary", summary))
        if self.show_state:
            state = without_tags(json.dumps(texts.state(), ensure_ascii=False))
            parts.append(f"<session_state>\n{state}\n</session_state>")
        return parts

    async def _instructions(self, run: Run, texts: _Texts) -> str:
        written = self.definition.instructions
        final = callable(written)
        if callable(written):
            written = await call_for_run(run, written, "instructions")
        if isinstance(written, str):
            lines = [written]
        elif isinstance(written, Sequence) and all(isinstance(line, str) for line in written):
            lines = list(written)
        else:
            raise UsageError(
                f"the instructions function must return a str or a list of str, not {type(written).__name__}"
            )
        lines = [line if final else texts.fill(line) for line in lines if line]
        body = lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines)
        return f"<instructions>\n{body}\n</instructions>" if self.definition.use_instruction_tags else body

    def _information(self, run: Run) -> str:
        definition = self.definition
        lines: list[str] = []
        if definition.markdown:
            lines.append("Use markdown to format your answers.")
        if definition.add_datetime_to_context:
            zone = definition.timezone_identifier
            now = datetime.fromtimestamp(run.now(), UTC if zone is None else timezone_of(zone))
            lines.append(f"The current time is {now.isoformat(timespec='seconds')}.")
        if definition.add_name_to_context and definition.name:
            lines.append(f"Your name is: {definition.name}.")
        if definition.tools:
            lines += instructions_of(without_sources(definition.tools))
        if not lines:
            return ""
        body = "\n".join(f"- {line}" for line in lines)
        return f"<additional_information>\n{body}\n</additional_information>"


@dataclass(slots=True)
class _Texts:
    """Fills in the developer's templates from the session state, which is read only if one needs it.

    What a function returns is the final text, not a template: it may contain text of the end user.
    """

    _run: Run
    _resolve: bool
    _state: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        if self._state is None:
            values = self._run.given
            self._state = self._run.tree.state() if values is None else values.state()
        return self._state

    async def of(self, given: Any, what: str) -> str:
        """Return the text of a parameter that takes a text or a function."""
        text = await call_for_run(self._run, given, what) if callable(given) else given
        if isinstance(text, Chunks):
            text = result_of(text).text
        if not isinstance(text, str):
            raise UsageError(f"{what} must be a str, not {type(text).__name__}")
        return text if callable(given) else self.fill(text)

    def fill(self, text: str) -> str:
        if not self._resolve or "{" not in text:
            return text
        request = self._run.tree.request
        known: Mapping[str, Any] = {"user_id": request.user_id, "session_id": request.session_id}
        return render(text, self.state(), request.dependencies, request.metadata, known)


async def call_for_run(run: Run, function: Any, what: str) -> Any:
    """Call a function that returns a parameter's value, as a transaction if it takes a `run_context`."""
    return await given(run, what, lambda: _called_for_run(run, function, what), _as_json)


async def _called_for_run(run: Run, function: Any, what: str) -> Any:
    signature = signature_of(function)
    label = getattr(function, "__name__", what)
    try:
        return await run_in_child_task(
            partial(
                invoke,
                run,
                function,
                signature.kind,
                call_kwargs(function, {"run_context": None}),
                context_parameter=signature.context_parameter,
                label=label,
            )
        )
    except Exception as raised:
        error = only_error(raised)
        if isinstance(error, KernError | AgentSignal):
            raise error from error.__cause__
        raise HookError(f"{what} {label} raised {error_text(error)}", hook=label) from raised


def _as_json(value: Any) -> Any:
    return jsonable(result_of(value).text if isinstance(value, Chunks) else value)


async def _any_runs(run: Run) -> bool:
    return bool(await past_runs(run, 1))


async def _summary(run: Run) -> str | None:
    return current_summary(run)


def _history(definition: Definition) -> History:
    return History(
        definition.num_history_runs,
        definition.num_history_messages,
        definition.max_tool_calls_from_history,
    )
