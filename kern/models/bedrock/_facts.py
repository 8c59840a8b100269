"""What the models behind Bedrock support, by their ids: the Converse API does not hide these differences.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolResultBlock.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolChoice.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_CLAUDE = re.compile(r"anthropic\.claude")
_NOVA = re.compile(r"amazon\.nova")
_MISTRAL = re.compile(r"\bmistral\.")
_WRITER = re.compile(r"\bwriter\.")
# The models that the page on structured outputs lists.
_STRUCTURED = re.compile(
    r"claude-(haiku|sonnet|opus)-4-5|claude-(sonnet|opus)-4-6|qwen\.qwen3|google\.gemma-3-(12|27)b"
    r"|minimax-m2|nvidia\.nemotron-nano|mistral\.(magistral-small|ministral-3|mistral-large-3|voxtral)"
    r"|openai\.gpt-oss|moonshotai?\.kimi-k2|deepseek\.v3"
)


@dataclass(slots=True, frozen=True)
class Facts:
    """What a model supports.

    Args:
        structured: Whether it enforces JSON schemas, of answers and of strict tools.
        forced: Whether it can be forced to call a tool.
        result_status: Whether the result of a tool may say that the call failed.
        text_results: Whether the result of a tool may be text; else it must be JSON.
        mixed_turns: Whether a turn may have both results of tools and texts of the user.
        result_media: The kinds of media that the result of a tool may hold.
        sees_reasoning: Whether its signed reasoning is sent back to it. Encrypted reasoning is sent back to
            every model that made it.
        cites: Whether it can cite documents.
    """

    structured: bool
    forced: bool
    result_status: bool
    text_results: bool
    mixed_turns: bool
    result_media: frozenset[str]
    sees_reasoning: bool
    cites: bool


@lru_cache(maxsize=256)
def facts_of(model: str) -> Facts:
    """What a model supports, by its id, its inference profile, or an ARN that contains the id."""
    claude, nova = _CLAUDE.search(model) is not None, _NOVA.search(model) is not None
    able = claude or nova
    return Facts(
        structured=_STRUCTURED.search(model) is not None,
        forced=able,
        result_status=_WRITER.search(model) is None,
        text_results=_MISTRAL.search(model) is None,
        mixed_turns=able,
        result_media=frozenset(("image", "document") if claude else ("image",) if nova else ()),
        sees_reasoning=able,
        cites=claude,
    )
