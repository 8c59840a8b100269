"""No failure is lost: in the background, of a tool, of the model before a fallback, of a foreign database."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kern import Agent, RunStatus
from kern.db import InMemoryDb
from kern.db.base import Commit, Committed
from kern.errors import HookError, MissingKeyError, ModelAuthError, ModelError, StoreError
from kern.testing import FunctionModel, ScriptedModel, tool_call


def refused(request: Any) -> str:
    raise ModelAuthError("the key is wrong", provider="p", model="m", status=401)


def down(request: Any) -> str:
    raise ModelError("the provider is down")


def broken_hook() -> None:
    raise ValueError("a fault of the hook")


async def _failed_in_background(agent: Agent) -> None:
    handle = await agent.astart("go", session_id="s")
    async for _ in handle.follow():
        pass


async def test_a_background_run_that_fails_unwatched_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    await _failed_in_background(Agent(model=FunctionModel(refused)))
    (line,) = [record for record in caplog.records if "failed" in record.message]
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert "ModelAuthError: p/m: HTTP 401: the key is wrong" in line.message


async def test_a_fault_of_the_application_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _failed_in_background(Agent(model=ScriptedModel(["x"]), post_hooks=[broken_hook]))
    (line,) = [record for record in caplog.records if "failed" in record.message]
    assert line.levelname == "ERROR"
    assert "raise ValueError" in caplog.text


async def test_an_error_that_somebody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    handle = await Agent(model=ScriptedModel(["x"]), post_hooks=[broken_hook]).astart("go", session_id="s")
    with pytest.raises(HookError):
        await handle.result()
    assert not [record for record in caplog.records if "failed" in record.message]


@pytest.mark.parametrize("debug_mode", [False, True])
async def test_the_traceback_of_a_tool_is_in_the_debug_log(
    debug_mode: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def count() -> str:
        """Count."""
        raise KeyError("items")

    if not debug_mode:
        caplog.set_level(logging.DEBUG, "kern")
    agent = Agent(model=ScriptedModel([tool_call("count"), "done"]), tools=[count], debug_mode=debug_mode)
    output = await agent.arun("go")
    assert (output.status, output.tools[0].result) == (RunStatus.completed, "KeyError: 'items'")
    assert "the tool count raised" in caplog.text
    assert 'raise KeyError("items")' in caplog.text


async def test_the_error_of_a_fallback_says_why_it_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(model=FunctionModel(refused), fallback_models=[FunctionModel(down)])
    with pytest.raises(ModelError, match="is down") as caught:
        await agent.arun("go")
    assert caught.value.__notes__ == ["before that, ModelAuthError: p/m: HTTP 401: the key is wrong"]
    assert caught.value.run_output is not None
    assert "the key is wrong" in str(caught.value.run_output.to_dict()["error"])
    assert "asking FunctionModel" in caplog.text
    assert "retrying" not in caplog.text


async def test_a_fallback_without_a_key_is_told_at_the_first_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    agent = Agent(model=ScriptedModel(["a", "b"]), fallback_models=["openai:a-model-of-this-test"])
    await agent.arun("go")
    await agent.arun("go")
    assert caplog.text.count("cannot be asked") == 1
    failing = Agent(model=FunctionModel(refused), fallback_models=["openai:a-model-of-this-test"])
    with pytest.raises(MissingKeyError) as caught:
        await failing.arun("go")
    assert caught.value.__notes__ == ["before that, ModelAuthError: p/m: HTTP 401: the key is wrong"]


class ForeignDb(InMemoryDb):
    """A database whose commits raise an error of a library."""

    async def commit(self, commit: Commit) -> Committed:
        raise OSError("the disk is gone")


class ForeignLeases(InMemoryDb):
    """A database whose leases cannot be released."""

    shared = True

    async def release_lease(self, name: str, owner: str) -> None:
        raise OSError("the disk is gone")


async def test_a_foreign_error_of_a_commit_is_a_store_error_with_the_answer() -> None:
    agent = Agent(model=ScriptedModel(["a paid answer"]), db=ForeignDb())
    with pytest.raises(StoreError, match="OSError: the disk is gone") as caught:
        await agent.arun("go", session_id="s")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.run_output is not None
    assert caught.value.run_output.content == "a paid answer"


async def test_a_lease_that_cannot_be_released_does_not_lose_the_answer() -> None:
    agent = Agent(model=ScriptedModel(["a paid answer"]), db=ForeignLeases(), on_busy="queue")
    assert (await agent.arun("go", session_id="s")).content == "a paid answer"
