"""The examples of engines, against a model server and the engines themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from kern.testing import Answer, ReceivedRequest, tool_call
from tests.engines.temporal_server import temporal_server
from tests.test_examples import run_example


def play(request: ReceivedRequest) -> Answer | str:
    if request.tool_results:
        return f"Done: {request.tool_results[-1].content}"
    return Answer(tool_calls=[tool_call("book", place="Roma")])


DONE = "Done: booked at Roma, under booking-7"


def test_a_worker(tmp_path: Path) -> None:
    output, requests = run_example("durable_worker", play, tmp_path)
    lines = output.splitlines()
    assert [lines[0], lines[1], *lines[-2:]] == ["new: True", "RunStarted", "RunCompleted", DONE]
    assert len(requests) == 2


def test_temporal(tmp_path: Path) -> None:
    pytest.importorskip("temporalio")
    with temporal_server(tmp_path) as address:
        output, requests = run_example("durable_temporal", play, tmp_path, TEMPORAL_ADDRESS=address)
    assert output.splitlines() == ["COMPLETED", DONE]
    assert len(requests) == 2


def test_dbos(tmp_path: Path) -> None:
    pytest.importorskip("dbos")
    output, requests = run_example("durable_dbos", play, tmp_path)
    assert output.splitlines() == ["COMPLETED", DONE]
    assert len(requests) == 2
