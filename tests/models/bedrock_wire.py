"""Bedrock's side of the wire, without Kern: frames by `struct`, signatures by `hmac`, and a judge.

The judge holds a request against botocore's model of the service, and against the rules of its documentation:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import quote

from botocore.model import StructureShape
from botocore.session import Session
from botocore.validate import ParamValidator

from tests.models.replay import Asked

FRAMES = "application/vnd.amazon.eventstream"
KEYS = {
    "region": "us-east-1",
    "aws_access_key_id": "AKIDEXAMPLE0123456789",
    "aws_secret_access_key": "wJalrXUtnFEMI+K7MDENG/bPxRfiCYEXAMPLEKEY",
    "aws_session_token": "FwoGZXIvYXdzEBYaDGTheTokenOfASessionThatNobodyShows//8=",
}
SECRETS = (KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"], KEYS["aws_session_token"])


def packed(headers: dict[str, str], payload: bytes) -> bytes:
    """One message: lengths, a checksum of them, headers of strings, the payload, a checksum of all."""
    block = b"".join(
        struct.pack("!B", len(name))
        + name.encode()
        + struct.pack("!BH", 7, len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    head = struct.pack("!II", len(block) + len(payload) + 16, len(block))
    data = head + struct.pack("!I", zlib.crc32(head)) + block + payload
    return data + struct.pack("!I", zlib.crc32(data))


def frame(kind: str, **event: Any) -> bytes:
    """An event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return packed(headers, json.dumps(event, ensure_ascii=False).encode())


def thrown(kind: str, message: str, **more: Any) -> bytes:
    """An exception inside of a stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return packed(headers, json.dumps({"message": message, **more}).encode())


def unpacked(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a stream, and their ends: cut at `frames`."""
    for data in frames(body):
        (headers,) = struct.unpack("!I", data[4:8])
        names: dict[str, str] = {}
        block = data[12 : 12 + headers]
        while block:
            name = block[1 : 1 + block[0]].decode()
            block = block[1 + block[0] :]
            assert block[0] == 7
            (length,) = struct.unpack("!H", block[1:3])
            names[name], block = block[3 : 3 + length].decode(), block[3 + length :]
        yield names[":event-type"], json.loads(data[12 + headers : -4])


def frames(body: bytes) -> Iterator[bytes]:
    """The messages of a stream, whose checksums are right."""
    while body:
        (total,) = struct.unpack("!I", body[:4])
        data, body = body[:total], body[total:]
        assert zlib.crc32(data[:-4]) == struct.unpack("!I", data[-4:])[0]
        yield data


def served_bytes(response: dict[str, Any]) -> bytes:
    """The body of a recorded answer; one recorder has put what was in base64 into base64 again."""
    if "body" in response:
        return str(response["body"]).encode()
    body = base64.b64decode(response["body_base64"])
    return base64.b64decode(body) if body.startswith(b"AAAA") else body


def signature_of(asked: Asked, raw: bytes, region: str = "us-east-1") -> str:
    """What the authorization of a request has to be (signature version 4), computed from what arrived."""
    given = asked.headers["authorization"]
    names = re.search(r"SignedHeaders=([^,]+)", given)
    assert names is not None
    canonical = "\n".join(
        [
            "POST",
            quote(asked.path, safe="/-_.~"),
            "",
            *(f"{name}:{' '.join(asked.headers[name].split())}" for name in names[1].split(";")),
            "",
            names[1],
            hashlib.sha256(raw).hexdigest(),
        ]
    )
    time = asked.headers["x-amz-date"]
    scope = f"{time[:8]}/{region}/bedrock/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + KEYS["aws_secret_access_key"].encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    return (
        f"AWS4-HMAC-SHA256 Credential={KEYS['aws_access_key_id']}/{scope}, SignedHeaders={names[1]}, "
        f"Signature={key.hex()}"
    )


@cache
def input_shape() -> StructureShape:
    return Session().get_service_model("bedrock-runtime").operation_model("ConverseStream").input_shape


_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DOCUMENT = re.compile(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*")


def judge(body: dict[str, Any]) -> None:
    """Refuse what the service would refuse."""
    report = ParamValidator().validate({"modelId": "m", **body}, input_shape())
    assert not report.has_errors(), report.generate_report()
    turns = body["messages"]
    roles = [turn["role"] for turn in turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
    called: list[str] = []
    documents: list[str] = []
    points = 0
    for at, turn in enumerate(turns):
        blocks = turn["content"]
        assert blocks
        kinds = [kind for block in blocks for kind in block]
        texts = [block["text"] for block in (*blocks, *body.get("system", ())) if "text" in block]
        assert all(text.strip() for text in texts)
        points += kinds.count("cachePoint")
        calls = [b["toolUse"] for b in blocks if "toolUse" in b and "type" not in b["toolUse"]]
        assert all(_ID.fullmatch(call["toolUseId"]) and _NAME.fullmatch(call["name"]) for call in calls)
        called += [call["toolUseId"] for call in calls]
        results = [b["toolResult"] for b in blocks if "toolResult" in b]
        if turn["role"] == "assistant":
            assert kinds[-1] != "reasoningContent"
            if at + 1 < len(turns):
                answered = [
                    b["toolResult"]["toolUseId"] for b in turns[at + 1]["content"] if "toolResult" in b
                ]
                assert sorted(answered) == sorted(call["toolUseId"] for call in calls)
            else:
                assert not calls
        else:
            assert "toolUse" not in kinds
            assert "reasoningContent" not in kinds
            assert not results or kinds[0] == "toolResult"
            assert "document" not in kinds or "text" in kinds
        inner = [block for result in results for block in result["content"]]
        documents += [b["document"]["name"] for b in (*blocks, *inner) if "document" in b]
        assert all(result["content"] for result in results)
    assert len(set(called)) == len(called)
    assert len(set(documents)) == len(documents)
    assert all(_DOCUMENT.fullmatch(name) for name in documents)
    tools = body.get("toolConfig", {}).get("tools", [])
    assert tools or not called
    points += sum("cachePoint" in block for block in (*tools, *body.get("system", ())))
    assert points <= 4
