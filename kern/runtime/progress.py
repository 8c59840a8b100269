"""The progress of a run: its usage, its counts, and the outcomes of the calls of its last turn."""

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
    """The progress of a run, in addition to its conversation and its answer so far. It survives a pause.

    Args:
        own_metrics: The usage of the run itself, without the runs below it.
        requests: The number of model requests, with those that failed.
        tool_calls: The number of calls that count towards `tool_call_limit`.
        has_called: A turn has called a tool, so a `tool_choice` that forces a call does not apply any more.
        sent_back: How often each tool, or the check of the answer, has asked the model to try again.
        finished_calls: The outcomes of finished calls of the last turn, by call id, while others of that turn
            wait for a person.
        begun_calls: The calls of the last turn that were begun before a pause, by call id.
        answers: The answers of people, by call id.
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
        """Return the parts that cannot be derived from the output and the conversation, as JSON."""
        return {
            "own": self.own_metrics.to_dict(),
            "settled": {call_id: outcome.to_dict(shelf) for call_id, outcome in self.finished_calls.items()},
            "sent_back": dict(self.sent_back),
            "requests": self.requests,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], output: AnyRunOutput, messages: Sequence[Message]) -> Self:
        """Undo `to_dict`, with the output and the conversation.

        Raises:
            ValueError: A value is of the wrong type.
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
