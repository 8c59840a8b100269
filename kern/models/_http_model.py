"""The base class of models that call a provider over HTTP: settings, address, key, and the request."""

from __future__ import annotations

import asyncio
import copy
import os
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import httpx
from pydantic import SecretStr

from kern._json import json_bytes
from kern._keywords import ChecksArguments
from kern._secrets import Masked
from kern._version import __version__
from kern.errors import MissingKeyError, UsageError
from kern.models._body import MAX_ANSWER_BYTES, MAX_LINE_BYTES, Bounds, Reader
from kern.models._clients import proxy_secrets
from kern.models._ends import Ends
from kern.models._extra import Extras
from kern.models._failures import Origin
from kern.models._foreign import with_neutral_ids
from kern.models._headers import check_header, secrets_of, user_headers
from kern.models._history import has_media
from kern.models._settings import check_numbers, check_others
from kern.models._transport import HttpClient, Post, send
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.usage import Price


@dataclass(eq=False, repr=False)
class HttpModel(ChecksArguments, Model):
    """The base class of all models that call a provider over HTTP; subclasses document the settings.

    A subclass defines the request and the answer (`_endpoint`, `_payload`, `_reader`), the default address,
    and the header that carries the key.
    """

    id: str
    _: KW_ONLY
    api_key: InitVar[str | None] = None
    base_url: str | None = None
    timeout: float | None = None
    total_timeout: float | None = None
    max_retries: int = 2
    default_headers: Mapping[str, str] | None = None
    max_line_bytes: int | None = MAX_LINE_BYTES
    max_answer_bytes: int | None = MAX_ANSWER_BYTES
    http_client: HttpClient | None = None
    extra_body: Mapping[str, Any] | None = None
    good_ends: Sequence[str] = ()
    price: Price | None = None

    example_id: ClassVar[str]
    """The id of a model of this provider, shown in errors."""
    default_base_url: ClassVar[str]
    base_url_variable: ClassVar[str]
    """The environment variable that holds the base URL; it is read if `base_url` is not passed."""
    other_url_variables: ClassVar[tuple[str, ...]] = ()
    """Further names of this variable."""
    key_variables: ClassVar[tuple[str, ...]]
    """The environment variables that may hold the key, in order of preference."""
    needs_key: ClassVar[str]
    """The provider's domain: requests to its hosts need a key, other servers may need none."""
    extras: ClassVar[Extras]
    """How this protocol merges `extra_body`."""

    def __post_init__(self, api_key: str | None) -> None:
        if not self.id:
            raise UsageError(f"{type(self).__name__} needs the id of a model, such as {self.example_id!r}")
        check_numbers(self)
        check_others(self, {"api_key": api_key})
        if self.extra_body:
            self.extras.check(self.extra_body)
        if self.base_url is not None:
            parse_base_url(self.base_url)
        self._ends = Ends(self.good_ends)
        self._last: tuple[httpx.URL, object, dict[str, str], Origin] | None = None
        self._api_key = None if api_key is None else SecretStr(api_key)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The copy shares `http_client`: open connections cannot be copied."""
        memo[id(self)] = twin = copy.copy(self)
        for name, value in vars(self).items():
            if name != "http_client":
                setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        base_url = self._resolve_base_url()
        headers, origin = self._headers(base_url, request)
        for message in request.messages:
            if has_media(message):
                body = await asyncio.to_thread(self._encode, request, base_url)
                break
        else:
            body = self._encode(request, base_url)
        post = Post(
            url=self._endpoint(base_url, request),
            headers=headers,
            body=body,
            origin=origin,
            timeout=self.timeout,
            max_retries=self.max_retries,
            client=self.http_client,
            total_timeout=self.total_timeout,
            bounds=Bounds(self.max_line_bytes, self.max_answer_bytes),
            sign=self._signer(),
        )
        pieces = sink if request.stream else None
        return await send(post, lambda streamed: self._reader(request, pieces, streamed=streamed), sink)

    @abstractmethod
    def _endpoint(self, base_url: httpx.URL, request: ModelRequest) -> httpx.URL:
        """The address of the request; see `endpoint`."""

    @abstractmethod
    def _payload(self, request: ModelRequest, base_url: httpx.URL) -> dict[str, Any]:
        """The body of the request, without `extra_body`. May read files."""

    @abstractmethod
    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        """A reader for one answer; `sink` is None if nobody listens."""

    @abstractmethod
    def _authorization(self, key: Masked) -> dict[str, str]:
        """The headers that carry the key."""

    def _signer(self) -> Callable[[Post], Awaitable[Post]] | None:
        """What signs each attempt, for a provider that wants more than a key; see `Post`."""
        return None

    def _own_headers(self, request: ModelRequest) -> dict[str, str]:
        """Further headers that the provider needs; the application's `default_headers` override them."""
        return {}

    def _encode(self, request: ModelRequest, base_url: httpx.URL) -> bytes:
        messages = with_neutral_ids(request.messages, self.provider)
        if messages is not request.messages:
            request = replace(request, messages=messages)
        body = self._payload(request, base_url)
        if self.extra_body:
            self.extras.add(body, self.extra_body)
        try:
            return json_bytes(body)
        except ValueError as error:
            raise UsageError(f"the request cannot be written as JSON: {error}") from error

    def _resolve_base_url(self) -> httpx.URL:
        names = (self.base_url_variable, *self.other_url_variables)
        given = self.base_url or next(filter(None, map(os.environ.get, names)), None)
        return parse_base_url(given or self.default_base_url)

    def _headers(self, base_url: httpx.URL, request: ModelRequest) -> tuple[dict[str, str], Origin]:
        """The request's headers, and whom it goes to, with the secrets among them, for the words of errors.

        They are made and checked once, and again when something that they are made of has changed.
        """
        key = self._key()
        given = self._own_headers(request) | user_headers(self.default_headers)
        made_of = (request.stream, key, given, self.http_client is None, self.provider, self.id)
        last = self._last
        if last is None or last[0] is not base_url or last[1] != made_of:
            headers, secrets = self._made_headers(base_url, request, key, given)
            host = base_url.host
            port = f":{base_url.port}" if base_url.port else ""
            origin = Origin(self.provider, self.id, host + port, secrets, elsewhere=not self._is_own(host))
            last = self._last = base_url, made_of, headers, origin
        return last[2].copy(), last[3]

    def _made_headers(
        self, base_url: httpx.URL, request: ModelRequest, key: Masked, added: Mapping[str, str]
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if request.stream else "application/json",
            "user-agent": f"kern/{__version__}",
        }
        if request.stream:
            headers["accept-encoding"] = "identity"  # compression would delay deltas
        given = {**(self._authorization(key) if key else {}), **added}
        if not self._carries_key(given):
            self._need_no_key(base_url)
        for name, value in given.items():
            check_header(name, value)
        proxy = proxy_secrets(base_url) if self.http_client is None else ()
        return headers | given, (key, *secrets_of(given, base_url), *proxy)

    def check_key(self) -> None:
        """See `Model.check_key`."""
        if self._api_key is None and not self._key():
            given = {name.lower() for name in self.default_headers or ()}
            if not self._carries_key(given):
                self._need_no_key(self._resolve_base_url())

    def _carries_key(self, names: Iterable[str]) -> bool:
        """Whether headers with these names carry the key, or a token instead."""
        return not {"authorization", *self._authorization(Masked(""))}.isdisjoint(names)

    def _need_no_key(self, base_url: httpx.URL) -> None:
        """Check that the host may be asked without a key. `http_client` may add one; many servers need none.

        Raises:
            MissingKeyError: The host needs a key.
        """
        if self.http_client is None and self._must_have_key(base_url.host):
            raise MissingKeyError(
                f"{self!r} has no API key: set the environment variable {self._key_names()[0]}, "
                "or pass api_key=..."
            )

    def _is_own(self, host: str) -> bool:
        """Whether `host` belongs to the provider, not to a gateway."""
        return is_host_of(self.needs_key, host)

    def _must_have_key(self, host: str) -> bool:
        """Whether requests to `host` need a key."""
        return self._is_own(host)

    def _key_names(self) -> tuple[str, ...]:
        """The environment variables that may hold the key."""
        return self.key_variables

    def _key(self) -> Masked:
        if self._api_key is not None:
            return Masked(self._api_key.get_secret_value().strip())
        keys = (os.environ.get(name, "").strip() for name in self._key_names())
        return Masked(next(filter(None, keys), ""))


