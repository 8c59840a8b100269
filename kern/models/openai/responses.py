"""OpenAI's Responses API."""

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
"""Models of OpenAI's that answer "Encrypted content is not supported with this model"."""

_BROKEN_PAIR = re.compile(
    r"without its required (following|'reasoning') item|Item with id .* not found|"
    r"Duplicate item found with id|Expected an ID that begins with"
)
"""How OpenAI refuses items under ids that do not fit together."""


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAIResponses(OpenAIModel):
    """A model behind OpenAI's Responses API, or a server that speaks it.

    The whole conversation is sent with every request, and nothing is stored at OpenAI (`store=False`): a
    session is the application's own, outlives OpenAI's 30 days, and a changed system message takes effect.
    The model's reasoning goes back to it in encrypted form
    (https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items). With `store=False` every
    request asks for that form, unless the model's name is one of OpenAI's that do not reason and refuse the
    question (gpt-4o, gpt-4.1 and older, gpt-5-chat). A model that refuses it all the same, such as a
    deployment under a name of its own, is asked once more without, and so are later requests.

    Args:
        id: The model's name at the provider.
        api_key: None: the environment variable OPENAI_API_KEY, read at each request. A server other than
            OpenAI's own is asked without a key if there is none.
        base_url: Such as "http://localhost:8000/v1"; None: the variable OPENAI_BASE_URL, or OpenAI itself.
        organization: The OpenAI organization that pays.
        timeout: Seconds of silence after which a request is given up, while it is sent and while its answer
            is waited for; None: 600. Connecting gets 10.
        total_timeout: Seconds that a request may take as a whole, its repetitions and the pauses between them
            included, however much comes in that time; None: any.
        max_retries: How often a failed request is repeated, where that makes sense: a stream that breaks off
            is, an answer that the provider itself has cut (at max_output_tokens, or by its content filter)
            is not.
        default_headers: Further headers; they go before Kern's own. Those that are not known to be harmless
            are as secret as the key.
        max_line_bytes, max_answer_bytes: The longest line of a streamed answer, and the longest answer, that
            is taken in, after decompression; None: any. A longer one is a `ModelStreamError`, and is not
            asked for again.
        http_client: An `httpx.AsyncClient`, or one with its interface, used as it is and never closed. None:
            clients that all models of an event loop share.
        temperature, top_p: Sampling, for models that take it.
        max_output_tokens: The longest answer, reasoning included; an answer that is cut by it is a
            `ModelIncompleteError`, and is not asked for again.
        reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max", as the model allows.
        reasoning_summary: Asks for a summary of the reasoning: "auto", "concise" or "detailed".
        verbosity: How long answers are.
        store: Whether OpenAI keeps the response.
        use_previous_response: Send only what follows the model's last answer, with the id of that answer
            (`previous_response_id`): OpenAI has the rest, with store=True. Where it does not find the answer
            any more, the whole conversation is sent.
        parallel_tool_calls: False: at most one call per turn.
        structured_output: "none" if the server does not enforce a JSON schema.
        extra_body: Added to the request's body. The lists "tools" (the provider's own, such as
            {"type": "web_search"}) and "include" are added to those of the request, "text", "reasoning" and
            "stream_options" are merged into its own; other keys go before what the settings say.
        good_ends: Statuses of the server's own that say that an answer is whole, beside "completed". Any
            other word is a `ModelStreamError` that quotes it.
        price: What its tokens cost; None: as the list of the extra `prices` knows it.

    Raises:
        UsageError: A setting that cannot work.
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
            raise UsageError("use_previous_response needs store=True: OpenAI has to keep the answers")

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        while True:
            try:
                return await super().respond(request, sink)
            except ModelBadRequestError as error:
                plainer = self._plainer(request, error)
                if plainer is None:
                    raise
                log.warning("%r: %s; asked again without what was refused", self, error)
                request = plainer

    def _plainer(self, request: ModelRequest, error: ModelBadRequestError) -> ModelRequest | None:
        """The request without what of earlier answers was refused; None if something else was."""
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
