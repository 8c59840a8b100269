"""Ids that a database puts where the last ones are."""

from __future__ import annotations

import time
from uuid import UUID

from kern import Agent, Team
from kern.runner.compile import new_id
from kern.testing import FunctionModel, tool_call


def test_an_id_is_a_uuid_of_version_7_that_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    for made in map(UUID, ids):
        assert (made.version, str(made) in ids) == (7, True)
        assert before <= made.int >> 80 <= after
    assert len(set(ids)) == 1000


async def test_the_runs_of_a_team_and_of_its_members_sort_by_their_beginning() -> None:
    member = Agent(name="Clerk", model=FunctionModel(lambda request: "done"))

    def lead(request: object) -> object:
        told = [message for message in request.messages if message.role == "tool"]  # type: ignore[attr-defined]
        return "all done" if told else tool_call("delegate_task_to_member", member_id="clerk", task="work")

    output = await Team(members=[member], model=FunctionModel(lead)).arun("go")
    ids = [output.run_id, output.member_responses[0].run_id]
    assert [UUID(run_id).version for run_id in ids] == [7, 7]
    assert ids[0][:13] <= ids[1][:13]
