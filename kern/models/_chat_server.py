"""`ChatServer`: how one server implements Chat Completions; `kern.models.servers` lists them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SETTINGS: Final = frozenset(
    {
        "temperature",
        "top_p",
        "max_output_tokens",
        "stop",
        "seed",
        "reasoning_effort",
        "verbosity",
        "store",
        "parallel_tool_calls",
    }
)
"""The settings of `OpenAIChat` that are fields of the request."""

ToolChoice = Literal["auto", "none", "required", "named"]
ALL_CHOICES: Final[frozenset[ToolChoice]] = frozenset({"auto", "none", "required", "named"})


@dataclass(slots=True, frozen=True, kw_only=True)
class ChatServer:
    """How one server implements Chat Completions, and where it differs from OpenAI.

    Args:
        name: The provider in "provider:id", and the server's name in metrics, rows and errors.
        title: The name as people write it.
        docs: The page that documents these facts.
        base_url: The server's address; None if each customer has a different one.
        path: The path to add to a base URL that has none; `base_url` contains it already.
        hosts: Its hosts or their domains, which identify the server by a base URL alone.
        keys: The environment variables that may hold the API key, in order of preference.
        needs_key: It refuses requests without a key.
        key_header: The header that carries the key; for "authorization" the value is "Bearer ...".
        url_variable: The environment variable that may hold the base URL.
        settings: The settings that it supports. Any other is a `UsageError`: the server would refuse or
            ignore it.
        spelled: Settings whose field has another name, by setting; "outer.inner" is a field of an object.
        developer_role: It has a role "developer" beside "system".
        names: Messages may have a `name`.
        stream_usage: It supports `stream_options`, and reports the usage of a stream only if asked there.
        structured_output: How to get a structured answer; see `Model.structured_output`.
        schema_beside_tools: One request may have both a schema for the answer and tools.
        tools: Its models can call tools.
        strict: A tool may be `strict`: its arguments are guaranteed to fit the schema.
        tool_choices: The forms of `tool_choice` that it supports.
        call_id: The exact length of a call's id, in letters and digits; None: at most 40 of any characters.
        user_after_tool: A user message may follow a tool message; if not, an assistant message goes between.
        reasoning: The field that sends the reasoning of an earlier message back. "thinking": a part of the
            content; "told": the field in which it came; None: it is not sent back.
        reasoning_kept: Which reasoning is sent back: of answers with tool calls ("calls"), or "all".
        extras: Earlier messages and calls may have fields of other vendors (signatures, details).
        file_part: The type of the part that holds a file.
        file_urls: It fetches files itself.
        reasoning_apart: Its count of completion tokens excludes reasoning tokens.
        cost: The field of `usage` that holds the cost of the answer: "outer.inner"; None: there is none.
        cost_unit: The value of one unit of `cost`, in US dollars.
        searching: Models whose ids contain this text search the web for every answer, which costs more than
            their tokens.
        price_list: The server's name in the list of the extra `prices`; None: the list lacks it.
    """

    name: str
    title: str
    docs: str
    base_url: str | None = None
    path: str = ""
    hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    needs_key: bool = True
    key_header: str = "authorization"
    url_variable: str = ""
    settings: frozenset[str] = SETTINGS
    spelled: Mapping[str, str] = field(default_factory=dict)
    developer_role: bool = False
    names: bool = True
    stream_usage: bool = True
    structured_output: Literal["native", "tool", "none"] = "native"
    schema_beside_tools: bool = True
    tools: bool = True
    strict: bool = True
    tool_choices: frozenset[ToolChoice] = ALL_CHOICES
    call_id: int | None = None
    user_after_tool: bool = True
    reasoning: Literal["told", "reasoning", "reasoning_content", "thinking"] | None = "told"
    reasoning_kept: Literal["calls", "all"] = "calls"
    extras: bool = True
    file_part: Literal["file", "file_url", "document_url"] = "file"
    file_urls: bool = False
    reasoning_apart: bool = False
    cost: str | None = None
    cost_unit: float = 1.0
    searching: str = ""
    price_list: str | None = None
