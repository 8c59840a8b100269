"""What a run had come to before it was paused is there when it goes on, and one that does not is over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from kern import Agent, RetryAgentRun, RunContext, RunStatus, Team, tool
from kern.db.in_memory import InMemoryDb
from kern.db.journals import ClaimedRun, RunAbout
from kern.errors import (
    KernError,
    ModelBehaviorError,
    RunConflictError,
    SessionOwnershipError,
    UsageError,
    UsageLimitExceeded,
)
from kern.messages import File, Image, Message, ToolCall
from kern.models.base import Model, ModelRequest, ModelResponse
from kern.run import BaseRunEvent, RunOutput, TeamRunOutput
from kern.run.requirement import RunRequirement
from kern.runner.compile import database_of
from kern.runtime import one_process
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call
from kern.usage import UsageLimits
from tests import processes
from tests.databases import KINDS, opener


@tool(requires_confirmation=True)
def risky(what: str = "it") -> str:
    """Do something that a person has to allow."""
    return f"did {what}"


@tool(show_result=True)
def report() -> str:
    """Show a report."""
    return "THE REPORT"


def draw() -> list[Any]:
    """Draw."""
    return ["drawn", Image(content=b"png", name="a.png"), File(url="https://example.org/a.pdf")]


def calls(*wanted: ToolCall) -> ModelResponse:
    return ModelResponse.of(None, *wanted)


def delegate(member_id: str, task: str = "work") -> ToolCall:
    return tool_call("delegate_task_to_member", member_id=member_id, task=task)


def results(request: ModelRequest) -> str:
    return " | ".join(message.content or "" for message in request.messages if message.role == "tool")


async def confirmed(runner: Agent | Team, paused: RunOutput | TeamRunOutput, **options: Any) -> Any:
    for requirement in paused.requirements:
        requirement.confirm()
    return await runner.acontinue_run(run_id=paused.run_id, requirements=paused.requirements, **options)


async def rows_of(runner: Agent | Team, session_id: str) -> dict[str, str]:
    rows = await database_of(runner).load_runs(session_id, top_level=False)
    return {row.runner_id: row.status for row in rows}


@pytest.fixture(params=KINDS)
def make_db(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """A function that opens the same database each time."""
    return opener(request, tmp_path)


@pytest.mark.parametrize("same_turn", [True, False])
async def test_shown_results_and_media_from_before_the_pause_are_in_the_output(
    make_db: Callable[[], Any], same_turn: bool
) -> None:
    first = [tool_call("report"), tool_call("draw")]
    script = [calls(*first, tool_call("risky"))] if same_turn else [calls(*first), tool_call("risky")]
    model = ScriptedModel([*script, "done"])

    def agent() -> Agent:
        return Agent(name="A", model=model, tools=[risky, report, draw], db=make_db(), session_id="s")

    paused = await agent().arun("go")
    assert paused.status is RunStatus.paused
    output = await confirmed(agent(), paused)
    assert output.content == "THE REPORT\n\ndone"
    assert [(image.content, image.name) for image in output.images] == [(b"png", "a.png")]
    assert [file.url for file in output.files] == ["https://example.org/a.pdf"]
    told = next(m for m in model.requests[-1].messages if m.tool_name == "draw")
    assert [image.content for image in told.images] == [b"png"]


async def test_how_often_a_tool_has_sent_the_model_back_is_not_forgotten() -> None:
    def picky() -> str:
        """Never content."""
        raise RetryAgentRun("try again")

    again = tool_call("picky")
    agent = Agent(model=ScriptedModel([again, again, again, tool_call("risky"), again]), tools=[picky, risky])
    paused = await agent.arun("go")
    with pytest.raises(ModelBehaviorError, match="picky has asked the model to try again 3 times"):
        await confirmed(agent, paused)


@pytest.mark.parametrize("limits", [UsageLimits(requests=2), UsageLimits(tool_calls=2)])
async def test_what_was_used_before_the_pause_counts_towards_the_limits(limits: UsageLimits) -> None:
    script = [tool_call("report"), tool_call("risky"), tool_call("report"), "done"]
    agent = Agent(model=ScriptedModel(script), tools=[report, risky])
    paused = await agent.arun("go", usage_limits=limits)
    with pytest.raises(UsageLimitExceeded):
        await confirmed(agent, paused, usage_limits=limits)


async def test_what_members_used_before_the_pause_counts_once() -> None:
    quick, careful = ScriptedModel(["quick"]), ScriptedModel([tool_call("risky"), "did it"])
    inner = Team(
        [Agent(name="Quick", model=quick)], name="Inner", model=ScriptedModel([delegate("quick"), "x"])
    )
    team = Team(
        [inner, Agent(name="Careful", model=careful, tools=[risky])],
        model=ScriptedModel([calls(delegate("inner"), delegate("careful")), "done"]),
    )
    paused = await team.arun("go")
    assert paused.metrics.requests == 5
    output = await confirmed(team, paused, usage_limits=UsageLimits(requests=7, tool_calls=4))
    assert output.metrics.requests == 7
    assert output.member_responses[0].member_responses[0].content == "quick"
    assert output.get_content_as_string() == "done"


def careful_model() -> Model:
    return FunctionModel(lambda r: "careful" if r.messages[-1].role == "tool" else calls(tool_call("risky")))


def routing_team(**options: Any) -> Team:
    careful = Agent(name="Careful", model=careful_model(), tools=[risky])
    return Team([careful], model=ScriptedModel([delegate("careful")]), mode="route", **options)


async def test_a_routed_answer_is_streamed_after_the_pause_as_the_teams() -> None:
    team = routing_team()
    paused = await team.arun("go")
    paused.requirements[0].confirm()
    pieces = [event async for event in team.acontinue_run(paused, stream=True)]
    assert "".join(event.content for event in pieces) == "careful"
    assert {event.event for event in pieces} == {"TeamRunContent"}


async def test_members_that_are_not_heard_are_not_heard_after_the_pause_either() -> None:
    team = routing_team(stream_member_events=False)
    paused = await team.arun("go")
    paused.requirements[0].confirm()
    stream = team.acontinue_run(paused, stream=True, stream_events=True)
    assert {event.nested_depth async for event in stream} == {0}


async def test_a_routed_answer_from_before_the_pause_is_part_of_the_answer() -> None:
    members = [
        Agent(name="Careful", model=careful_model(), tools=[risky]),
        Agent(name="Quick", model=ScriptedModel(["quick"])),
    ]
    model = ScriptedModel([calls(delegate("careful"), delegate("quick"))])
    team = Team(members, model=model, mode="route")
    paused = await team.arun("go")
    paused.requirements[0].confirm()
    pieces = [event.content async for event in team.acontinue_run(paused, stream=True, yield_run_output=True)]
    assert pieces == ["careful\n\nquick"] * 2


class Film(BaseModel):
    title: str


async def test_a_structured_answer_of_the_turn_that_was_paused_is_the_answer() -> None:
    class Caller(ScriptedModel):
        structured_output: Literal["native", "tool", "none"] = "tool"

    model = Caller([calls(tool_call("final_answer", title="Stalker"), tool_call("risky"))])
    agent = Agent(model=model, tools=[risky], output_schema=Film)
    output = await confirmed(agent, await agent.arun("go"))
    assert output.content == Film(title="Stalker")
    assert output.content_type == "Film"


async def test_the_input_itself_and_its_pictures_reach_members_after_the_pause() -> None:
    seen: list[Message] = []

    def look(request: ModelRequest) -> str:
        seen.append(request.messages[-1])
        return "seen"

    team = Team(
        [Agent(name="Eye", model=FunctionModel(look))],
        model=ScriptedModel(
            [tool_call("risky"), tool_call("delegate_task_to_member", member_id="eye"), "done"]
        ),
        tools=[risky],
        determine_input_for_members=False,
    )
    paused = await team.arun({"a": 1}, images=[Image(content=b"png")])
    await confirmed(team, paused)
    assert [(message.content, message.images[0].content) for message in seen] == [('{"a": 1}', b"png")]


async def test_metadata_of_the_run_is_there_after_the_pause() -> None:
    seen: list[dict[str, Any]] = []

    def note(run_context: RunContext) -> str:
        """Note."""
        seen.append(run_context.metadata)
        return "noted"

    agent = Agent(model=ScriptedModel([tool_call("risky"), tool_call("note"), "done"]), tools=[risky, note])
    paused = await agent.arun("go", metadata={"trace": "t1"})
    output = await confirmed(agent, paused)
    assert seen == [output.metadata] == [{"trace": "t1"}]


async def test_stored_events_of_both_parts_are_kept() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), "done"]), tools=[risky], store_events=True)
    output = await confirmed(agent, await agent.arun("go"))
    names = [event.event for event in output.events]
    assert names[0] == "RunStarted"
    assert names.index("RunPaused") < names.index("RunContinued")
    assert names[-1] == "RunCompleted"
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert [event.event for event in stored.events] == names


async def test_several_pauses_in_one_run_at_different_depths() -> None:
    def lead(request: ModelRequest) -> Any:
        return results(request) if request.messages[-1].role == "tool" else calls(delegate("careful"))

    inner = Team(
        [Agent(name="Careful", model=careful_model(), tools=[risky])], name="Inner", model=FunctionModel(lead)
    )
    model = ScriptedModel(
        [calls(delegate("inner"), tool_call("risky", what="top")), tool_call("risky"), results]
    )
    team = Team([inner], name="Outer", model=model, tools=[risky])
    paused = await team.arun("go")
    paths = [requirement.agent_path for requirement in paused.requirements]
    assert paths == [["Outer"], ["Outer", "Inner", "Careful"]]
    paused.requirements[0].reject("no")
    half = await team.acontinue_run(paused)
    assert half.status is RunStatus.paused
    assert [requirement.agent_path for requirement in half.requirements] == [paths[1]]
    half.requirements[0].confirm()
    again = await team.acontinue_run(half)
    assert [requirement.agent_path for requirement in again.requirements] == [["Outer"]]
    output = await confirmed(team, again)
    first, second, third = output.content.split(" | ")
    assert first == "careful"
    assert "rejected this call: no" in second
    assert third == "did it"
    assert set((await rows_of(team, output.session_id)).values()) == {"COMPLETED"}
    with pytest.raises(RunConflictError, match="its status is COMPLETED"):
        await confirmed(team, paused)


def numbered(*wanted: str) -> ModelResponse:
    """Calls as of a server that counts them anew in each turn, or not at all."""
    return calls(*(ToolCall("call_0", "risky", f'{{"what": "{what}"}}') for what in wanted))


async def test_a_word_on_one_call_is_not_for_another_of_the_same_id() -> None:
    model = ScriptedModel([numbered("one"), numbered("two"), results])
    agent = Agent(model=model, tools=[risky])
    paused = await agent.arun("go")
    again = await confirmed(agent, paused)
    assert again.status is RunStatus.paused
    assert [requirement.tool_args for requirement in again.requirements] == [{"what": "two"}]
    again.requirements[0].reject()
    output = await agent.acontinue_run(again)
    assert output.content.startswith("did one | The user has rejected")


async def test_calls_of_one_turn_with_one_id_are_answered_each_for_itself() -> None:
    agent = Agent(model=ScriptedModel([numbered("one", "two", "three"), results]), tools=[risky])
    paused = await agent.arun("go")
    assert len({requirement.tool_call_id for requirement in paused.requirements}) == 3
    paused.requirements[0].confirm()
    paused.requirements[1].reject()
    paused.requirements[2].confirm()
    output = await agent.acontinue_run(paused)
    first, second, third = output.content.split(" | ")
    assert (first, third) == ("did one", "did three")
    assert "rejected" in second


async def test_of_an_answer_nothing_but_the_answer_counts() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), results]), tools=[risky])
    paused = await agent.arun("go")
    [waiting] = paused.requirements
    forged = RunRequirement.from_dict(
        {**waiting.to_dict(), "kind": "external_execution", "tool_name": "other", "result": "forged"}
    )
    with pytest.raises(UsageError, match="risky: kind of the requirement was changed"):
        await agent.acontinue_run(run_id=paused.run_id, requirements=[forged])
    assert (await confirmed(agent, paused)).content == "did it"


@tool(requires_user_input=True, user_input_fields=["age"])
def register(name: str, age: int) -> str:
    """Register somebody."""
    return f"{name} is {age}"


async def test_input_that_does_not_fit_goes_back_to_the_person_and_not_to_the_model() -> None:
    agent = Agent(model=ScriptedModel([tool_call("register", name="Ann"), results]), tools=[register])
    paused = await agent.arun("go")
    paused.requirements[0].provide_user_input({"age": "old"})
    with pytest.raises(
        UsageError, match=r"register: the user input does not fit the parameters: /age: must be integer"
    ):
        await agent.acontinue_run(paused)
    paused.requirements[0].provide_user_input({"age": "7"})  # as a form has it
    assert (await agent.acontinue_run(paused)).content == "Ann is 7"


@pytest.mark.parametrize("arguments", ["{broken", '{"nam": "Ann"}', "[]"])
async def test_nobody_is_asked_for_input_to_a_call_that_cannot_be_made(arguments: str) -> None:
    call = calls(ToolCall("c", "register", arguments))
    agent = Agent(model=ScriptedModel([call, results]), tools=[register])
    output = await agent.arun("go")
    assert output.status is RunStatus.completed
    assert output.tools[0].tool_call_error


async def test_an_answer_for_another_run_is_refused_and_the_run_waits_on() -> None:
    agent = Agent(model=FunctionModel(lambda r: calls(tool_call("risky"))), tools=[risky])
    one, other = await agent.arun("go"), await agent.arun("go")
    other.requirements[0].confirm()
    with pytest.raises(UsageError, match="has no open requirement risky"):
        await agent.acontinue_run(run_id=one.run_id, requirements=other.requirements)
    stored = await agent.aget_run_output(one.run_id)
    assert stored is not None
    assert stored.status is RunStatus.paused


# Who may continue, and with what.


async def test_a_member_s_run_is_continued_with_its_team_only() -> None:
    team = routing_team()
    paused = await team.arun("go")
    [member] = paused.member_responses
    with pytest.raises(UsageError, match="is the run of a team member"):
        await team.acontinue_run(run_id=member.run_id)


async def test_an_agent_cannot_continue_a_team_s_run() -> None:
    db = InMemoryDb()
    paused = await routing_team(db=db).arun("go")
    agent = Agent(name="Other", model=ScriptedModel([]), db=db)
    with pytest.raises(UsageError, match="is a team's"):
        await agent.acontinue_run(run_id=paused.run_id)


async def test_another_user_cannot_continue_a_run() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), "done"]), tools=[risky])
    paused = await agent.arun("go", user_id="ann")
    for user in ("bob", None):
        with pytest.raises(SessionOwnershipError):
            await confirmed(agent, paused, user_id=user)
    assert (await confirmed(agent, paused, user_id="ann")).status is RunStatus.completed


@pytest.mark.parametrize("gone", ["tool", "member"])
async def test_what_is_not_there_any_more_is_named_and_the_run_waits_on(gone: str) -> None:
    db = InMemoryDb()
    paused = await routing_team(db=db).arun("go")
    left = Agent(name="Careful" if gone == "tool" else "Other", model=careful_model())
    changed = Team([left], model=ScriptedModel([]), mode="route", db=db)
    with pytest.raises(
        UsageError,
        match="no longer has the tool 'risky'" if gone == "tool" else "no longer has the member 'careful'",
    ):
        await confirmed(changed, paused)
    output = await confirmed(routing_team(db=db), paused)
    assert output.content == "careful"


async def test_a_continuation_that_was_walked_away_from_is_over_when_its_output_is_asked_for() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), "one two three four"]), tools=[risky])
    paused = await agent.arun("go")
    paused.requirements[0].confirm()
    async for _ in agent.acontinue_run(paused, stream=True):
        break
    stored = await agent.aget_run_output(paused.run_id)
    assert stored is not None
    assert stored.status is RunStatus.cancelled


@pytest.mark.parametrize("touch", [True, False])
async def test_a_call_that_has_the_state_cannot_continue_a_run_of_its_session(touch: bool) -> None:
    db = InMemoryDb()
    inner = Agent(model=ScriptedModel([tool_call("risky"), "well"]), tools=[risky], db=db, session_id="s")
    paused = await inner.arun("go")
    paused.requirements[0].confirm()

    async def go_on(run_context: RunContext) -> str:
        """Go on."""
        if touch:
            run_context.session_state["touched"] = True
        output = await inner.acontinue_run(paused)
        return str(output.content)

    outer = Agent(model=ScriptedModel([tool_call("go_on"), results]), tools=[go_on], db=db, session_id="s")
    output = await outer.arun("go")
    stored = await inner.aget_run_output(paused.run_id)
    assert stored is not None
    if touch:
        assert "Continue it before the function touches session_state" in output.content
        assert stored.status is RunStatus.paused
    else:
        assert output.content == "well"
        assert stored.status is RunStatus.completed


# Runs that do not go on.


async def test_a_paused_run_that_is_cancelled_is_over_with_all_its_members() -> None:
    team = routing_team(name="Outer")
    paused = await team.arun("go", user_id="ann")
    assert await team.acancel_run(paused.run_id)
    assert await rows_of(team, paused.session_id) == {"outer": "CANCELLED", "careful": "CANCELLED"}
    stored = await team.aget_run_output(paused.run_id)
    assert stored is not None
    assert (stored.status, stored.requirements) == (RunStatus.cancelled, [])
    with pytest.raises(RunConflictError, match="its status is CANCELLED"):
        await confirmed(team, paused, user_id="ann")
    assert not await team.acancel_run(paused.run_id)


async def test_members_that_were_paused_end_with_a_run_that_cannot_go_on() -> None:
    careful = Agent(name="Careful", model=careful_model(), tools=[risky])
    script = [calls(delegate("careful"), tool_call("risky")), results]
    team = Team([careful], name="Outer", model=ScriptedModel(script), tools=[risky], tool_call_limit=2)
    paused = await team.arun("go")
    assert len(paused.requirements) == 2
    team.tool_call_limit = 0
    output = await confirmed(team, paused)
    assert "the limit of 0 tool calls is reached" in output.content
    assert await rows_of(team, output.session_id) == {"outer": "COMPLETED", "careful": "CANCELLED"}
    assert output.member_responses[0].status is RunStatus.cancelled


async def test_a_run_that_is_cancelled_before_it_could_begin_does_not_begin() -> None:
    inside, out = asyncio.Event(), asyncio.Event()

    async def hold(run_context: RunContext) -> str:
        """Keep the state."""
        run_context.session_state["held"] = True
        inside.set()
        await out.wait()
        return "held"

    db = InMemoryDb()
    holder = Agent(model=ScriptedModel([tool_call("hold"), "done"]), tools=[hold], db=db, session_id="s")
    waiting = Agent(model=ScriptedModel([]), db=db, session_id="s")
    async with no_leaks():
        first = asyncio.create_task(holder.arun("go"))
        await inside.wait()
        second = asyncio.create_task(waiting.arun("go", session_state={"a": 1}, run_id="second"))
        while not await waiting.acancel_run("second"):
            await asyncio.sleep(0)
        output = await second
        assert output.status is RunStatus.cancelled
        out.set()
        assert (await first).session_state == {"held": True}


# One place at a time, and another one after a crash.


async def test_the_claim_is_short_and_renewed_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_process, "CLAIM_RENEW_SECONDS", 0.01)
    renewed = asyncio.Event()
    asked: list[tuple[str, float]] = []

    class Counting(InMemoryDb):
        async def claim_run(
            self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
        ) -> ClaimedRun | None:
            asked.append((run_id, seconds))
            if len(asked) == 5:
                renewed.set()
            return await super().claim_run(run_id, owner, seconds, about)

    @tool(requires_confirmation=True)
    async def slow() -> str:
        """Wait."""
        await renewed.wait()
        return "done"

    agent = Agent(model=ScriptedModel([tool_call("slow"), "done"]), tools=[slow], db=Counting())
    paused = await agent.arun("go")
    async with no_leaks():
        output = await confirmed(agent, paused)
    assert output.status is RunStatus.completed
    assert set(asked) == {(paused.run_id, one_process.CLAIM_SECONDS)}
    assert one_process.CLAIM_SECONDS <= 10


CONTINUES = """
    import asyncio, sys
    from kern import Agent, tool
    from kern.runtime import one_process
    from kern.testing import FunctionModel, tool_call
    from tests.databases import opened

    one_process.CLAIM_SECONDS, one_process.CLAIM_RENEW_SECONDS = 0.5, 0.1
    file, run_id, stay = sys.argv[1], sys.argv[2], sys.argv[3] == "stay"

    @tool(requires_confirmation=True)
    async def risky():
        print("in", flush=True)
        if stay:
            await asyncio.Event().wait()
        return "did it"

    model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call("risky"))
    agent = Agent(name="A", model=model, tools=[risky], db=opened(file), session_id="s")
    if run_id == "new":
        print(agent.run("go").run_id)
    else:
        paused = agent.get_run_output(run_id)
        paused.requirements[0].confirm()
        print(agent.continue_run(paused).content)
