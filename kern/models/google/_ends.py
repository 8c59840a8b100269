"""How Gemini says that an answer has ended, as one of Kern's ends.

Source: `FinishReason` and `BlockReason` on https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

from kern.models._ends import Ends
from kern.models._failures import CutFault, StreamFault
from kern.usage import Usage

_WHOLE = "STOP"
_AT_A_LIMIT = frozenset({"MAX_TOKENS", "CONTINUATION"})
_FILTERED = frozenset(
    {
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION"),
        "PUP_LIMITED_DISABLED",
    }
)
_WRONG_CALLS = frozenset({"UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"})
"""The model has called what it may not; the run goes on, and tells it so."""
_DISTURBED = frozenset(
    {
        *("FINISH_REASON_UNSPECIFIED", "OTHER", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE"),
        *("IMAGE_OTHER", "NO_IMAGE"),
    }
)
"""The same request may well be answered the next time."""
_FINAL = frozenset({"MISSING_THOUGHT_SIGNATURE"})


def graver(said: str, word: str) -> str:
    """The one of two finish reasons of an answer that decides: a good one does not take a bad one back."""
    return word if said in ("", _WHOLE) else said


def check_end(word: str, detail: str, ends: Ends, *, usage: Usage, content: str, calls: bool) -> None:
    """Check that the answer is whole.

    Args:
        word: The finish reason; empty, if there was none.
        detail: What the provider says about it.
        ends: The model's own good ends.
        usage: What the answer has cost.
        content: The text so far, for the error.
        calls: There are calls of functions.

    Raises:
        CutFault: The answer was cut at a limit, or by a filter.
        StreamFault: It has ended otherwise, or not at all.
    """
    if word == _WHOLE or (ends.good(word) and word not in _AT_A_LIMIT | _FILTERED):
        return
    if word in _AT_A_LIMIT:
        raise CutFault("max_output_tokens", usage, content, word=word, detail=detail)
    if word in _FILTERED:
        raise CutFault("content_filter", usage, content, word=word, detail=detail)
    if word in _WRONG_CALLS and calls:
        return
    said = f": {detail}" if detail else ""
    if not word:
        raise StreamFault("the answer ended before it was complete: it has no finish reason")
    if word in _DISTURBED | _WRONG_CALLS | _FINAL:
        raise StreamFault(
            f"the answer was broken off with the finish reason {word!r}{said}", again=word not in _FINAL
        )
    raise StreamFault(
        f"the answer ended with the finish reason {word!r}, which is not known as a good end{said}; "
        "if it is one, add it to the model's good_ends",
        again=False,
    )


def blocked_prompt(reason: str, detail: str, usage: Usage) -> CutFault:
    """The fault of a prompt that was not answered, since a filter has stopped it."""
    told = f"the prompt was blocked: {detail}" if detail else "the prompt was blocked"
    return CutFault("content_filter", usage, word=reason, detail=told)
