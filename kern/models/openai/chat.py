"""`OpenAIChat`: models behind OpenAI's Chat Completions API, and behind the many compatible servers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

import httpx

from kern._log import named
from kern._secrets import Masked
from kern.errors import ModelBadRequestError, UsageError
from kern.models._body import Reader
from kern.models._http_model import is_host_of, parse_base_url
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.models.openai._chat_decode import ChatReader
from kern.models.openai._chat_encode import encode
from kern.models.openai._model import OpenAIModel
from kern.models.servers import OTHER, SERVERS, SETTINGS, ChatServer, server_at, server_named

log: Final = named("kern.models")

_SETTINGS: Final = sorted(SETTINGS)

# "The `reasoning_content` in the thinking mode must be passed back to the API" (DeepSeek), "thinking is
# enabled but reasoning_content is missing in assistant tool call message at index 2" (Kimi), and their like.
_LACKS_REASONING = re.compile(
    r"reasoning_content\b.*\b(passed back|missing|required)\b|\b(requires?|include) `?reasoning_content",
    re.DOTALL,
)


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAIChat(OpenAIModel):
    """A model behind OpenAI's Chat Completions API, or a compatible server.

    Name a known server, or pass its base URL; `kern.models.servers` lists them. For any other server pass
    `base_url`; it needs no key::

        OpenAIChat("llama3.2", server="ollama")
        OpenAIChat("my-model", base_url="http://localhost:9000/v1")

    Args:
        id: The provider's name of the model.
        server: The name of a server, such as "groq", or its description. None: the server at the host of the
            base URL, or OpenAI.
        api_key: The API key. None: the server's environment variable, read at each request; for OpenAI and
            unknown servers OPENAI_API_KEY. Without a key, an unknown server is asked without one.
        base_url: The server's address. None: its environment variable, for OpenAI OPENAI_BASE_URL, or its
            usual address.
        organization: The id of the OpenAI organization to bill.
        timeout: How many seconds may pass without any data, while the request is sent or the answer is
            awaited, before the attempt fails; None: 600. Connecting may take 10.
        total_timeout: How many seconds the request may take altogether, with all retries and pauses; None: no
            limit.
        max_retries: How often to retry a failed request, where that can help. A broken stream is retried; an
            answer that the provider cut (at max_output_tokens, or by its content filter) is not.
        default_headers: Further headers; they override Kern's own. Their values are as secret as the key,
            unless the header is known to be harmless.
        max_line_bytes, max_answer_bytes: The longest line of a streamed answer, and the longest answer, in
            bytes after decompression; None: any length. A longer one is a `ModelStreamError`, without a
            retry.
        http_client: An `httpx.AsyncClient`, or a client with its interface; Kern uses it as it is and never
            closes it. None: a client that all models of an event loop share.
        temperature, top_p: Sampling settings, for models that support them.
        max_output_tokens: The longest answer, in tokens. An answer that is cut there is a
            `ModelIncompleteError`, without a retry. The field's name in the request depends on the server.
        reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max", as far as the model
            supports them.
        verbosity: How long answers are: "low", "medium" or "high".
        store: Whether OpenAI stores the completion; None leaves it to the server.
        seed: A seed for repeatable answers, as far as the server supports it.
        stop: Up to four texts that end the answer.
        parallel_tool_calls: False: at most one tool call per turn.
        structured_output: How to get a structured answer: "native" if the server enforces a JSON schema,
            "tool", or "none" (see `Model.structured_output`). None: the best way that the server supports.
        extra_body: Fields to add to the body of the request. The lists "tools" (tools of the provider, such
            as {"type": "web_search"}) and "include" are appended to those of the request; "text", "reasoning"
            and "stream_options" are merged into its own; other fields override the settings.
        good_ends: Further finish reasons of a complete answer, beside stop, eos, eos_token, end_turn,
            stop_sequence, tool_calls, tool_use and function_call. Any other is a `ModelStreamError` that
            quotes it. Add an empty text for a server that sends neither a finish reason nor usage.
        price: What its tokens cost; None: the price in the list of the extra `prices`, if it is known there.

    Raises:
        UsageError: A setting has no valid value, or contradicts another.
    """

    server: ChatServer | str | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    structured_output: Literal["native", "tool", "none"] = None  # type: ignore[assignment]  # set below

    _path = "/chat/completions"
    _wants_reasoning: bool = field(default=False, init=False)

    def __post_init__(self, api_key: str | None) -> None:
        super().__post_init__(api_key)
        self._server: ChatServer | None = None
        if self.server is not None:
            self._server = server_named(self.server) if isinstance(self.server, str) else self.server
        elif self.base_url is not None:
            self._server = _server_of(self.base_url)
        facts = self._facts()
        self.provider: str = facts.name
        self.has_choice_none: bool = "none" in facts.tool_choices
        self.tells_cost: bool = facts.cost is not None
        chosen: object = self.structured_output
        if chosen is None:
            self.structured_output = facts.structured_output
            self.structured_beside_tools: bool = facts.schema_beside_tools

    def _facts(self) -> ChatServer:
        """The description of the server."""
        return self._server or _server_of(os.environ.get(OTHER.url_variable) or "")

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        try:
            return await super().respond(request, sink)
        except ModelBadRequestError as error:
            if self._wants_reasoning or not _LACKS_REASONING.search(str(error)):
                raise
            self._wants_reasoning = True
            log.warning("%r: %s; retrying with reasoning in each message", self, error)
        return await super().respond(request, sink)

    def _resolve_base_url(self) -> httpx.URL:
        if self.server is None:
            return super()._resolve_base_url()
        facts = self._facts()
        given = self.base_url or os.environ.get(facts.url_variable) or facts.base_url
        if not given:
            raise UsageError(
                f"{self!r}: {facts.title} has a different address for each customer: "
                f"pass base_url=..., or set the environment variable {facts.url_variable}"
            )
        url = parse_base_url(given)
        if url.path.strip("/"):
            return url
        return url.copy_with(path=facts.path or httpx.URL(facts.base_url or "").path)

    def _is_own(self, host: str) -> bool:
        facts = self._facts()
        if facts is OTHER:
            return False
        own = facts.hosts or (httpx.URL(facts.base_url or "").host,)
        return any(is_host_of(domain, host) for domain in own)

    def _must_have_key(self, host: str) -> bool:
        return self._facts().needs_key and self._is_own(host)

    def _key_names(self) -> tuple[str, ...]:
        names = self._facts().keys
        return names if self.server is not None else (*names, *self.key_variables)

    def _authorization(self, key: Masked) -> dict[str, str]:
        header = self._facts().key_header
        return super()._authorization(key) if header == "authorization" else {header: key}

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        facts = self._facts()
        if request.tools and not facts.tools:
            raise UsageError(
                f"{self!r}: {facts.title} does not support tools ({facts.docs}): remove them from the agent"
            )
        body = encode(request, self._origin(), server=facts, wants_reasoning=self._wants_reasoning)
        for name in _SETTINGS:
            value = getattr(self, name)
            if value is not None and (name != "parallel_tool_calls" or request.tools):
                self._set(body, name, value, facts)
        return body

    def _set(self, body: dict[str, Any], name: str, value: Any, facts: ChatServer) -> None:
        if name not in facts.settings:
            raise UsageError(
                f"{self!r}: {facts.title} does not support the setting {name!r} ({facts.docs}): remove it, "
                "or send it in extra_body if the server supports it by now"
            )
        outer, _, inner = facts.spelled.get(name, name).partition(".")
        body[outer] = {inner: value} if inner else value

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        return ChatReader(self._origin(), sink, streamed=streamed, ends=self._ends, server=self._facts())


@lru_cache(maxsize=256)
def _server_of(base_url: str) -> ChatServer:
    """The server behind a base URL; an empty one stands for OpenAI's own."""
    if not base_url:
        return SERVERS["openai"]
    try:
        host = parse_base_url(base_url).host
    except UsageError:  # raised again at the request
        return OTHER
    return server_at(host) or OTHER
