"""Classifies finish reasons: which mean a complete answer, which a cut one, and which a failure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kern.errors import UsageError
from kern.models._failures import CutFault, StreamFault
from kern.models.base import FinishReason
from kern.usage import Usage

GOOD_ENDS = frozenset(
    {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call"}
)
"""The finish reasons of a complete answer. A model's `good_ends` adds to them; all others are errors."""

REFUSAL = "refusal"
"""The model declined to answer; its explanation is the answer."""

_CUT = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "max_output_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "safety": "content_filter",
    "prohibited_content": "content_filter",
    "sensitive": "content_filter",
}
# The server failed in passing: the same request may succeed.
_DISTURBED = frozenset(
    {
        "",
        "abort",
        "aborted",
        "cancelled",
        "error",
        "insufficient_system_resource",
        "malformed_function_call",
        "malformed_model_output",
        "malformed_tool_use",
        "network_error",
        "timeout",
    }
)
_FINISHED: dict[str, FinishReason] = {REFUSAL: "refusal", "pause_turn": "paused"}
_CALLING = ("tool_calls", "tool_use", "function_call")


class Ends:
    """Checks the finish reasons of one model.

    Args:
        added: Further finish reasons of a complete answer; upper and lower case are the same.

    Raises:
        UsageError: `added` is not a list of str.
    """

    __slots__ = ("_good",)

    def __init__(self, added: Collection[str] = ()) -> None:
        if isinstance(added, str) or not all(isinstance(word, str) for word in added):
            raise UsageError(f"good_ends must be a list of finish reasons such as ['done'], not {added!r}")
        self._good = GOOD_ENDS | {word.casefold() for word in added} if added else GOOD_ENDS

    def good(self, word: str) -> bool:
        """Whether the finish reason means that the answer is complete."""
        return word.casefold() in self._good

    def more_serious(self, said: Any, word: Any) -> Any:
        """The more serious of two finish reasons of one answer: a good one does not undo a bad one."""
        if said is None:
            return word
        return said if self._weight(said) > self._weight(word) else word

    def _weight(self, word: Any) -> int:
        folded = _folded(word)
        if folded in self._good:
            return 0
        if folded in _CUT:
            return 3
        if folded in _DISTURBED:
            return 2 if folded else 0
        return int(folded == REFUSAL)  # ignore others: some servers write "null" until the end

    def check(self, word: Any, native: Any, content: str, usage: Usage) -> None:
        """Check that the answer is complete.

        Args:
            word: The finish reason.
            native: The finish reason of the provider behind a router, if the router reports it. The router's
                own may call a tool call complete that the provider has cut.
            content: The text so far, for the error.
            usage: What the answer used, for the error.

        Raises:
            CutFault: The answer was cut at a limit, or by a content filter.
            StreamFault: It ended with another finish reason, or with none.
        """
        if native is None and isinstance(word, str) and word in self._good:
            return
        said = _folded(word)
        for reason in (_folded(native), said):
            if reason in _CUT and reason not in self._good:
                raise CutFault(_CUT[reason], usage, content, word=reason)
        if said == REFUSAL or said in self._good:
            if _folded(native) in _DISTURBED - {""}:
                raise StreamFault(f"the provider behind the router aborted the answer: {native!r}")
            return
        if not said:
            raise StreamFault("the answer is incomplete: it has no finish reason")
        if said in _DISTURBED:
            raise StreamFault(f"the provider aborted the answer with the finish reason {word!r}")
        raise StreamFault(
            f"the answer ended with the unknown finish reason {word!r}; "
            "if it means a complete answer, add it to the model's good_ends",
            again=False,
        )


def is_refusal(word: Any) -> bool:
    """Whether the finish reason means that the model declined to answer."""
    return _folded(word) == REFUSAL


def says_calls(word: Any) -> bool:
    """Whether the finish reason means that the model calls tools."""
    return _folded(word) in _CALLING


def finish_reason_of(word: Any, *, calls: bool = False) -> FinishReason:
    """Map a provider's finish reason to Kern's; one that `good_ends` added becomes "stop".

    Args:
        word: The provider's finish reason.
        calls: The answer contains tool calls; not every server says so in its finish reason.
    """
    folded = _folded(word)
    if folded in _FINISHED:
        return _FINISHED[folded]
    if reason := _CUT.get(folded):
        return "content_filter" if reason == "content_filter" else "length"
    if folded and folded in _DISTURBED:
        return "error"
    return "tool_calls" if calls or folded in _CALLING else "stop"


def cut_reason(word: Any) -> str | None:
    """Why an answer with this finish reason was cut, such as "content_filter"; None if it was not."""
    return _CUT.get(_folded(word))


def _folded(word: Any) -> str:
    return word.strip().casefold() if isinstance(word, str) else "" if word is None else str(word)
