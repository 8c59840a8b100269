"""Encodes messages as the turns of the Messages API. Does no I/O, except reading files of media.

The rules: https://platform.claude.com/docs/en/api/messages. Roles alternate; a turn begins with the results
of all calls of the turn before it; no text is blank; ids are unique and have few kinds of characters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kern.errors import UsageError
from kern.messages import Media, Message, Part, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._history import UniqueIds, answered, arguments_object, call_name, segments
from kern.models.anthropic._blocks import COMPACTION, PROVIDER
from kern.models.anthropic._caching import put_mark
from kern.models.anthropic._media import is_uploaded, media_block
from kern.models.anthropic._replayed import Replay
from kern.tools.result import mention

Blocks = list[dict[str, Any]]

THINKING = ("thinking", "redacted_thinking")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_ID = 64
_NO_TEXT = "(no text)"


@dataclass(slots=True)
class Conversation:
    """A conversation for a request to Anthropic.

    Args:
        citations: The answer may cite documents.
        offered: The names of the tools in this request.
        mcp: This request connects an MCP server.
    """

    citations: bool = False
    offered: Collection[str] = ()
    mcp: bool = False
    turns: list[dict[str, Any]] = field(default_factory=list)
    called: dict[str, None] = field(default_factory=dict)
    """The names of all tools that were called."""
    _call_ids: UniqueIds = field(default_factory=lambda: UniqueIds(_FOREIGN, _LONGEST_ID))

    def read(self, messages: Sequence[Message]) -> None:
        """Add all messages except system messages."""
        messages = answered(messages)
        replay = Replay(messages, offered=self.offered, mcp=self.mcp)
        for answer, following in segments(messages):
            ids: dict[str, str] = {}
            attached: Blocks = []
            if answer is not None:
                blocks = list(self._answer(answer, replay, ids))
                self._mark(answer, blocks)
                self._add("assistant", blocks)
                attached = self._attached(answer)
            self._add("user", [*self._results(ids, following), *attached, *self._said(following)])
        self._finish()

    def _add(self, role: str, blocks: Blocks) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})

    def _finish(self) -> None:
        """Apply the rules for the first and the last turn, and for the end of each answer."""
        turns, self.turns = self.turns, []
        for turn in turns:
            blocks = turn["content"]
            while turn["role"] == "assistant" and blocks and blocks[-1]["type"] in THINKING:
                blocks.pop()  # the service refuses an answer that ends with thinking
            self._add(turn["role"], blocks)
        if not self.turns or self.turns[0]["role"] != "user":
            self.turns.insert(0, {"role": "user", "content": [{"type": "text", "text": _NO_TEXT}]})
        last = self.turns[-1]["content"][-1]
        if self.turns[-1]["role"] == "assistant" and last["type"] == "text":
            last["text"] = last["text"].rstrip()

    def _answer(self, message: Message, replay: Replay, ids: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the blocks of an assistant message."""
        for at, part in enumerate(message.parts):
            own = part.origin is not None and part.origin.provider == PROVIDER
            match part:
                case TextPart():
                    yield from _text(part, own=own)
                case ReasoningPart() if own:
                    yield from _thinking(part)
                case ToolCall():
                    yield self._call(part, ids, replay, own=own)
                case ProviderCall() if own:
                    yield from replay.call(message, at, part)
            yield from replay.due(at)
        yield from replay.due(None)

    def _call(self, call: ToolCall, ids: dict[str, str], replay: Replay, *, own: bool) -> dict[str, Any]:
        ids[call.id] = new = self._call_ids.fresh(call.id)
        name = call_name(call.name)
        self.called[name] = None
        block = {"type": "tool_use", "id": new, "name": name, "input": arguments_object(call.arguments)}
        caller = call.provider_data.get("caller") if own and isinstance(call.provider_data, Mapping) else None
        if isinstance(caller, Mapping) and caller.get("tool_id") in replay.sent:
            block["caller"] = dict(caller)
        return block

    def _results(self, ids: Mapping[str, str], following: Sequence[Message]) -> Blocks:
        """Return the results of all calls of an answer."""
        results = {message.tool_call_id or "": message for message in following if message.role == "tool"}
        blocks: Blocks = []
        for given, new in ids.items():
            block: dict[str, Any] = {"type": "tool_result", "tool_use_id": new}
            message = results[given]
            if content := self._content(message):
                only_text = len(content) == 1 and content[0]["type"] == "text"
                block["content"] = content[0]["text"] if only_text else content
            if message.tool_call_error:
                block["is_error"] = True
            self._mark(message, [block])
            blocks.append(block)
        return blocks

    def _said(self, following: Sequence[Message]) -> Iterator[dict[str, Any]]:
        """Yield the blocks of user messages."""
        for message in following:
            if message.role == "tool":
                continue
            blocks = self._content(message)
            self._mark(message, blocks)
            yield from blocks

    def _content(self, message: Message) -> Blocks:
        """Return the texts and media of a user or tool message."""
        blocks: Blocks = []
        for part in message.parts:
            if isinstance(part, TextPart):
                blocks += _text(part, own=False)
            elif isinstance(part, Media):
                blocks.append(self._media(part, message))
        return blocks

    def _attached(self, message: Message) -> Blocks:
        """Return the media of an answer for a user message: the service accepts them only there."""
        media = [self._media(part, message) for part in message.parts if isinstance(part, Media)]
        return [{"type": "text", "text": "(attached by the assistant)"}, *media] if media else []

    def _media(self, media: Media, message: Message) -> dict[str, Any]:
        try:
            if media.origin is not None and media.origin.provider != PROVIDER and is_uploaded(media):
                raise UsageError("the file is stored by another provider")
            block = media_block(media, citations=self.citations)
        except UsageError:
            if message.role == "user" and not message.from_history:
                raise
            return {"type": "text", "text": mention(media)}
        if media.cache is not None:
            put_mark([block], media.cache)
        return block

    def _mark(self, message: Message, blocks: Blocks) -> None:
        if message.cache is not None:
            put_mark(blocks, message.cache)


