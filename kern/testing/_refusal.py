"""Error bodies, as the OpenAI API words them (https://platform.openai.com/docs/guides/error-codes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

_SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"
_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on "
    "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_RATE = (
    "Rate limit reached for {model} in organization org-test on requests per min (RPM): Limit 3, Used 3, "
    "Requested 1. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn "
    "more."
)
_OVERLOADED = "The engine is currently overloaded, please try again later"
_NO_MODEL = "The model `{model}` does not exist or you do not have access to it."

# status -> message, type, code
_USUAL: dict[int, tuple[str, str, str | None]] = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: ("Incorrect API key provided: sk-****.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to do this.", "invalid_request_error", "insufficient_permissions"),
    404: (_NO_MODEL, "invalid_request_error", "model_not_found"),
    429: (_RATE, "requests", "rate_limit_exceeded"),
    500: (_SERVER_ERROR, "server_error", None),
    503: (_OVERLOADED, "server_error", None),
}
_BY_CODE: dict[str, tuple[str, str]] = {
    "insufficient_quota": (_QUOTA, "insufficient_quota"),
    "server_error": (_SERVER_ERROR, "server_error"),
    "rate_limit_exceeded": (_RATE, "requests"),
}


class Refused(Exception):
    """Answers a request with an error status, in the format of its protocol.

    Args:
        status: The HTTP status.
        message: The error's text; None: what the real service says with this status.
        code: The error's code.
        param: The part of the request that is wrong.
        model: The model that was asked for.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        model: str = "",
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.model = model
        self.error = error_object(status, message, code=code, param=param, model=model)
        super().__init__(self.error["message"])


def error_body(refusal: Refused) -> bytes:
    """The JSON body of an error, as OpenAI writes it."""
    return to_json({"error": refusal.error}, indent=2)


def error_object(
    status: int,
    message: str | None = None,
    *,
    code: str | None = None,
    param: str | None = None,
    model: str = "",
) -> dict[str, Any]:
    """The `error` object for a status; values that are not passed are those of the real API."""
    fallback = (_SERVER_ERROR if status >= 500 else f"HTTP {status}.", "invalid_request_error", None)
    usual_message, kind, usual_code = _USUAL.get(status, fallback)
    if status >= 500:
        kind = "server_error"
    if code is not None and code in _BY_CODE:
        usual_message, kind = _BY_CODE[code]
    if message is None:
        message, code = usual_message.format(model=model), code or usual_code
    return {"message": message, "type": kind, "param": param, "code": code}


def bearer_key(headers: Mapping[str, str]) -> str:
    """The key of a request, in the header that OpenAI and many others read."""
    return headers.get("authorization", "").removeprefix("Bearer ").strip()


def check_key(given: str, api_key: str) -> None:
    """Refuse a request without `api_key`."""
    if not given:
        raise Refused(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header "
            "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    if given != api_key:
        raise Refused(401)
