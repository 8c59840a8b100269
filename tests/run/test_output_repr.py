"""What a notebook or a debugger shows of an output and of its messages: few lines, the first things first."""

from __future__ import annotations

from kern import Agent, Message
from kern.testing import ScriptedModel, tool_call


def weigh() -> str:
    return "3 kg"


async def test_an_output_shows_what_a_person_looks_for_first() -> None:
    agent = Agent(model=ScriptedModel([tool_call("weigh"), "It is 3 kg."]), tools=[weigh], session_id="s")
    output = await agent.arun("Weigh it", run_id="r")
    assert repr(output) == (
        "RunOutput(status='COMPLETED', content='It is 3 kg.', run_id='r', session_id='s', tools=['weigh'])"
    )


def test_a_message_shows_what_is_set() -> None:
    assert repr(Message("user", "Hi")) == "Message(role='user', content='Hi')"
    call = Message("tool", "3 kg", tool_call_id="c", tool_name="weigh", tool_call_error=True)
    assert repr(call) == (
        "Message(role='tool', content='3 kg', tool_call_id='c', tool_name='weigh', tool_call_error=True)"
    )
