"""What was said in earlier runs of the session, for the model of this one.

Only runs that have left anything count, and only as many rows are read as are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile

from kern.messages import Message
from kern.models.base import ToolDefinition
from kern.runner.transcript import RunTranscript, recalled
from kern.runtime.call_ids import CallIds
from kern.runtime.outcome import CallSite, ToolOutcome, arguments_of
from kern.runtime.run_tree import Run
from kern.runtime.stored_runs import load_outputs

HISTORY_TOOL = "read_chat_history"
_AGAIN = "Try again to answer the request above. What has been done by calls already is not to be done again."


@dataclass(slots=True, frozen=True)
class History:
    """How much of earlier runs goes into a prompt.

    Args:
        runs: The newest so many runs.
        messages: Of those, the newest so many messages; None for all.
        tool_calls: Of those, the newest so many tool calls with their results; None for all.
    """

    runs: int
    messages: int | None = None
    tool_calls: int | None = None

    async def recall(self, run: Run) -> list[Message]:
        """The messages, marked `from_history`, oldest first; never a tool result without its call."""
        said = [
            replace(message, from_history=True)
            for past in await past_runs(run, self.runs)
            for message in past.prompt()
        ]
        if self.tool_calls is not None:
            said = CallIds().apply(said)  # which calls are the newest goes by their ids
            said = _fewer_tool_calls(said, self.tool_calls)
        if self.messages is not None:
            said = _newest(said, self.messages)
        return said


async def past_runs(run: Run, count: int) -> list[RunTranscript]:
    """The newest `count` runs before `run` that have left anything, oldest first.

    For a member's run those of the member. Otherwise the session's, whoever was asked: an agent without a
    name has another id in the next process, and a session may be handed from one agent to another.
    """
    member = run.parent is not None
    db, limit = run.tree.request.db, count
    read: dict[str, list[RunTranscript]] = {}
    while count > 0:
        rows = await db.load_runs(
            run.tree.request.session_id,
            limit=limit,
            runner_id=run.spec.id if member else None,
            top_level=not member,
        )
        for row in rows:
            if row.run_id not in read and row.run_id != run.run_id:
                read[row.run_id] = [recalled(output) for output in await load_outputs(db, [row])]
        good = [past for row in rows for past in read.get(row.run_id, ()) if past.stands]
        if len(good) >= count or len(rows) < limit:
            return good[-count:]
        limit *= 2  # some of the newest have left nothing
    return []


def earlier_attempt(run: Run) -> list[Message]:
    """What a failed attempt under the run's own id has done: it is part of this run's conversation."""
    past = recalled(run.earlier) if run.earlier is not None else None
    if past is None or not past.stands:
        return []
    said = past.closing.content if past.closing is not None else None
    ended = "\n\n".join(text for text in (said, past.ending) if text)
    return [*past.steps, Message("assistant", ended), Message("user", _AGAIN, said="")]


async def team_history(run: Run, count: int) -> str:
    """The team's last runs, as members are shown them before a task."""
    lines = [
        f"- asked: {past.asked()}\n  answered: {past.answered()}"
        for past in await past_runs(run, count)
        if past.question
    ]
    if not lines:
        return ""
    body = "\n".join(lines)
    return f"<team_history_context>\n{body}\n</team_history_context>"


class ReadHistoryTool:
    """`read_chat_history(num_runs)`: the model looks up what was said earlier."""

    __slots__ = ("definition",)

    def __init__(self) -> None:
        self.definition: ToolDefinition = ToolDefinition(
            HISTORY_TOOL,
            "Read what was said earlier in this conversation, oldest first.",
            {
                "type": "object",
                "properties": {
                    "num_runs": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "How many of the newest exchanges to read; 3 if not given.",
                    }
                },
                "additionalProperties": False,
            },
        )

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Look it up."""
        count = (arguments_of(site.call) or {}).get("num_runs", 3)
        if not isinstance(count, int) or count < 1:
            return ToolOutcome("num_runs is a whole number, 1 or more.", error=True)
        shown = [line for past in await past_runs(run, count) for line in past.lines()]
        return ToolOutcome(json.dumps(shown, ensure_ascii=False))


def _newest(messages: Sequence[Message], count: int) -> list[Message]:
    """The newest `count` messages or fewer: they begin with something that the user said."""
    kept = messages[-count:] if count > 0 else []
    return list(dropwhile(lambda message: message.role != "user", kept))


def _fewer_tool_calls(messages: Sequence[Message], count: int) -> list[Message]:
    """Leave out all but the newest `count` tool calls, with their results."""
    made = [call.id for message in messages for call in message.tool_calls]
    gone = set(made[: len(made) - count] if count > 0 else made)
    kept = []
    for message in messages:
        if message.role == "tool" and message.tool_call_id in gone:
            continue
        if any(call.id in gone for call in message.tool_calls):
            calls = [call for call in message.tool_calls if call.id not in gone]
            if not calls and not message.content:
                continue
            # What the provider wants to see again belongs to the message as it was.
            message = replace(message.plain(), tool_calls=calls)
        kept.append(message)
    return kept
