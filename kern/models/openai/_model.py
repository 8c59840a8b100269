"""What the two OpenAI models share: settings, address, key, and the request itself."""

from __future__ import annotations

import asyncio
import copy
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import httpx
from pydantic import SecretStr

from kern._json import json_bytes
from kern._secrets import Masked
from kern._version import __version__
from kern.errors import MissingKeyError, UsageError
from kern.models._body import MAX_ANSWER_BYTES, MAX_LINE_BYTES, Bounds, Reader
from kern.models._ends import Ends
from kern.models._failures import Origin
from kern.models._headers import check_header, secrets_of, user_headers
from kern.models._transport import HttpClient, Post, send
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.models.openai._extra import add_extra, check_extra
from kern.models.openai._media import has_media

_DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass(eq=False, repr=False)
class OpenAIModel(Model):
    """The common part of `OpenAIResponses` and `OpenAIChat`; their docstrings list the settings."""

    id: str = "gpt-5.2"
    _: KW_ONLY
    api_key: InitVar[str | None] = None
    base_url: str | None = None
    organization: str | None = None
    timeout: float | None = None
    total_timeout: float | None = None
    max_retries: int = 2
    default_headers: Mapping[str, str] | None = None
    max_line_bytes: int | None = MAX_LINE_BYTES
    max_answer_bytes: int | None = MAX_ANSWER_BYTES
    http_client: HttpClient | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    store: bool | None = None
    parallel_tool_calls: bool | None = None
    structured_output: Literal["native", "tool", "none"] = "native"
    extra_body: Mapping[str, Any] | None = None
    good_ends: Sequence[str] = ()

    provider = "openai"
    _path: ClassVar[str]

    def __post_init__(self, api_key: str | None) -> None:
        if not self.id:
            raise UsageError("a model's id is a text such as 'gpt-5.2'")
        if self.max_retries < 0:
            raise UsageError("max_retries is 0 or more")
        for name in ("timeout", "total_timeout", "max_line_bytes", "max_answer_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                unit = "seconds" if "timeout" in name else "bytes"
                raise UsageError(f"{name} is in {unit}, and more than 0, unlike {value!r}")
        if self.extra_body:
            check_extra(self.extra_body)
        if self.base_url is not None:
            _parse_base_url(self.base_url)
        self._ends = Ends(self.good_ends)
        self._api_key = None if api_key is None else SecretStr(api_key)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The copy uses the same `http_client`, whose connections are no part of the definition."""
        memo[id(self)] = twin = copy.copy(self)
        for name, value in vars(self).items():
            if name != "http_client":
                setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        base_url = self._resolve_base_url()
        headers, secrets = self._headers(base_url, stream=request.stream)
        if any(has_media(message) for message in request.messages):
            body = await asyncio.to_thread(self._encode, request, base_url)
        else:
            body = self._encode(request, base_url)
        port = f":{base_url.port}" if base_url.port else ""
        post = Post(
            url=_endpoint(base_url, self._path),
            headers=headers,
            body=body,
            origin=Origin(self.provider, self.id, base_url.host + port, secrets),
            timeout=self.timeout,
            max_retries=self.max_retries,
            client=self.http_client,
            total_timeout=self.total_timeout,
            bounds=Bounds(self.max_line_bytes, self.max_answer_bytes),
        )
        pieces = sink if request.stream else None
        return await send(post, lambda streamed: self._reader(request, pieces, streamed=streamed), sink)

    @abstractmethod
    def _body(self, request: ModelRequest, *, official: bool) -> dict[str, Any]:
        """The request on the wire, without `stream` and `extra_body`. May read files.

        `official`: OpenAI itself, or Azure, is asked, and not a server that speaks its protocol.
        """

    @abstractmethod
    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        """The reader of one answer."""

    def _encode(self, request: ModelRequest, base_url: httpx.URL) -> bytes:
        body = self._body(request, official=_is_official(base_url.host))
        if request.stream:
            body["stream"] = True
        if self.extra_body:
            add_extra(body, self.extra_body)
        try:
            return json_bytes(body)
        except ValueError as error:
            raise UsageError(f"the request cannot be written as JSON: {error}") from error

    def _sampling(self) -> dict[str, Any]:
        """The settings that both protocols have under the same names."""
        names = ("temperature", "top_p", "store")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _resolve_base_url(self) -> httpx.URL:
        return _parse_base_url(self.base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_BASE_URL)

    def _headers(self, base_url: httpx.URL, *, stream: bool) -> tuple[dict[str, str], tuple[str, ...]]:
        """The request's headers, and what of them must never be shown."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            "user-agent": f"kern/{__version__}",
        }
        if stream:
            headers["accept-encoding"] = "identity"  # a compressed stream comes in lumps
        given: dict[str, str] = {}
        if key := self._key():
            given["authorization"] = Masked(f"Bearer {key}")
        if self.organization:
            given["openai-organization"] = self.organization
        given |= user_headers(self.default_headers)
        if "authorization" not in given and _is_openai(base_url.host):
            raise MissingKeyError(
                f"{self!r} has no API key: set the environment variable OPENAI_API_KEY, or pass api_key=..."
            )
        for name, value in given.items():
            check_header(name, value)
        return headers | given, (key, *secrets_of(given, base_url))

    def _key(self) -> Masked:
        if self._api_key is not None:
            return Masked(self._api_key.get_secret_value().strip())
        return Masked(os.environ.get("OPENAI_API_KEY", "").strip())


@lru_cache(maxsize=64)
def _parse_base_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise UsageError("base_url is no valid URL") from None
    if url.userinfo:
        raise UsageError("base_url holds a user name or password, which logs would show: use default_headers")
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"base_url starts with https:// or http:// and a host, unlike {text!r}")
    return url


@lru_cache(maxsize=64)
def _endpoint(base_url: httpx.URL, path: str) -> httpx.URL:
    return base_url.copy_with(path=base_url.path.rstrip("/") + path)


def _is_openai(host: str) -> bool:
    return host == "openai.com" or host.endswith(".openai.com")


def _is_official(host: str) -> bool:
    return _is_openai(host) or host.endswith(".openai.azure.com")
