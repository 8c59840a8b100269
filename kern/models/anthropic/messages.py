"""`AnthropicMessages`: Claude models behind Anthropic's Messages API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

import httpx

from kern._log import named
from kern._secrets import Masked
from kern.errors import ModelBadRequestError, UsageError
from kern.messages import CacheMark
from kern.models._body import Reader
from kern.models._claude_refusals import refuses_schema, without_forced_choice, without_refused_reasoning
from kern.models._extra import SYSTEM, Extras
from kern.models._failures import Origin
from kern.models._http_model import HttpModel, endpoint
from kern.models.anthropic._blocks import PROVIDER
from kern.models.anthropic._decode import MessagesReader
from kern.models.anthropic._encode import Options, encode
from kern.models.anthropic._media import is_uploaded
from kern.models.anthropic.tools import API, AnthropicTool, MCPServer
from kern.models.base import DeltaSink, ModelRequest, ModelResponse

log: Final = named("kern.models")

VERSION = "2023-06-01"
"""The version of the API that Kern uses. A later one (2026-10-21) supports no sampling settings."""

_BETA = "anthropic-beta"
_FILES_BETA = "files-api-2025-04-14"
_LEAST_BUDGET = 1024
_ANSWER_TOKENS = 16_384
# Older models with a lower limit of output tokens.
_SHORT_ANSWERS = (
    (re.compile(r"claude-(3-(opus|sonnet|haiku)|2|instant)"), 4096),
    (re.compile(r"claude-3-5"), 8192),
)
# Models that cannot enforce a schema: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
_UNSTRUCTURED = re.compile(r"claude-(2|3|instant|(opus|sonnet)-4(-0|[-@]20\d{6})?(?![-.]?\d))")


@dataclass(eq=False, repr=False)
class AnthropicMessages(HttpModel):
    """A Claude model behind Anthropic's Messages API, or a compatible server.

    Args:
        id: The name of the model, such as "claude-sonnet-4-6".
        api_key: The API key. None: the environment variable ANTHROPIC_API_KEY, read at each request. Without
            a key, a server other than Anthropic's is asked without one.
        base_url: The address, with or without "/v1"; None: the variable ANTHROPIC_BASE_URL, or Anthropic.
        timeout: How many seconds may pass without any data, while the request is sent or the answer is
            awaited, before the attempt fails; None: 600. Connecting may take 10.
        total_timeout: How many seconds the request may take altogether, with all retries and pauses; None: no
            limit.
        max_retries: How often to retry a failed request, where that can help. An overloaded service (529) and
            a broken stream are retried; an answer that was cut at max_output_tokens is not.
        default_headers: Further headers, such as "anthropic-beta"; they override Kern's own. Their values are
            as secret as the key, unless the header is known to be harmless.
        max_line_bytes, max_answer_bytes: The longest line of a streamed answer, and the longest answer, in
            bytes after decompression; None: any length. A longer one is a `ModelStreamError`, without a
            retry.
        http_client: An `httpx.AsyncClient`, or a client with its interface; Kern uses it as it is and never
            closes it. None: a client that all models of an event loop share.
        max_output_tokens: The longest answer in tokens, thinking included; the API requires one in every
            request. None: 16,384 tokens in addition to the thinking budget, or the limit of an older model.
        temperature, top_p, top_k: Sampling settings, for models that support them.
        stop: Texts that end the answer.
        thinking: "adaptive": the model decides when to think. A number: a budget in tokens, at least 1,024.
            "disabled": no thinking. None leaves it to the service. Beside a budget, a model cannot be forced
            to call a tool: such a `tool_choice` becomes "auto".
        show_thinking: Whether to receive the thinking as text, or only its signature; None leaves it to the
            service.
        reasoning_effort: "low", "medium", "high", "xhigh" or "max", as far as the model supports them.
        parallel_tool_calls: False: at most one tool call per turn.
        cache: How long the service caches the beginning of the prompt for later requests: "5m" or "1h". Kern
            puts cache marks after the tools and the system text, and at the end of the conversation. None:
            only the marks of messages, tools and files (`cache=...`). The service accepts four marks; the
            last four count.
        citations: Let answers cite the documents of the prompt. Not possible together with an
            `output_schema`.
        structured_output: "native": the model enforces a schema. A model that cannot, by its name, answers
            with a tool call ("tool"). If the service cannot enforce a schema, the prompt asks for it, and a
            tool with such a schema is not strict.
        service_tier: "auto" or "standard_only".
        extra_body: Fields to add to the body of the request. The list "tools" is appended to that of the
            request; "output_config", "thinking" and "metadata" are merged into its own; other fields override
            the settings.
        good_ends: Further stop reasons of a complete answer.

    Raises:
        UsageError: A setting has no valid value, or contradicts another.
    """

    id: str = "claude-sonnet-4-6"
    _: KW_ONLY
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | Sequence[str] | None = None
    thinking: Literal["adaptive", "disabled"] | int | None = None
    show_thinking: bool | None = None
    reasoning_effort: str | None = None
    parallel_tool_calls: bool | None = None
    cache: CacheMark | None = "5m"
    citations: bool = False
    structured_output: Literal["native", "tool", "none"] = "native"
    service_tier: Literal["auto", "standard_only"] | None = None

    provider = PROVIDER
    server_tool_api: ClassVar[str | None] = API
    example_id = "claude-sonnet-4-6"
    default_base_url = "https://api.anthropic.com/v1"
    base_url_variable = "ANTHROPIC_BASE_URL"
    key_variables: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY",)
    needs_key = "anthropic.com"
    extras: ClassVar[Extras] = Extras(
        {"system": SYSTEM}, ("tools",), ("output_config", "thinking", "metadata")
    )

    _strict: bool = field(default=True, init=False)

    def __post_init__(self, api_key: str | None) -> None:
        super().__post_init__(api_key)
        if self.structured_output == "native" and _UNSTRUCTURED.search(self.id):
            self.structured_output = "tool"
        budget = self.thinking
        if isinstance(budget, bool | float) or (isinstance(budget, int) and budget < _LEAST_BUDGET):
            raise UsageError(
                f"thinking must be at least {_LEAST_BUDGET} tokens, 'adaptive' or 'disabled', not {budget!r}"
            )
        if isinstance(budget, str) and budget not in ("adaptive", "disabled"):
            raise UsageError(f"thinking must be 'adaptive', 'disabled' or a number of tokens, not {budget!r}")
        longest = self.max_output_tokens
        if isinstance(budget, int) and longest is not None and longest <= budget:
            raise UsageError(
                f"max_output_tokens must exceed the thinking budget ({budget}), which it includes, "
                f"but is {longest}"
            )
        if self.cache not in (None, "5m", "1h"):
            raise UsageError(f"cache must be '5m', '1h' or None, not {self.cache!r}")

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        for _ in range(2):
            try:
                return await super().respond(request, sink)
            except ModelBadRequestError as error:
                plainer = self._plainer(request, error)
                if plainer is None:
                    raise
                request = plainer
        return await super().respond(request, sink)

    def _plainer(self, request: ModelRequest, error: ModelBadRequestError) -> ModelRequest | None:
        """The request without what the service refused; None if it cannot be left out."""
        text = str(error)
        if self._strict and refuses_schema(request, text):
            self._strict = False
            log.warning("%r: %s; retrying without strict schemas", self, error)
            return request
        if (free := without_forced_choice(request, text)) is not None:
            log.warning("%r: %s; retrying with a free choice of tools", self, error)
            return free
        plainer = without_refused_reasoning(request, text)
        if plainer is not None:
            log.warning("%r: %s; retrying without earlier thinking", self, error)
        return plainer

    def _payload(self, request: ModelRequest, base_url: httpx.URL) -> dict[str, Any]:
        options = Options(
            cache=self.cache,
            citations=self.citations,
            thinking=self._thinking(),
            parallel=self.parallel_tool_calls,
            strict=self._strict,
        )
        body = {"model": self.id, "max_tokens": self.longest_answer(), **encode(request, options)}
        for name in ("temperature", "top_p", "top_k", "service_tier"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if self.stop is not None:
            body["stop_sequences"] = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        if self.reasoning_effort is not None:
            body.setdefault("output_config", {})["effort"] = self.reasoning_effort
        if request.stream:
            body["stream"] = True
        return body

    def _thinking(self) -> dict[str, Any] | None:
        wanted = self.thinking
        if wanted is None or wanted == "disabled":
            return None if wanted is None else {"type": "disabled"}
        said: dict[str, Any] = {"type": "adaptive"}
        if isinstance(wanted, int):
            said = {"type": "enabled", "budget_tokens": wanted}
        if self.show_thinking is not None:
            said["display"] = "summarized" if self.show_thinking else "omitted"
        return said

    def longest_answer(self) -> int:
        """The most tokens that an answer may have; the API requires the number in every request."""
        if self.max_output_tokens is not None:
            return self.max_output_tokens
        most = next((most for names, most in _SHORT_ANSWERS if names.search(self.id)), _ANSWER_TOKENS)
        return most + (self.thinking if isinstance(self.thinking, int) else 0)

    def _headers(self, base_url: httpx.URL, request: ModelRequest) -> tuple[dict[str, str], Origin]:
        headers, origin = super()._headers(base_url, request)
        betas = [tool.beta for tool in request.server_tools if isinstance(tool, AnthropicTool) and tool.beta]
        if any(is_uploaded(media) for message in request.messages for media in message.media):
            betas.append(_FILES_BETA)
        if betas:
            given = headers.get(_BETA, "").split(",")
            headers[_BETA] = ",".join(dict.fromkeys(filter(None, (*given, *betas))))
        tokens = [tool.token for tool in request.server_tools if isinstance(tool, MCPServer) and tool.token]
        return headers, replace(origin, secrets=(*origin.secrets, *tokens)) if tokens else origin

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        return MessagesReader(self.id, sink, streamed=streamed, ends=self._ends)

    def _endpoint(self, base_url: httpx.URL, request: ModelRequest) -> httpx.URL:
        return endpoint(
            base_url, "/messages" if base_url.path.rstrip("/").endswith("/v1") else "/v1/messages"
        )

    def _authorization(self, key: Masked) -> dict[str, str]:
        return {"x-api-key": key}

    def _own_headers(self, request: ModelRequest) -> dict[str, str]:
        return {"anthropic-version": VERSION}
