"""A chat loop in the terminal: reads lines and answers them."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from kern.console._approvals import Kept, ask, take_back
from kern.console._files import encoding_of, say
from kern.console._input import is_interactive, kept_lines, read_line
from kern.console._open import open_view
from kern.console._text import clean, encodable
from kern.console._view import ViewOptions, was_shown
from kern.errors import KernError
from kern.run.output import AnyRunOutput, RunStatus
from kern.run.requirement import UserInputError

T = TypeVar("T")
OutputT = TypeVar("OutputT", bound=AnyRunOutput)

Command: TypeAlias = Callable[[str], Awaitable[str]]
"""A command such as "/state": takes the rest of the line, and returns the text to show."""

_COMMAND = re.compile(r"/(?P<name>[a-z]+)(?:\s+(?P<rest>.*))?", re.DOTALL)
_QUOTES = '"""'
_MORE = "... "
_NARROWEST = 20
_SEVERAL_LINES = (
    f"A line that ends with \\ goes on in the next; lines between {_QUOTES} and {_QUOTES} are one message."
)


async def chat(
    respond: Callable[[Any], Awaitable[OutputT | None]],
    *,
    proceed: Callable[[OutputT], Awaitable[OutputT | None]] | None = None,
    first: Any = None,
    prompt: str = "User",
    exit_on: Sequence[str] = ("exit", "quit", "bye"),
    commands: Mapping[str, Command] | None = None,
    past: str = "",
    paused: Callable[[], Awaitable[Iterable[OutputT]]] | None = None,
    history: Path | None = None,
) -> None:
    """Read lines from standard input and answer each, until the person leaves.

    To leave, type one of the words of `exit_on`, end the input (Ctrl-D), or press Ctrl-C at the prompt.
    Ctrl-C during an answer cancels the answer and returns to the prompt. If an answer raises an error, the
    error is shown once, and the chat goes on.

    If a run pauses, the person is asked for what it waits for, and the run goes on. If they leave instead,
    with Ctrl-C or one of the words, the run stays paused. The person is asked again when the chat returns to
    the session.

    Ctrl-C is handled only if the event loop runs in the main thread.

    Args:
        respond: Answers one line, and shows the answer.
        proceed: Goes on with a paused run whose requirements are answered, and shows the rest.
        first: A line to answer before the first prompt; None: none.
        prompt: The name in the prompt.
        exit_on: The words that leave the chat; case does not matter.
        commands: The commands such as "/state", by name without the slash. `/exit` and `/help` always exist.
        past: Earlier messages, which are shown at the beginning.
        paused: Returns the paused runs of a session that the chat has just entered; called at the beginning
            and after each command.
        history: The file for the lines of earlier chats, which the arrow keys recall.

    Raises:
        BrokenPipeError: The reader of standard output has gone.
    """
    leave = {word.casefold() for word in exit_on} | {"/exit"}
    question = _question(prompt)
    with _ctrl_c() as ctrl_c, kept_lines(history):
        talk = _Talk(respond, proceed, ctrl_c, leave)
        for line in past.splitlines():
            say(line)
            talk.printed = True
        if paused is not None and not await talk.take_up(paused):
            return
        if first is not None and not await talk.answer(first):
            return
        while (text := await talk.read_message(question)) is not None:
            if command := _COMMAND.fullmatch(text):
                await talk.obey(command["name"], command["rest"] or "", commands or {})
                if paused is not None and not await talk.take_up(paused):
                    return
            elif text and not await talk.answer(text):
                return


