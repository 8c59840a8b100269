"""Classifies Gemini's finish reasons: a complete answer, a cut one, or a failure.

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
"""The model called a tool that it may not call; the run continues and says so in the result."""
_DISTURBED = frozenset(
    {
        *("FINISH_REASON_UNSPECIFIED", "OTHER", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE"),
        *("IMAGE_OTHER", "NO_IMAGE"),
    }
)
"""Failures in passing: the same request may succeed."""
_FINAL = frozenset({"MISSING_THOUGHT_SIGNATURE"})


def more_serious(said: str, word: str) -> str:
    """The more serious of two finish reasons of one answer: a good one does not undo a bad one."""
    return word if said in ("", _WHOLE) else said


def check_end(word: str, detail: str, ends: Ends, *, usage: Usage, content: str, calls: bool) -> None:
    """Check that the answer is complete.

    Args:
        word: The finish reason; "" if there was none.
        detail: The provider's explanation.
        ends: The model's own good ends.
        usage: What the answer used, for the error.
        content: The text so far, for the error.
        calls: The answer contains function calls.

    Raises:
        CutFault: The answer was cut at a limit, or by a filter.
        StreamFault: It ended with another finish reason, or with none.
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
        raise StreamFault("the answer is incomplete: it has no finish reason")
    if word in _DISTURBED | _WRONG_CALLS | _FINAL:
        raise StreamFault(
            f"the provider aborted the answer with the finish reason {word!r}{said}", again=word not in _FINAL
        )
    raise StreamFault(
        f"the answer ended with the unknown finish reason {word!r}{said}; "
        "if it means a complete answer, add it to the model's good_ends",
        again=False,
    )


def blocked_prompt(reason: str, detail: str, usage: Usage) -> CutFault:
    """The fault for a prompt that a filter blocked."""
    message = f"the prompt was blocked: {detail}" if detail else "the prompt was blocked"
    return CutFault("content_filter", usage, word=reason, detail=message)
