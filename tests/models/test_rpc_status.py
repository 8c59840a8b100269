"""What Google's errors say about trying again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import ModelAuthError, ModelBadRequestError, ModelRateLimitError
from kern.models._failures import Failure, Origin, of_status
from kern.models._rpc_status import is_daily_quota, retry_delay

KIND = "type.googleapis.com/google.rpc."


def told(*details: Any, code: int = 429, status: str = "RESOURCE_EXHAUSTED") -> dict[str, Any]:
    return {"error": {"code": code, "message": "No.", "status": status, "details": list(details)}}


def failure(body: Any, status: int = 429, retry_after: str | None = None) -> Failure:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return of_status(status, headers, json.dumps(body).encode(), Origin("google", "m", "host"))


def retry_info(delay: Any) -> dict[str, Any]:
    return {"@type": f"{KIND}RetryInfo", "retryDelay": delay}


def test_the_wait_that_the_body_asks_for_is_kept() -> None:
    failed = failure(told(retry_info("7.5s")))
    assert isinstance(failed.error, ModelRateLimitError)
    assert (failed.delay, failed.error.retry_after, failed.again) == (7.5, 7.5, True)
    assert failed.error.code == "RESOURCE_EXHAUSTED"


def test_a_header_goes_before_the_body_and_a_long_wait_is_the_callers() -> None:
    assert failure(told(retry_info("7s")), retry_after="2").delay == 2
    late = failure(told(retry_info("3600s")))
    assert (late.again, late.delay) == (False, 3600)


def test_the_quota_of_a_day_is_not_waited_for() -> None:
    quota = {"@type": f"{KIND}QuotaFailure", "violations": [{"quotaId": "RequestsPerDayPerProject-FreeTier"}]}
    assert is_daily_quota(told(quota))
    assert not failure(told(quota, retry_info("5s"))).again
    minute = {"@type": f"{KIND}QuotaFailure", "violations": [{"quotaId": "TokensPerModelPerMinute"}]}
    assert failure(told(minute, retry_info("5s"))).again


@pytest.mark.parametrize("delay", [None, "", "s", "x", "5", 5, "-1s", "nans", "infs", ["1s"]])
def test_a_wait_that_is_none_is_passed_over(delay: Any) -> None:
    assert retry_delay(told(retry_info(delay))) is None


@pytest.mark.parametrize(
    "body",
    [None, [], {}, "text", 5, {"error": None}, {"error": []}, {"error": {"details": {}}}, [[]]]
    + [
        told(*details)
        for details in ([None], ["x"], [{}], [{"@type": 5}], [{"@type": f"{KIND}QuotaFailure"}])
    ],
)
def test_a_body_of_another_shape_asks_for_nothing(body: Any) -> None:
    assert retry_delay(body) is None
    assert not is_daily_quota(body)
    assert failure(body).delay is None


def test_a_list_that_holds_the_error_is_read_as_well() -> None:
    assert failure([told(retry_info("3s"))]).delay == 3


def test_a_wrong_key_is_an_error_of_authorization_though_google_calls_it_a_bad_request() -> None:
    info = {"@type": f"{KIND}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    wrong = failure(told(info, code=400, status="INVALID_ARGUMENT"), 400)
    assert isinstance(wrong.error, ModelAuthError)
    assert isinstance(failure(told(code=400, status="INVALID_ARGUMENT"), 400).error, ModelBadRequestError)