def lacks_thinking(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last turn has calls with results, but does not begin with thinking.

    A turn is all answers after the user's message, with the results between them; Claude thinks at its
    beginning. A turn without thinking is of another provider, or was made while thinking was off. With
    thinking on, the service refuses it: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    if len(turns) < 2 or turns[-1]["content"][0]["type"] != "tool_result":
        return False
    begun = len(turns) - 2
    while begun >= 2 and turns[begun - 1]["content"][0]["type"] == "tool_result":
        begun -= 2
    return turns[begun]["content"][0]["type"] not in THINKING


def _text(part: TextPart, *, own: bool) -> Iterator[dict[str, Any]]:
    if not part.text.strip():  # the service refuses blank texts
        return
    block: dict[str, Any] = {"type": "text", "text": part.text}
    cited = [dict(c.provider_data) for c in part.citations if own and c.provider_data]
    for citation in cited:
        citation.pop("file_id", None)  # the service sends it, but refuses it in a request
    if cited:
        block["citations"] = cited
    yield block


def _thinking(part: ReasoningPart) -> Iterator[dict[str, Any]]:
    if part.redacted:
        yield {"type": "redacted_thinking", "data": part.redacted}
    elif part.signature:
        yield {"type": "thinking", "thinking": part.text, "signature": part.signature}
    elif isinstance(part.provider_data, Mapping):
        block = part.provider_data.get("block")
        if isinstance(block, Mapping) and block.get("type") == COMPACTION:
            yield dict(block)


def text_of_parts(parts: Sequence[Part]) -> str:
    """Return all text of a message, with each part as a paragraph."""
    return "\n\n".join(part.text for part in parts if isinstance(part, TextPart) and part.text.strip())
