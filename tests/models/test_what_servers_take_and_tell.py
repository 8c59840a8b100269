"""Pictures and files as chat servers take them; citations and calls of theirs as they tell them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern.errors import UsageError
from kern.messages import Citation, File, Image, Message, ProviderCall, TextPart
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.servers import SERVERS
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_recorded_traffic import FOLDER, objects, served

PNG = b"\x89PNG\r\n\x1a\n pixel"
PDF = b"%PDF-1.4 page"
SEEING = [name for name in SERVERS if name not in ("deepseek", "cerebras")]
READING = ["openai", "openrouter", "mistral", "perplexity", "litellm"]
OK = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}

needs_folder = pytest.mark.skipif(FOLDER is None, reason="the folder of recorded traffic is not here")


class FullSink(Sink):
    """Writes down citations and calls as well."""

    def __init__(self) -> None:
        super().__init__()
        self.citations: list[Citation] = []
        self.provider_calls: list[ProviderCall] = []

    def citation(self, citation: Citation) -> None:
        self.citations.append(citation)

    def provider_call(self, call: ProviderCall) -> None:
        self.provider_calls.append(call)

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        raise AssertionError("nothing is called here")


@pytest.fixture
def sink() -> FullSink:
    return FullSink()


@pytest.fixture
def client() -> str:
    """What is sent does not depend on the HTTP client: one will do."""
    return "any"


async def sent(server: ReplayServer, name: str, message: Message) -> list[dict[str, Any]]:
    server.replies = [Reply([json.dumps(OK).encode()], content_type="application/json")]
    model = OpenAIChat("m", server=name, base_url=server.url, api_key="any", max_retries=0)
    await model.respond(ModelRequest([message]), Sink())
    parts: list[dict[str, Any]] = server.asked[-1].body["messages"][0]["content"]
    return parts


@pytest.mark.parametrize("name", SEEING)
async def test_pictures_are_sent_as_the_server_takes_them(server: ReplayServer, name: str) -> None:
    pictures = [Image(content=PNG), Image(url="https://example.com/a.png", detail="low")]
    told, inline, linked = await sent(server, name, Message("user", "What is it?", images=pictures))
    assert told == {"type": "text", "text": "What is it?"}
    data = base64.b64encode(PNG).decode()
    assert inline == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    assert linked == {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}


@pytest.mark.parametrize("name", READING)
async def test_files_are_sent_as_the_server_takes_them(server: ReplayServer, name: str) -> None:
    file = File(content=PDF, name="a.pdf", mime_type="application/pdf")
    _, part = await sent(server, name, Message("user", "Read it.", files=[file]))
    data = base64.b64encode(PDF).decode()
    url = f"data:application/pdf;base64,{data}"
    assert part == {
        "mistral": {"type": "document_url", "document_url": url},
        "perplexity": {"type": "file_url", "file_url": {"url": data}, "file_name": "a.pdf"},
    }.get(name, {"type": "file", "file": {"filename": "a.pdf", "file_data": url}})
    linked = Message("user", "Read it.", files=[File(url="https://example.com/a.pdf", name="a.pdf")])
    if not SERVERS[name].file_urls:
        with pytest.raises(UsageError, match="takes a file as content, filepath or id, not by url"):
            await sent(server, name, linked)
        return
    _, part = await sent(server, name, linked)
    assert "https://example.com/a.pdf" in json.dumps(part)


def named_by(body: str, content_type: str) -> list[tuple[str, str]]:
    """The sources that a body names, with their titles, read by this test."""
    found: list[tuple[str, str]] = []
    for answer in objects(body, content_type):
        for annotation in _annotations(answer):
            told = annotation.get(annotation["type"], annotation)
            found.append((told.get("url") or told["file_id"], told.get("title") or told.get("filename")))
        if not found:
            found += [(page["url"], page["title"]) for page in answer.get("search_results") or ()]
    return found


def citations_of(message: Message) -> list[Citation]:
    return [each for part in message.parts if isinstance(part, TextPart) for each in part.citations]


def _annotations(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [each for item in value for each in _annotations(item)]
    if not isinstance(value, dict):
        return []
    return [*value.get("annotations", ()), *(each for item in value.values() for each in _annotations(item))]


@needs_folder
@pytest.mark.parametrize(
    "name",
    [
        "openai-chat/citations",
        "openrouter/annotations",
        "perplexity/citations",
        "openai-responses/web-search-1",
        "openai-responses/file-search-results",
    ],
)
async def test_what_a_recorded_answer_cites_is_what_its_body_names(
    server: ReplayServer, sink: FullSink, name: str
) -> None:
    reply, exchange = served(name, 0)
    server.replies = [reply]
    folder = name.partition("/")[0]
    made: Any = OpenAIResponses if folder == "openai-responses" else OpenAIChat
    known = {"server": folder} if folder in SERVERS else {}
    model = made("m", base_url=server.url, api_key="any", max_retries=0, **known)
    answer = await model.respond(ModelRequest([Message("user", "Hi")]), sink)
    named = named_by(exchange["response"]["body"], reply.content_type)
    assert named
    cited = [(each.url or each.file_id, each.title) for each in citations_of(answer.message)]
    assert list(dict.fromkeys(cited)) == list(dict.fromkeys(named))


async def test_the_pages_that_xai_names_beside_its_text_are_citations(
    server: ReplayServer, sink: FullSink
) -> None:
    pages = ["https://x.ai/news", "https://docs.x.ai"]
    server.replies = [
        Reply([json.dumps(OK | {"citations": pages}).encode()], content_type="application/json")
    ]
    model = OpenAIChat("grok-4", server="xai", base_url=server.url, api_key="any", max_retries=0)
    answer = await model.respond(ModelRequest([Message("user", "Hi")]), sink)
    assert [each.url for each in citations_of(answer.message)] == pages


@needs_folder
async def test_what_groq_has_run_itself_is_a_call_of_the_providers(
    server: ReplayServer, sink: FullSink
) -> None:
    reply, exchange = served("groq/web-search-stream", 0)
    server.replies = [reply]
    model = OpenAIChat("groq/compound", server="groq", base_url=server.url, api_key="any", max_retries=0)
    answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)
    told: dict[int, dict[str, Any]] = {}
    for chunk in objects(exchange["response"]["body"], reply.content_type):
        for choice in chunk["choices"]:
            for run in choice["delta"].get("executed_tools", ()):
                told.setdefault(run["index"], {}).update(run)
    calls = answer.message.provider_calls
    assert [(call.name, call.arguments) for call in calls] == [
        (run["type"], run["arguments"]) for run in told.values()
    ]
    assert [call.result["output"] for call in calls] == [run["output"] for run in told.values()]
    assert [(call.id, call.status) for call in sink.provider_calls] == [
        (call.id, status) for call in calls for status in ("running", "completed")
    ]
    assert answer.usage.billed == {"server_tools": len(calls)}
