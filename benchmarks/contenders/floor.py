"""The floor: plain httpx, the same requests, the same JSON parsed, and nothing else."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import httpx

from benchmarks.contenders import Job, Setup, expect

_TOOL = {
    "name": "add_item",
    "description": "Add an item to the list.",
    "parameters": {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
}
_HEADERS = {"authorization": "Bearer none"}
PACKAGES = ("httpx",)


def add_item(item: str) -> str:
    return f"added {item}"


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(headers=_HEADERS, limits=httpx.Limits(max_connections=None), timeout=60)


def tool_run(setup: Setup) -> Job:
    client = _client()
    wire = Chat if setup.protocol == "chat" else Responses

    async def run(number: int) -> None:
        body = wire.first(setup.model)
        answer = (await client.post(setup.base_url + wire.path, json=body)).json()
        call_id, name, arguments = wire.call(body, answer)
        expect(name, "add_item")
        wire.result(body, call_id, add_item(**json.loads(arguments)))
        answer = (await client.post(setup.base_url + wire.path, json=body)).json()
        expect(wire.text(answer), "done")

    return Job(run, close=client.aclose)


def stream(setup: Setup) -> Job:
    client = _client()
    wire = Chat if setup.protocol == "chat" else Responses

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, []
        body = {**wire.first(setup.model), "stream": True}
        async with client.stream("POST", setup.base_url + wire.path, json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    piece = wire.piece(json.loads(line[6:]))
                    if piece:
                        first = first or time.perf_counter() - started
                        pieces.append(piece)
        expect(len(pieces), setup.count)
        return first

    return Job(run, close=client.aclose)


def state(setup: Setup) -> Job:
    """The requests of a run, and the state once read and once written as JSON."""
    base = tool_run(setup)
    text = json.dumps({"count": 0, "notes": ["x" * 80] * (setup.size // 84)})

    async def run(number: int) -> None:
        nonlocal text
        await base.run(number)
        value = json.loads(text)
        value["count"] += 1
        text = json.dumps(value)

    return Job(run, close=base.close)


def session(setup: Setup) -> Job:
    """The requests of a run, and its messages appended to a file and synced, as one write."""
    base = tool_run(setup)
    file = open(f"{setup.folder}/log", "ab", buffering=0)  # noqa: SIM115

    async def run(number: int) -> None:
        await base.run(number)
        file.write(json.dumps({"run": number, "messages": ["x" * 40] * 5}).encode() + b"\n")
        os.fdatasync(file.fileno())

    return Job(run, close=base.close)


class Chat:
    path = "/chat/completions"

    @staticmethod
    def first(model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Add milk to my list."}]
        return {"model": model, "messages": messages, "tools": [{"type": "function", "function": _TOOL}]}

    @staticmethod
    def call(body: dict[str, Any], answer: dict[str, Any]) -> tuple[str, str, str]:
        message = answer["choices"][0]["message"]
        body["messages"].append(message)
        call = message["tool_calls"][0]
        return call["id"], call["function"]["name"], call["function"]["arguments"]

    @staticmethod
    def result(body: dict[str, Any], call_id: str, text: str) -> None:
        body["messages"].append({"role": "tool", "tool_call_id": call_id, "content": text})

    @staticmethod
    def text(answer: dict[str, Any]) -> str:
        text: str = answer["choices"][0]["message"]["content"]
        return text

    @staticmethod
    def piece(chunk: dict[str, Any]) -> str | None:
        return chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None


class Responses:
    path = "/responses"

    @staticmethod
    def first(model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Add milk to my list."}]
        return {"model": model, "input": messages, "tools": [{"type": "function", **_TOOL}], "store": False}

    @staticmethod
    def call(body: dict[str, Any], answer: dict[str, Any]) -> tuple[str, str, str]:
        (call,) = [item for item in answer["output"] if item["type"] == "function_call"]
        body["input"].append(call)
        return call["call_id"], call["name"], call["arguments"]

    @staticmethod
    def result(body: dict[str, Any], call_id: str, text: str) -> None:
        body["input"].append({"type": "function_call_output", "call_id": call_id, "output": text})

    @staticmethod
    def text(answer: dict[str, Any]) -> str:
        text: str = answer["output"][-1]["content"][0]["text"]
        return text

    @staticmethod
    def piece(event: dict[str, Any]) -> str | None:
        return event["delta"] if event["type"] == "response.output_text.delta" else None
