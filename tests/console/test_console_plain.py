from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kern import Agent
from kern.console import ViewOptions, open_view
from kern.errors import ModelServerError
from kern.models.base import ModelResponse
from kern.run import (
    BaseRunEvent,
    EventSource,
    ModelRetryEvent,
    ReasoningContentDeltaEvent,
    RunCancelledEvent,
    RunContentEvent,
    RunErrorEvent,
    RunIntermediateContentEvent,
    RunPausedEvent,
    RunStartedEvent,
    RunStatus,
    SessionStateChangedEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
)
from kern.run.requirement import RunRequirement
from kern.testing import ScriptedModel, tool_call
from tests.console.console_events import (
    LEADER,
    SOLO,
    agent_output,
    call,
    end,
    feed,
    member,
    team_output,
    team_run,
    tool,
    turn,
)


def shown(
    capsys: pytest.CaptureFixture[str],
    events: Iterable[BaseRunEvent] = (),
    output: Any = None,
    *,
    error: BaseException | None = None,
    message: str = "",
    **options: Any,
) -> str:
    events = list(events)
    with open_view(message, ViewOptions(**options), stream=bool(events)) as view:
        feed(view, events)
        if output is not None:
            view.finish(output)
        if error is not None:
            view.fail(error)
    return capsys.readouterr().out


def test_a_streamed_answer_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    events = [RunStartedEvent(SOLO), *turn(SOLO, "Hel", "lo", " you"), *end(SOLO)]
    text = shown(capsys, events, agent_output("Hello you"), message="Hi")
    assert text == "> Hi\n\nSolo:\nHello you\n\n1.2s\n"


async def test_text_is_written_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view("", ViewOptions(), stream=True) as view:
        feed(view, [RunStartedEvent(SOLO), *turn(SOLO, "Hel")])
        assert capsys.readouterr().out == "Solo:\nHel"
        view.event(RunContentEvent(SOLO, "lo"))
        assert capsys.readouterr().out == "lo"


def test_tool_calls_stand_between_the_turns(capsys: pytest.CaptureFixture[str]) -> None:
    failed = call("pay", error=True, result="no money\nat all", amount=3)
    events = [*turn(SOLO, "Let me see."), *tool(SOLO, call("look", where="shop")), *tool(SOLO, failed)]
    text = shown(
        capsys, [*events, *turn(SOLO, "There", " is milk."), *end(SOLO)], agent_output("There is milk.")
    )
    assert text == (
        "Solo:\nLet me see.\n\n"
        '    look(where="shop") (0.2s)\n  ✗ pay(amount=3) (0.2s) failed: no money\n\n'
        "Solo:\nThere is milk.\n\n1.2s\n"
    )


def test_the_answer_of_a_run_of_several_turns_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    def look() -> str:
        """Look."""
        return "milk"

    wanted = "Let me see.\n\n    look()\n\nThere is milk.\n\n0.0s"
    for stream in (True, False):  # told in the same order
        model = ScriptedModel([ModelResponse.of("Let me see.", tool_call("look")), "There is milk."])
        Agent(model=model, tools=[look]).print_response("Milk?", stream=stream, show_message=False)
        text = re.sub(r"\d+\.\d+s", "0.0s", capsys.readouterr().out)
        assert text.strip().startswith(wanted)


def test_members_are_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    events = list(team_run("All done."))
    text = shown(capsys, events, team_output("All done."))
    text = re.sub(r"\d+\.\d+s", "0.2s", text)
    story = '  → Buyer: Buy it\n    Buyer: add_item(item="milk") (0.2s)\n'
    assert text == f"{story}  ← Buyer: 0.2s\n\nShop:\nAll done.\n\n0.2s\n"
    text = shown(capsys, events, team_output("All done."), show_member_responses=True)
    text = re.sub(r"\d+\.\d+s", "0.2s", text)
    assert text == f"\n{story}\nBuyer (0.2s):\nBought.\n\nShop:\nAll done.\n\n0.2s\n"


def test_without_streaming_the_output_tells_all(capsys: pytest.CaptureFixture[str]) -> None:
    buyer = agent_output("Bought.", run_id="run-b", agent_name="Buyer", tools=[call("add_item", item="milk")])
    sent = call("delegate_task_to_member", member_id="buyer", task="Buy it")
    sent.child_run_id = "run-b"
    tools = [call("look"), sent]
    output = team_output("All done.", member_responses=[buyer], tools=tools, reasoning_content="Hm.")
    text = shown(capsys, output=output, message="Buy milk", show_member_responses=True)
    assert text == (
        "> Buy milk\n\n"
        "    look() (0.2s)\n"
        "  → Buyer: Buy it\n"
        '    Buyer: add_item(item="milk") (0.2s)\n\n'
        "Buyer (1.2s):\nBought.\n\n"
        "Reasoning:\nHm.\n\n"
        "Shop:\nAll done.\n\n"
        "1.2s\n"
    )
    assert "Hm." not in shown(capsys, output=output, show_reasoning=False)


