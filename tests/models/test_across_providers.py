"""A conversation that moves from one provider to another: nothing of the first is sent to the second.

Each protocol has a judge, the `ModelServer`, which refuses what the real service refuses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kern.errors import KernError
from kern.messages import (
    Citation,
    File,
    Image,
    Message,
    Origin,
    Part,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from kern.models._foreign import with_neutral_ids
from kern.models._http_model import HttpModel
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, tool_call
from kern.testing._http import HttpRequest
from kern.testing._send import WireProtocol
from kern.testing.request import ReceivedRequest
from kern.testing.server import _PROTOCOLS
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_anthropic_recorded import model_of as anthropic_model_of
from tests.models.test_anthropic_recorded import recorded as anthropic_names
from tests.models.test_google_recorded import READ
from tests.models.test_google_recorded import model_of as google_model_of
from tests.models.test_recorded_replies import FOLDER, exchange, names, needs_folder, results, server_of
from tests.models.test_recorded_replies import model_of as openai_model_of

MARK = "zz9"
"""Stands in everything that is a provider's alone: ids, signatures, what it wants to see again."""

TOOLS = [
    ToolDefinition(name, "A tool.", {"type": "object", "properties": {"x": {"type": "string"}}})
    for name in ("look", "book")
]
KEY = "any"
HEADERS = {"anthropic-version": "2023-06-01"}
QUICK = settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Provider:
    """One of the protocols.

    Args:
        model: Asks it.
        path: Where a request of it goes, for the judge.
    """

    model: HttpModel
    path: str

    @property
    def protocol(self) -> WireProtocol:
        return next(protocol for protocol in _PROTOCOLS if protocol.matches(self.path))

    def body(self, messages: Sequence[Message]) -> bytes:
        return self.model._encode(ModelRequest(messages, tools=TOOLS), self.model._resolve_base_url())

    def judged(self, body: bytes) -> ReceivedRequest:
        return self.protocol.decode(HttpRequest("POST", self.path, HEADERS, body))

    def answered(self, messages: Sequence[Message], answer: Answer) -> Message:
        """What the provider's server answers, read by Kern, and through a database."""
        wire = self.protocol.whole(self.judged(self.body(messages)), answer)
        reader = self.model._reader(ModelRequest(messages, tools=TOOLS), None, streamed=False)
        reader.feed(wire)
        return Message.from_dict(json.loads(json.dumps(reader.finish().message.to_dict())))


