"""What members are told of the team's last runs and of each other, before whatever they are asked."""

from __future__ import annotations

import pytest

from kern import Agent, Team
from kern.messages import Image, Message
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ScriptedModel, tool_call


def delegate(member_id: str, own_wording: bool = True) -> ModelResponse:
    task = {"task": f"task for {member_id}"} if own_wording else {}
    return ModelResponse.of(None, tool_call("delegate_task_to_member", member_id=member_id, **task))


def noting(seen: list[Message], answer: str) -> FunctionModel:
    def note(request: ModelRequest) -> str:
        seen.append(request.messages[-1])
        return answer

    return FunctionModel(note)


@pytest.mark.parametrize("own_wording", [True, False])
async def test_interactions_and_history_come_before_the_task_or_the_users_own_input(
    own_wording: bool,
) -> None:
    seen: list[Message] = []
    team = Team(
        [Agent(name=name, model=noting(seen, f"noted by {name}")) for name in "ABC"],
        model=ScriptedModel(["hello", *(delegate(m, own_wording) for m in "abc"), "done"]),
        add_team_history_to_members=True,
        share_member_interactions=True,
        determine_input_for_members=own_wording,
        session_id="s",
    )
    await team.arun("first")
    await team.arun([Message("user", "second", name="ann", images=[Image(url="http://x.test/a.png")])])
    own = ["task for a", "task for b", "task for c"] if own_wording else ["second"] * 3
    for message, task in zip(seen, own, strict=True):
        text = message.content or ""
        assert "<team_history_context>\n- asked: first\n  answered: hello\n" in text
        assert text.endswith(task)
        assert message.said == task
        assert [image.url for image in message.images] == ["http://x.test/a.png"]
    assert "<member_interaction_context>" not in (seen[0].content or "")
    last = seen[2].content or ""
    assert f"- A was asked: {own[0]}\n  and answered: noted by A\n" in last
    assert f"- B was asked: {own[1]}\n  and answered: noted by B\n" in last
    assert last.count("<member_interaction_context>") == 1  # what B was told of A is not told again
    if not own_wording:
        assert seen[0].name == "ann"


async def test_a_picture_alone_is_preceded_by_a_message_of_its_own() -> None:
    model = FunctionModel(lambda request: "seen")
    team = Team(
        [Agent(name="A", model=model)],
        model=ScriptedModel(["hello", delegate("a", own_wording=False), "done"]),
        add_team_history_to_members=True,
        determine_input_for_members=False,
        session_id="s",
    )
    await team.arun("first")
    await team.arun(Message("user", images=[Image(url="http://x.test/a.png")]))
    context, asked = model.requests[0].messages
    assert "asked: first" in (context.content or "")
    assert (asked.content, len(asked.images)) == (None, 1)


async def test_a_members_own_history_holds_its_tasks_and_not_what_came_before_them() -> None:
    model = FunctionModel(lambda request: "ok")
    team = Team(
        [Agent(name="A", model=model, add_history_to_context=True)],
        model=ScriptedModel([delegate("a"), "one", delegate("a"), "two", delegate("a"), "three"]),
        add_team_history_to_members=True,
        session_id="s",
    )
    for question in ("q1", "q2", "q3"):
        await team.arun(question)
    seen = [m.content or "" for m in model.requests[-1].messages]
    assert seen[:-1] == ["task for a", "ok", "task for a", "ok"]
    assert "asked: q2" in seen[-1]


async def test_a_run_that_was_cut_short_is_told_as_such() -> None:
    seen: list[Message] = []
    team = Team(
        [Agent(name="A", model=noting(seen, "ok"))],
        model=ScriptedModel([delegate("a"), ValueError("lost"), delegate("a"), "done"]),
        add_team_history_to_members=True,
        session_id="s",
    )
    with pytest.raises(Exception, match="lost"):
        await team.arun("first")
    await team.arun("second")
    assert "- asked: first\n  answered: [The run failed with" in (seen[-1].content or "")
