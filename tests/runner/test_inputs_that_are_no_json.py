"""What `json.loads` hands over: text that no encoding can write is mended, the rest is a UsageError."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from kern import Agent
from kern.errors import UsageError
from kern.testing import ScriptedModel


def deep(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("body", ['{"q": "\\ud83d"}', '{"\\ud83d": 1}', '[{"\\ud83d": ["\\udc00"]}]'])
async def test_half_a_surrogate_pair_is_mended_in_values_and_in_keys(body: str) -> None:
    agent = Agent(model=ScriptedModel(["ok"]))
    output = await agent.arun(json.loads(body))
    assert output.content == "ok"
    assert "\ufffd" in output.to_json()
    assert (await agent.aget_run_output(output.run_id)) is not None


@pytest.mark.parametrize("value", [deep(300), {"n": deep(300)}, {"n": 10**5000}], ids=["list", "dict", "int"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_written_is_told_before_the_run(value: Any, stream: bool) -> None:
    if isinstance(value, dict) and isinstance(value["n"], int):
        assert sys.get_int_max_str_digits() < 5000
    with pytest.raises(UsageError, match="input cannot be written as JSON"):
        await anext(aiter(Agent(model=ScriptedModel([])).arun(value, stream=True))) if stream else (
            await Agent(model=ScriptedModel([])).arun(value)
        )


async def test_a_list_that_contains_itself_is_told() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UsageError, match="input cannot be written as JSON"):
        await Agent(model=ScriptedModel([])).arun(value)
