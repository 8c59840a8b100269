"""Google's Gemini models, behind the Gemini API or Vertex AI."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import httpx

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
"""A token of Google Cloud, or a function, sync or async, that gives the one that is valid now."""


@dataclass(eq=False, repr=False)
class Gemini(HttpModel):
    """A Gemini model behind `generateContent`.

    For Vertex AI say where the project's models are, and how to get a token::

        Gemini(
            "gemini-3-pro-preview",
            base_url="https://europe-west4-aiplatform.googleapis.com/v1/projects/P/locations/europe-west4"
            "/publishers/google",
            access_token=fresh_token,
        )

    Args:
        id: The model's name at Google.
        api_key: None: the environment variable GEMINI_API_KEY, or GOOGLE_API_KEY, read at each request. It
            goes in a header, never in the URL.
        access_token: For Vertex AI, instead of a key: a token, or a function that returns one, asked before
            each request, since tokens last an hour.
        base_url: None: the variable GOOGLE_GEMINI_BASE_URL, or Google itself. What follows it is
            "/models/ID:generateContent".
        timeout: Seconds of silence after which a request is given up, while it is sent and while its answer
            is waited for; None: 600. Connecting gets 10.
        total_timeout: Seconds that a request may take as a whole, its repetitions and the pauses between them
            included; None: any.
        max_retries: How often a failed request is repeated, where that makes sense.
        default_headers: Further headers; they go before Kern's own. Those that are not known to be harmless
            are as secret as the key.
        max_line_bytes, max_answer_bytes: The longest line of a streamed answer, and the longest answer, that
            is taken in; None: any.
        http_client: An `httpx.AsyncClient`, or one with its interface, used as it is and never closed.
        temperature, top_p, top_k: Sampling.
        max_output_tokens: The longest answer, thoughts included; one that is cut by it is a
            `ModelIncompleteError`.
        stop: Up to five texts that end the answer.
        seed: For answers that can be repeated, as far as Google can.
        thinking: How much the model thinks: "minimal", "low", "medium" or "high" for Gemini 3 and later; a
            number of tokens for Gemini 2.5, where 0 is none and -1 leaves it to the model.
        include_thoughts: Have summaries of the thoughts sent: they are the answer's reasoning.
        safety_settings: Thresholds by category, under Google's names:
            {"HARM_CATEGORY_HARASSMENT": "BLOCK_ONLY_HIGH"}.
        structured_output: "tool" or "none" if the model is not to follow a JSON schema by itself. Models
            before Gemini 3 do so only without tools: with tools Kern lets them answer by calling one.
        extra_body: Added to the request's body. The list "tools" is added to the request's;
            "generationConfig" and "toolConfig" are merged into its own; other keys go before what the
            settings say.
        good_ends: Further finish reasons that say that an answer is whole, beside STOP.
        price: What its tokens cost; None: as the list of the extra `prices` knows it.

    Raises:
        UsageError: A setting that cannot work.
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
    key_variables: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    needs_key = "googleapis.com"
    server_tool_api: ClassVar[str | None] = API
    extras: ClassVar[Extras] = Extras(
        {"contents": SAID, "systemInstruction": SYSTEM}, ("tools",), ("generationConfig", "toolConfig")
    )

    def __post_init__(self, api_key: str | None, access_token: AccessToken | None) -> None:
        super().__post_init__(api_key)
        if api_key is not None and access_token is not None:
            raise UsageError("Gemini takes an api_key or an access_token, not both")
        self.structured_beside_tools: bool = wants_signatures(self.id)
        self._token: Masked | None = Masked(access_token.strip()) if isinstance(access_token, str) else None
        self._fresh_token = None if isinstance(access_token, str) else access_token

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
    """The token that is valid now; a sync function may ask for it over the network, and runs in a thread."""
    if inspect.iscoroutinefunction(fresh):
        return Masked((await fresh()).strip())
    token = await asyncio.to_thread(fresh)
    if inspect.isawaitable(token):
        token = await token
    return Masked(token.strip())
