"""`Gemini`: Google's models behind the Gemini API or Vertex AI."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import httpx

from kern._numbers import check_whole
from kern._secrets import Masked
from kern.errors import UsageError
from kern.messages import Origin
from kern.models._body import Reader
from kern.models._extra import SAID, SYSTEM, Extras
from kern.models._http_model import HttpModel, endpoint
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.models.google._contents import PROVIDER
from kern.models.google._decode import GeminiReader
from kern.models.google._encode import encode
from kern.models.google.generation import wants_signatures
from kern.models.google.tools import API

AccessToken = str | Callable[[], str | Awaitable[str]]
"""An access token of Google Cloud, or a function, sync or async, that returns a valid one."""


@dataclass(eq=False, repr=False)
class Gemini(HttpModel):
    """A Gemini model behind Google's `generateContent` API.

    For Vertex AI pass the address of the project's models, and an access token::

        Gemini(
            "gemini-3-pro-preview",
            base_url="https://europe-west4-aiplatform.googleapis.com/v1/projects/P/locations/europe-west4"
            "/publishers/google",
            access_token=fresh_token,
        )

    Args:
        id: Google's name of the model.
        api_key: The API key. None: the environment variable GEMINI_API_KEY or GOOGLE_API_KEY, read at each
            request. It is sent in a header, never in the URL.
        access_token: For Vertex AI, instead of a key: a token, or a function that returns one. The function
            is called before each request, since tokens expire after an hour.
        base_url: The address before "/models/ID:generateContent"; None: the variable GOOGLE_GEMINI_BASE_URL,
            or GOOGLE_BASE_URL, or Google.
        timeout: How many seconds may pass without any data, while the request is sent or the answer is
            awaited, before the attempt fails; None: 600. Connecting may take 10.
        total_timeout: How many seconds the request may take altogether, with all retries and pauses; None: no
            limit.
        max_retries: How often to retry a failed request, where that can help.
        default_headers: Further headers; they override Kern's own. Their values are as secret as the key,
            unless the header is known to be harmless.
        max_line_bytes, max_answer_bytes: The longest line of a streamed answer, and the longest answer, in
            bytes after decompression; None: any length. A longer one is a `ModelStreamError`, without a
            retry.
        http_client: An `httpx.AsyncClient`, or a client with its interface; Kern uses it as it is and never
            closes it. None: a client that all models of an event loop share.
        temperature, top_p, top_k: Sampling settings.
        max_output_tokens: The longest answer in tokens, thoughts included. An answer that is cut there is a
            `ModelIncompleteError`, without a retry.
        stop: Up to five texts that end the answer.
        seed: A seed for repeatable answers, as far as the server supports it.
        thinking: How much the model thinks: "minimal", "low", "medium" or "high" for Gemini 3 and later; for
            Gemini 2.5 a number of tokens, where 0 means none and -1 leaves it to the model.
        include_thoughts: Receive summaries of the thoughts, as the reasoning of the answer.
        safety_settings: Thresholds by category, under Google's names: {"HARM_CATEGORY_HARASSMENT":
            "BLOCK_ONLY_HIGH"}.
        structured_output: "tool" or "none" if the model should not enforce a JSON schema itself. Models
            before Gemini 3 do so only without tools; with tools Kern gets the answer as a tool call.
        extra_body: Fields to add to the body of the request. The list "tools" is appended to that of the
            request; "generationConfig" and "toolConfig" are merged into its own; other fields override the
            settings.
        good_ends: Further finish reasons of a complete answer, beside STOP.
        price: What its tokens cost; None: the price in the list of the extra `prices`, if it is known there.

    Raises:
        UsageError: A setting has no valid value, or contradicts another.
    """

    id: str = "gemini-flash-latest"
    _: KW_ONLY
    access_token: InitVar[AccessToken | None] = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    stop: str | Sequence[str] | None = None
    seed: int | None = None
    thinking: Literal["minimal", "low", "medium", "high"] | int | None = None
    include_thoughts: bool | None = None
    safety_settings: Mapping[str, str] | None = None
    structured_output: Literal["native", "tool", "none"] = "native"

    provider = PROVIDER
    example_id = "gemini-flash-latest"
    default_base_url = "https://generativelanguage.googleapis.com/v1beta"
    base_url_variable = "GOOGLE_GEMINI_BASE_URL"
    other_url_variables = ("GOOGLE_BASE_URL",)
    key_variables: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    needs_key = "googleapis.com"
    server_tool_api: ClassVar[str | None] = API
    extras: ClassVar[Extras] = Extras(
        {"contents": SAID, "systemInstruction": SYSTEM}, ("tools",), ("generationConfig", "toolConfig")
    )

    def __post_init__(self, api_key: str | None, access_token: AccessToken | None) -> None:
        super().__post_init__(api_key)
        if api_key is not None and access_token is not None:
            raise UsageError("Gemini: pass an api_key or an access_token, not both")
        if self.thinking is not None and not isinstance(self.thinking, str):
            check_whole("thinking", self.thinking, -1)
        self.structured_beside_tools: bool = wants_signatures(self.id)
        self._token: Masked | None = Masked(access_token.strip()) if isinstance(access_token, str) else None
        self._fresh_token = None if isinstance(access_token, str) else access_token
        if self._fresh_token is not None and not callable(self._fresh_token):
            raise UsageError("access_token must be a str, or a function that returns one")

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        if self._fresh_token is None:
            return await super().respond(request, sink)
        asked = copy.copy(self)
        asked._token, asked._fresh_token = await _token_of(self._fresh_token), None
        return await asked.respond(request, sink)

    def _endpoint(self, base_url: httpx.URL, request: ModelRequest) -> httpx.URL:
        name = self.id if "/" in self.id else f"models/{self.id}"
        path = f"/{quote(name, safe='/')}"
        if not request.stream:
            return endpoint(base_url, f"{path}:generateContent")
        return endpoint(base_url, f"{path}:streamGenerateContent").copy_merge_params({"alt": "sse"})

    def _payload(self, request: ModelRequest, base_url: httpx.URL) -> dict[str, Any]:
        body = encode(request, self.id, vertex=base_url.host.endswith("aiplatform.googleapis.com"))
        if config := {**self._generation_config(), **body.pop("generationConfig", {})}:
            body["generationConfig"] = config
        if self.safety_settings:
            body["safetySettings"] = [
                {"category": category, "threshold": threshold}
                for category, threshold in self.safety_settings.items()
            ]
        return body

    def _generation_config(self) -> dict[str, Any]:
        thinking: dict[str, Any] = {}
        if self.thinking is not None:
            thinking["thinkingLevel" if isinstance(self.thinking, str) else "thinkingBudget"] = self.thinking
        if self.include_thoughts is not None:
            thinking["includeThoughts"] = self.include_thoughts
        settings = {
            "temperature": self.temperature,
            "topP": self.top_p,
            "topK": self.top_k,
            "maxOutputTokens": self.max_output_tokens,
            "stopSequences": [self.stop] if isinstance(self.stop, str) else self.stop,
            "seed": self.seed,
            "thinkingConfig": thinking or None,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        return GeminiReader(Origin(PROVIDER, self.id), sink, streamed=streamed, ends=self._ends)

    def _key(self) -> Masked:
        return super()._key() if self._token is None else self._token

    def _authorization(self, key: Masked) -> dict[str, str]:
        by_token = self._token is not None or any(
            name.lower() == "authorization" for name in self.default_headers or ()
        )
        return {"authorization": Masked(f"Bearer {key}")} if by_token else {"x-goog-api-key": key}


async def _token_of(fresh: Callable[[], str | Awaitable[str]]) -> Masked:
    """A valid token; a sync function runs in a thread, since it may use the network."""
    if inspect.iscoroutinefunction(fresh):
        return Masked((await fresh()).strip())
    token = await asyncio.to_thread(fresh)
    if inspect.isawaitable(token):
        token = await token
    return Masked(token.strip())
