"""The faults of the wire and of the service, on Bedrock's protocol: never an answer, no key in any text."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import struct
import zlib
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelIncompleteError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelServerStreamError,
    ModelStatusError,
    ModelStreamError,
    ModelTimeoutError,
)
from kern.messages import Message
from kern.models._ends import Ends
from kern.models._failures import StreamFault
from kern.models.base import ModelRequest
from kern.models.bedrock import BedrockConverse
from kern.models.bedrock._decode import ConverseReader
from kern.models.bedrock._frames import Frames
from tests.models.bedrock_wire import FRAMES, KEYS, SECRETS, frame, frames, packed, thrown
from tests.models.raw_server import Wire, raw_server
from tests.models.replay import ReplayServer, Reply, Sink, shown_by_a_failure
from tests.models.test_keys_in_tracebacks import reported

ASK = ModelRequest([Message("user", "Hi")], stream=True)
USAGE = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 8}
CONTENT = [
    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "EqQB"}}},
    {"text": "Grüße \U0001f600"},
    {"toolUse": {"toolUseId": "tooluse_1", "name": "add", "input": {"item": "milk"}}},
]
WHOLE = json.dumps(
    {
        "output": {"message": {"role": "assistant", "content": CONTENT}},
        "stopReason": "tool_use",
        "usage": USAGE,
    }
).encode()


def delta(index: int, **said: Any) -> bytes:
    return frame("contentBlockDelta", contentBlockIndex=index, delta=said)


def stop(index: int) -> bytes:
    return frame("contentBlockStop", contentBlockIndex=index)


def start(index: int, **said: Any) -> bytes:
    return frame("contentBlockStart", contentBlockIndex=index, start=said)


BEGIN = frame("messageStart", role="assistant")
THOUGHT = (
    delta(0, reasoningContent={"text": "Hm."}) + delta(0, reasoningContent={"signature": "EqQB"}) + stop(0)
)
TEXT = delta(1, text="Grüße ") + delta(1, text="\U0001f600") + stop(1)
CALL = (
    start(2, toolUse={"toolUseId": "tooluse_1", "name": "add"})
    + delta(2, toolUse={"input": '{"item":'})
    + delta(2, toolUse={"input": '"milk"}'})
    + stop(2)
)
REASON = frame("messageStop", stopReason="tool_use")
END = frame("metadata", usage=USAGE, metrics={"latencyMs": 1})
STREAM = BEGIN + THOUGHT + TEXT + CALL + REASON + END
TOLD = len(STREAM) - len(END)
JSON = "application/json"


def model(server: ReplayServer, **settings: Any) -> BedrockConverse:
    settings = {"max_retries": 2, **KEYS, **settings}
    return BedrockConverse("anthropic.claude-x", base_url=server.url.removesuffix("/v1"), **settings)


def streamed(*pieces: bytes, **how: Any) -> Reply:
    return Reply(pieces, content_type=FRAMES, **how)


def problem(status: int, kind: str = "SomeException", message: str | None = None, **headers: str) -> Reply:
    body = {"message": f"Because of {' and '.join(SECRETS)}" if message is None else message}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/x/", "x-amzn-requestid": "req_1", **named}
    return Reply([json.dumps(body).encode()], status, told, JSON)


def summary(message: Message) -> Any:
    calls = [(call.id, call.name, json.loads(call.arguments)) for call in message.tool_calls]
    return message.reasoning_content, message.content, calls


ANSWER = ("Hm.", "Grüße \U0001f600", [("tooluse_1", "add", {"item": "milk"})])


@pytest.mark.parametrize(
    "fault",
    [
        problem(408, "ModelTimeoutException"),
        problem(424, "ModelErrorException"),
        problem(429, "ThrottlingException"),
        problem(429, "ModelNotReadyException"),
        problem(500, "InternalServerException"),
        problem(503, "ServiceUnavailableException"),
        Reply(refuse=True),
        streamed(),
        streamed(cut=True),
        streamed(STREAM[:150], cut=True),
        streamed(STREAM[:150]),
        streamed(b"data: {}\n\n" * 3),
        streamed(b"<html><body>Bad gateway</body></html>"),
        streamed(packed({":event-type": "messageStart"}, b"{broken")),
        streamed(packed({":event-type": "messageStart"}, b"7")),
        streamed(thrown("internalServerException", "It broke.")),
        streamed(
            thrown("modelStreamErrorException", "", originalStatusCode=500, originalMessage="It broke.")
        ),
        streamed(thrown("serviceUnavailableException", "Come back.")),
        streamed(thrown("throttlingException", "Too many requests, please wait.")),
        streamed(thrown("modelTimeoutException", "Too late.")),
        streamed(packed({":message-type": "error", ":error-code": "InternalFailure"}, b"")),
        streamed(packed({":message-type": "exception"}, b"{}")),
        streamed(BEGIN + frame("messageStop", stopReason="malformed_model_output") + END),
        streamed(BEGIN + frame("messageStop", stopReason="tool_use") + END),
        Reply([b"<html><body>Bad gateway</body></html>"], content_type="text/html"),
        Reply([b"data: {}\n\n"]),
        Reply([b"{}"], content_type=JSON),
        Reply([b""], content_type=JSON),
        Reply([b'{"output": {"message": {"content": []}}}'], content_type=JSON),
    ],
)
async def test_what_may_pass_is_asked_for_again(server: ReplayServer, sink: Sink, fault: Reply) -> None:
    server.replies = [fault, fault, streamed(STREAM)]
    answer = await model(server).respond(ASK, sink)
    assert summary(answer.message) == ANSWER
    assert [attempt for _, attempt, _ in sink.retries] == [1, 2]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (problem(400, "ValidationException"), ModelBadRequestError),
        (problem(401, "UnrecognizedClientException"), ModelAuthError),
        (problem(403, "AccessDeniedException"), ModelAuthError),
        (problem(403, "ExpiredTokenException"), ModelAuthError),
        (problem(404, "ResourceNotFoundException"), ModelNotFoundError),
        (problem(429, "ThrottlingException", retry_after="3600"), ModelRateLimitError),
        (problem(307, location="/elsewhere"), ModelStatusError),
    ],
)
async def test_what_no_repetition_mends_is_raised_at_once(
    server: ReplayServer, sink: Sink, fault: Reply, kind: type[ModelStatusError]
) -> None:
    server.replies = [fault]
    with pytest.raises(ModelStatusError, match="Because of") as caught:
        await model(server).respond(ASK, sink)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.request_id, error.provider, error.model) == (
        fault.status,
        "req_1",
        "bedrock",
        "anthropic.claude-x",
    )
    assert error.code == fault.headers["x-amzn-errortype"].partition(":")[0]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        problem(429, "ThrottlingException", "Too many tokens per day, please wait before trying again."),
        streamed(thrown("throttlingException", "Too many tokens per day, please wait before trying again.")),
    ],
)
async def test_a_quota_of_a_day_is_not_waited_for(server: ReplayServer, sink: Sink, fault: Reply) -> None:
    server.replies = [fault]
    with pytest.raises(ModelRateLimitError, match="per day") as caught:
        await model(server).respond(ASK, sink)
    assert (caught.value.code, len(server.asked)) == ("ThrottlingException", 1)


@pytest.mark.parametrize(
    ("kind", "raised", "status"),
    [
        ("internalServerException", ModelServerStreamError, 500),
        ("modelStreamErrorException", ModelServerStreamError, 424),
        ("serviceUnavailableException", ModelServerStreamError, 503),
        ("throttlingException", ModelRateLimitError, 429),
        ("validationException", ModelBadRequestError, 400),
    ],
)
async def test_an_exception_in_the_stream_is_the_one_that_the_status_would_be(
    server: ReplayServer, sink: Sink, kind: str, raised: type[ModelStatusError], status: int
) -> None:
    """Each after a part of the answer, so that nothing is asked again."""
    server.replies = [streamed(BEGIN + TEXT + thrown(kind, f"It was {SECRETS[1]}."))]
    with pytest.raises(raised, match="It was") as caught:
        await model(server).respond(ASK, sink)
    code = kind[:1].upper() + kind[1:]
    assert (caught.value.status, caught.value.code, len(server.asked)) == (status, code, 1)
    assert SECRETS[1] not in str(caught.value)
    assert sink.text() == "Grüße \U0001f600"


async def test_events_of_a_newer_service_are_passed_over(server: ReplayServer, sink: Sink) -> None:
    new = packed({":event-type": "initial-response", ":message-type": "event"}, b"\x00\xff")
    server.replies = [streamed(new + BEGIN + THOUGHT + new + TEXT + CALL + REASON + END)]
    assert summary((await model(server).respond(ASK, sink)).message) == ANSWER


async def test_a_refused_request_in_the_stream_is_not_asked_again(server: ReplayServer, sink: Sink) -> None:
    server.replies = [streamed(thrown("validationException", "No."))]
    with pytest.raises(ModelBadRequestError):
        await model(server).respond(ASK, sink)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("max_tokens", "max_output_tokens"),
        ("model_context_window_exceeded", "max_output_tokens"),
        ("content_filtered", "content_filter"),
        ("guardrail_intervened", "content_filter"),
    ],
)
async def test_an_answer_that_was_cut_is_an_error_with_what_came(
    server: ReplayServer, sink: Sink, word: str, reason: str
) -> None:
    end = frame("messageStop", stopReason=word)
    trace = {"guardrail": {"actionReason": "It was blocked."}}
    server.replies = [streamed(BEGIN + TEXT + end + frame("metadata", usage=USAGE, trace=trace))]
    with pytest.raises(ModelIncompleteError, match=word) as caught:
        await model(server).respond(ASK, sink)
    error = caught.value
    assert (error.reason, error.content) == (reason, "Grüße \U0001f600")
    assert error.usage.output_tokens == 5
    assert ("It was blocked." in str(error)) == (word == "guardrail_intervened")
    assert len(server.asked) == 1


async def test_a_word_that_nobody_knows_is_no_good_end(server: ReplayServer, sink: Sink) -> None:
    body = BEGIN + TEXT + frame("messageStop", stopReason="went_home") + END
    server.replies = [streamed(body)]
    with pytest.raises(ModelStreamError, match="good_ends"):
        await model(server).respond(ASK, sink)
    answer = await model(server, good_ends=["went_home"]).respond(ASK, sink)
    assert (answer.finish_reason, answer.provider_finish_reason) == ("stop", "went_home")


@pytest.mark.parametrize("clean", [True, False])
async def test_a_stream_that_is_cut_at_any_byte_is_no_answer(server: ReplayServer, clean: bool) -> None:
    """Every few bytes up to the event that says how the answer ended, on connections of their own."""
    sink = Sink()
    for at in range(0, TOLD, 11 if clean else 17):
        server.replies = [streamed(STREAM[:at], cut=not clean)]
        with pytest.raises(ModelError) as caught:
            await model(server, max_retries=0).respond(ASK, sink)
        assert isinstance(caught.value, ModelStreamError | ModelConnectionError), at


def read(body: bytes, longest: int | None = None) -> Any:
    reader = ConverseReader("m", None, streamed=True, ends=Ends(), longest=longest)
    reader.feed(body)
    return reader.finish()


def test_a_stream_that_is_cut_at_every_byte_is_no_answer() -> None:
    """The only place where it may be cut is between its last two events: the end is told before the usage."""
    whole = [at for at in range(len(STREAM)) if at != TOLD and _is_answer(STREAM[:at])]
    assert whole == []
    assert summary(read(STREAM[:TOLD]).message) == ANSWER


def _is_answer(body: bytes) -> bool:
    try:
        read(body)
    except StreamFault:
        return False
    return True


def test_a_byte_that_is_changed_anywhere_is_noticed() -> None:
    dice = random.Random(7)
    for at in range(len(STREAM)):
        wrong = bytearray(STREAM)
        wrong[at] ^= dice.randint(1, 255)
        with pytest.raises(StreamFault, match=r"event stream|middle of an event|longer than"):
            read(bytes(wrong), longest=1 << 20)


def test_garbage_is_never_an_answer_and_never_anything_but_a_fault() -> None:
    dice = random.Random(11)
    whole = list(frames(STREAM))
    for _ in range(400):
        kind = dice.randrange(4)
        if kind == 0:
            body = dice.randbytes(dice.randint(1, 400))
        elif kind == 1:  # right checksums around anything
            body = packed({"x" * dice.randint(0, 9): "y"}, dice.randbytes(30))
        elif kind == 2:  # messages that are lost, or come twice; not the last but one
            body = b"".join(part for part in whole[:-2] for _ in range(dice.randrange(3)))
        else:  # headers of any type and length, under the right checksums
            body = headed(dice.randbytes(dice.randint(1, 40)), b"{}")
        with pytest.raises(StreamFault):
            read(body)


def headed(block: bytes, payload: bytes, claimed: int | None = None) -> bytes:
    """A message with headers as they are given, and right checksums."""
    total = len(block) + len(payload) + 16
    head = struct.pack("!II", total, len(block) if claimed is None else claimed)
    data = head + struct.pack("!I", zlib.crc32(head)) + block + payload
    return data + struct.pack("!I", zlib.crc32(data))


@pytest.mark.parametrize("total", [0, 1, 4, 11, 12, 15, 16, 17, 1 << 24, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("headers", [0, 1, 1 << 20, (1 << 32) - 1])
def test_a_length_of_any_size_is_refused_before_its_bytes_are_waited_for(total: int, headers: int) -> None:
    head = struct.pack("!II", total, headers)
    data = head + struct.pack("!I", zlib.crc32(head)) + bytes(64)
    stream = Frames(1 << 20)
    with pytest.raises(StreamFault):
        for _ in stream.feed(data):
            pass
        if stream.pending:
            raise StreamFault("more is waited for")
    assert len(stream._data) <= len(data)


def test_a_message_that_is_too_long_for_the_model_says_what_to_raise() -> None:
    with pytest.raises(StreamFault, match="max_line_bytes") as caught:
        read(delta(0, text="x" * 5000) + REASON + END, longest=4096)
    assert not caught.value.again


async def test_more_than_the_longest_answer_is_not_taken_in(server: ReplayServer, sink: Sink) -> None:
    server.replies = [streamed(BEGIN, *[delta(0, text="x" * 2000)] * 20, REASON, END)]
    with pytest.raises(ModelStreamError, match="max_answer_bytes"):
        await model(server, max_answer_bytes=10_000).respond(ASK, sink)


async def test_a_whole_answer_that_is_cut_at_any_byte_is_none(server: ReplayServer, sink: Sink) -> None:
    for at in range(0, len(WHOLE), 3):
        server.replies = [Reply([WHOLE[:at]], content_type=JSON, cut=bool(at % 2))]
        with pytest.raises(ModelError):
            await model(server, max_retries=0).respond(ModelRequest(ASK.messages), sink)


async def test_a_stream_in_pieces_of_any_size_is_the_same(server: ReplayServer) -> None:
    for size in (1, 2, 3, 5, 17, 100):
        sink = Sink()
        server.replies = [streamed(*[STREAM[at : at + size] for at in range(0, len(STREAM), size)])]
        answer = await model(server).respond(ASK, sink)
        assert summary(answer.message) == ANSWER
        assert (sink.text("reasoning"), sink.text()) == ANSWER[:2]


async def test_a_compressed_answer_is_understood(server: ReplayServer, sink: Sink) -> None:
    packed_ = {"content-encoding": "gzip"}
    server.replies = [
        Reply([gzip.compress(WHOLE)], 200, packed_, JSON),
        Reply([gzip.compress(STREAM)], 200, packed_, FRAMES),
        Reply([gzip.compress(STREAM)[:-20]], 200, packed_, FRAMES),
    ]
    for request in (ModelRequest(ASK.messages), ASK):
        assert summary((await model(server).respond(request, sink)).message) == ANSWER
    with pytest.raises(ModelStreamError):
        await model(server, max_retries=0).respond(ASK, Sink())


async def test_a_whole_answer_in_place_of_a_stream_is_shown_once_it_is_there(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = [Reply([WHOLE], content_type=JSON)]
    answer = await model(server).respond(ASK, sink)
    assert summary(answer.message) == ANSWER
    assert (sink.text("reasoning"), sink.text()) == ANSWER[:2]


@pytest.mark.parametrize("after", [0, 150, TOLD - 60])
async def test_silence_is_a_timeout(server: ReplayServer, sink: Sink, after: int) -> None:
    server.replies = [streamed(STREAM[:after], stall=True)]
    with pytest.raises(ModelTimeoutError):
        await model(server, max_retries=0, timeout=0.1).respond(ASK, sink)


async def test_an_answer_is_whole_before_its_connection_ends(server: ReplayServer, sink: Sink) -> None:
    server.replies = [streamed(STREAM, stall=True)]
    answer = await model(server, max_retries=0, timeout=30).respond(ASK, sink)
    assert summary(answer.message) == ANSWER


async def test_once_a_piece_was_shown_nothing_is_asked_again(server: ReplayServer, sink: Sink) -> None:
    server.replies = [streamed((BEGIN + THOUGHT)[:-5], cut=True), streamed(STREAM)]
    with pytest.raises(ModelError):
        await model(server).respond(ASK, sink)
    assert (len(server.asked), sink.text("reasoning")) == (1, "Hm.")


FAULTS = [
    problem(400),
    problem(403, "InvalidSignatureException", f"Canonical: x-amz-security-token:{SECRETS[2]}"),
    problem(503),
    Reply([" ".join(SECRETS).encode()], 502, content_type="text/html"),
    Reply([json.dumps({"message": " ".join(SECRETS)}).encode()], content_type=JSON),
    streamed(" ".join(SECRETS).encode()),
    streamed(thrown("internalServerException", " ".join(SECRETS))),
    streamed(
        packed({":message-type": "error", ":error-message": SECRETS[2], ":error-code": SECRETS[1]}, b"")
    ),
    streamed(BEGIN + frame("messageStop", stopReason=SECRETS[1]) + END),
    Reply(refuse=True),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_fails_and_shows_no_key(
    server: ReplayServer, caplog: pytest.LogCaptureFixture, fault: Reply, stream: bool
) -> None:
    server.replies = [fault]
    text = await shown_by_a_failure(model(server, max_retries=1), caplog, stream=stream)
    signatures = [asked.headers["authorization"].rpartition("=")[2] for asked in server.asked]
    assert signatures
    for secret in (*SECRETS, *signatures):
        assert secret not in text
        assert secret[:14] not in text
        assert secret[-14:] not in text
    assert base64.b64encode(SECRETS[1].encode()).decode() not in text


async def test_a_signature_that_the_server_repeats_is_not_shown(client: str, sink: Sink) -> None:
    """The server answers with what it was sent, as a proxy that explains itself does."""

    async def answer(wire: Wire) -> None:
        await wire.request()
        body = json.dumps({"message": f"You sent {wire.server.heads[-1]}"}).encode()
        await wire.send(b"HTTP/1.1 400 No\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async with raw_server(answer) as server:
        asked = BedrockConverse("m", base_url=server.url, max_retries=0, **KEYS)
        with pytest.raises(ModelBadRequestError, match="You sent") as caught:
            await asked.respond(ASK, sink)
    signature = re.search("Signature=([0-9a-f]{64})", server.heads[0])
    assert signature is not None
    text = reported(caught.value.with_traceback(caught.tb.tb_next))  # not this function's variables
    assert all(secret[:12] not in text for secret in (signature[1], *SECRETS))


def test_a_message_that_botocore_does_not_read_is_not_asked_for_again() -> None:
    lengths = struct.pack("!II", 1 << 25, 0)
    with pytest.raises(StreamFault, match="exceeded the maximum") as caught:
        read(lengths + struct.pack("!I", zlib.crc32(lengths)) + bytes(64))
    assert not caught.value.again
