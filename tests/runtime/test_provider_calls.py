"""What a provider does itself in a run: told by events, kept in the output, and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kern import Agent, Team
from kern.db import InMemoryDb
from kern.errors import UsageLimitExceeded
from kern.messages import Citation, Image, Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.run import (
    CitationAddedEvent,
    ModelRequestCompletedEvent,
    ProviderToolCallCompletedEvent,
    ProviderToolCallStartedEvent,
    ToolCallArgumentsDeltaEvent,
    event_from_dict,
)
from kern.testing import ScriptedModel

SEARCH = ProviderCall("ws_1", "web_search", '{"query": "ruby"}', result=[{"url": "https://x.test"}])
PAINTED = ProviderCall("ig_1", "image_generation", media=[Image(content=b"png")])
CITED = TextPart("Ruby it is.", citations=[Citation(url="https://x.test", start=0, end=4)])


def answer(*parts: Any, **response: Any) -> ModelResponse:
    return ModelResponse(Message("assistant", parts=parts), **response)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_calls_of_the_provider_and_citations_are_events(kind: str, stream: bool) -> None:
    model = ScriptedModel([answer(SEARCH, CITED)])
    options: dict[str, Any] = {"model": model, "store_events": True, "events_to_skip": ()}
    runner: Any = Agent(**options) if kind == "agent" else Team([], **options)
    if stream:
        async with runner.arun("Hi", stream=True, stream_events=True) as opened:
            events = [event async for event in opened]
            output = opened.output
    else:
        output = await runner.arun("Hi")
        events = output.events
    told = [event for event in events if "Provider" in event.kind or "Citation" in event.kind]
    assert [type(event) for event in told] == [
        ProviderToolCallStartedEvent,
        ProviderToolCallCompletedEvent,
        CitationAddedEvent,
    ]
    assert [event.event.startswith("Team") for event in told] == [kind == "team"] * 3
    started, completed, cited = told
    assert (started.call.status, started.call.result) == ("running", None)
    assert completed.call == SEARCH
    assert cited.citation == CITED.citations[0]
    for event in told:
        assert event_from_dict(json.loads(event.to_json())).to_dict() == event.to_dict()
    assert output.citations == CITED.citations


async def test_pieces_of_arguments_are_events_that_are_not_stored_unless_asked_for() -> None:
    class Piecemeal(ScriptedModel):
        async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
            response = await super().respond(request, sink)
            for call in response.message.tool_calls:
                for piece in (call.arguments[:4], call.arguments[4:]):
                    sink.tool_arguments(call.id, call.name, piece)  # type: ignore[attr-defined]  # a run's has it
            return response

    def note(text: str) -> str:
        """Note."""
        return text

    model = Piecemeal([ToolCall("c1", "note", '{"text": "a"}'), "Done."])
    agent = Agent(model=model, tools=[note], store_events=True)
    async with agent.arun("Hi", stream=True, stream_events=True) as opened:
        events = [event async for event in opened]
    pieces = [event for event in events if isinstance(event, ToolCallArgumentsDeltaEvent)]
    assert [(event.tool_call_id, event.tool_name, event.delta) for event in pieces] == [
        ("c1", "note", '{"te'),
        ("c1", "note", 'xt": "a"}'),
    ]
    assert not any(isinstance(event, ToolCallArgumentsDeltaEvent) for event in opened.output.events)


async def test_pictures_that_the_model_made_are_the_outputs() -> None:
    made = Image(content=b"gif")
    model = ScriptedModel([answer(PAINTED, made, TextPart("Look."))])
    db = InMemoryDb()
    agent = Agent(model=model, db=db, session_id="s")
    output = await agent.arun("Paint")
    assert [image.content for image in output.images] == [b"png", b"gif"]
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert [image.content for image in stored.images] == [b"png", b"gif"]
    assert [media.content for media in stored.messages[-1].media] == [b"png", b"gif"]


async def test_the_output_tells_who_really_answered_and_under_which_id() -> None:
    model = ScriptedModel([answer(TextPart("Hi"), model="gpt-5.2-2025-12-11", response_id="resp_1")])
    agent = Agent(model=model, db=InMemoryDb(), session_id="s", store_events=True)
    output = await agent.arun("Hi")
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    for told in (output, stored):
        assert (told.model, told.response_id) == ("gpt-5.2-2025-12-11", "resp_1")
        (event,) = [event for event in told.events if isinstance(event, ModelRequestCompletedEvent)]
        assert (event.model, event.response_id) == ("gpt-5.2-2025-12-11", "resp_1")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_paused_answer_is_gone_on_with_and_no_user_speaks_between(stream: bool) -> None:
    paused = answer(SEARCH, TextPart("Searching."), finish_reason="paused")
    model = ScriptedModel([paused, answer(TextPart("Ruby it is."), finish_reason="stop"), "Again."])
    agent = Agent(model=model, db=InMemoryDb(), session_id="s", add_history_to_context=True)
    if stream:
        async with agent.arun("Hi", stream=True) as opened:
            pieces = [str(event.content) async for event in opened]
            output = opened.output
        assert "".join(pieces) == output.content
    else:
        output = await agent.arun("Hi")
    assert [message.role for message in model.requests[1].messages] == ["user", "assistant"]
    assert output.content == "Searching.\n\nRuby it is."
    assert output.metrics.requests == 2
    await agent.arun("And?")
    said = model.requests[2].messages
    assert [message.role for message in said] == ["user", "assistant", "assistant", "user"]
    assert said[1].provider_calls == [SEARCH]


async def test_pauses_are_bounded_by_the_requests_of_a_run() -> None:
    paused = answer(SEARCH, finish_reason="paused")
    model = ScriptedModel([replace(paused, message=Message("assistant", parts=[SEARCH])) for _ in range(9)])
    with pytest.raises(UsageLimitExceeded, match="max_requests"):
        await Agent(model=model, max_requests=3).arun("Hi")
    assert len(model.requests) == 3


async def test_an_answer_that_is_reasoning_alone_stays_in_the_history() -> None:
    hidden = ReasoningPart(redacted="xyz", provider_data={"id": "rs_1"})
    model = ScriptedModel([answer(hidden), "Again."])
    agent = Agent(model=model, db=InMemoryDb(), session_id="s", add_history_to_context=True)
    await agent.arun("Hi")
    await agent.arun("And?")
    assert [message.role for message in model.requests[1].messages] == ["user", "assistant", "user"]
