"""A chat asks the person what a paused run waits for, and the run goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kern import Agent, RunOutput, RunStatus, Team, tool
from kern.console import ViewOptions, open_view
from kern.console._approvals import ask
from kern.models.base import ModelRequest, ModelResponse
from kern.run.requirement import RunRequirement
from kern.testing import FunctionModel, ScriptedModel, tool_call
from tests.console.console_pty import Terminal

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

CODE = """
import sys
from datetime import date
from kern import Agent, Team, tool
from kern.models.base import ModelResponse
from kern.run.requirement import RunRequirement
from kern.testing import FunctionModel, ScriptedModel, tool_call

@tool(requires_confirmation=True)
def delete(path: str) -> str:
    "Delete a file."
    return f"deleted {path}"

@tool(user_input_fields=["seats", "name", "window"])
def book(day: str, seats: int, name: str, window: bool = False) -> str:
    '''Book.

    Args:
        seats: How many.
    '''
    return f"booked {day} {seats} {name} {window}"

@tool(user_input_fields=["day", "topics"])
def meet(day: date, topics: list[str]) -> str:
    "Meet."
    return f"met {day} {topics}"

@tool(external_execution=True)
def weigh(thing: str) -> str:
    "Weigh something."
    return ""

def play(request):
    last = request.messages[-1]
    if last.role == "tool":
        return f"It says: {last.content}"
    if "delete" in last.content:
        path = "/tmp/\\x1b[31mred" + "x" * 400 + "end"
        return ModelResponse.of("I will see.", tool_call("delete", path=path))
    if "book" in last.content:
        return tool_call("book", day="Monday")
    if "meet" in last.content:
        return tool_call("meet")
    if "weigh" in last.content:
        return tool_call("weigh", thing="stone")
    return f"echo: {last.content}"

agent = Agent(name="Clerk", model=FunctionModel(play), tools=[delete, book, meet, weigh])
if sys.argv[2:] == ["team"]:
    agent = Team([agent], name="Office", model=FunctionModel(
        lambda request: "All done." if request.messages[-1].role == "tool"
        else tool_call("delegate_task_to_member", member_id="clerk", task="delete it")))
