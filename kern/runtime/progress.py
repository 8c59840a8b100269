"""How far a run has come: what it has used, and what has become of the calls of its last turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from kern.messages import Message, Shelf, check_types
from kern.run.output import AnyRunOutput
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.runtime.outcome import ToolOutcome
from kern.usage import Metrics

_TYPES: Mapping[str, type] = {**dict.fromkeys(("own", "settled", "sent_back"), dict), "requests": int}


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run has come, beside its conversation and what it has said; a pause does not end it.

    Args:
        own_metrics: What the run has used itself, without the runs below it.
        requests: Requests to models, those that failed included.
        tool_calls: Calls that count towards its limit.
        has_called: A turn has called a tool: a `tool_choice` that forces a call has had its effect.
        sent_back: How often a tool, or the check of the answer, has had the model try again.
        finished_calls: What calls of the last turn have come to, where others of that turn wait for a person.
        begun_calls: The calls of the last turn that were begun before a pause.
        answers: Answers of people, by tool call id.
    """

    own_metrics: Metrics = field(default_factory=Metrics)
    requests: int = 0
    tool_calls: int = 0
    has_called: bool = False
    sent_back: defaultdict[str, int] = field(default_factory=partial(defaultdict, int))
    finished_calls: dict[str, ToolOutcome] = field(default_factory=dict)
    begun_calls: dict[str, ToolExecution] = field(default_factory=dict)
    answers: dict[str, RunRequirement] = field(default_factory=dict)

    def to_dict(self, shelf: Shelf) -> dict[str, Any]:
        """What of it the output and the conversation do not tell, as JSON."""
        return {
            "own": self.own_metrics.to_dict(),
            "settled": {call_id: outcome.to_dict(shelf) for call_id, outcome in self.finished_calls.items()},
            "sent_back": dict(self.sent_back),
            "requests": self.requests,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], output: AnyRunOutput, messages: Sequence[Message]) -> Self:
        """The reverse of `to_dict`, with what the output and the conversation tell.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types("paused", data, _TYPES)
        own = Metrics.from_dict(data["own"])
        open_calls = {call.id for call in messages[-1].tool_calls}
        return cls(
            own_metrics=own,
            requests=data.get("requests", own.requests),  # older rows do not count those that failed
            tool_calls=sum(tool.result is not None for tool in output.tools),
            has_called=any(message.tool_calls for message in messages if not message.from_history),
            sent_back=defaultdict(int, {str(who): int(times) for who, times in data["sent_back"].items()}),
            finished_calls={
                call_id: ToolOutcome.from_dict(item) for call_id, item in data["settled"].items()
            },
            begun_calls={tool.tool_call_id: tool for tool in output.tools if tool.tool_call_id in open_calls},
        )
