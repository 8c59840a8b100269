"""`cli_app`: the session's past, its state, other sessions."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from kern import Agent, RunContext, tool
from kern.db.sqlite import SqliteDb
from kern.run import RunOutput, RunStatus
from kern.testing import ScriptedModel, tool_call


def add(run_context: RunContext, item: str) -> str:
    run_context.session_state["items"].append(item)
    return "added"


def chat(
    path: Path, session_id: str, lines: list[str], answers: list[object], name: str = "Keeper"
) -> list[str]:
    agent = Agent(
        name=name,
        model=ScriptedModel(answers),
        tools=[add, remove],
        session_state={"items": []},
        db=SqliteDb(path / "chat.db"),
    )
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.StringIO("\n".join([*lines, ""])), io.StringIO()
    try:
        agent.cli_app(session_id=session_id)
        return sys.stdout.getvalue().splitlines()
    finally:
        sys.stdin, sys.stdout = stdin, stdout


@pytest.mark.parametrize("again", ["/exit", "exit"])
def test_a_chat_shows_its_past_and_its_state(tmp_path: Path, again: str) -> None:
    chat(tmp_path, "one", ["add milk"], [tool_call("add", item="milk"), "It is on the list."])
    lines = chat(tmp_path, "one", ["/state", again], [])
    assert lines == ["> add milk", "It is on the list.", "{", '  "items": [', '    "milk"', "  ]", "}"]


def test_it_lists_sessions_and_goes_on_with_another_one(tmp_path: Path) -> None:
    chat(tmp_path, "one", ["first"], ["Hello one."])
    lines = chat(tmp_path, "two", ["second", "/sessions", "/session one", "third", "/history"], ["2", "3"])
    text = "\n".join(lines)
    assert "* " in next(line for line in lines if line.endswith("  two"))
    assert any(line.endswith("  one") and line.startswith("  ") for line in lines)
    assert text.count("> first\nHello one.") == 2  # at the change, and in the history
    assert text.endswith("> third\n3")


async def test_a_notebook_lays_a_structured_answer_out() -> None:
    output = await Agent(model=ScriptedModel(['{"a": 1}']), output_schema=dict[str, int]).arun("x")
    assert output._repr_markdown_().startswith('```json\n{\n  "a": 1\n}\n```\n\n*0.')


@pytest.mark.parametrize(
    ("cost", "shown"), [(None, ""), (0.00001, "under $0.0001"), (0.0123, "$0.0123"), (1234.5, "$1,234.50")]
)
def test_the_closing_line_tells_the_cost_where_it_is_known(cost: float | None, shown: str) -> None:
    output = RunOutput(run_id="r", session_id="s", status=RunStatus.completed)
    output.metrics.input_tokens = output.metrics.total_tokens = 12
    output.metrics.cost = cost
    assert output.closing_line() == " · ".join(part for part in ("12 tokens", shown) if part)


async def test_a_notebook_shows_an_answer_once() -> None:
    agent = Agent(model=ScriptedModel(["**Hi**", "**Hi**"]))
    output = await agent.arun("x")
    assert output._repr_markdown_().startswith("**Hi**\n\n*0.")
    shown = await agent.aprint_response("x")
    assert shown.shown
    assert shown._repr_markdown_() == f"*completed · run {shown.run_id} · session {shown.session_id}*"
    assert output.to_dict().keys() == shown.to_dict().keys()


def test_a_keyword_that_print_response_does_not_have_is_refused_before_anything_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(TypeError, match="did you mean 'show_member_responses'"):
        Agent(model=ScriptedModel([])).print_response("Hi", show_members_responses=True)  # type: ignore[call-arg]
    assert capsys.readouterr().out == ""


@tool(requires_confirmation=True)
def remove(item: str) -> str:
    """Take an item off the list."""
    return f"removed {item}"


def asks(path: Path, session_id: str, lines: list[str], answers: list[object], name: str = "Keeper") -> str:
    return "\n".join(chat(path, session_id, lines, answers, name))


def test_a_chat_asks_for_what_a_run_of_its_session_waits_for_since_an_earlier_chat(tmp_path: Path) -> None:
    left = asks(tmp_path, "one", ["drop tea", "exit"], [tool_call("remove", item="tea")])
    assert "The run stays paused" in left
    again = asks(tmp_path, "one", ["exit"], [])
    assert "[y/N/reason]" in again
    assert "The run stays paused" in again
    done = asks(tmp_path, "one", ["y", "thanks"], ["It is gone.", "Not at all."])
    assert done.index("remove(") < done.index("It is gone.") < done.index("Not at all.")
    assert "[y/N/reason]" not in asks(tmp_path, "one", [], [])


def test_a_chat_that_changes_its_session_asks_for_what_waits_there_once(tmp_path: Path) -> None:
    asks(tmp_path, "one", ["drop tea", "exit"], [tool_call("remove", item="tea")])
    lines = ["/session one", "no", "/state", "exit"]
    text = asks(tmp_path, "two", lines, ["Kept."])
    assert text.index("> drop tea") < text.index("[y/N/reason]") < text.index("Kept.")
    assert text.count("[y/N/reason]") == 1


def test_a_chat_does_not_ask_for_the_runs_of_another_agent(tmp_path: Path) -> None:
    asks(tmp_path, "one", ["drop tea", "exit"], [tool_call("remove", item="tea")])
    assert "[y/N/reason]" not in asks(tmp_path, "one", ["exit"], [], name="Porter")