def endpoint(base_url: httpx.URL, path: str) -> httpx.URL:
    """The address `path` below a base URL, cached."""
    # The cache compares by identity: httpx parses both URLs again to compare them.
    known = _endpoints.get((id(base_url), path))
    if known is not None and known[0] is base_url:
        return known[1]
    made = base_url.copy_with(path=base_url.path.rstrip("/") + path)
    if len(_endpoints) >= _MOST_ENDPOINTS:
        _endpoints.clear()
    _endpoints[id(base_url), path] = base_url, made
    return made


_endpoints: dict[tuple[int, str], tuple[httpx.URL, httpx.URL]] = {}
_MOST_ENDPOINTS = 64


def is_host_of(domain: str, host: str) -> bool:
    """Whether `host` is `domain` or a subdomain of it."""
    return host == domain or host.endswith(f".{domain}")


@lru_cache(maxsize=64)
def parse_base_url(text: str) -> httpx.URL:
    """Parse and check a base URL.

    Raises:
        UsageError: It is not an http or https URL with a host, or it contains a password.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        # Without the value: a URL that cannot be parsed may contain a password.
        raise UsageError("base_url is not a valid URL, such as https://api.example.com/v1") from None
    if url.userinfo:
        raise UsageError(
            "base_url contains a user name or password, which would appear in logs: use default_headers"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"base_url must be an http:// or https:// URL with a host, not {text!r}")
    return url
