"""How providers say that an answer has ended: which words are a good end, and which mean that it was cut."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kern.errors import UsageError
from kern.models._failures import CutFault, StreamFault
from kern.models.base import FinishReason
from kern.usage import Usage

GOOD_ENDS = frozenset({"stop", "eos", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call"})
"""The words for an answer that is whole. Nothing else is an end; a model's `good_ends` adds to them."""

REFUSAL = "refusal"
"""The model has declined to answer: what it says about that is the answer."""

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
# The server was disturbed, so that the same request may well be answered now.
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
    """The words that a model's server ends its answers with.

    Args:
        added: Further words for a good end, in any case.

    Raises:
        UsageError: One is no text.
    """

    __slots__ = ("_good",)

    def __init__(self, added: Collection[str] = ()) -> None:
        if isinstance(added, str) or not all(isinstance(word, str) for word in added):
            raise UsageError(f"good_ends is a list of words such as ['done'], not {added!r}")
        self._good = GOOD_ENDS | {word.casefold() for word in added} if added else GOOD_ENDS

    def good(self, word: str) -> bool:
        """Whether the word says that the answer is whole."""
        return word.casefold() in self._good

    def graver(self, said: Any, word: Any) -> Any:
        """The one of two words of an answer that decides: a good one does not take a bad one back."""
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
        return int(folded == REFUSAL)  # others are no news: some servers write "null" until the end

    def check(self, word: Any, native: Any, content: str, usage: Usage) -> None:
        """Check that the answer is whole.

        Args:
            word: The finish reason.
            native: The word of the provider behind a router, where the router tells it: the router's own may
                say that a call is complete that was cut.
            content: The text so far, for the error.
            usage: What the answer has cost.

        Raises:
            CutFault: The answer was cut at a limit, or by a content filter.
            StreamFault: It has ended otherwise, or not at all.
        """
        if native is None and isinstance(word, str) and word in self._good:
            return
        said = _folded(word)
        for reason in (_folded(native), said):
            if reason in _CUT and reason not in self._good:
                raise CutFault(_CUT[reason], usage, content, word=reason)
        if said == REFUSAL or said in self._good:
            if _folded(native) in _DISTURBED - {""}:
                raise StreamFault(f"the provider behind the router ended the answer with {native!r}")
            return
        if not said:
            raise StreamFault("the answer ended before it was complete: it has no finish reason")
        if said in _DISTURBED:
            raise StreamFault(f"the answer was broken off with the finish reason {word!r}")
        raise StreamFault(
            f"the answer ended with the finish reason {word!r}, which is not known as a good end; "
            "if it is one, add it to the model's good_ends",
            again=False,
        )


def is_refusal(word: Any) -> bool:
    """Whether the word says that the model has declined."""
    return _folded(word) == REFUSAL


def says_calls(word: Any) -> bool:
    """Whether the word says that the answer asks for tool calls."""
    return _folded(word) in _CALLING


def finish_reason_of(word: Any, *, calls: bool = False) -> FinishReason:
    """What the word for the end of an answer comes to; one that a model's `good_ends` add is a stop.

    Args:
        word: The provider's word.
        calls: The answer asks for tool calls, which not all servers say by their word.
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
    """Why an answer was cut that ends with `word`, if it was."""
    return _CUT.get(_folded(word))


def _folded(word: Any) -> str:
    return word.strip().casefold() if isinstance(word, str) else "" if word is None else str(word)
