"""What a random program must have come to, whatever the order in which things happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from kern.db.base import Db
from kern.run.events import BaseRunEvent, RunStartedEvent, SessionStateChangedEvent
from kern.state.patch import apply
from tests.state.programs import COMMITTING, Call, Program, Recorder, State, result_of

START: State = {"a": 1, "b": 2}


@dataclass
class Seen:
    """What was seen from outside of the calls.

    Args:
        read: What one reader has read, one after the other.
        stored: What the database held when an update had returned, and the update's mark.
        ended: The state in the output of runs that came to a good end, by their numbers.
        streams: The events of streams.
    """

    read: list[State] = field(default_factory=list)
    stored: dict[str, State] = field(default_factory=dict)
    ended: dict[int, State] = field(default_factory=dict)
    streams: dict[int, list[BaseRunEvent]] = field(default_factory=dict)


class Judge:
    """Knows every state that was ever committed, in order."""

    def __init__(self, program: Program, recorder: Recorder, seen: Seen, history: list[State]) -> None:
        self.program = program
        self.recorder = recorder
        self.seen = seen
        self.history = history
        self.marks = [state["by"] for state in history[1:]]
        self.moments = {json.dumps(state): moment for moment, state in enumerate(history)}

    def judge(self, executions: Sequence[dict[str, Any]]) -> None:
        """All there is to judge; `executions` are the stored runs' tool calls."""
        self.order()
        self.readers()
        self.outcome()
        self.acknowledged(executions)
        self.ends()
        self.turns()
        for number, events in self.seen.streams.items():
            self.stream(number, events)

    def order(self) -> None:
        """Each commit is one transaction, once, whole, alone on the state before it."""
        assert len(set(self.marks)) == len(self.marks)
        for before, after in pairwise(self.history):
            assert after == self._result(before, after["by"])

    def _result(self, before: State, mark: str) -> State:
        name, _, which = mark.rpartition(".")
        if name == "update":
            return {**before, self.program.updates[int(which)].key: 100, "by": mark}
        if which == "argument":
            return {**before, "argument": name, "by": mark}
        call = self.recorder.calls[name]
        transaction = call.before if which == "before" else call.transactions[int(which)]
        assert transaction is not None
        assert transaction.end in COMMITTING, f"{mark} failed and was committed"
        return result_of(before, transaction, mark)

    def readers(self) -> None:
        """Nobody saw anything but a committed state, and nobody went back in time."""
        for state in [*self.recorder.seen, *self.recorder.snapshots]:
            self.moment(state)
        moments = [self.moment(state) for state in self.seen.read]
        assert moments == sorted(moments), "a reader has seen the past after the present"

    def moment(self, state: State) -> int:
        """The revision at which the state was this one."""
        text = json.dumps(state)
        assert text in self.moments, f"{state} was never committed"
        return self.moments[text]

    def outcome(self) -> None:
        """What nobody cancelled, and did not fail, is there."""
        for name, call in self.recorder.calls.items():
            if not self.program.runs[int(name[1 : name.index("m")])].cancelled:
                self._is_there(name, call)
        for number, plan in enumerate(self.program.runs):
            if plan.argument and not plan.cancelled:
                assert f"r{number}.argument" in self.marks
        for number in range(len(self.program.updates)):
            assert f"update.{number}" in self.marks

    def acknowledged(self, executions: Sequence[dict[str, Any]]) -> None:
        """A call that has told the model of its success is there, also if its run was cancelled later."""
        for execution in executions:
            name = execution.get("tool_args", {}).get("name")
            answered = "result" in execution and "tool_call_error" not in execution
            if name is not None and answered:
                self._is_there(name, self.recorder.calls[name])

    def _is_there(self, name: str, call: Call) -> None:
        failure = self.recorder.errors.get(name)
        if call.before is not None and call.before.end in COMMITTING:
            assert f"{name}.before" in self.marks, f"lost: {name}.before; {failure!r}"
        for number, transaction in enumerate(call.transactions):
            if transaction.end in COMMITTING:
                assert f"{name}.{number}" in self.marks, f"lost: {name}.{number}; {failure!r}"
            if transaction.end != "return" and (transaction.end != "raise" or not call.blocks):
                break  # the call ends here

    def ends(self) -> None:
        """A run's output, and the database after an update, are not older than what they have written."""
        for number, state in self.seen.ended.items():
            last = self.last_of(f"r{number}")
            assert self.moment(state) >= last, f"run {number} has ended before its {self.marks[last - 1]}"
        for mark, state in self.seen.stored.items():
            assert self.moment(state) >= self.marks.index(mark) + 1

    def last_of(self, run: str) -> int:
        """The revision of the run's last commit."""
        return max((n for n, mark in enumerate(self.marks, 1) if run_of(mark) == run), default=0)

    def turns(self) -> None:
        """Between the commits of a run that has the session to itself there are none of another such run."""
        queued = {f"r{number}" for number, plan in enumerate(self.program.runs) if plan.on_busy == "queue"}
        order = [run for run, _ in groupby(run_of(mark) for mark in self.marks if run_of(mark) in queued)]
        assert len(set(order)) == len(order), f"they did not take turns: {order}"

    def stream(self, number: int, events: Sequence[BaseRunEvent]) -> None:
        """The changes lead from the state at the start to every one after it, one by one."""
        revision = None
        for event in events:
            if isinstance(event, RunStartedEvent) and event.source.nested_depth == 0:
                revision = event.revision
                assert revision is not None
                assert event.session_state == self.history[revision]
            elif isinstance(event, SessionStateChangedEvent):
                assert revision is not None, "a change came before the state that it changes"
                assert event.revision == revision + 1
                revision += 1
                told = apply(self.history[revision - 1], event.patch)
                assert told == self.history[revision]
        if number in self.seen.ended:
            assert revision is not None
            assert revision >= self.last_of(f"r{number}"), "the stream has not told of all that its run did"


def run_of(mark: str) -> str:
    """The run that has signed with `mark`."""
    return mark.partition("m")[0].partition(".")[0]


async def committed_states(db: Db) -> list[State]:
    """The state at every revision, from the log; the last one is what is stored."""
    states: list[State] = [START]
    for change in await db.load_changes("one"):
        assert change.revision == len(states)
        states.append(apply(states[-1], json.loads(change.patch)))
    row = await db.load_session("one")
    if row is not None:
        assert json.loads(row.state) == states[-1]
        assert row.revision == len(states) - 1
    return states


async def executions(db: Db) -> list[dict[str, Any]]:
    """The tool calls of all stored runs."""
    rows = await db.load_runs("one", top_level=False)
    return [execution for row in rows for execution in json.loads(row.data).get("tools", ())]
