"""Parameters that need no file of their own, and that no name is there without an effect."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from kern import Agent, Team, UsageError
from kern.testing import ScriptedModel, tool_call

COMMON = {
    **dict.fromkeys(
        ("name", "id", "role", "description", "model", "db", "user_id", "session_id", "metadata")
    ),
    **dict.fromkeys(("session_state", "instructions", "system_message", "expected_output", "dependencies")),
    **dict.fromkeys(("additional_context", "additional_input", "introduction", "timezone_identifier")),
    **dict.fromkeys(("num_history_messages", "max_tool_calls_from_history", "tools", "tool_call_limit")),
    **dict.fromkeys(("tool_choice", "input_schema", "output_schema", "parser_model", "output_model")),
    **dict.fromkeys(("add_session_state_to_context", "enable_agentic_state"), False),
    **dict.fromkeys(("overwrite_db_session_state", "markdown", "use_instruction_tags"), False),
    **dict.fromkeys(("add_datetime_to_context", "add_name_to_context", "add_dependencies_to_context"), False),
    **dict.fromkeys(("add_history_to_context", "read_chat_history", "use_json_mode", "stream"), False),
    **dict.fromkeys(("stream_events", "store_events", "exponential_backoff", "debug_mode"), False),
    **dict.fromkeys(("tool_hooks", "pre_hooks", "post_hooks"), ()),
    "fallback_models": None,
    "resolve_in_context": True,
    "system_message_role": "system",
    "num_history_runs": 3,
    "retries": 0,
    "delay_between_retries": 1,
    "debug_level": 1,
}
OF_TEAMS = {
    **dict.fromkeys(("mode", "member_timeout")),
    **dict.fromkeys(("respond_directly", "delegate_to_all_members", "share_member_interactions"), False),
    **dict.fromkeys(("add_team_history_to_members", "get_member_information_tool"), False),
    **dict.fromkeys(("add_member_tools_to_context", "show_members_responses"), False),
    "store_member_responses": False,
    "determine_input_for_members": True,
    "stream_member_events": True,
    "num_team_history_runs": 3,
    "max_iterations": 10,
}


@pytest.mark.parametrize(("kind", "documented"), [(Agent, COMMON), (Team, COMMON | OF_TEAMS)])
def test_documented_parameters_have_their_defaults(kind: Any, documented: dict[str, Any]) -> None:
    parameters = inspect.signature(kind).parameters
    assert {name: parameters[name].default for name in documented if name in parameters} == documented


@pytest.mark.parametrize("kind", [Agent, lambda **options: Team([], **options)])
async def test_an_introduction_opens_each_session_and_belongs_to_its_history(kind: Any) -> None:
    model = ScriptedModel(["One.", "Two.", "Three."])
    runner = kind(
        model=model,
        introduction="I am {who}.",
        session_state={"who": "Kern"},
        add_history_to_context=True,
    )
    await runner.arun("First", session_id="a")
    await runner.arun("Second", session_id="a")
    await runner.arun("Third", session_id="b")
    said = [[(message.role, message.content) for message in request.messages] for request in model.requests]
    opening = [("assistant", "I am Kern."), ("user", "First")]
    assert said[0] == opening
    assert said[1] == [*opening, ("assistant", "One."), ("user", "Second")]
    assert said[2] == [opening[0], ("user", "Third")]
    history = await runner.aget_chat_history("a")
    assert [message.content for message in history] == ["I am Kern.", "First", "One.", "Second", "Two."]


async def test_an_introduction_outlives_a_first_run_that_failed() -> None:
    model = ScriptedModel([ValueError("busy"), "One."])
    agent = Agent(model=model, introduction="Hello.", session_id="a")
    with pytest.raises(Exception, match="busy"):
        await agent.arun("First")
    await agent.arun("Again")
    assert model.requests[-1].messages[0].content == "Hello."


async def test_a_constructor_s_stream_events_holds_where_a_run_does_not_say() -> None:
    agent = Agent(model=ScriptedModel(["Hello."] * 4), stream_events=True)
    assert (await agent.arun("Hi")).content == "Hello."
    everything = [event.event async for event in agent.arun("Hi", stream=True)]
    assert everything[0] == "RunStarted"
    assert everything[-1] == "RunCompleted"
    texts = [event.event async for event in agent.arun("Hi", stream=True, stream_events=False)]
    assert texts == ["RunContent"]
    with pytest.raises(UsageError, match="have no effect without stream=True"):
        await agent.arun("Hi", stream_events=True)


@pytest.mark.parametrize("level", [1, 2])
async def test_debug_level_2_tells_of_tools_and_usage(level: Any, caplog: pytest.LogCaptureFixture) -> None:
    def weigh(kilos: int) -> None:
        """Weigh it."""

    model = ScriptedModel([tool_call("weigh", kilos=3), "Done."])
    agent = Agent(name="Clerk", model=model, tools=[weigh], debug_mode=True, debug_level=level)
    with caplog.at_level(logging.DEBUG, "kern"):
        await agent.arun("Hi")
    assert "calls weigh" in caplog.text
    assert ("with the tools {'weigh': {'type': 'object'" in caplog.text) is (level == 2)
    assert ("used {'requests': 1}" in caplog.text) is (level == 2)


def test_there_are_two_debug_levels() -> None:
    wrong: Any = 3
    with pytest.raises(UsageError, match="debug_level must be 1 or 2, not 3"):
        Agent(debug_level=wrong)
