"""Calls that a provider carries out itself, as each protocol reports them.

Sources: the output items on https://platform.openai.com/docs/api-reference/responses/object,
https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools, `GroundingMetadata` and
`ExecutableCode` on https://ai.google.dev/api/generate-content, and
https://console.groq.com/docs/agentic-tooling.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from pydantic_core import from_json, to_json

from kern.messages import ProviderCall

_STEPS = {
    "web_search_call": ("in_progress", "searching", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
    "mcp_call": ("in_progress", "completed"),
}
"""The events that Responses sends of each kind of call, between those of its item."""

_ID_OF = {"web_search_call": "ws", "file_search_call": "fs", "code_interpreter_call": "ci", "mcp_call": "mcp"}


class PlayedItem(NamedTuple):
    """A call as an output item of Responses.

    Args:
        opened: The item as it starts.
        done: The item at its end.
        steps: The names of the events between the two.
    """

    opened: dict[str, Any]
    done: dict[str, Any]
    steps: Sequence[str]


def response_item(call: ProviderCall) -> PlayedItem:
    """The call as Responses reports it; a tool that OpenAI does not have is a tool of an MCP server."""
    kind = f"{call.name}_call"
    given = _arguments(call)
    if kind not in _STEPS:
        kind = "mcp_call"
    item: dict[str, Any] = {"id": f"{_ID_OF.get(kind, 'ig')}_{uuid4().hex}", "type": kind}
    opened: dict[str, Any] = {}
    done: dict[str, Any] = {}
    if kind == "web_search_call":
        opened = done = {"action": given.get("action") or {"type": "search", "query": given.get("query", "")}}
    elif kind == "file_search_call":
        opened = {"queries": given.get("queries") or [given.get("query", "")]}
        done = opened | {"results": call.result}
    elif kind == "code_interpreter_call":
        opened = {"code": given.get("code", ""), "container_id": f"cntr_{uuid4().hex}", "outputs": None}
        done = opened | {"outputs": call.result}
    elif kind == "image_generation_call":
        made = call.media[0].content if call.media else None
        opened = {"result": None}
        done = {"result": base64.b64encode(made or b"").decode(), "output_format": "png"}
    else:
        opened = {"server_label": "played", "name": call.name, "arguments": call.arguments, "output": None}
        done = opened | {"output": call.result, "error": None}
    status = "failed" if call.status == "failed" else "completed"
    steps = [f"response.{kind}.{step}" for step in _STEPS[kind]]
    return PlayedItem(item | opened | {"status": "in_progress"}, item | done | {"status": status}, steps)


def message_blocks(call: ProviderCall) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call and its result as Anthropic's blocks."""
    call_id = f"srvtoolu_{uuid4().hex[:24]}"
    use = {"type": "server_tool_use", "id": call_id, "name": call.name, "input": _arguments(call)}
    content = call.result
    if call.status == "failed":
        content = {"type": f"{call.name}_tool_result_error", "error_code": "unavailable"}
    elif content is None:
        content = [] if call.name == "web_search" else {"type": f"{call.name}_result"}
    if call.name == "code_execution" and isinstance(content, dict) and call.status != "failed":
        usual = {"stdout": "", "stderr": "", "return_code": 0, "content": []}
        content = {"type": "code_execution_result", **usual, **content}
    return use, {"type": f"{call.name}_tool_result", "tool_use_id": call_id, "content": content}


def converse_blocks(call: ProviderCall) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The call as Bedrock's Converse reports it: the call, its result, and the content of the result."""
    call_id = f"tooluse_{uuid4().hex[:22]}"
    use = {"toolUseId": call_id, "name": call.name, "type": "server_tool_use"}
    status = "error" if call.status == "failed" else "success"
    result = {"toolUseId": call_id, "type": f"{call.name}_result", "status": status}
    found = call.result
    content = [] if found is None else [{"text" if isinstance(found, str) else "json": found}]
    return use, result, content


def searches(calls: Sequence[ProviderCall]) -> int:
    """How many of the calls are web searches."""
    return sum(call.name == "web_search" for call in calls)


def gemini_parts(calls: Sequence[ProviderCall]) -> list[dict[str, Any]]:
    """The calls that are parts of the answer: code, and its results."""
    parts: list[dict[str, Any]] = []
    for call in calls:
        if call.name == "code_execution":
            outcome = "OUTCOME_FAILED" if call.status == "failed" else "OUTCOME_OK"
            told = call.result if isinstance(call.result, dict) else {"output": str(call.result or "")}
            parts.append({"executableCode": {"language": "PYTHON", **_arguments(call)}})
            parts.append({"codeExecutionResult": {"outcome": outcome, **told}})
    return parts


def gemini_metadata(calls: Sequence[ProviderCall]) -> dict[str, Any]:
    """The calls that are reported beside the answer: searches with their pages, and fetched pages."""
    beside: dict[str, Any] = {}
    found = [call for call in calls if call.name in ("google_search", "web_search")]
    if found:
        queries = [query for call in found for query in _queries(call)]
        pages = [page for call in found for page in _pages(call)]
        beside["groundingMetadata"] = {
            "webSearchQueries": queries,
            "groundingChunks": [
                {"web": {"uri": page["url"], "title": page.get("title", "")}} for page in pages
            ],
        }
    given = [_arguments(call) for call in calls if call.name == "url_context"]
    fetched = [
        url for named in given for url in named.get("urls") or [named.get("url") or "https://example.com"]
    ]
    if fetched:
        success = "URL_RETRIEVAL_STATUS_SUCCESS"
        told = [{"retrievedUrl": url, "urlRetrievalStatus": success} for url in fetched]
        beside["urlContextMetadata"] = {"urlMetadata": told}
    return beside


def executed_tools(calls: Sequence[ProviderCall]) -> list[dict[str, Any]]:
    """The calls as Groq reports them in Chat Completions, where OpenAI has none."""
    return [
        {
            "index": index,
            "type": call.name,
            "arguments": call.arguments,
            "output": call.result if isinstance(call.result, str) else to_json(call.result).decode(),
        }
        for index, call in enumerate(calls)
    ]


def _arguments(call: ProviderCall) -> dict[str, Any]:
    value = from_json(call.arguments or "{}")
    return value if isinstance(value, dict) else {}


def _queries(call: ProviderCall) -> list[str]:
    given = _arguments(call)
    return given.get("queries") or [given.get("query", "")]


def _pages(call: ProviderCall) -> list[dict[str, Any]]:
    result = call.result.get("sources") if isinstance(call.result, dict) else call.result
    return (
        [page for page in result if isinstance(page, dict) and "url" in page]
        if isinstance(result, list)
        else []
    )
