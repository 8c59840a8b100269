"""The chat loop: with a person at a (pseudo-)terminal, and with a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.console_pty import Terminal

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

CODE = """
import asyncio, sys
from kern.console import ViewOptions, chat, open_view
from kern.errors import ModelError

async def respond(text):
    if text == "slow":
        print("answering", flush=True)
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up", flush=True)
    elif text == "later":
        asyncio.get_running_loop().call_later(0.3, lambda: print("meanwhile", flush=True))
    elif text == "boom":
        raise ModelError("it broke", provider="openai")
    elif text == "bug":
        raise ValueError("a bug")
    elif text == "seen":
        with open_view("", ViewOptions(), stream=False) as view:
            error = ModelError("seen already")
            view.fail(error)
            raise error
    else:
        await asyncio.sleep(0)
        print(f"echo: {text!r}", flush=True)

async def main():
    await chat(respond, **eval(sys.argv[1]))
    print("left", flush=True)

asyncio.run(main())
if sys.argv[2:]:
    print("after:", input("next? "))
"""


def start(arguments: str = "{}", *more: str, **environment: str) -> Terminal:
    terminal = Terminal(CODE, arguments, *more, **environment)
    terminal.child.expect("User: ")
    return terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = start()
    yield terminal
    terminal.child.close(force=True)


def ask(terminal: Terminal, line: str, answer: str) -> None:
    terminal.child.sendline(line)
    terminal.child.expect_exact(answer)
    terminal.child.expect("User: ")


def test_lines_are_answered_until_a_word_leaves(terminal: Terminal) -> None:
    ask(terminal, "hello", "echo: 'hello'")
    terminal.child.sendline("   ")
    terminal.child.expect("User: ")
    ask(terminal, " again ", "echo: 'again'")
    terminal.child.sendline("QUIT")
    assert terminal.run() == 0
    assert terminal.lines[0].endswith("User: hello")
    assert terminal.lines[-1] == "left"


def test_the_words_and_the_prompt_can_be_chosen() -> None:
    terminal = Terminal(CODE, "{'prompt': 'Ann', 'exit_on': ['Stop']}")
    terminal.child.expect("Ann: ")
    terminal.child.sendline("quit")
    terminal.child.expect_exact("echo: 'quit'")
    terminal.child.sendline("stop")
    assert terminal.run() == 0
    assert terminal.lines[0] == "Ann: quit"


def test_a_line_can_be_edited_and_recalled(terminal: Terminal) -> None:
    ask(terminal, "hllo\x02\x02\x02e", "echo: 'hello'")
    ask(terminal, "\x10!", "echo: 'hello!'")


def test_an_error_is_shown_once_and_the_chat_goes_on(terminal: Terminal) -> None:
    ask(terminal, "boom", "openai: it broke")
    ask(terminal, "bug", "ValueError: a bug")
    ask(terminal, "seen", "seen already")
    ask(terminal, "hello", "echo: 'hello'")
    text = "\n".join(terminal.lines)
    assert text.count("seen already") == 1
    assert text.count("\nError:") == 3


def test_the_loop_goes_on_while_the_person_thinks(terminal: Terminal) -> None:
    terminal.child.sendline("later")
    terminal.child.expect("User: ")
    terminal.child.expect("meanwhile")


def test_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.child.sendeof()
    assert terminal.run() == 0
    assert terminal.lines[-1] == "left"
    assert terminal.is_clean


def test_ctrl_c_cancels_the_answer_and_then_leaves_at_the_prompt(terminal: Terminal) -> None:
    for _ in range(2):
        terminal.child.sendline("slow")
        terminal.child.expect("answering")
        terminal.child.sendintr()
        terminal.child.expect("cleaned up")
        terminal.child.expect("Cancelled.")
        terminal.child.expect("User: ")
    ask(terminal, "hello", "echo: 'hello'")
    terminal.child.sendintr()
    assert terminal.run() == 0
    assert terminal.lines[-1] == "left"
    assert terminal.is_clean


@pytest.mark.parametrize("typed", ["", "half a line"])
def test_a_program_that_goes_on_after_ctrl_c_reads_its_own_lines(typed: str) -> None:
    terminal = start("{}", "more")
    terminal.child.send(typed)
    terminal.child.expect_exact(typed)
    terminal.child.sendintr()
    terminal.child.expect("left")
    terminal.child.expect("next\\? ")
    terminal.child.sendline("mine")
    assert terminal.run() == 0
    assert terminal.lines[-1] == "after: mine"


def test_a_terminal_without_unicode_gets_a_plain_prompt() -> None:
    terminal = start(PYTHONIOENCODING="ascii")
    terminal.child.sendeof()
    assert terminal.run() == 0
    assert terminal.lines[0] == "User:"


def piped(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-c", CODE, *(arguments or ("{}",))],
        input=data,
        env=environment,
        capture_output=True,
        timeout=20,
    )


def test_a_pipe_is_read_to_its_end_without_prompts() -> None:
    done = piped("first\n\r\nboom\nzwölf\r\nlast".encode())
    assert done.stderr == b""
    assert done.stdout.decode() == (
        "echo: 'first'\nError:\nopenai: it broke\necho: 'zwölf'\necho: 'last'\nleft\n"
    )


def test_a_pipe_may_leave_early_and_the_rest_is_not_taken() -> None:
    done = piped(b"one\nexit\ntwo\n", "{}", "more")
    assert done.stdout == b"echo: 'one'\nleft\nnext? after: two\n"


def test_the_loop_may_run_outside_the_main_thread() -> None:
    code = CODE.replace(
        "asyncio.run(main())",
        "import threading; t = threading.Thread(target=asyncio.run, args=(main(),)); t.start(); t.join()",
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "{}"], input=b"hello\n", capture_output=True, timeout=20
    )
    assert done.stdout == b"echo: 'hello'\nleft\n"
    assert done.stderr == b""


def test_input_that_is_no_utf8_is_no_crash() -> None:
    assert "echo: '\ufffd'" in piped(b"\xff\nexit\n").stdout.decode()


def test_output_that_nobody_reads_ends_the_chat() -> None:
    code = CODE.replace('print(f"echo: {text!r}", flush=True)', "raise BrokenPipeError")
    done = subprocess.run(
        [sys.executable, "-c", code, "{}"], input=b"a\nb\n", capture_output=True, timeout=20
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(b"BrokenPipeError")


COMMANDS = """
import asyncio
from kern.console import chat

