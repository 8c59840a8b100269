"""Media on their way through a team: from the user to members, from members to the user."""

from __future__ import annotations

from typing import Any

import pytest

from kern import Agent, Team
from kern.messages import Audio, Image, Message
from kern.models.base import ModelRequest, ModelResponse
from kern.run import TeamRunOutput
from kern.runner.definition import id_of
from kern.testing import FunctionModel, ScriptedModel, tool_call


def draw() -> list[Any]:
    """Draw."""
    return ["drawn", Image(content=b"png", name="a.png"), Audio(content=b"wav")]


def painter(name: str = "Painter") -> Agent:
    play = FunctionModel(
        lambda r: "here it is" if r.messages[-1].role == "tool" else calls(tool_call("draw"))
    )
    return Agent(name=name, model=play, tools=[draw])


def calls(*wanted: Any) -> ModelResponse:
    return ModelResponse.of(None, *wanted)


def delegate(member_id: str) -> ModelResponse:
    return calls(tool_call("delegate_task_to_member", member_id=member_id, task="paint"))


def media_of(output: TeamRunOutput) -> list[tuple[str, bytes | None]]:
    return [(type(item).__name__, item.content) for item in output.media]


async def test_what_a_member_made_is_in_the_team_s_output_and_the_leader_is_told() -> None:
    model = ScriptedModel([delegate("painter"), "done"])
    team = Team([painter()], model=model)
    output = await team.arun("a picture")
    assert media_of(output) == [("Image", b"png"), ("Audio", b"wav")]
    told = model.requests[1].messages[-1]
    assert told.content == "here it is\n[image: a.png]\n[audio]"
    assert told.images == [], "the leader's model may be one that takes none"
    stored = await team.aget_last_run_output()
    assert isinstance(stored, TeamRunOutput)
    assert media_of(stored) == media_of(output)


async def test_a_routed_answer_comes_with_its_media_through_any_number_of_teams() -> None:
    team: Any = painter()
    for name in ("Inner", "Outer"):
        team = Team([team], name=name, mode="route", model=ScriptedModel([delegate(id_of(team))]))
    output = await team.arun("a picture")
    assert output.content == "here it is"
    assert media_of(output) == [("Image", b"png"), ("Audio", b"wav")]


async def test_media_of_all_members_of_a_broadcast_are_kept() -> None:
    call = calls(tool_call("delegate_task_to_members", task="paint"))
    model = ScriptedModel([call, "done"])
    team = Team([painter("A"), painter("B")], model=model, mode="broadcast")
    output = await team.arun("pictures")
    assert [kind for kind, _ in media_of(output)] == ["Image", "Image", "Audio", "Audio"]
    assert (model.requests[1].messages[-1].content or "").count("[image: a.png]") == 2


async def test_media_that_came_with_a_task_of_the_list_are_kept() -> None:
    model = ScriptedModel(
        [
            calls(tool_call("create_task", title="paint", member_id="painter")),
            calls(tool_call("execute_tasks", task_ids=[1])),
            "done",
        ]
    )
    output = await Team([painter()], model=model, mode="tasks").arun("a picture")
    assert media_of(output) == [("Image", b"png"), ("Audio", b"wav")]


@pytest.mark.parametrize("own_wording", [True, False])
async def test_what_came_with_the_input_goes_to_members_with_their_task(own_wording: bool) -> None:
    seen: list[Message] = []

    def look(request: ModelRequest) -> str:
        seen.append(request.messages[-1])
        return "a cat"

    eye = Agent(name="Eye", model=FunctionModel(look))
    arguments = {"member_id": "eye"} | ({"task": "What is it?"} if own_wording else {})
    leader = ScriptedModel([calls(tool_call("delegate_task_to_member", **arguments))])
    inner = Team([eye], name="Inner", mode="route", model=leader, determine_input_for_members=own_wording)
    outer = Team([inner], mode="route", model=ScriptedModel([delegate("inner")]))
    output = await outer.arun("Look at this", images=[Image(content=b"png")], audio=[Audio(content=b"wav")])
    assert output.content == "a cat"
    [message] = seen
    assert message.content == ("What is it?" if own_wording else "paint")
    assert [image.content for image in message.images] == [b"png"]
    assert [sound.content for sound in message.audio] == [b"wav"]
    assert media_of(output) == []
