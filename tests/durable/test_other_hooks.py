"""A durable run is resumed by a program with other hooks: no hook takes the record of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kern import Agent, RunOutput, Team
from kern.db import InMemoryDb
from kern.durable import DbJournal
from kern.errors import ReplayMismatch
from kern.models.base import ModelRequest, ModelResponse
from kern.runtime import recorded_steps
from kern.runtime.request import RunInput
from kern.testing import FunctionModel, record, replay, tool_call

SECRET = "your card is 4111-1111"


class Program:
    """One version of a program, on the same database."""

    def __init__(self, db: InMemoryDb, pre: Sequence[str], post: Sequence[str], *, member: bool) -> None:
        self.called: list[str] = []
        self.inside = asyncio.Event()
        self.dies = False

        def hook(name: str) -> Callable[..., None]:
            def before(run_input: RunInput) -> None:
                self.called.append(name)

            def after(run_output: RunOutput[str]) -> None:
                self.called.append(name)
                run_output.content = run_output.content.replace("4111-1111", "[card]")

            made: Callable[..., None] = before if name in pre else after
            made.__name__ = name.removesuffix("'")  # one name on both sides
            return made

        async def answer(request: ModelRequest) -> str:
            if self.dies:
                self.inside.set()
                await asyncio.Event().wait()
            return SECRET

        def lead(request: ModelRequest) -> ModelResponse | str:
            last = request.messages[-1]
            if last.role == "tool":
                return last.content or ""
            return tool_call("delegate_task_to_member", member_id="a", task="card?")

        self.runner: Agent[Any] | Team[Any] = Agent(
            id="a",
            model=FunctionModel(answer),
            pre_hooks=[hook(name) for name in pre],
            post_hooks=[hook(name) for name in post],
            db=None if member else db,
        )
        if member:
            self.runner = Team(members=[self.runner], id="t", model=FunctionModel(lead), db=db)
        self.journal = DbJournal(db)

    async def run(self) -> Any:
        return await self.runner.arun("card?", session_id="s", run_id="R", journal=self.journal)

    async def die(self) -> None:
        self.dies = True
        run = asyncio.create_task(self.run())
        await self.inside.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.parametrize("member", [False, True])
@pytest.mark.parametrize(
    ("pre", "post", "then_pre", "then_post", "called"),
    [
        (["note"], ["redact"], [], ["redact"], ["redact"]),
        (["note"], ["redact"], ["check", "note"], ["redact"], ["check", "redact"]),
        (["note"], ["redact"], ["note", "check"], ["redact"], ["check", "redact"]),
        (["note"], ["redact"], ["check"], ["redact"], ["check", "redact"]),
        (["note", "check"], ["redact"], ["check", "note"], ["redact"], ["redact"]),
        (["hook"], [], [], ["hook'"], ["hook'"]),
        (["hook"], ["hook'"], ["hook"], ["hook'"], ["hook'"]),
    ],
)
async def test_a_hook_that_is_not_on_record_is_called(
    pre: list[str],
    post: list[str],
    then_pre: list[str],
    then_post: list[str],
    called: list[str],
    member: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded_steps, "STALL_SECONDS", 1000.0)  # nobody waits for what never comes
    db = InMemoryDb()
    await Program(db, pre, post, member=member).die()
    program = Program(db, then_pre, then_post, member=member)
    output = await program.run()
    assert (output.content, program.called) == ("your card is [card]", called)


async def test_a_replay_does_not_take_the_record_of_another_hook(tmp_path: Any) -> None:
    def agent(pre: list[str], post: list[str]) -> Agent[Any]:
        made = Program(InMemoryDb(), pre, post, member=False).runner
        assert isinstance(made, Agent)
        return made

    await record(agent(["note"], []), "card?", tmp_path / "c.json")
    with pytest.raises(ReplayMismatch, match="hook/before/note/0 is recorded"):
        await replay(agent([], ["redact"]), tmp_path / "c.json")
    with pytest.raises(ReplayMismatch, match=r"hook/after/redact/0 .* is not in the recording"):
        await replay(agent(["note"], ["redact"]), tmp_path / "c.json")
    output = await replay(agent(["note"], []), tmp_path / "c.json")
    assert output.content == SECRET
