"""Reads from Google's errors whether and when to retry: they say so in the body, not in headers.

Source: `Status`, `RetryInfo` and `QuotaFailure` on https://google.aip.dev/193 and
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

_KINDS = "type.googleapis.com/google.rpc."


def retry_delay(error: Any) -> float | None:
    """Seconds to wait before a retry, which the error writes like "48s"; None if it names none."""
    for detail in _details(error, "RetryInfo"):
        asked = detail.get("retryDelay")
        if isinstance(asked, str) and asked.endswith("s"):
            try:
                seconds = float(asked[:-1])
            except ValueError:
                continue
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
    return None


def is_daily_quota(error: Any) -> bool:
    """Whether a daily quota is used up: a retry cannot help, though the error asks for a wait of seconds."""
    for detail in _details(error, "QuotaFailure"):
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, Mapping) and "PerDay" in str(violation.get("quotaId")):
                return True
    return False


def is_wrong_key(error: Any) -> bool:
    """Whether Google rejected the API key, which it answers with status 400."""
    return any(detail.get("reason") == "API_KEY_INVALID" for detail in _details(error, "ErrorInfo"))


def _details(error: Any, kind: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(error, list) and len(error) == 1:
        error = error[0]
    if isinstance(error, Mapping) and isinstance(error.get("error"), Mapping):
        error = error["error"]
    details = error.get("details") if isinstance(error, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and detail.get("@type") == _KINDS + kind:
            yield detail
