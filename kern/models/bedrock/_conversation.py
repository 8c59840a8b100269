"""Converts Kern's messages to the turns of the Converse API: no I/O, except that media files are read.

The rules: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. Turns alternate,
and the user's comes first. The results of all calls of a turn are in the next turn. No text is blank. A
document has a unique name, and a text in the same turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from kern.errors import UsageError
from kern.messages import Media, Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._history import UniqueIds, answered, arguments_object, call_name, segments
from kern.models._text_stream import mended
from kern.models.bedrock._caching import POINT, Blocks, add_point
from kern.models.bedrock._facts import Facts
from kern.models.bedrock._media import media_block
from kern.tools.result import mention

PROVIDER = "bedrock"

_FOREIGN = re.compile(r"[^A-Za-z0-9_.:-]")
_LONGEST_ID = 64
_NO_TEXT = "(no text)"
_GO_ON = "(I have the results.)"


@dataclass(slots=True)
class Conversation:
    """A conversation as Bedrock accepts it.

    Args:
        model: The model's id. Signed reasoning is sent back only to the model that made it.
        facts: What the model supports.
        citations: Whether documents may be cited.
    """

    model: str
    facts: Facts
    citations: bool = False
    turns: list[dict[str, Any]] = field(default_factory=list)
    called: dict[str, None] = field(default_factory=dict)
    """The names of all tools that were called."""
    _call_ids: UniqueIds = field(default_factory=lambda: UniqueIds(_FOREIGN, _LONGEST_ID))
    _names: dict[str, int] = field(default_factory=dict)
    _beside: Blocks = field(default_factory=list)
    """Media that the result of a tool may not hold: they follow the results, as the user's."""

    def read(self, messages: Sequence[Message]) -> None:
        """Convert all messages but those with the system's role."""
        for answer, following in segments(answered(messages)):
            ids: dict[str, str] = {}
            attached: Blocks = []
            if answer is not None:
                blocks = list(self._answer(answer, ids))
                self._mark(answer, blocks)
                self._add("assistant", blocks)
                attached = self._attached(answer)
            results = self._results(ids, following)
            said = [*attached, *self._beside, *self._said(following)]
            self._beside = []
            self._add("user", results)
            if results and said and not self.facts.mixed_turns:
                self._add("assistant", [{"text": _GO_ON}])
            self._add("user", said)
        self._finish()

    def _add(self, role: str, blocks: Blocks) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": list(blocks)})

    def _finish(self) -> None:
        """Apply the rules for the first and the last turn, for the end of each answer, and for documents."""
        turns, self.turns = self.turns, []
        for turn in turns:
            blocks = turn["content"]
            while turn["role"] == "assistant" and blocks and is_unfinished(blocks[-1]):
                blocks.pop()  # an answer may not end with reasoning
            if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
                blocks.append({"text": _NO_TEXT})
            self._add(turn["role"], blocks)
        if not self.turns or self.turns[0]["role"] != "user":
            self.turns.insert(0, {"role": "user", "content": [{"text": _NO_TEXT}]})
        last = self.turns[-1]["content"][-1]
        if self.turns[-1]["role"] == "assistant" and "text" in last:
            last["text"] = last["text"].rstrip()

    def _answer(self, message: Message, ids: dict[str, str]) -> Iterator[dict[str, Any]]:
        """The blocks of a message of the assistant."""
        for part in message.parts:
            match part:
                case TextPart():
                    yield from _text(part)
                case ReasoningPart() if part.origin == (PROVIDER, self.model):
                    if self.facts.sees_reasoning or part.redacted:
                        yield from _reasoning(part)
                case ToolCall():
                    yield self._call(part, ids)
                case ProviderCall() if part.origin == (PROVIDER, self.model):
                    yield from _carried_out(part)

    def _call(self, call: ToolCall, ids: dict[str, str]) -> dict[str, Any]:
        ids[call.id] = new = self._call_ids.fresh(call.id)
        name = call_name(call.name)
        self.called[name] = None
        return {"toolUse": {"toolUseId": new, "name": name, "input": arguments_object(call.arguments)}}

    def _results(self, ids: Mapping[str, str], following: Sequence[Message]) -> Blocks:
        """The results of all calls of an answer."""
        results = {message.tool_call_id or "": message for message in following if message.role == "tool"}
        blocks: Blocks = []
        for given, new in ids.items():
            message = results[given]
            result = {"toolUseId": new, "content": self._result(self._content(message))}
            if self.facts.result_status:
                result["status"] = "error" if message.tool_call_error else "success"
            blocks.append({"toolResult": result})
            if message.cache is not None:
                add_point(blocks, message.cache)
        return blocks

    def _result(self, content: Blocks) -> Blocks:
        """What a tool returned: a JSON object as such, everything else as text if the model accepts that."""
        blocks: Blocks = []
        for block in content:
            if POINT in block:
                continue
            if "text" not in block:
                if self.facts.result_media.isdisjoint(block):
                    self._beside += [{"text": "(attached by a tool)"}, block]
                else:
                    blocks.append(block)
                continue
            value = _object(block["text"])
            if value is None and not self.facts.text_results:
                value = {"result": block["text"]}
            blocks.append(block if value is None else {"json": value})
        return blocks or [{"text": _NO_TEXT} if self.facts.text_results else {"json": {}}]

    def _said(self, following: Sequence[Message]) -> Iterator[dict[str, Any]]:
        """The blocks of the user's messages."""
        for message in following:
            if message.role == "tool":
                continue
            blocks = self._content(message)
            self._mark(message, blocks)
            yield from blocks

    def _content(self, message: Message) -> Blocks:
        """The texts and media of a message."""
        blocks: Blocks = []
        for part in message.parts:
            if isinstance(part, TextPart):
                blocks += _text(part)
            elif isinstance(part, Media):
                blocks.append(self._media(part, message))
                if part.cache is not None:
                    add_point(blocks, part.cache)
        return blocks

    def _attached(self, message: Message) -> Blocks:
        """The media of an answer, as the user's: models accept no media in their own turns."""
        media = [self._media(part, message) for part in message.parts if isinstance(part, Media)]
        return [{"text": "(attached by the assistant)"}, *media] if media else []

    def _media(self, media: Media, message: Message) -> dict[str, Any]:
        try:
            block = media_block(media, citations=self.citations)
        except UsageError:
            if message.role == "user" and not message.from_history:
                raise
            return {"text": mention(media)}
        if (document := block.get("document")) is not None:
            document["name"] = self._own_name(document["name"])
        return block

    def _own_name(self, name: str) -> str:
        """The name of a document, with a number if another document of the conversation has the same."""
        own = name
        while own in self._names:
            self._names[name] += 1
            own = f"{name} ({self._names[name]})"
        self._names[own] = 1
        return own

    def _mark(self, message: Message, blocks: Blocks) -> None:
        if message.cache is not None:
            add_point(blocks, message.cache)