def bedrock_providers() -> dict[str, Provider]:
    """Bedrock, which botocore's model of the service judges as well."""
    from kern.models.bedrock import BedrockConverse
    from tests.models.bedrock_wire import judge

    @dataclass(frozen=True)
    class Bedrock(Provider):
        def judged(self, body: bytes) -> ReceivedRequest:
            judge(json.loads(body))
            return Provider.judged(self, body)

    def made(model_id: str) -> Provider:
        model = BedrockConverse(model_id, region="us-east-1", api_key=KEY)
        return Bedrock(model, f"/model/{model_id}/converse")

    return {
        "bedrock claude": made("us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        "bedrock llama": made("meta.llama3-3-70b-instruct-v1:0"),
    }


PROVIDERS: dict[str, Provider] = {
    "openai chat": Provider(OpenAIChat("gpt-5.2", api_key=KEY), "/chat/completions"),
    "openai responses": Provider(OpenAIResponses("gpt-5.2", api_key=KEY, store=False), "/responses"),
    "anthropic": Provider(AnthropicMessages("claude-sonnet-4-5", api_key=KEY), "/messages"),
    "gemini 2.5": Provider(
        Gemini("gemini-2.5-flash", api_key=KEY), "/models/gemini-2.5-flash:generateContent"
    ),
    "gemini 3": Provider(Gemini("gemini-3-pro", api_key=KEY), "/models/gemini-3-pro:generateContent"),
}

if find_spec("botocore") is not None:
    PROVIDERS |= bedrock_providers()

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
PRIVATE = st.text("abc\U0001f6d2 /+=-_", max_size=80).map(lambda text: f"{MARK}{text}")
KEPT = st.none() | st.dictionaries(
    st.sampled_from(["id", "thoughtSignature", "call", "items", "signature", "block", "caller"]),
    PRIVATE | st.lists(PRIVATE, max_size=2) | st.dictionaries(st.just("id"), PRIVATE),
    max_size=3,
)
ARGUMENTS = (
    st.dictionaries(st.sampled_from("xyz"), WORDS, max_size=2).map(json.dumps)
    | st.sampled_from(["", "{", "null", "[1]", '"text"', "{}"])
    | WORDS
)


@st.composite
def parts_of(draw: Callable[..., Any], origin: Origin | None) -> list[Part]:
    """The parts of an answer of `origin`, all that is its own marked."""
    made: list[Part] = []
    for kind in draw(st.lists(st.sampled_from("trcpmc"), min_size=1, max_size=6)):
        kept = draw(KEPT)
        match kind:
            case "t":
                cited = [Citation(url="https://a.example", start=0, end=1, provider_data=kept)]
                made.append(
                    TextPart(
                        draw(WORDS),
                        citations=cited if draw(st.booleans()) else [],
                        commentary=draw(st.booleans()),
                        paragraph=draw(st.booleans()),
                        provider_data=kept,
                    )
                )
            case "r":
                signature, redacted = draw(st.none() | PRIVATE), draw(st.none() | PRIVATE)
                made.append(
                    ReasoningPart(draw(WORDS), signature=signature, redacted=redacted, provider_data=kept)
                )
            case "c":
                call_id = f"{draw(PRIVATE)}{len(made)}"
                name = draw(st.sampled_from(["look", "book"]))
                made.append(ToolCall(call_id, name, draw(ARGUMENTS), kept))
            case "p":
                made.append(
                    ProviderCall(draw(PRIVATE), "web_search", draw(ARGUMENTS), result={}, provider_data=kept)
                )
            case _:
                made.append(Image(content=b"\x89PNG", mime_type="image/png", provider_data=kept))
    for part in made:
        part.origin = origin
    return made


@st.composite
def conversations(draw: Callable[..., Any], origins: Sequence[Origin | None]) -> list[Message]:
    """A conversation with answers of `origins`, each of whose calls has its result."""
    messages = [Message("system", draw(SAID))] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 4))):
        media = [Image(url="https://a.example/p.png")] if draw(st.booleans()) else []
        messages.append(Message("user", draw(SAID), images=media, from_history=True))
        parts = draw(parts_of(draw(st.sampled_from(origins))))
        for part in parts:
            if isinstance(part, ToolCall):
                part.id = f"{part.id}-{turn}"  # providers do not give one id twice
        answer = Message("assistant", parts=parts)
        messages.append(answer)
        for call in answer.tool_calls:
            shown = [Image(content=b"\x89PNG", mime_type="image/png")] if draw(st.booleans()) else []
            messages.append(
                Message(
                    "tool",
                    draw(WORDS),
                    tool_call_id=call.id,
                    tool_name=call.name,
                    tool_call_error=draw(st.booleans()),
                    images=shown,
                )
            )
    return [*messages, Message("user", draw(SAID), files=[File(content=b"%PDF-1.7", name="a.pdf")])]


def origin_of(provider: Provider) -> Origin:
    return Origin(provider.model.provider, provider.model.id)


FOREIGN: dict[str, list[Origin | None]] = {
    name: [
        None,
        *(
            origin_of(other)
            for other in PROVIDERS.values()
            if other.model.provider != provider.model.provider
        ),
    ]
    for name, provider in PROVIDERS.items()
}


@pytest.mark.parametrize("name", PROVIDERS)
@QUICK
@given(data=st.data())
def test_a_conversation_of_others_is_encoded_without_what_is_theirs(name: str, data: st.DataObject) -> None:
    origins = [origin for origin in FOREIGN[name] if origin is not None]
    messages = data.draw(conversations(origins))
    before = [message.to_dict() for message in messages]
    provider = PROVIDERS[name]
    body = provider.body(messages)
    assert MARK.encode() not in body
    heard = provider.judged(body)
    assert heard.user_text
    assert [message.to_dict() for message in messages] == before


@pytest.mark.parametrize("name", PROVIDERS)
@QUICK
@given(data=st.data())
def test_a_conversation_of_unknown_origin_is_taken_by_every_provider(name: str, data: st.DataObject) -> None:
    provider = PROVIDERS[name]
    provider.judged(provider.body(data.draw(conversations([None]))))


def private(message: Message) -> Iterator[str]:
    """The ids, signatures and kept data of an answer."""
    for part in message.parts:
        if isinstance(part, ToolCall | ProviderCall):
            yield part.id
        if isinstance(part, ReasoningPart):
            yield from (text for text in (part.signature, part.redacted) if text)
        yield from texts_in(part.provider_data)
    yield from texts_in(message.provider_data)


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) > 12:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


