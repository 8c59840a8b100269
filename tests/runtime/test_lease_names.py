"""No id of a user's session is the name of a lease of ours."""

from __future__ import annotations

import pytest

from kern import Agent, tool
from kern.db.in_memory import InMemoryDb
from kern.runtime.lease import lease_of_run, lease_of_session
from kern.testing import ScriptedModel, tool_call


@tool(requires_confirmation=True)
def risky() -> str:
    """Do something that a person has to allow."""
    return "done"


@pytest.mark.parametrize("prefix", ["run:", "session:run:", "session:session:run:"])
async def test_a_session_named_like_a_claim_does_not_block_it(prefix: str) -> None:
    db = InMemoryDb()
    agent = Agent(model=ScriptedModel([tool_call("risky"), "ok"]), tools=[risky], db=db, session_id="s")
    paused = await agent.arun("go")
    squatter = Agent(model=ScriptedModel([]), db=db, on_busy="queue", session_id=f"{prefix}{paused.run_id}")
    assert await db.acquire_lease(lease_of_session(f"{prefix}{paused.run_id}"), "another process", 60.0)
    assert squatter.session_id is not None
    paused.requirements[0].confirm()
    assert (await agent.acontinue_run(paused)).content == "ok"


def test_the_names_of_leases_are_all_different() -> None:
    ids = ["a", "run:a", "session:a", "session:run:a", "run:session:a", "", "session:", "run:"]
    names = [*map(lease_of_session, ids), *map(lease_of_run, ids)]
    assert len(set(names)) == len(names)
