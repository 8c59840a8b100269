"""What cannot be a tool, or not as it is written, is refused with what to do about it."""

from __future__ import annotations

import sys
from typing import TypedDict

import pytest

from kern import Agent
from kern.console._sections import describe_call
from kern.errors import KernError, UsageError
from kern.models._failures import _REPR
from kern.run.tool_execution import ToolExecution
from kern.testing import ScriptedModel
from kern.tools.function import Function


class Place(TypedDict):
    street: str


@pytest.mark.parametrize("method", [str.upper, dict.get, list.append])
async def test_a_method_of_a_built_in_class_is_refused_by_an_error_of_kern_s(method: object) -> None:
    with pytest.raises(KernError, match=r"builtins\.\w+\.\w+"):
        await Agent(model=ScriptedModel(["ok"]), tools=[method]).arun("q")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it from 3.12 on")
def test_the_cause_of_a_missing_schema_is_told() -> None:
    def send(to: Place) -> str:
        return ""

    with pytest.raises(UsageError, match=r"typing_extensions\.TypedDict"):
        _ = Function(send).parameters


def test_a_call_that_was_refused_is_shown_as_refused() -> None:
    call = ToolExecution("1", "empty", {"which": "bin"}, result="no", duration=0.0, confirmed=False)
    assert describe_call(call) == 'empty(which="bin") refused'
    call.confirmation_note = "not today"
    assert describe_call(call) == 'empty(which="bin") refused: not today'


def test_the_repr_of_another_library_is_no_part_of_an_error() -> None:
    text = "Response payload is not completed: <ContentLengthError: 400, message='Not enough data'>"
    assert _REPR.sub("", text) == "Response payload is not completed"