"""


def test_a_run_whose_process_was_killed_goes_on_elsewhere_within_seconds(place: str) -> None:
    run_id = processes.run(CONTINUES, place, "new", "go").strip()
    first = processes.start(CONTINUES, place, run_id, "stay")
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    busy = processes.start(CONTINUES, place, run_id, "go")
    assert "is being continued already" in busy.communicate(timeout=25)[1]
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    for _ in range(10):
        second = processes.start(CONTINUES, place, run_id, "go")
        out, errors = second.communicate(timeout=25)
        if second.returncode == 0:
            break
        assert "is being continued already" in errors
    assert out == "in\ndone\n"


async def test_events_of_a_part_that_goes_on_come_after_those_before_the_pause() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), "done"]), tools=[risky])
    before: list[BaseRunEvent] = []
    stream = agent.arun("go", stream=True, stream_events=True, yield_run_output=True)
    before = [event async for event in stream]
    paused = before.pop()
    assert isinstance(paused, RunOutput)
    paused.requirements[0].confirm()
    after = [event async for event in agent.acontinue_run(paused, stream=True, stream_events=True)]
    numbers = [event.seq for event in (*before, *after)]
    assert numbers == sorted(set(numbers))


async def test_an_error_after_the_pause_is_stored_and_cannot_be_continued() -> None:
    agent = Agent(model=ScriptedModel([tool_call("risky"), ValueError("broken")]), tools=[risky])
    paused = await agent.arun("go")
    with pytest.raises(KernError, match="broken"):
        await confirmed(agent, paused)
    with pytest.raises(RunConflictError, match="its status is ERROR"):
        await confirmed(agent, paused)
