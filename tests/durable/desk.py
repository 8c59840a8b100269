"""A team whose every effect leaves a line in a ledger, outside of any database.

The leader hands a task to three members at once; each charges twice in one turn, looks once, and answers;
the leader publishes. Every answer of a model has a number of its own, so that an answer that was asked for
again, or that has come to the wrong member, shows.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

from kern import Agent, RunContext, Team, tool
from kern.db.base import Db
from kern.durable.journal import Journal
from kern.messages import ToolCall
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.run.output import TeamRunOutput
from kern.testing import tool_call
from kern.usage import Usage

MEMBERS = ("ann", "bob", "cid")
EFFECTS = {("charge", f"{m}-{x}") for m in MEMBERS for x in "ab"} | {("look", m) for m in MEMBERS}
EFFECTS |= {("publish", "lead")}


class Ledger:
    """Lines in a file, each written in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *words: object) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (" ".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []


class Answering(Model):
    """Plays one of the team."""

    provider = "played"
    structured_output = "native"

    def __init__(self, who: str, ledger: Ledger, pace: float) -> None:
        self.id = f"m-{who}"
        self._who = who
        self._ledger = ledger
        self._pace = pace

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        turn = sum(message.role == "assistant" for message in request.messages)
        self._ledger.add("asked", self._who, turn)
        await asyncio.sleep(random.uniform(0.5, 1.5) * self._pace)
        nonce = uuid.uuid4().hex[:6]
        self._ledger.add("model", self._who, turn, nonce)
        text, calls = self._answer(turn, nonce)
        if request.stream and text:
            for piece in text.partition("-"):
                sink.content(piece)
                await asyncio.sleep(0)
        return ModelResponse.of(text, *calls, usage=Usage(input_tokens=10, output_tokens=5, requests=1))

    def _answer(self, turn: int, nonce: str) -> tuple[str | None, list[ToolCall]]:
        who = self._who
        if who == "lead":
            if turn == 0:
                task = f"work-{nonce}"
                return None, [tool_call("delegate_task_to_member", member_id=m, task=task) for m in MEMBERS]
            return (
                (None, [tool_call("publish", what=f"lead-{nonce}")]) if turn == 1 else (f"done-{nonce}", [])
            )
        if turn == 0:
            return None, [tool_call("charge", what=f"{who}-{x}-{nonce}") for x in "ab"]
        return (None, [tool_call("look", what=f"{who}-{nonce}")]) if turn == 1 else (f"{who}-ok-{nonce}", [])


def desk(
    ledger: Ledger, db: Db | None = None, journal: Journal | None = None, *, pace: float = 0.004, **more: Any
) -> Team:
    """The team."""

    @tool(effect="idempotent")
    async def charge(what: str, run_context: RunContext) -> str:
        """Charge."""
        ledger.add("begun", "charge", what)
        await asyncio.sleep(random.uniform(0.5, 1.5) * pace)
        state = run_context.session_state
        state["n"] += 1
        state["log"].append(what)
        ledger.add("tool", "charge", what, run_context.idempotency_key)
        return f"charged {what}"

    @tool(effect="read")
    async def look(what: str) -> str:
        """Look."""
        ledger.add("begun", "look", what)
        await asyncio.sleep(random.uniform(0.5, 1.5) * pace)
        ledger.add("tool", "look", what)
        return f"seen {what}"

    @tool(effect="idempotent")
    def publish(what: str, run_context: RunContext) -> str:
        """Publish."""
        ledger.add("begun", "publish", what)
        time.sleep(random.uniform(0.5, 1.5) * pace)
        run_context.session_state["n"] += 100
        run_context.session_state["log"].append(what)
        ledger.add("tool", "publish", what, run_context.idempotency_key)
        return f"published {what}"

    members = [
        Agent(name=m, id=m, role="worker", model=Answering(m, ledger, pace), tools=[charge, look])
        for m in MEMBERS
    ]
    return Team(
        members,
        id="desk",
        name="desk",
        model=Answering("lead", ledger, pace),
        tools=[publish],
        db=db,
        journal=journal,
        session_state={"n": 0, "log": []},
        **more,
    )


def faults(ledger: Ledger, state: dict[str, Any], output: TeamRunOutput | None) -> list[str]:
    """What is wrong after a run that was killed, and gone on with."""
    found = []
    effects: dict[tuple[str, str], list[str]] = defaultdict(list)
    asked: dict[tuple[str, str], list[str]] = defaultdict(list)
    for words in ledger.lines():
        if words[0] == "tool":
            effects[words[1], words[2].rpartition("-")[0]].append(words[2])
        elif words[0] == "model":
            asked[words[1], words[2]].append(words[3])
    if set(effects) != EFFECTS:
        found.append(f"effects {sorted(set(effects) ^ EFFECTS)}")
    if state["n"] != 106 or len(state["log"]) != 7:
        found.append(f"state {state}")
    logged = sorted(what.rpartition("-")[0] for what in state["log"])
    if logged != sorted([f"{m}-{x}" for m in MEMBERS for x in "ab"] + ["lead"]):
        found.append(f"log {state['log']}")
    if output is not None:
        if output.status.value != "COMPLETED" or not str(output.content).startswith("done-"):
            found.append(f"output {output}")
        for child in output.member_responses:
            if not str(child.content).startswith(f"{child.to_dict()['agent_id']}-ok-"):
                found.append(f"member {child}")
    return found


def repeated(ledger: Ledger) -> tuple[dict[Any, list[str]], dict[Any, list[str]]]:
    """Effects and requests that were made more than once."""
    effects: dict[Any, list[str]] = defaultdict(list)
    asked: dict[Any, list[str]] = defaultdict(list)
    for words in ledger.lines():
        if words[0] == "tool":
            effects[words[1], words[2]].append(words[2])
        elif words[0] == "model":
            asked[words[1], words[2]].append(words[3])
    return (
        {key: values for key, values in effects.items() if len(values) > 1},
        {key: values for key, values in asked.items() if len(values) > 1},
    )
