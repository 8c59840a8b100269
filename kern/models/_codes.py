"""Maps the error objects and error codes of providers to Kern's error classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kern._json import json_bytes
from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelServerError,
    ModelServerStreamError,
    ModelStatusError,
)

# Errors that a retry cannot fix, whatever their HTTP status.
FINAL_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "context_length_exceeded",
        "invalid_prompt",
        "bio_policy",
        "misalignment_policy_violation",
        "data_residency_mismatch",
    }
)
_FINAL_WORDS = re.compile(
    r"billing|context_length|credit|filter|image|invalid|moderation|policy|quota|safety|too_large|unsupported"
)
# "Too many tokens per day, please wait before trying again.": Bedrock's, under the code of every throttling.
_FOR_THE_DAY = re.compile(r"too many \w+ per day", re.IGNORECASE)
# The provider's content filter refused the request or the answer.
FILTER_CODES = frozenset(
    {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "moderation_blocked"}
)
# The server refused what the model wrote, not the request: another attempt may write something else.
_SAMPLING_CODES = frozenset({"tool_use_failed"})
_ERROR_STATUSES = range(400, 600)
_STATUS_DIGITS = 3
STATUS_OF_KIND: dict[type[ModelStatusError], int] = {
    ModelBadRequestError: 400,
    ModelAuthError: 401,
    ModelNotFoundError: 404,
    ModelRateLimitError: 429,
    ModelServerError: 500,
    ModelServerStreamError: 500,
}
_KIND_OF_CODE: dict[str, type[ModelStatusError]] = {
    **dict.fromkeys(
        (
            "authentication_error",
            "forbidden",
            "insufficient_permissions",
            "invalid_api_key",
            "permission_denied",
            "permission_error",
            "unauthorized",
        ),
        ModelAuthError,
    ),
    **dict.fromkeys(("model_not_found", "not_found", "not_found_error"), ModelNotFoundError),
    **dict.fromkeys(
        (
            "billing_hard_limit_reached",
            "insufficient_quota",
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limited",
            "requests",
            "tokens",
            "too_many_requests",
        ),
        ModelRateLimitError,
    ),
    **dict.fromkeys(
        (
            "api_error",
            "bad_gateway",
            "engine_overloaded",
            "gateway_timeout",
            "internal_error",
            "internal_server_error",
            "overloaded",
            "overloaded_error",
            "server_error",
            "server_overloaded",
            "service_unavailable",
            "timeout_error",
        ),
        ModelServerError,
    ),
    **dict.fromkeys(
        ("bad_request", "invalid_request_error", "context_length_exceeded"), ModelBadRequestError
    ),
}


def kind_of_status(status: int) -> type[ModelStatusError]:
    """The error class for an HTTP status."""
    if status in (401, 403):
        return ModelAuthError
    if status == 404:
        return ModelNotFoundError
    if status == 429:
        return ModelRateLimitError
    if status in (408, 409, 424) or status >= 500:  # 424: the model behind Bedrock has failed
        return ModelServerError
    return ModelBadRequestError if 400 <= status < 500 else ModelStatusError


def kind_inside(code: str | None, status: int | None) -> type[ModelStatusError] | None:
    """The error class for an error inside an answer; None if neither code nor status is known."""
    if code in _SAMPLING_CODES:
        return None
    kind = kind_of_status(status) if status is not None else _KIND_OF_CODE.get(code or "")
    return ModelServerStreamError if kind is ModelServerError else kind


def is_final(code: str | None) -> bool:
    """Whether a retry cannot fix an error with this code."""
    return code is not None and (code in FINAL_CODES or _FINAL_WORDS.search(code) is not None)


def says_wrong_key(status: int, message: str) -> bool:
    """Whether an error with status 400 is about the API key, as xAI's is."""
    return status == 400 and message.casefold().startswith("incorrect api key")


def says_daily_quota(message: str) -> bool:
    """Whether a message says that the quota of a day is used up, which no wait of seconds brings back."""
    return _FOR_THE_DAY.search(message) is not None


def has_content(error: Any) -> bool:
    """Whether an `error` has any content: some gateways send an empty one with every answer."""
    return any(error.values()) if isinstance(error, Mapping) else bool(error)


def explain(data: Any) -> tuple[str, str | None, int | None]:
    """The message, the code and the HTTP status of an error object, or of an object that contains one."""
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], Mapping):  # as Google does
        data = data[0]
    beside: Mapping[str, Any] = {}
    if isinstance(data, Mapping) and data.get("error"):
        beside, data = data, data["error"]
    if not isinstance(data, Mapping):
        return str(data), _code(beside), _status(beside)
    message = str(data.get("message") or data.get("Message") or data.get("detail") or "")
    return _with_cause(message, data.get("metadata")), _code(data), _status(data)


def _with_cause(message: str, metadata: Any) -> str:
    """The message of a router such as OpenRouter, with the error of the provider behind it, which is the
    cause.
    """
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    if not raw:
        return message
    provider = metadata.get("provider_name")
    who = f" ({provider})" if isinstance(provider, str) and provider else ""
    return f"{message}{who}: {raw if isinstance(raw, str) else json_bytes(raw).decode()}"


def _code(data: Mapping[str, Any]) -> str | None:
    code, status = data.get("code"), data.get("status")
    if isinstance(code, int) and isinstance(status, str):
        code = status  # Google's error has the HTTP status as `code` and its name as `status`
    code = code or data.get("type")
    return str(code) if code and code != "error" else None


def _status(data: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error object contains: as a field, as its code, or implied by its type."""
    for name in ("status_code", "raw_status_code", "status", "code"):
        value = data.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == _STATUS_DIGITS:
            value = int(value)
        if isinstance(value, int) and value in _ERROR_STATUSES:
            return value
    code, kind = data.get("code"), data.get("type")
    if not code or (isinstance(code, str) and code in _KIND_OF_CODE) or not isinstance(kind, str):
        return None
    known = _KIND_OF_CODE.get(kind)
    return None if known is None else STATUS_OF_KIND[known]