ANSWERS = st.builds(
    lambda text, reasoning, calls: Answer(
        text or None if calls else text or "ok", reasoning=reasoning, tool_calls=calls
    ),
    SAID | st.just(""),
    st.none() | SAID,
    st.lists(st.builds(tool_call, st.sampled_from(["look", "book"]), x=WORDS), max_size=3),
)


@pytest.mark.parametrize(
    ("first", "second"), list(permutations(PROVIDERS, 2)), ids=lambda value: str(value).replace(" ", "-")
)
@QUICK
@given(answers=st.lists(ANSWERS, min_size=1, max_size=4))
def test_what_one_provider_has_answered_goes_on_at_another(
    first: str, second: str, answers: list[Answer]
) -> None:
    """Every second answer is the second provider's, so that each sees its own beside the other's."""
    one, other = PROVIDERS[first], PROVIDERS[second]
    messages = [Message("system", "Be brief."), Message("user", "Hi")]
    secrets: dict[str, set[str]] = {first: set(), second: set()}
    words: set[str] = set()
    for number, answer in enumerate(answers):
        name, asked = (first, one) if number % 2 == 0 else (second, other)
        message = asked.answered(messages, answer)
        secrets[name] |= set(private(message))
        words |= {text for text in (answer.text, answer.reasoning) if text}
        messages.append(message)
        messages += [
            Message("tool", "ok", tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls
        ]
        if not message.tool_calls:
            messages.append(Message("user", "And?"))
    for name, foreign in ((first, second), (second, first)):
        provider = PROVIDERS[name]
        body = provider.body(messages)
        provider.judged(body)
        if provider.model.provider != PROVIDERS[foreign].model.provider:
            told = body.decode()
            left = {secret for secret in secrets[foreign] if secret in told and secret not in words}
            assert not left


def test_messages_of_ones_own_are_not_copied() -> None:

    own = Message("assistant", parts=[ToolCall("c", "look", origin=Origin("google", "m"))])
    messages = [Message("user", "Hi"), own, Message("tool", "ok", tool_call_id="c")]
    assert with_neutral_ids(messages, "google") is messages
    renamed = with_neutral_ids(messages, "openai")
    assert renamed[0] is messages[0]
    assert renamed[1].tool_calls[0].id == renamed[2].tool_call_id != "c"
    assert own.tool_calls[0].id == "c"


RECORDED = [
    *names("*/*.json"),
    *(f"gemini/{name}" for name in READ),
    *(f"anthropic/{name.rpartition('/')[2]}" for name in anthropic_names()),
]
if find_spec("botocore") is not None and FOLDER is not None:
    RECORDED += [f"bedrock/{file.stem}" for file in sorted(FOLDER.glob("bedrock/*.json"))]


@needs_folder
@pytest.mark.parametrize("name", RECORDED)
async def test_a_recorded_answer_goes_on_at_every_other_provider(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    recorded = exchange(name)
    try:
        message = await answer_of(server, sink, name, recorded)
    except KernError:
        return  # which is no answer, and goes nowhere
    asked = [Message("user", "?"), message, *results(message), Message("user", "And?")]
    for provider in PROVIDERS.values():
        if {part.origin.provider for part in message.parts if part.origin} & {provider.model.provider}:
            continue
        body = provider.body(asked)
        provider.judged(body)
        told = body.decode()
        words = f"{message.content} {[(call.name, call.arguments) for call in message.tool_calls]}"
        assert not [secret for secret in private(message) if secret in told and secret not in words]


async def answer_of(server: ReplayServer, sink: Sink, name: str, recorded: Any) -> Message:
    """The recorded answer, through a database."""
    response = recorded["response"]
    model: HttpModel
    if name.startswith("bedrock/"):
        from tests.models.test_bedrock_recorded import model_of as bedrock_model_of
        from tests.models.test_bedrock_recorded import served

        server.replies = [served(name.rpartition("/")[2], 0)[0]]
        model = bedrock_model_of(recorded, server.url)
        asked = ModelRequest([Message("user", "?")], stream="amazon" in server.replies[0].content_type)
        answer = await model.respond(asked, sink)
        return Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    if name.startswith("gemini/"):
        model = google_model_of(recorded, server.url)
    elif name.startswith("anthropic/"):
        model = anthropic_model_of(server, recorded)
    else:
        model = openai_model_of(recorded, server.url, server_of(name))
    kind = next(value for header, value in response["headers"].items() if header.lower() == "content-type")
    server.replies = [Reply([response["body"].encode()], status=response["status"], content_type=kind)]
    request = ModelRequest([Message("user", "?")], stream="event-stream" in kind)
    answer = await model.respond(request, sink)
    return Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
