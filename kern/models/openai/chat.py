"""OpenAI's Chat Completions API, and the many servers that speak it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kern._log import named
from kern.errors import ModelBadRequestError
from kern.models._body import Reader
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.models.openai._chat_decode import ChatReader
from kern.models.openai._chat_encode import encode
from kern.models.openai._model import OpenAIModel

log: Final = named("kern.models")

# "The `reasoning_content` in the thinking mode must be passed back to the API" (DeepSeek), "thinking is
# enabled but reasoning_content is missing in assistant tool call message at index 2" (Kimi), and their like.
_LACKS_REASONING = re.compile(
    r"reasoning_content\b.*\b(passed back|missing|required)\b|\b(requires?|include) `?reasoning_content",
    re.DOTALL,
)


@dataclass(eq=False, repr=False, kw_only=True)
class OpenAIChat(OpenAIModel):
    """A model behind the Chat Completions API of OpenAI, or of a server that speaks it.

    Of Ollama, vLLM, llama.cpp, LM Studio and others say where they are; a key is not needed::

        OpenAIChat("llama3.2", base_url="http://localhost:11434/v1")

    Args:
        id: The model's name at the provider.
        api_key: None: the environment variable OPENAI_API_KEY, read at each request. A server other than
            OpenAI's own is asked without a key if there is none.
        base_url: None: the variable OPENAI_BASE_URL, or OpenAI itself.
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
        max_output_tokens: The longest answer; one that is cut by it is a `ModelIncompleteError`, and is not
            asked for again. Goes out as `max_completion_tokens` to OpenAI, as `max_tokens` to other servers.
        reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max", as the model allows.
        verbosity: How long answers are.
        store: Whether OpenAI keeps the completion; None leaves it to the server.
        seed: For answers that can be repeated, where the server honours it.
        stop: Up to four texts that end the answer.
        parallel_tool_calls: False: at most one call per turn.
        structured_output: "none" if the server does not enforce a JSON schema.
        extra_body: Added to the request's body. The lists "tools" (the provider's own, such as
            {"type": "web_search"}) and "include" are added to those of the request, "text", "reasoning" and
            "stream_options" are merged into its own; other keys go before what the settings say.
        good_ends: Finish reasons of the server's own that say that an answer is whole, beside stop, eos,
            end_turn, stop_sequence, tool_calls, tool_use and function_call. Any other word is a
            `ModelStreamError` that quotes it. An empty text stands for a server that gives no finish reason.

    Raises:
        UsageError: A setting that cannot work.
    """

    seed: int | None = None
    stop: str | Sequence[str] | None = None

    _path = "/chat/completions"
    _wants_reasoning: bool = field(default=False, init=False)

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        try:
            return await super().respond(request, sink)
        except ModelBadRequestError as error:
            if self._wants_reasoning or not _LACKS_REASONING.search(str(error)):
                raise
            self._wants_reasoning = True
            log.warning("%r: %s; asked again with reasoning in each message", self, error)
        return await super().respond(request, sink)

    def _body(self, request: ModelRequest, *, official: bool) -> dict[str, Any]:
        body = encode(request, self.id, official=official, wants_reasoning=self._wants_reasoning)
        body.update(self._sampling())
        if self.max_output_tokens is not None:
            body["max_completion_tokens" if official else "max_tokens"] = self.max_output_tokens
        for name in ("reasoning_effort", "verbosity", "seed", "stop"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.parallel_tool_calls is not None and request.tools:
            body["parallel_tool_calls"] = self.parallel_tool_calls
        return body

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        return ChatReader(self.id, sink, streamed=streamed, ends=self._ends)