class _Talk(Generic[OutputT]):
    """A chat in progress."""

    def __init__(
        self,
        respond: Callable[[Any], Awaitable[OutputT | None]],
        proceed: Callable[[OutputT], Awaitable[OutputT | None]] | None,
        ctrl_c: _CtrlC,
        leave: set[str],
    ) -> None:
        self._respond = respond
        self._proceed = proceed
        self._ctrl_c = ctrl_c
        self._leave = leave
        self._left = False
        self.printed = False  # something stands above that an empty line is to part from the next prompt

    async def read(self, prompt: str) -> str | None:
        """Read a line; None if the person leaves."""
        try:
            line = await self._ctrl_c.guard(read_line(prompt))
        except _Interrupted:
            line = None
        if line is None:
            if is_interactive():
                say("")  # what comes next begins on a line of its own
        elif line.strip().casefold() in self._leave:
            self._left = True
            return None
        return line

    async def read_message(self, prompt: str) -> str | None:
        """Read a message, of one or several lines.

        A line that ends with a backslash continues in the next one. Lines between two lines with three quotes
        belong together.
        """
        self._part()
        line = await self.read(prompt)
        if line is None or not (line.endswith("\\") or line.strip() == _QUOTES):
            return line if line is None else line.strip()
        quoted = line.strip() == _QUOTES
        lines: list[str] = [] if quoted else [line[:-1]]
        while (line := await self.read_more()) is not None:
            if quoted and line.strip() == _QUOTES:
                break
            lines.append(line if quoted else line.removesuffix("\\"))
            if not quoted and not line.endswith("\\"):
                break
        return "\n".join(lines).strip()

    def _part(self) -> None:
        if self.printed and is_interactive():
            say("")
        self.printed = False

    async def read_more(self) -> str | None:
        """Read one more line of the same message; None at the end of the input."""
        try:
            return await self._ctrl_c.guard(read_line(_MORE))
        except _Interrupted:
            return None

    async def obey(self, name: str, rest: str, commands: Mapping[str, Command]) -> None:
        """Carry out a command, and show its text."""
        self.printed = True
        command = commands.get(name)
        if command is None:
            unknown = f"There is no command /{name}. " if name != "help" else ""
            width = max(shutil.get_terminal_size().columns, _NARROWEST)
            for text in (f"{unknown}There are: /{', /'.join((*commands, 'help', 'exit'))}", _SEVERAL_LINES):
                for line in textwrap.wrap(text, width, break_on_hyphens=False):
                    say(line)
            return
        try:
            for line in (await self._ctrl_c.guard(_done(command, rest))).splitlines():
                say(line)
        except _Interrupted:
            return
        except KernError as error:
            say(str(error))

    async def answer(self, text: Any) -> bool:
        """Answer one line, asking the person for what its run waits for; False if they leave the chat."""
        self.printed = True
        return await self._go_on(await self._shown(self._respond(text)))

    async def take_up(self, paused: Callable[[], Awaitable[Iterable[OutputT]]]) -> bool:
        """Ask the person for what the paused runs of a session wait for; False if they leave the chat."""
        try:
            waiting = await paused()
        except KernError as error:
            say(str(error))
            return True
        for output in waiting:
            if not await self._go_on(output):
                return False
        return True

    async def _go_on(self, output: OutputT | None) -> bool:
        """Ask for what a run waits for, and continue it, until it ends; False if they leave the chat."""
        kept: Kept = {}
        while output is not None and self._proceed is not None and output.status is RunStatus.paused:
            self._part()
            self.printed = True
            if not await ask(output.requirements, self._put, kept):
                say(f"The run stays paused; its id is {output.run_id}")
                return not self._left
            kept, waiting = {}, output
            try:
                output = await self._shown(self._proceed(waiting))
            except UserInputError as misfit:  # which was shown
                kept = take_back(waiting.requirements, misfit)
        return True

    async def _put(self, question: str) -> str | None:
        """Ask a question and return the answer. The question is also shown if the output is a pipe."""
        if not is_interactive():
            say(question)
        return await self.read(question)

    async def _shown(self, answer: Awaitable[OutputT | None]) -> OutputT | None:
        async def work() -> OutputT | None:
            return await answer

        try:
            return await self._ctrl_c.guard(work())
        except _Interrupted:
            say("Cancelled.")
            return None
        except BrokenPipeError:
            raise
        except Exception as error:
            if not was_shown(error):
                with open_view("", ViewOptions(show_message=False), stream=False) as view:
                    view.fail(error)
            if isinstance(error, UserInputError):
                raise
            return None


async def _done(command: Command, rest: str) -> str:
    return await command(rest)


def _question(prompt: str) -> str:
    return encodable(clean(f"{prompt}: ".lstrip()), encoding_of(sys.stdout))


class _Interrupted(Exception):
    """The person has pressed Ctrl-C."""


class _CtrlC:
    """Turns Ctrl-C into `_Interrupted` while guarded work is in progress."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._pressed = False

    def press(self) -> None:
        """Cancel the guarded work."""
        if self._task is not None:
            self._pressed = True
            self._task.cancel()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the work in a task of its own, so that cancelling it does not cancel the chat."""
        self._pressed = False
        self._task = task = asyncio.create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            chat_itself = asyncio.current_task()
            if self._pressed and not (chat_itself and chat_itself.cancelling()):
                raise _Interrupted from None
            raise
        finally:
            self._task = None


@contextmanager
def _ctrl_c() -> Iterator[_CtrlC]:
    ctrl_c = _CtrlC()
    if threading.current_thread() is not threading.main_thread():
        yield ctrl_c
        return
    loop = asyncio.get_running_loop()
    previous = signal.getsignal(signal.SIGINT)
    try:
        # It wakes the loop. A handler alone is called late if the signal comes just before the loop waits.
        loop.add_signal_handler(signal.SIGINT, ctrl_c.press)
    except NotImplementedError:  # on Windows
        signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(ctrl_c.press))
    try:
        yield ctrl_c
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, previous if previous is not None else signal.default_int_handler)
