"""The base class of `OpenAIResponses` and `OpenAIChat`: settings, address and key."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal

import httpx

from kern._secrets import Masked
from kern.messages import Origin
from kern.models._extra import SYSTEM, Extras
from kern.models._http_model import HttpModel, endpoint
from kern.models.base import ModelRequest


@dataclass(eq=False, repr=False)
class OpenAIModel(HttpModel):
    """The base class of `OpenAIResponses` and `OpenAIChat`, which document the settings."""

    id: str = "gpt-5.2"
    _: KW_ONLY
    organization: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    store: bool | None = None
    parallel_tool_calls: bool | None = None
    structured_output: Literal["native", "tool", "none"] = "native"

    provider = "openai"
    example_id = "gpt-5.2"
    default_base_url = "https://api.openai.com/v1"
    base_url_variable = "OPENAI_BASE_URL"
    key_variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    needs_key = "openai.com"
    extras: ClassVar[Extras] = Extras(
        {"instructions": SYSTEM}, ("tools", "include"), ("text", "reasoning", "stream_options")
    )
    _path: ClassVar[str]
    _made_by: Origin | None = field(default=None, init=False, repr=False)

    def _origin(self) -> Origin:
        """The origin of the parts of an answer; the same object while the model does not change."""
        origin = self._made_by
        if origin is None or (origin.provider, origin.model) != (self.provider, self.id):
            origin = self._made_by = Origin(self.provider, self.id)
        return origin

    @abstractmethod
    def _body(self, request: ModelRequest) -> dict[str, Any]:
        """The body of the request, without `stream` and `extra_body`. May read files."""

    def _payload(self, request: ModelRequest, base_url: httpx.URL) -> dict[str, Any]:
        body = self._body(request)
        if request.stream:
            body["stream"] = True
        return body

    def _endpoint(self, base_url: httpx.URL, request: ModelRequest) -> httpx.URL:
        return endpoint(base_url, self._path)

    def _authorization(self, key: Masked) -> dict[str, str]:
        return {"authorization": Masked(f"Bearer {key}")}

    def _own_headers(self, request: ModelRequest) -> dict[str, str]:
        return {"openai-organization": self.organization} if self.organization else {}
