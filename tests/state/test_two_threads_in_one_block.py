"""Two threads that start runs inside one open block get one scope, so that the runs take turns."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Iterator

import pytest

from kern.state.call_state import CallState
from kern.state.shared_state import Author, LiveState
from kern.state.transaction_block import TransactionBlock


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_ask_at_once_get_the_same_scope() -> None:
    for _ in range(4000):
        call = CallState(LiveState(b"{}"), Author(tool="test"), session="s")
        with call.thread(), TransactionBlock(call):
            start = threading.Barrier(2)
            scopes: list[object] = []

            def ask(start: threading.Barrier, scopes: list[object], call: CallState) -> None:
                start.wait()
                scopes.append(call.nested_state())

            # A thread finds the open block in the context of the function that starts it.
            threads = [
                threading.Thread(target=contextvars.copy_context().run, args=(ask, start, scopes, call))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert scopes[0] is scopes[1]
        call.end(commit=False)
