"""The earlier runs of the session, for the prompt of this run.

Runs that ended before any text or call do not count. Only as many rows are read as are needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile

from kern.messages import Message
from kern.models.base import ToolDefinition
from kern.runner.transcript import RunTranscript, transcript_of
from kern.runtime.call_ids import CallIds
from kern.runtime.known_runs import check_owner_again
from kern.runtime.outcome import CallSite, ToolOutcome, arguments_of
from kern.runtime.run_tree import Run
from kern.runtime.stored_runs import load_outputs

HISTORY_TOOL = "read_chat_history"
_AGAIN = "Try again to answer the request above. What has been done by calls already is not to be done again."


@dataclass(slots=True, frozen=True)
class History:
    """How much of earlier runs goes into a prompt.

    Args:
        runs: The maximum number of runs, the newest ones.
        messages: The maximum number of messages of those runs; None: all.
        tool_calls: The maximum number of tool calls, with their results, of those runs; None: all.
    """

    runs: int
    messages: int | None = None
    tool_calls: int | None = None

    async def recall(self, run: Run) -> list[Message]:
        """Return the messages, marked `from_history`, oldest first; never a tool result without its call."""
        said = [
            replace(message, from_history=True)
            for past in await past_runs(run, self.runs)
            for message in past.prompt()
        ]
        if self.tool_calls is not None:
            said = CallIds().apply(said)  # the ids must be unique: the newest calls are found by them
            said = _fewer_tool_calls(said, self.tool_calls)
        if self.messages is not None:
            said = _newest(said, self.messages)
        return said


async def past_runs(run: Run, count: int) -> list[RunTranscript]:
    """Return the newest `count` runs before `run` that left any text or call, oldest first.

    For a team member's run: the runs of that member. Otherwise: the runs of the session, of all agents. An
    agent without a name has another id in the next process, and agents may share a session.
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
        session = run.tree.session
        if rows and not session.stored:
            await check_owner_again(db, session.session_id, session.row.user_id)
        for row in rows:
            if row.run_id not in read and row.run_id != run.run_id:
                read[row.run_id] = [transcript_of(output) for output in await load_outputs(db, [row])]
        good = [past for row in rows for past in read.get(row.run_id, ()) if past.belongs_to_history]
        if len(good) >= count or len(rows) < limit:
            return good[-count:]
        limit *= 2  # some of the newest runs left nothing
    return []


def earlier_attempt(run: Run) -> list[Message]:
    """Return the messages of a failed attempt with the same run id: this run continues from them."""
    past = transcript_of(run.earlier) if run.earlier is not None else None
    if past is None or not past.belongs_to_history:
        return []
    said = past.closing.content if past.closing is not None else None
    ended = "\n\n".join(text for text in (said, past.ending) if text)
    return [*past.steps, Message("assistant", ended), Message("user", _AGAIN, said="")]


async def team_history(run: Run, count: int) -> str:
    """Return the team's last runs as a text that members get before their task."""
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
        """Read the history."""
        count = (arguments_of(site.call) or {}).get("num_runs", 3)
        if not isinstance(count, int) or count < 1:
            return ToolOutcome("num_runs is a whole number, 1 or more.", error=True)
        shown = [line for past in await past_runs(run, count) for line in past.lines()]
        return ToolOutcome(json.dumps(shown, ensure_ascii=False))


def _newest(messages: Sequence[Message], count: int) -> list[Message]:
    """Return at most the newest `count` messages, beginning with a message of the user."""
    kept = messages[-count:] if count > 0 else []
    return list(dropwhile(lambda message: message.role != "user", kept))


def _fewer_tool_calls(messages: Sequence[Message], count: int) -> list[Message]:
    """Remove all but the newest `count` tool calls, with their results."""
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
            # The provider's data belongs to the unchanged message, so `plain()` drops it.
            message = replace(message.plain(), tool_calls=calls)
        kept.append(message)
    return kept
