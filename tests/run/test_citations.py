"""Citations say which part of the answer they belong to: in the output, in events and in rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern import Agent
from kern.messages import Citation, Message, ProviderCall, TextPart, placed_citations
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelResponse
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.output import RunOutput
from kern.testing import Fault, FunctionModel, ModelServer, tool_call


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [(0, 4, (0, 4)), (9, 3, None), (9, 12, None), (2, 40, (2, 4)), (0, 10**30, None)],
)
async def test_a_place_that_makes_no_sense_is_none(start: int, end: int, span: Any) -> None:
    cited = {"type": "url_citation", "url": "https://a.example", "start_index": start, "end_index": end}
    part = {"type": "output_text", "text": "Done", "annotations": [cited]}
    said = {"type": "message", "role": "assistant", "content": [part]}
    body = json.dumps({"status": "completed", "output": [said]})
    async with ModelServer([Fault.status(200, body=body)]) as server:
        model = OpenAIResponses("m", base_url=server.base_url, api_key="any")
        output = await Agent(model=model).arun("Hi")
    assert [citation.span for citation in output.citations] == [span]


SEARCH: dict[str, Any] = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
FOUND: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
QUOTED = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "x"}
CITED = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 4}


def claude() -> dict[str, Any]:
    text = {"type": "text", "text": "Done", "citations": [QUOTED]}
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Let me"}, SEARCH, FOUND, text],
        "stop_reason": "end_turn",
    }


def responses() -> dict[str, Any]:
    def said(text: str, *cited: Any) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": list(cited)}
        return {"type": "message", "role": "assistant", "content": [part]}

    return {"status": "completed", "output": [said("Let me"), said("Done", CITED)]}


def chat() -> dict[str, Any]:
    cited = {**CITED, "start_index": 8, "end_index": 12}
    annotations = [{"type": "url_citation", "url_citation": cited}]
    said = {"role": "assistant", "content": "Let me\n\nDone", "annotations": annotations}
    return {"choices": [{"message": said, "finish_reason": "stop"}]}


def gemini() -> dict[str, Any]:
    support = {
        "segment": {"startIndex": 8, "endIndex": 12, "text": "Done"},
        "groundingChunkIndices": [0],
    }
    return {
        "candidates": [
            {
                "content": {"parts": [{"text": "Let me\n\nDone"}]},
                "finishReason": "STOP",
                "groundingMetadata": {
                    "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
                    "groundingSupports": [support],
                },
            }
        ]
    }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("made", "body", "part"),
    [
        (AnthropicMessages, claude(), 1),
        (OpenAIResponses, responses(), 1),
        (OpenAIChat, chat(), 0),
        (Gemini, gemini(), 0),
    ],
)
async def test_the_words_that_are_cited_can_be_found_in_the_content(
    made: Any, body: dict[str, Any], part: int, stream: bool
) -> None:
    async with ModelServer([Fault.status(200, body=json.dumps(body))]) as server:
        agent = Agent(model=made("m", base_url=server.base_url, api_key="any", max_retries=0))
        if stream:
            events = [event async for event in agent.arun("Hi", stream=True, stream_events=True)]
            told = [event.citation for event in events if event.event.endswith("CitationAdded")]
            assert [(citation.url, citation.part) for citation in told] == [("https://a.example", part)]
            return
        output = await agent.arun("Hi")
    (citation,) = output.citations
    assert (citation.url, citation.part) == ("https://a.example", part)
    assert citation.span is not None
    assert output.content[citation.span[0] : citation.span[1]] == "Done"
    again = RunOutput.from_dict(json.loads(json.dumps(output.to_dict())))
    assert [(each.part, each.span) for each in again.citations] == [(part, citation.span)]


async def test_citations_of_several_answers_lie_in_the_texts_that_were_shown() -> None:
    def cited(text: str) -> Message:
        part = TextPart(text, citations=[Citation(url=f"https://{text}.example", start=0, end=len(text))])
        return Message("assistant", parts=[part])

    answers = [cited("Looking"), cited("Found")]
    answers[0].tool_calls = [tool_call("look")]

    def look() -> str:
        """Look."""
        return "ok"

    agent = Agent(model=FunctionModel(lambda request: ModelResponse(answers.pop(0))), tools=[look])
    output = await agent.arun("Hi")
    for citation in output.citations:
        if citation.span is not None:
            words = output.content[citation.span[0] : citation.span[1]]
            assert citation.url == f"https://{words}.example"
    assert output.citations[-1].span is not None


def test_commentary_unknown_places_and_other_texts_have_no_span() -> None:
    parts = [
        TextPart("Hm", commentary=True, citations=[Citation(start=0, end=2)]),
        TextPart("One", citations=[Citation(start=0, end=3), Citation(url="u")]),
        ProviderCall("c", "search"),
        TextPart("Two", paragraph=True, citations=[Citation(start=1, end=3)]),
    ]
    message = Message("assistant", parts=parts)
    content = f"before {message.content}"
    placed = placed_citations(content, [(message.content, message.parts)])
    assert [(each.part, each.span) for each in placed] == [(0, None), (1, (7, 10)), (1, None), (2, (13, 15))]
    assert content[13:15] == "wo"
    assert [each.span for each in placed_citations("another text", [(message.content, message.parts)])] == [
        None
    ] * 4
