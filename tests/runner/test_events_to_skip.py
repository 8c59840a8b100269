"""`events_to_skip` takes the names of events, and no others."""

from __future__ import annotations

import pytest

from kern import Agent
from kern.errors import UsageError
from kern.run.events import RunEvent
from kern.testing import ScriptedModel


async def test_a_name_of_no_event_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="no event is named 'RunContents'; did you mean 'RunContent'"):
        await Agent(model=ScriptedModel(["ok"]), events_to_skip=["RunContents"]).arun("q")
    with pytest.raises(UsageError, match="no event is named 'Nope'"):
        await Agent(model=ScriptedModel(["ok"]), events_to_skip=["Nope"]).arun("q")


async def test_names_of_both_kinds_are_taken_as_text_or_as_members() -> None:
    agent = Agent(model=ScriptedModel(["ok"]), events_to_skip=["TeamRunContent", RunEvent.run_started])
    assert (await agent.arun("q")).content == "ok"
