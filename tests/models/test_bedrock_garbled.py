"""Garbled answers of Bedrock: an answer, or an error of Kern, and nothing else."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern._json import json_bytes
from kern.errors import KernError
from kern.messages import Message
from kern.models._ends import Ends
from kern.models._failures import Origin, StreamFault, of_fault
from kern.models.base import ModelRequest
from kern.models.bedrock import BedrockConverse
from kern.models.bedrock._decode import ConverseReader
from tests.models.bedrock_wire import judge, packed
from tests.models.replay import Sink
from tests.models.test_garbled_answers import garbled

ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CITED = {"location": {"documentChar": {"documentIndex": 0}}, "sourceContent": [{"text": "x"}], "title": "t"}
USE = {"toolUseId": "t1", "name": "look", "input": {"x": 1}}
SEARCH = {"toolUseId": "s1", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}
FOUND = {"toolUseId": "s1", "content": [{"text": "[HIDDEN]"}], "status": "success", "type": "x"}
CONTENT = [
    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "EqQB"}}},
    {"reasoningContent": {"redactedContent": "UkVE"}},
    {"toolUse": SEARCH},
    {"toolResult": FOUND},
    {"text": "Grüße"},
    {"citationsContent": {"content": [{"text": "So."}], "citations": [CITED]}},
    {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}},
    {"toolUse": USE},
]
USAGE = {
    "inputTokens": 1,
    "outputTokens": 2,
    "totalTokens": 3,
    "cacheReadInputTokens": 1,
    "cacheWriteInputTokens": 1,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 1}],
}
TRACE = {"guardrail": {"actionReason": "No."}, "promptRouter": {"invokedModelId": "x"}}
WHOLE = {
    "output": {"message": {"role": "assistant", "content": CONTENT}},
    "stopReason": "tool_use",
    "usage": USAGE,
    "trace": TRACE,
    "serviceTier": {"type": "flex"},
}
ERROR = {"message": "Oh", "__type": "x"}
EVENTS: list[Any] = [
    ["messageStart", {"role": "assistant"}],
    ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}}],
    ["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "EqQB"}}}],
    [
        "contentBlockDelta",
        {"contentBlockIndex": 1, "delta": {"reasoningContent": {"redactedContent": "UkVE"}}},
    ],
    ["contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {**SEARCH, "input": None}}}],
    ["contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": "{}"}}}],
    ["contentBlockStop", {"contentBlockIndex": 2}],
    [
        "contentBlockStart",
        {"contentBlockIndex": 3, "start": {"toolResult": {"toolUseId": "s1", "type": "x"}}},
    ],
    ["contentBlockDelta", {"contentBlockIndex": 3, "delta": {"toolResult": [{"text": "[HIDDEN]"}]}}],
    ["contentBlockStop", {"contentBlockIndex": 3}],
    ["contentBlockDelta", {"contentBlockIndex": 4, "delta": {"text": "Grüße"}}],
    ["contentBlockDelta", {"contentBlockIndex": 4, "delta": {"citation": CITED}}],
    ["contentBlockStop", {"contentBlockIndex": 4}],
    [
        "contentBlockStart",
        {"contentBlockIndex": 5, "start": {"toolUse": {"toolUseId": "t1", "name": "look"}}},
    ],
    ["contentBlockDelta", {"contentBlockIndex": 5, "delta": {"toolUse": {"input": '{"x": 1}'}}}],
    ["contentBlockStop", {"contentBlockIndex": 5}],
    ["messageStop", {"stopReason": "tool_use"}],
    ["metadata", {"usage": USAGE, "trace": TRACE, "serviceTier": {"type": "flex"}}],
]


def framed(events: Any) -> bytes:
    """The events as frames; a name that is no text goes as one."""
    return b"".join(
        packed(
            {":event-type": ascii(event[0]).strip("'")},
            json.dumps(event[1] if len(event) > 1 else None).encode(),
        )
        for event in events
        if isinstance(event, list) and event
    )


def check(body: bytes, *, streamed: bool) -> bool:
    """Read the body; True if there was an answer. It can be stored, and sent back."""
    reader = ConverseReader(ID, Sink(), streamed=streamed, ends=Ends())
    try:
        reader.feed(body)
        answer = reader.finish()
    except StreamFault as fault:
        str(of_fault(fault, Origin("p", "m", "h"), None).error).encode(errors="surrogatepass")
        return False
    except KernError:
        return False
    finally:
        reader.spent()
    usage = answer.usage.to_dict()
    counts = [count for name, count in usage.items() if name not in ("billed", "terms")]
    counts += usage.get("billed", {}).values()
    assert min(counts, default=0) >= 0
    again = Message.from_dict(json.loads(json_bytes(answer.message.to_dict())))
    results = [Message("tool", "ok", tool_call_id=call.id) for call in again.tool_calls]
    model = BedrockConverse(ID, region="us-east-1", api_key="any")
    asked = ModelRequest([Message("user", "Hi"), again, *results, Message("user", "?")])
    sent = json.loads(model._encode(asked, model._resolve_base_url()))
    assert sent["messages"][-1]["role"] == "user"
    if "toolResult" not in json.dumps(
        sent["messages"][1:2]
    ):  # what Bedrock itself has said goes back as it was
        judge(sent)
    return True


@pytest.mark.parametrize("answer", [WHOLE, {**WHOLE, "stopReason": "guardrail_intervened"}, ERROR])
def test_a_garbled_answer_is_an_answer_or_an_error(answer: dict[str, Any]) -> None:
    found = [check(json.dumps(changed).encode(), streamed=False) for changed in garbled(answer)]
    assert any(found) == (answer is WHOLE)


def test_a_garbled_event_is_an_answer_or_an_error() -> None:
    found = [check(framed(changed), streamed=True) for changed in garbled(EVENTS)]
    assert any(found)


def test_events_in_any_order_are_an_answer_or_an_error() -> None:
    dice = random.Random(3)
    for _ in range(300):
        events = dice.sample(EVENTS, dice.randint(1, len(EVENTS)))
        check(framed(events), streamed=True)
        check(framed([*events, *EVENTS[-2:]]), streamed=True)