def is_unfinished(block: Mapping[str, Any]) -> bool:
    """Whether an answer may not end with this block."""
    return "reasoningContent" in block


def lacks_reasoning(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the conversation ends with results of calls whose turn does not begin with reasoning.

    The turn is all answers since the user's last text. It has no reasoning if another model made it, or if
    thinking was off. With thinking on, Claude rejects such a turn.
    """
    if len(turns) < 2 or not _has_results(turns[-1]):
        return False
    begun = len(turns) - 2
    while begun >= 2 and _has_results(turns[begun - 1]):
        begun -= 2
    return "reasoningContent" not in turns[begun]["content"][0]


def _has_results(turn: Mapping[str, Any]) -> bool:
    return "toolResult" in turn["content"][0]


def _text(part: TextPart) -> Iterator[dict[str, Any]]:
    if part.text.strip():  # models reject blank texts
        yield {"text": part.text}


def _reasoning(part: ReasoningPart) -> Iterator[dict[str, Any]]:
    if part.redacted:
        yield {"reasoningContent": {"redactedContent": part.redacted}}
    elif part.signature:
        yield {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}


def _carried_out(part: ProviderCall) -> Iterator[dict[str, Any]]:
    """A call that Bedrock carried out, with its result: the service rejects one without the other."""
    kept = part.provider_data if isinstance(part.provider_data, Mapping) else {}
    call, result = kept.get("call"), kept.get("result")
    if isinstance(call, Mapping) and isinstance(result, Mapping):
        yield {"toolUse": dict(call)}
        yield {"toolResult": dict(result)}


def _object(text: str) -> dict[str, Any] | None:
    """The text parsed as a JSON object; None if it is something else."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = from_json(mended(text), allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