agent.cli_app(stream=sys.argv[1] == "stream")
print("left")
"""


def talk(terminal: Terminal, *exchange: str) -> None:
    """Wait for what stands at even places, and write what follows each."""
    for seen, written in zip(exchange[::2], exchange[1::2], strict=True):
        terminal.child.expect_exact(seen)
        terminal.child.sendline(written)


@pytest.mark.parametrize("how", ["stream", "whole"])
def test_a_person_confirms_refuses_or_says_why_not(how: str) -> None:
    terminal = Terminal(CODE, how, rows=100)
    talk(terminal, "User: ", "delete it", "[y/N/reason] ", "y", "It says: deleted", "")
    talk(
        terminal,
        "User: ",
        "delete it",
        "[y/N/reason] ",
        "not this one",
        "rejected this call: not this one",
        "",
    )
    talk(terminal, "User: ", "delete it", "[y/N/reason] ", "", "rejected this call.", "")
    talk(terminal, "User: ", "exit")
    assert terminal.run() == 0
    text = "".join(terminal.lines)
    assert "Clerk › delete(path=" in text
    assert text.count("I will see.") == 3, "what was shown before the pause is not shown again"
    assert b"\x1b[31mred" not in terminal.raw
    asked = text[text.index("Clerk › delete") :]
    assert "end" in asked[: asked.index("[y/N/reason]")], "the arguments are shown whole"


def test_what_is_asked_stands_there_once_between_empty_lines() -> None:
    terminal = Terminal(CODE, "stream", rows=100, columns=800)
    talk(terminal, "User: ", "delete it", "[y/N/reason] ", "y")
    terminal.child.expect_exact("It says: deleted")
    talk(terminal, "User: ", "exit")
    assert terminal.run() == 0
    lines = terminal.lines
    asked = next(number for number, line in enumerate(lines) if line.startswith("[y/N/reason]"))
    assert sum("delete(path=" in line for line in lines[: asked + 1]) == 1
    assert lines[asked - 2] == ""
    assert lines[asked - 3].startswith("paused · ")
    prompts = [number for number, line in enumerate(lines) if line.startswith("User:")]
    assert prompts[0] == 0
    assert [lines[1], *(lines[number - 1] for number in prompts[1:])] == [""] * len(prompts)


def test_fields_are_filled_in_and_asked_for_again_where_they_do_not_fit() -> None:
    terminal = Terminal(CODE, "stream", rows=60)
    talk(terminal, "User: ", "book", "seats (integer; How many.): ", "many", "That does not fit: ", "3")
    talk(terminal, "name (string): ", "Ann", "window (boolean) [false]: ", "")
    terminal.child.expect_exact("booked Monday 3 Ann False")
    talk(terminal, "User: ", "meet", "day (string; such as 2026-12-31): ", "2026-13-02")
    talk(
        terminal,
        "topics (array; as JSON): ",
        "x",
        "That does not fit: ",
        '["a"]',
        "does not fit the parameters: day",
        "2026-12-02",
    )
    terminal.child.expect_exact("met 2026-12-02 ['a']")
    talk(
        terminal, "User: ", "weigh", "Its result: ", "two pounds", "It says: two pounds", "", "User: ", "bye"
    )
    assert terminal.run() == 0


def test_a_person_who_leaves_at_the_question_leaves_the_run_paused() -> None:
    terminal = Terminal(CODE, "stream", rows=60)
    talk(terminal, "User: ", "delete it")
    terminal.child.expect_exact("[y/N/reason] ")
    terminal.child.sendintr()
    terminal.child.expect_exact("The run stays paused; its id is ")
    talk(terminal, "User: ", "hello", "echo: hello", "")
    talk(terminal, "User: ", "delete it", "[y/N/reason] ", "exit")
    assert terminal.run() == 0
    assert terminal.lines[-1] == "left"


@pytest.mark.parametrize("how", ["stream", "whole"])
def test_a_member_s_call_is_asked_for_and_the_team_goes_on(how: str) -> None:
    terminal = Terminal(CODE, how, "team", rows=60)
    talk(terminal, "User: ", "go", "[y/N/reason] ", "yes", "All done.", "", "User: ", "quit")
    assert terminal.run() == 0
    assert "Office › Clerk › delete(path=" in "".join(terminal.lines)


def test_a_pipe_is_asked_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "stream"],
        input="delete it\ny\nhello\n",
        capture_output=True,
        text=True,
        timeout=25,
        check=True,
    )
    assert "[y/N/reason]" in done.stdout
    assert "It says: deleted" in done.stdout
    assert "echo: hello" in done.stdout


@tool(requires_confirmation=True)
def delete(path: str) -> str:
    """Delete a file."""
    return f"deleted {path}"


def deleting(request: ModelRequest) -> ModelResponse:
    done = request.messages[-1].role == "tool"
    return ModelResponse.of("Done." if done else None, *([] if done else [tool_call("delete", path="x")]))


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_printed_is_returned_too(stream: bool) -> None:
    agent = Agent(model=ScriptedModel(["Hello!"]))
    output = await agent.aprint_response("Hi", stream=stream)
    assert isinstance(output, RunOutput)
    assert (output.content, output.status) == ("Hello!", RunStatus.completed)

    paused = await Agent(model=FunctionModel(deleting), tools=[delete]).aprint_response("Hi", stream=stream)
    assert paused.status is RunStatus.paused
    assert [need.tool_name for need in paused.requirements] == ["delete"]

    team = Team([], model=ScriptedModel(["All."]))
    assert (await team.aprint_response("Hi", stream=stream)).content == "All."


@pytest.mark.parametrize("stream", [False, True])
def test_the_sync_form_returns_it_as_well(stream: bool) -> None:
    assert Agent(model=ScriptedModel(["Hello!"])).print_response("Hi", stream=stream).content == "Hello!"


@pytest.mark.parametrize(
    ("line", "confirmed", "result"),
    [("again", True, None), ("", False, None), ("It was paid.", None, "It was paid.")],
)
async def test_a_call_in_doubt_is_made_again_left_or_told(
    line: str, confirmed: bool | None, result: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    need = RunRequirement(
        kind="in_doubt", run_id="r", agent_path=["Clerk"], tool_call_id="c", tool_name="pay", tool_args={}
    )

    async def read(prompt: str) -> str | None:
        assert prompt == "[again/N/its result] "
        return line

    assert await ask([need], read)
    assert (need.confirmed, need.result) == (confirmed, result)
    assert "it may have been carried out" in capsys.readouterr().out
    output = RunOutput(run_id="r", session_id="s", status=RunStatus.paused, requirements=[need])
    with open_view("", ViewOptions(), stream=False) as view:
        view.finish(output)
    assert "may have been carried out already: pay()" in capsys.readouterr().out