def test_reasoning_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        ReasoningContentDeltaEvent(SOLO, "Hm, "),
        ReasoningContentDeltaEvent(SOLO, "milk."),
        *turn(SOLO, "Yes."),
    ]
    text = shown(capsys, events, agent_output("Yes."))
    assert text == "Reasoning:\nHm, milk.\n\nSolo:\nYes.\n\n1.2s\n"
    text = shown(capsys, events, agent_output("Yes."), show_reasoning=False)
    assert text == "\nSolo:\nYes.\n\n1.2s\n"


def test_a_retry_says_that_the_text_above_is_void(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        *turn(SOLO, "Wrong te"),
        ModelRetryEvent(SOLO, "cut off", 1, 0.5),
        *turn(SOLO, "Right."),
        *end(SOLO),
    ]
    text = shown(capsys, events, agent_output("Right."))
    assert text == (
        "Solo:\nWrong te\n[trying again, the text above is void: cut off]\n\nSolo:\nRight.\n\n1.2s\n"
    )
    quiet = [ModelRetryEvent(SOLO, "429", 1, 0.5), *turn(SOLO, "Right."), *end(SOLO)]
    assert shown(capsys, quiet, agent_output("Right.")) == "\nSolo:\nRight.\n\n1.2s\n"


def test_an_answer_that_a_hook_has_changed_is_shown_as_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, [*turn(SOLO, "secret"), *end(SOLO)], agent_output("[redacted]"))
    assert text.endswith("[redacted]\n\n1.2s\n")


def test_structured_content_is_json_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"title": "Soup", "n": 2}
    text = shown(capsys, output=agent_output(value))
    assert text == 'Solo:\n{\n  "title": "Soup",\n  "n": 2\n}\n\n1.2s\n'
    text = shown(
        capsys,
        [*turn(SOLO, '{"title":"Soup",', '"n":2}'), RunContentEvent(SOLO, value, "Recipe")],
        agent_output(value),
    )
    assert text == '\nSolo:\n{"title":"Soup","n":2}\n\n1.2s\n'


def test_what_is_not_for_a_person_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    events = [RunIntermediateContentEvent(SOLO, "raw"), *turn(SOLO, "Yes.")]
    assert shown(capsys, events, agent_output("Yes.")) == "Solo:\nYes.\n\n1.2s\n"


def test_a_change_of_the_state_is_told_below_its_call(capsys: pytest.CaptureFixture[str]) -> None:
    add = call("add", item="milk")
    patch = [
        {"op": "add", "path": "/items/0", "value": "milk"},
        {"op": "replace", "path": "/n", "value": 2},
        {"op": "remove", "path": "/old"},
        {"op": "add", "path": "/new~1key", "value": {"a": 1}},
    ]
    changed = SessionStateChangedEvent(
        SOLO, patch, revision=1, tool="add", tool_call_id=add.tool_call_id, writer_run_id="run-0"
    )
    by_hook = SessionStateChangedEvent(
        SOLO, [{"op": "replace", "path": "/n", "value": 3}], revision=2, agent_path=["Shop", "Buyer"]
    )
    events = [
        RunStartedEvent(SOLO, session_state={"items": [], "n": 1, "old": 0}),
        ToolCallStartedEvent(SOLO, add),
        changed,
        changed,  # each run that is alive tells of it
        ToolCallCompletedEvent(SOLO, add),
        by_hook,
        *turn(SOLO, "Yes."),
    ]
    text = shown(capsys, events, agent_output("Yes."))
    assert text.startswith(
        '    add(item="milk") (0.2s)\n'
        '      ± items + "milk", n 1 → 2, old removed, new/key = {"a": 1}\n'
        "  ± Buyer: n 2 → 3\n\n"
    )


