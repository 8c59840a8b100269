"""A chat loop in the terminal: read a line, answer it, and again."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
"""What a line such as "/state" does: it is given the rest of the line, and returns what is to be shown."""

_COMMAND = re.compile(r"/(?P<name>[a-z]+)(?:\s+(?P<rest>.*))?", re.DOTALL)
_QUOTES = '"""'
_MORE = "... "
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
    history: Path | None = None,
) -> None:
    """Read lines from standard input and answer each, until the person leaves.

    One of the words of `exit_on`, the end of the input (Ctrl-D) and Ctrl-C at the prompt leave. Ctrl-C
    during an answer cancels that answer and comes back to the prompt. An answer that raises is shown (once,
    where a view has shown it already), and the chat goes on.

    Where an answer waits for the person, they are asked what it waits for, and it goes on. A run that they
    leave then, with Ctrl-C or one of the words, stays paused.

    Ctrl-C is taken care of where the event loop runs in the main thread; elsewhere it is the caller's.

    Args:
        respond: Answers one line, and shows the answer.
        proceed: Goes on with a paused run, whose requirements are answered, and shows the rest.
        first: Answered before the first prompt; None is nothing.
        prompt: Who is asked to write.
        exit_on: The words that leave; case does not matter.
        commands: What lines such as "/state" do, by their name without the slash. `/exit` and `/help` are
            there in any case.
        past: What was said earlier, shown at the beginning.
        history: The file that keeps the lines of earlier chats, for the arrow keys.

    Raises:
        BrokenPipeError: Nobody reads the output any more.
    """
    leave = {word.casefold() for word in exit_on} | {"/exit"}
    question = _question(prompt)
    with _ctrl_c() as ctrl_c, kept_lines(history):
        talk = _Talk(respond, proceed, ctrl_c, leave)
        for line in past.splitlines():
            say(line)
            talk.told = True
        if first is not None and not await talk.answer(first):
            return
        while (text := await talk.read_message(question)) is not None:
            if command := _COMMAND.fullmatch(text):
                await talk.obey(command["name"], command["rest"] or "", commands or {})
            elif text and not await talk.answer(text):
                return


class _Talk(Generic[OutputT]):
    """One chat: reads the person's lines and has them answered."""

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
        self.told = False  # something stands above that an empty line is to part from the next prompt

    async def read(self, prompt: str) -> str | None:
        """A line of the person's; None if they leave."""
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
        """What the person has to say: a line, or several.

        A line that ends with a backslash goes on in the next one; lines between two lines of three quotes
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
        if self.told and is_interactive():
            say("")
        self.told = False

    async def read_more(self) -> str | None:
        """One more line of the same message, whatever it says; None where the input has ended."""
        try:
            return await self._ctrl_c.guard(read_line(_MORE))
        except _Interrupted:
            return None

    async def obey(self, name: str, rest: str, commands: Mapping[str, Command]) -> None:
        """Carry out a command, and show what it says."""
        self.told = True
        command = commands.get(name)
        if command is None:
            told = f"There is no command /{name}. " if name != "help" else ""
            for line in (f"{told}There are: /{', /'.join((*commands, 'help', 'exit'))}", _SEVERAL_LINES):
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
        """Answer one line, with all that its run asks of the person; False if they leave the chat."""
        kept: Kept = {}
        self.told = True
        output = await self._shown(self._respond(text))
        while output is not None and self._proceed is not None and output.status is RunStatus.paused:
            self._part()
            self.told = True
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
        """The person's answer to a question of ours, which a reader of a pipe sees too."""
        if not is_interactive():
            say(question)
        return await self.read(question)

    async def _shown(self, answer: Awaitable[OutputT | None]) -> OutputT | None:
        async def work() -> OutputT | None:
            return await answer

        try:
            return await self._ctrl_c.guard(work())
        except _Interrupted:
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
    """Turns Ctrl-C into `_Interrupted` where something guarded runs."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._pressed = False

    def press(self) -> None:
        """Cancel what runs."""
        if self._task is not None:
            self._pressed = True
            self._task.cancel()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in a task of its own, so that cancelling it is not cancelling the chat."""
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
    signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(ctrl_c.press))
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, previous if previous is not None else signal.default_int_handler)