async def respond(text):
    print(f"echo: {text!r}", flush=True)

async def state(rest):
    return f"the state {rest}".strip()

asyncio.run(chat(respond, commands={"state": state}, past="> before\\nand its answer"))
"""


def answered(text: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=text,
        env=environment,
        capture_output=True,
        text=True,
        timeout=25,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_past_is_shown_first_and_commands_are_obeyed() -> None:
    assert answered("/state\n/state of things\n/exit\nnever\n") == [
        "> before",
        "and its answer",
        "the state",
        "the state of things",
    ]


def test_an_unknown_command_names_those_that_there_are_and_a_path_is_no_command() -> None:
    lines = answered("/nope\n/usr/bin is a folder\n")
    assert lines[2].startswith("There is no command /nope. There are: /state, /help, /exit")
    assert lines[-1] == "echo: '/usr/bin is a folder'"


def test_a_message_may_have_several_lines() -> None:
    lines = answered('one \\\ntwo\n"""\na\n\n  /state\n"""\nlast \\\n')
    assert lines[2:] == ["echo: 'one \\ntwo'", "echo: 'a\\n\\n  /state'", "echo: 'last'"]


KEPT = """
import asyncio, sys
from pathlib import Path
from kern.console import chat

async def respond(text):
    print(f"echo: {text!r}", flush=True)

asyncio.run(chat(respond, history=Path(sys.argv[1])))
"""


def test_the_arrow_keys_bring_back_lines_of_an_earlier_chat(tmp_path: Path) -> None:
    file = tmp_path / "state" / "chat"
    for line, answer in (("hello", "'hello'"), ("\x10!", "'hello!'")):
        terminal = Terminal(KEPT, str(file))
        terminal.child.expect("User: ")
        terminal.child.sendline(line)
        terminal.child.expect_exact(f"echo: {answer}")
        terminal.child.expect("User: ")
        terminal.child.sendline("\x04" if line == "hello" else "exit")
        terminal.run()
    assert file.stat().st_mode & 0o777 == 0o600