def test_each_ending_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [*turn(SOLO, "Half an"), RunErrorEvent(SOLO, "openai: it broke", "ModelServerError")]
    error = ModelServerError("it broke", status=500, provider="openai")
    text = shown(capsys, broken, error=error)
    assert text == "Solo:\nHalf an\n\nError:\nopenai: HTTP 500: it broke\n"
    assert shown(capsys, broken).count("it broke") == 1
    assert shown(capsys, error=KeyError("x")) == "\nError:\nKeyError: 'x'\n"

    stopped = [*turn(SOLO, "Half an"), RunCancelledEvent(SOLO, "by the user")]
    text = shown(capsys, stopped, agent_output("Half an", status=RunStatus.cancelled, error="by the user"))
    assert text == "\nSolo:\nHalf an\n\nCancelled:\nby the user\n\ncancelled · 1.2s\n"

    need = RunRequirement(
        kind="confirmation",
        run_id="run-0",
        agent_path=["Solo"],
        tool_call_id="c",
        tool_name="pay",
        tool_args={"to": "a\x1bb"},
    )
    output = agent_output(None, status=RunStatus.paused, requirements=[need])
    text = '\nPaused:\nThe run waits for a person.\n• to be confirmed: pay(to="a\\u001bb")\n'
    end_line = "\npaused · 1.2s\n"
    assert shown(capsys, [*turn(SOLO), RunPausedEvent(SOLO, [need])], output) == text + end_line
    assert shown(capsys, [*turn(SOLO), RunPausedEvent(SOLO, [need])]) == text
    assert shown(capsys, output=output) == text + end_line


def test_a_failed_member_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        RunStartedEvent(LEADER),
        RunErrorEvent(member("Buyer"), "no shop", "ToolError"),
        *turn(LEADER, "Sorry."),
    ]
    text = shown(capsys, events, team_output("Sorry."), show_member_responses=True)
    assert text == "  ✗ Buyer: failed: no shop\n\nShop:\nSorry.\n\n1.2s\n"


def test_no_control_character_and_no_escape_code_gets_out(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m"
    events = [
        ReasoningContentDeltaEvent(SOLO, evil),
        *turn(SOLO, "\x1b", "[31m", evil),
        *tool(SOLO, call("x" + evil, error=True, result=evil, a=evil)),
        *turn(member(evil), evil),
        *end(member(evil)),
        RunErrorEvent(SOLO, evil),
    ]
    text = shown(capsys, events, error=RuntimeError(evil), message=evil, show_member_responses=True)
    assert not set(text) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


def test_a_very_long_message_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, output=agent_output("ok"), message="x" * 1_000_000)
    assert "… (1,000,000 characters)" in text
    assert len(text) < 5_000


def test_an_ascii_stdout_gets_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with open_view("Grüße 😎", ViewOptions(), stream=True) as view:
        feed(view, turn(SOLO, "schön \ud800"))
        view.finish(agent_output("schön \ud800"))
    assert raw.getvalue() == b"> Gr??e ?\n\nSolo:\nsch?n ?\n\n1.2s\n"


def test_a_program_without_standard_output_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with open_view("Hi", ViewOptions(), stream=True) as view:
        feed(view, turn(SOLO, "Hello"))
        view.finish(agent_output("Hello"))


def test_a_closed_pipe_is_raised_once_and_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8", closefd=True, buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        view = open_view("", ViewOptions(), stream=True).__enter__()
        with pytest.raises(BrokenPipeError):
            feed(view, turn(SOLO, "Hello\n"))
        view.event(RunContentEvent(SOLO, "more"))
        view.finish(agent_output("more"))
        view.__exit__(None, None, None)
        with pytest.raises(ValueError, match="mine"), open_view("", ViewOptions(), stream=True):
            raise ValueError("mine")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())


SCRIPT = """
import sys
if sys.argv[1] == "no-rich":
    sys.modules["rich"] = None
from kern.console import ViewOptions, open_view
from tests.console.console_events import SOLO, agent_output, feed, turn
with open_view("Hi", ViewOptions(markdown=True), stream=True) as view:
    feed(view, turn(SOLO, "**bold**"))
    view.finish(agent_output("**bold**"))
"""


@pytest.mark.parametrize("rich", ["rich", "no-rich"])
def test_a_pipe_gets_plain_text_with_and_without_rich(rich: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, rich], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "> Hi\n\nSolo:\n**bold**\n\n1.2s\n"
    assert done.stderr == ""


def test_the_import_brings_no_rich() -> None:
    code = (
        "import sys; sys.modules['httpx._main'] = None\n"  # httpx's own command imports rich
        "import kern.console; sys.exit('rich' in sys.modules or 'readline' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_cannot_control_the_terminal_or_turn_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "A\x1b]0;owned\x07\u202eB\u2028C"
    source = EventSource(run_id="run-0", session_id="s", agent_id="x", agent_name=evil, path=(evil,))
    text = shown(capsys, turn(source, "Hello"), agent_output("Hello", agent_name=evil))
    assert text == "A␛]0;owned␇�B C:\nHello\n\n1.2s\n"
