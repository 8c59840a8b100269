"""Runs of agents and teams in the terminal: `print_response` and `cli_app`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeGuard, TypeVar, Unpack

from kern._keywords import check_keywords
from kern._sync.loops import in_event_loop
from kern._sync.threads import own_threads
from kern._traceback import ShortTraceback
from kern.console import View, ViewOptions, open_view
from kern.console.chat import chat
from kern.errors import KernError
from kern.run.events import BaseRunEvent, Event
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runner.chat_commands import ChatCommands, history_file
from kern.runner.definition import default_session, id_of
from kern.runner.input_schema import Input
from kern.runner.options import RunKeywords, RunOptions, as_text
from kern.runner.running import Running
from kern.runner.session_state import StateAccess
from kern.runner.sessions import SessionAccess
from kern.runtime.portal import portal
from kern.runtime.stream import RunStream

OutputT = TypeVar("OutputT", bound=AnyRunOutput)


AskedT = TypeVar("AskedT")
_VIEW_KEYWORDS = ("stream", "markdown", "show_message", "show_reasoning", "show_member_responses", "console")
_KEYWORDS = (*_VIEW_KEYWORDS, *RunOptions.__dataclass_fields__)

_Answer: TypeAlias = Callable[[AskedT], Coroutine[Any, Any, OutputT]]


class Terminal(Running[OutputT], SessionAccess, StateAccess):
    """Runs an agent or a team, and shows the run in the terminal."""

    __slots__ = ()

    async def aprint_response(
        self,
        input: Input,
        *,
        stream: bool | None = None,
        markdown: bool | None = None,
        show_message: bool = True,
        show_reasoning: bool = True,
        show_member_responses: bool | None = None,
        console: Any = None,
        **options: Unpack[RunKeywords],
    ) -> OutputT:
        """Run on `input`, show the run in the terminal, and return the output. An error is shown and raised.

        Args:
            stream: Show the answer while it is written; None: the constructor's value.
            markdown: Render the answer as Markdown; None: the constructor's value.
            show_message: Show the input.
            show_reasoning: Show the model's reasoning.
            show_member_responses: Show the work and the answers of team members; None: the team's value.
            console: A `rich.console.Console`; None: standard output.
            options: The run's keywords, such as `session_id`; see `kern.runner.options.RunOptions`.
        """
        streaming = self.stream if stream is None else stream
        view_options = ViewOptions(
            markdown=self.markdown if markdown is None else markdown,
            show_message=show_message,
            show_reasoning=show_reasoning,
            show_member_responses=self._shows_members()
            if show_member_responses is None
            else show_member_responses,
        )
        return await self._printed(input, streaming, view_options, console, options)

    async def _printed(
        self, input: Input, streaming: bool, view_options: ViewOptions, console: Any, options: RunKeywords
    ) -> OutputT:
        check_keywords("print_response", options, _KEYWORDS)
        with open_view(as_text(input), view_options, stream=streaming, console=console) as view:
            if not streaming:
                return await _shown(view, lambda observe: self._observed(input, observe, options))
            options["stream_events"] = True
            return await _streamed(
                view, lambda: self.arun(input, stream=True, yield_run_output=True, **options)
            )

    def print_response(
        self,
        input: Input,
        *,
        stream: bool | None = None,
        markdown: bool | None = None,
        show_message: bool = True,
        show_reasoning: bool = True,
        show_member_responses: bool | None = None,
        console: Any = None,
        **options: Unpack[RunKeywords],
    ) -> OutputT:
        """See `aprint_response`."""
        with ShortTraceback(whole=self._debugs(options)):
            return portal.call(
                lambda: self.aprint_response(
                    input,
                    stream=stream,
                    markdown=markdown,
                    show_message=show_message,
                    show_reasoning=show_reasoning,
                    show_member_responses=show_member_responses,
                    console=console,
                    **options,
                )
            )

    async def acli_app(
        self,
        input: Input | None = None,
        *,
        user: str = "User",
        stream: bool | None = None,
        markdown: bool | None = None,
        exit_on: Sequence[str] = ("exit", "quit", "bye"),
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Chat in the terminal, in one session, until the user enters one of the words in `exit_on`.

        When a run pauses, the chat asks the user: to confirm a call ("y", "n", or a reason to refuse, which
        the model gets to read), to fill in values, or for the result of a call that is carried out elsewhere.
        Then the run continues.

        A chat in an existing session begins with its last messages. The lines `/state`, `/history`,
        `/sessions`, `/session ID`, `/help` and `/exit` are commands. A backslash at the end of a line
        continues the message in the next line; lines between two lines of three quotes are one message.

        Args:
            input: A first message, answered before the first prompt.
            user: The name of the user in the prompt.
            stream: Show answers while they are written; None: the constructor's value.
            markdown: Render answers as Markdown; None: the constructor's value.
            exit_on: The words that end the chat.
            session_id: The session; None: the default session.
            user_id: The owner of the session; None: the constructor's value.
        """
        commands = self._commands(session_id, user_id, _awaited)
        respond, proceed = self._answers(stream, markdown, commands, user_id)
        await _talk(
            respond, proceed, partial(self._paused, commands, user_id), commands, user, exit_on, input
        )

    def cli_app(
        self,
        input: Input | None = None,
        *,
        user: str = "User",
        stream: bool | None = None,
        markdown: bool | None = None,
        exit_on: Sequence[str] = ("exit", "quit", "bye"),
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """See `acli_app`."""
        commands = self._commands(session_id, user_id, portal.acall)
        answer, resume = self._answers(stream, markdown, commands, user_id)

        async def respond(text: Any) -> OutputT:
            return await portal.acall(lambda: answer(text))

        async def proceed(output: OutputT) -> OutputT:
            return await portal.acall(lambda: resume(output))

        async def paused() -> Sequence[OutputT]:
            return await portal.acall(lambda: self._paused(commands, user_id))

        def talk() -> None:
            asyncio.run(_talk(respond, proceed, paused, commands, user, exit_on, input))

        if in_event_loop():  # in a notebook
            worker = threading.Thread(target=talk, name="kern-chat")
            worker.start()
            worker.join()
        else:  # in this thread, which gets Ctrl-C: it cancels an answer, and ends the chat at the prompt
            talk()

    def _commands(
        self,
        session_id: str | None,
        user_id: str | None,
        call: Callable[[Callable[[], Awaitable[str]]], Awaitable[str]],
    ) -> ChatCommands:
        return ChatCommands(self, session_id, self.user_id if user_id is None else user_id, call)

    def _answers(
        self, stream: bool | None, markdown: bool | None, commands: ChatCommands, user_id: str | None
    ) -> tuple[_Answer[Any, OutputT], _Answer[OutputT, OutputT]]:
        """Return a function that answers a message of the chat, and one that continues a paused run."""
        streaming = self.stream if stream is None else stream
        view_options = ViewOptions(
            markdown=self.markdown if markdown is None else markdown,
            show_message=False,
            show_member_responses=self._shows_members(),
            chat=True,
        )

        async def respond(text: Any) -> OutputT:
            options: RunKeywords = {"session_id": commands.session_id, "user_id": user_id}
            return await self._printed(text, streaming, view_options, None, options)

        async def proceed(output: OutputT) -> OutputT:
            with open_view("", view_options, stream=streaming) as view:
                if not streaming:
                    return await _shown(
                        view, lambda observe: self._continued_observed(output, observe), after=output
                    )
                return await _streamed(
                    view,
                    lambda: self.acontinue_run(
                        output, stream=True, stream_events=True, yield_run_output=True
                    ),
                    after=output,
                )

        return respond, proceed

    async def _paused(self, commands: ChatCommands, user_id: str | None) -> Sequence[OutputT]:
        """Return the paused runs of the session that the chat has just entered, the oldest first."""
        if not commands.just_entered():
            return ()
        owner = self.user_id if user_id is None else user_id
        session_id = commands.session_id or default_session(self, owner)
        runs = await self.alist_runs(session_id=session_id, status=RunStatus.paused, user_id=owner)
        return [run for run in reversed(runs) if self._started(run)]

    def _started(self, run: AnyRunOutput) -> TypeGuard[OutputT]:
        """Whether a stored run is one of this object: without a name its id differs in each process."""
        runner_id = run.team_id if isinstance(run, TeamRunOutput) else run.agent_id
        return isinstance(run, self._output_type) and (runner_id == id_of(self) or not (self.id or self.name))

    def _shows_members(self) -> bool:
        return False


async def _awaited(function: Callable[[], Awaitable[str]]) -> str:
    return await function()


async def _talk(
    respond: Callable[[Any], Awaitable[OutputT]],
    proceed: Callable[[OutputT], Awaitable[OutputT]],
    paused: Callable[[], Awaitable[Sequence[OutputT]]],
    commands: ChatCommands,
    user: str,
    exit_on: Sequence[str],
    first: Any,
) -> None:
    await chat(
        respond,
        proceed=proceed,
        prompt=user,
        exit_on=exit_on,
        first=first,
        commands=commands.table(),
        past=await commands.last(),
        paused=paused,
        history=history_file(),
    )


async def _shown(
    view: View,
    start: Callable[[Callable[[Event], None]], Coroutine[Any, Any, OutputT]],
    *,
    after: OutputT | None = None,
) -> OutputT:
    """Show a run that is not streamed: its text at the end, all other events as they happen."""
    failed: list[OSError] = []

    def observe(event: Event) -> None:
        if not failed:
            try:
                view.event(event)
            except OSError as error:  # such as a closed pipe: the run itself goes on
                failed.append(error)

    try:
        output = await start(observe)
    except KernError as error:
        view.fail(error)
        raise
    if failed:
        raise failed[0]
    await own_threads.run(partial(view.finish, _rest(output, after)))
    output.shown = True
    return output


async def _streamed(
    view: View, start: Callable[[], RunStream[OutputT, Event | OutputT]], *, after: OutputT | None = None
) -> OutputT:
    output: Any = None
    try:
        async with start() as stream:
            async for item in stream:
                if isinstance(item, BaseRunEvent):
                    view.event(item)
                else:
                    output = item
                    if output.error is None:
                        await own_threads.run(partial(view.finish, _rest(output, after)))
    except KernError as error:
        view.fail(error)
        raise
    output.shown = True
    ended: OutputT = output
    return ended


def _rest(output: OutputT, after: OutputT | None) -> OutputT:
    """Return the output of a continued run without the text that was shown before the pause."""
    shown, text = getattr(after, "content", None), output.content
    if isinstance(shown, str) and isinstance(text, str) and shown and text.startswith(shown):
        return replace(output, content=text[len(shown) :].lstrip("\n"))
    return output
