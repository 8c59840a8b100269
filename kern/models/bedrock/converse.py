"""Models behind Amazon Bedrock's Converse API."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, ClassVar, Final, Literal, cast
from urllib.parse import quote

import httpx

from kern._log import named
from kern._secrets import Masked
from kern.errors import MissingKeyError, ModelBadRequestError, UsageError
from kern.messages import CacheMark
from kern.models._body import FRAMES, Reader
from kern.models._claude_refusals import refuses_schema, without_refused_reasoning
from kern.models._extra import SAID, SYSTEM, Extras
from kern.models._http_model import HttpModel, endpoint, parse_base_url
from kern.models._transport import Post
from kern.models.base import DeltaSink, ModelRequest, ModelResponse
from kern.models.bedrock._access import Access, AwsSession, signed
from kern.models.bedrock._conversation import PROVIDER
from kern.models.bedrock._decode import ConverseReader
from kern.models.bedrock._encode import Options, encode
from kern.models.bedrock._facts import facts_of
from kern.models.bedrock.tools import API

log: Final = named("kern.models")

_NOT_SAID: Final = cast("Literal['native', 'tool', 'none']", None)
_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")


@dataclass(eq=False, repr=False)
class BedrockConverse(HttpModel):
    """A model behind Amazon Bedrock's Converse API: Claude, Nova, Llama, Mistral, and others.

    Requests are authorized with `api_key`, with AWS keys, or with the credentials of `aws_session`. Without
    these, Kern uses the variable AWS_BEARER_TOKEN_BEDROCK, or the credentials that botocore finds:
    environment variables, profiles, and the role of the machine. botocore searches in a thread.

    Args:
        id: The id of the model or of an inference profile, or the ARN of one of them.
        api_key: An API key of Bedrock; requests with it are not signed.
        base_model: The id of the model behind an ARN that does not contain it, such as that of an application
            inference profile. Kern derives from it what the model supports and what it costs.
        region: The AWS region; None: that of `aws_session`, of the variables AWS_REGION and
            AWS_DEFAULT_REGION, or of the profile.
        aws_access_key_id, aws_secret_access_key, aws_session_token: Keys that sign each request.
        aws_session: A session of botocore or boto3, whose credentials sign each request.
        base_url: The address; None: the variable AWS_ENDPOINT_URL_BEDROCK_RUNTIME, or the host of the region.
        timeout: How many seconds may pass without any data, while the request is sent or the answer is
            awaited, before the attempt fails; None: 600. Connecting may take 10.
        total_timeout: How many seconds the request may take altogether, with all retries and pauses; None: no
            limit.
        max_retries: How often to retry a failed request, where that can help. Each attempt is signed anew.
        default_headers: Further headers; they override Kern's own, and are not signed. Their values are as
            secret as the key, unless the header is known to be harmless. With an "authorization" header,
            requests are not signed.
        max_line_bytes, max_answer_bytes: The longest message of a streamed answer, and the longest answer, in
            bytes; None: any length. botocore accepts no message above 24 MB.
        http_client: An `httpx.AsyncClient`, or a client with its interface; Kern uses it as it is and never
            closes it. None: a client that all models of an event loop share.
        max_output_tokens: The longest answer in tokens; None: the limit of the model.
        temperature, top_p: Sampling settings.
        stop: Texts that end the answer.
        additional_fields: Settings of the model that Converse has no field for
            (`additionalModelRequestFields`), such as
            {"thinking": {"type": "enabled", "budget_tokens": 2048}} for Claude. While a model thinks, it
            cannot be forced to call a tool: such a `tool_choice` becomes "auto".
        cache: How long the service caches the beginning of the prompt for later requests: "5m", or "1h" if
            the model supports it. Kern puts cache points after the system text and at the end of the
            conversation. None: only the points of messages, tools and files (`cache=...`), since most models
            reject cache points. The last four points count.
        citations: Let Claude cite the documents of the prompt. Not possible together with an
            `output_schema`.
        structured_output: "native": the model enforces a schema; the default for the models that Bedrock's
            documentation lists. "tool": the model answers with a tool call; the default for all others.
        extra_body: Fields to add to the body of the request, such as {"guardrailConfig": ...}.
            "inferenceConfig", "toolConfig", "additionalModelRequestFields" and "outputConfig" are merged into
            those of the request; other fields override the settings.
        good_ends: Further stop reasons of a complete answer. With "guardrail_intervened", the text that a
            guardrail puts in place of the answer is the answer.
        price: The prices of its tokens; None: those in the price list of the extra `prices`.

    Raises:
        UsageError: A setting has no valid value, or contradicts another.
    """

    id: str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    _: KW_ONLY
    base_model: str | None = None
    region: str | None = None
    aws_access_key_id: InitVar[str | None] = None
    aws_secret_access_key: InitVar[str | None] = None
    aws_session_token: InitVar[str | None] = None
    aws_session: InitVar[AwsSession | None] = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = None
    additional_fields: Mapping[str, Any] | None = None
    cache: CacheMark | None = None
    citations: bool = False
    structured_output: Literal["native", "tool", "none"] = _NOT_SAID

    provider = PROVIDER
    has_choice_none = False
    server_tool_api: ClassVar[str | None] = API
    example_id = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    default_base_url = ""
    base_url_variable = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"
    key_variables: ClassVar[tuple[str, ...]] = ("AWS_BEARER_TOKEN_BEDROCK",)
    needs_key = "amazonaws.com"
    extras: ClassVar[Extras] = Extras(
        {"messages": SAID, "system": SYSTEM},
        (),
        ("inferenceConfig", "toolConfig", "additionalModelRequestFields", "outputConfig"),
    )

    def __post_init__(
        self,
        api_key: str | None,
        aws_access_key_id: str | None,
        aws_secret_access_key: str | None,
        aws_session_token: str | None,
        aws_session: AwsSession | None,
    ) -> None:
        super().__post_init__(api_key)
        keys = (aws_access_key_id, aws_secret_access_key, aws_session_token)
        for key in (*keys, self.region):
            if not isinstance(key, str | None):
                raise UsageError(f"AWS keys and the region must be str, not {type(key).__name__}")
        self._access = Access(self.region, keys, aws_session)
        if api_key is not None and self._access.is_given:
            raise UsageError("BedrockConverse takes only one of api_key, AWS keys and aws_session")
        if self.cache not in (None, "5m", "1h"):
            raise UsageError(f"cache must be '5m', '1h' or None, not {self.cache!r}")
        self._facts = facts_of(self.base_model or self.id)
        if self.structured_output is _NOT_SAID:
            self.structured_output = "native" if self._facts.structured else "tool"
        self._region: str | None = None
        self._strict = True

    def check_key(self) -> None:
        """See `Model.check_key`. This checks nothing: only files or the network have the credentials."""

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        """Answer one request; see `Model.respond`."""
        ready = await self._placed()
        for _ in range(2):
            try:
                return await HttpModel.respond(ready, request, sink)
            except ModelBadRequestError as error:
                plainer = ready._plainer(request, error)
                if plainer is None:
                    raise
                request = plainer
                self._strict = ready._strict
        return await HttpModel.respond(ready, request, sink)

    async def _placed(self) -> BedrockConverse:
        """The model with its region; a copy, if the environment names another region by now."""
        region = self._access.known_region()
        if region is None and (self._signs() or not self._given_base_url()):
            region = await asyncio.to_thread(self._access.region)
        if self._region is None:
            self._region = region
        if self._region == region:
            return self
        moved = copy.copy(self)
        moved._region = region
        return moved

    def _plainer(self, request: ModelRequest, error: ModelBadRequestError) -> ModelRequest | None:
        """The request without what the service rejected; None if Kern cannot leave that out."""
        text = str(error)
        if self._strict and refuses_schema(request, text):
            self._strict = False
            log.warning("%r: %s; retrying without strict schemas", self, error)
            return request
        plainer = without_refused_reasoning(request, text)
        if plainer is not None:
            log.warning("%r: %s; retrying without earlier reasoning", self, error)
        return plainer

    def _given_base_url(self) -> str | None:
        return self.base_url or os.environ.get(self.base_url_variable)

    def _resolve_base_url(self) -> httpx.URL:
        if self._given_base_url():
            return super()._resolve_base_url()
        region = self._region or self._access.known_region()
        if not region:
            raise UsageError(
                f"{self!r} has no region: pass region=..., or set the environment variable AWS_REGION"
            )
        if not region.replace("-", "").isalnum():
            raise UsageError(f"region must be the name of an AWS region such as 'us-east-1', not {region!r}")
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return parse_base_url(f"https://bedrock-runtime.{region}.{domain}")

    def _endpoint(self, base_url: httpx.URL, request: ModelRequest) -> httpx.URL:
        operation = "converse-stream" if request.stream else "converse"
        return endpoint(base_url, f"/model/{quote(self.id, safe='')}/{operation}")

    def _payload(self, request: ModelRequest, base_url: httpx.URL) -> dict[str, Any]:
        options = Options(
            model=self.id,
            facts=self._facts,
            cache=self.cache,
            citations=self.citations and self._facts.cites,
            fields=self.additional_fields,
            strict=self._strict,
        )
        body = encode(request, options)
        settings = {
            "maxTokens": self.max_output_tokens,
            "temperature": self.temperature,
            "topP": self.top_p,
            "stopSequences": [self.stop] if isinstance(self.stop, str) else self.stop,
        }
        if inference := {name: value for name, value in settings.items() if value is not None}:
            body["inferenceConfig"] = inference
        return body

    def _reader(self, request: ModelRequest, sink: DeltaSink | None, *, streamed: bool) -> Reader:
        return ConverseReader(
            self.id,
            sink,
            streamed=streamed,
            ends=self._ends,
            longest=self.max_line_bytes,
            answers=self.base_model,
            guarded="guardrailConfig" in (self.extra_body or {}),
        )

    def _own_headers(self, request: ModelRequest) -> dict[str, str]:
        return {"accept": FRAMES if request.stream else "application/json"}

    def _authorization(self, key: Masked) -> dict[str, str]:
        return {"authorization": Masked(f"Bearer {key}")}

    def _key(self) -> Masked:
        return Masked("") if self._access.is_given else super()._key()

    def _is_own(self, host: str) -> bool:
        return host.endswith(_DOMAINS)

    def _must_have_key(self, host: str) -> bool:
        return False  # credentials are searched for when a request is signed

    def _signs(self) -> bool:
        """Whether requests are signed, because they have no API key or token."""
        return not self._key() and not self._carries_key(
            {name.lower() for name in self.default_headers or ()}
        )

    def _signer(self) -> Callable[[Post], Awaitable[Post]] | None:
        return self._signed if self._signs() else None

    async def _signed(self, post: Post) -> Post:
        return await asyncio.to_thread(self._sign, post)

    def _sign(self, post: Post) -> Post:
        """Sign the request, if there are credentials; servers other than Amazon's may need none. Blocking."""
        credentials = self._access.credentials()
        if credentials is None:
            if self._is_own(post.url.host) and self.http_client is None:
                raise MissingKeyError(
                    f"{self!r} has no AWS credentials: set AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID "
                    "and AWS_SECRET_ACCESS_KEY, or pass api_key=... or aws_session=..."
                )
            return post
        if not self._region:
            raise UsageError(
                f"{self!r} has no region, which a signature needs: pass region=..., or set AWS_REGION"
            )
        return signed(post, credentials, self._region)
