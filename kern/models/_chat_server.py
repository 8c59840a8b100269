"""What there is to know of a server that speaks Chat Completions; `kern.models.servers` knows it of each."""

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
    """What is particular about one server.

    Args:
        name: The first half of a model string, and what the server is called in metrics, rows and errors.
        title: The name as people write it.
        docs: The page that the facts are from.
        base_url: Where it is; None: everybody has an address of their own.
        path: What is added to a base URL that has no path, beside that of `base_url`.
        hosts: Its hosts, or the domains they lie in, by which it is known from a base URL alone.
        keys: The environment variables that may hold the key; the first that is set counts.
        needs_key: It answers nobody without a key.
        key_header: The header that carries the key; "authorization" holds it as "Bearer ...".
        url_variable: The environment variable that may hold the base URL.
        settings: The settings that it knows. Another one is a `UsageError`, since it would be refused, or
            have no effect.
        spelled: The settings that have other names on the wire, "outer.inner" for a field of an object.
        developer_role: It tells "developer" from "system".
        names: Messages may bear a name.
        stream_usage: It takes `stream_options`, and tells the usage of a stream only if asked by them.
        structured_output: How a structured answer is had; see `Model.structured_output`.
        schema_beside_tools: It takes a schema for the answer and tools in one request, and both have effect.
        tools: It calls tools.
        strict: A tool may ask for its schema to be followed to the letter.
        tool_choices: The forms of `tool_choice` that it heeds.
        call_id: The length of a call's id, of letters and digits only; None: up to 40 characters of any kind.
        user_after_tool: A user's message may stand right behind a tool's; if not, an answer goes between.
        reasoning: The field under which an earlier message's reasoning goes back: "thinking" stands for a
            part of the content; "told": the field under which it came; None: nowhere.
        reasoning_kept: Whose reasoning goes back: "calls", of the turns in which tools were called, or "all".
        extras: Earlier messages and calls may bear fields of other makers' (signatures, details).
        reasoning_apart: Its count of completion tokens leaves out those of the reasoning.
        cost: Where in `usage` it tells the price of the answer: "outer.inner".
        cost_unit: The unit of that price, in US dollars.
        searching: Models with this in their ids search the web for every answer, which costs something beside
            the tokens.
        price_list: The name under which the extra `prices` knows it; None: it has no prices.
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
    reasoning_apart: bool = False
    cost: str | None = None
    cost_unit: float = 1.0
    searching: str = ""
    price_list: str | None = None
