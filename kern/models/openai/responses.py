"""`OpenAIResponses`: models behind OpenAI's Responses API."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

from kern._log import named
from kern.errors import ModelBadRequestError, UsageError
from kern.models._body import Reader
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.models.openai._model import OpenAIModel
from kern.models.openai._responses_decode import ResponsesReader
from kern.models.openai._responses_encode import encode
from kern.models.openai.server_tools import API

log: Final = named("kern.models")

_NO_REASONING = re.compile(r"(openai/|ft:)*(gpt-3|gpt-4|chatgpt-|gpt-5(\.\d+)?-chat)")
"""OpenAI's models that answer "Encrypted content is not supported with this model"."""

_BROKEN_PAIR = re.compile(
    r"without its required (following|'reasoning') item|Item with id .* not found|"
    r"Duplicate item found with id|Expected an ID that begins with"
)
"""OpenAI's errors for items whose ids do not belong together."""


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAIResponses(OpenAIModel):
    """A model behind OpenAI's Responses API, or a compatible server.

    Every request sends the whole conversation, and OpenAI stores nothing (`store=False`): so sessions belong
    to the application, outlive OpenAI's 30 days, and a changed system message takes effect. The model's
    reasoning is sent back to it in encrypted form
    (https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items). With `store=False` every
    request asks for that form, except for models that do not reason and reject the request, which Kern knows
    by name (gpt-4o, gpt-4.1 and older, gpt-5-chat). If another model rejects it, such as a deployment with a
    name of its own, Kern repeats the request without it, and omits it from then on.

    Args:
        id: The provider's name of the model.
        api_key: The API key. None: the environment variable OPENAI_API_KEY, read at each request. Without a
            key, a server other than OpenAI's is asked without one.
        base_url: The address, such as "http://localhost:8000/v1"; None: the variable OPENAI_BASE_URL, or
            OpenAI.
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
        max_output_tokens: The longest answer in tokens, reasoning included. An answer that is cut there is a
            `ModelIncompleteError`, without a retry.
        reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max", as far as the model
            supports them.
        reasoning_summary: Ask for a summary of the reasoning: "auto", "concise" or "detailed".
        verbosity: How long answers are: "low", "medium" or "high".
        store: Whether OpenAI stores the response.
        use_previous_response: Send only what follows the model's last answer, with the id of that answer
            (`previous_response_id`); OpenAI has the rest, since store=True is required. If OpenAI no longer
            has the answer, the whole conversation is sent.
        parallel_tool_calls: False: at most one tool call per turn.
        structured_output: "none" if the server does not enforce a JSON schema.
        extra_body: Fields to add to the body of the request. The lists "tools" (tools of the provider, such
            as {"type": "web_search"}) and "include" are appended to those of the request; "text", "reasoning"
            and "stream_options" are merged into its own; other fields override the settings.
        good_ends: Further statuses of a complete answer, beside "completed". Any other is a
            `ModelStreamError` that quotes it.
        price: What its tokens cost; None: the price in the list of the extra `prices`, if it is known there.

    Raises:
        UsageError: A setting has no valid value, or contradicts another.
    """

    reasoning_summary: Literal["auto", "concise", "detailed"] | None = None
    store: bool | None = False
    use_previous_response: bool = False

    server_tool_api: ClassVar[str | None] = API
    _path: ClassVar[str] = "/responses"
    _asks_for_reasoning: bool = field(default=True, init=False)

    def __post_init__(self, api_key: str | None) -> None:
        super().__post_init__(api_key)
        if self.use_previous_response and self.store is False:
            raise UsageError("use_previous_response needs store=True, so that OpenAI keeps the answers")

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        while True:
            try:
                return await super().respond(request, sink)
            except ModelBadRequestError as error:
                plainer = self._plainer(request, error)
                if plainer is None:
                    raise
                log.warning("%r: %s; retrying without what was refused", self, error)
                request = plainer

    def _plainer(self, request: ModelRequest, error: ModelBadRequestError) -> ModelRequest | None:
        """The request without the data of earlier answers that OpenAI refused; None if it refused other
        data.
        """
        messages = list(request.messages)
        if error.code == "previous_response_not_found":
            messages = [replace(message, provider_data=None) for message in messages]
            return replace(request, messages=messages) if messages != list(request.messages) else None
        # Reasoning of another organization or deployment, gone from the store, or damaged.
        if error.code == "invalid_encrypted_content" or _BROKEN_PAIR.search(str(error)):
            messages = [message.plain() for message in messages]
            return replace(request, messages=messages) if messages != list(request.messages) else None
        if self._asks_for_reasoning and "encrypted content is not supported" in str(error).lower():
            self._asks_for_reasoning = False
            return request
        return None

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        body = encode(
            request,
            self._origin(),
            stored=self.store is not False,
            chained=self.use_previous_response,
        )
        for name in ("temperature", "top_p", "store"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.store is False and self._asks_for_reasoning and not _NO_REASONING.match(self.id):
            body["include"] = [*body.get("include", ()), "reasoning.encrypted_content"]
        if self.max_output_tokens is not None:
            body["max_output_tokens"] = self.max_output_tokens
        reasoning = {"effort": self.reasoning_effort, "summary": self.reasoning_summary}
        if reasoning := {name: value for name, value in reasoning.items() if value is not None}:
            body["reasoning"] = reasoning
        if self.verbosity is not None:
            body.setdefault("text", {})["verbosity"] = self.verbosity
        if self.parallel_tool_calls is not None and request.tools:
            body["parallel_tool_calls"] = self.parallel_tool_calls
        return body

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        structured = request.response_format is not None
        return ResponsesReader(
            self._origin(),
            sink,
            streamed=streamed,
            ends=self._ends,
            structured=structured,
            chained=self.use_previous_response,
        )
