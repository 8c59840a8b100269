"""What OpenAI refuses of a conversation, `ModelServer` refuses in OpenAI's words, or no test could see it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kern import Agent
from kern.models.openai import OpenAIResponses
from kern.testing import Answer, ModelServer, tool_call

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c1", "name": "t", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "x"}],
}


async def refusal(path: str, **body: Any) -> tuple[int, str]:
    async with ModelServer(["ok"]) as server, httpx.AsyncClient() as client:
        response = await client.post(f"{server.base_url}/{path}", json={"model": "gpt-5.2", **body})
    return response.status_code, (response.json().get("error") or {}).get("message", "")


@pytest.mark.parametrize(
    ("items", "status", "words"),
    [
        ([USER, THOUGHT, CALL, OUTPUT], 200, ""),
        ([USER, THOUGHT, SAID, USER], 200, ""),
        (
            [USER, THOUGHT],
            400,
            "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
        ),
        ([USER, THOUGHT, USER], 400, "without its required following item"),
        ([USER, CALL, THOUGHT, OUTPUT], 400, "without its required following item"),
        (
            [USER, {"type": "reasoning", "id": "rs_1", "summary": []}, SAID],
            404,
            "Item with id 'rs_1' not found.",
        ),
        ([USER, THOUGHT, SAID, USER, THOUGHT, SAID], 400, "Duplicate item found with id rs_1."),
        ([USER, SAID, USER, SAID], 400, "Duplicate item found with id msg_1."),
        ([USER, {**CALL, "id": "call_1"}, OUTPUT], 400, "Expected an ID that begins with 'fc'."),
        ([USER, CALL], 400, "No tool output found for function call c1."),
        ([USER, OUTPUT], 400, "No tool call found for function call output with call_id c1."),
        ([USER, OUTPUT, CALL], 400, "No tool call found for function call output with call_id c1."),
        ([USER, CALL, OUTPUT, CALL, OUTPUT], 400, "call_id c1"),
        ([USER, CALL, OUTPUT, OUTPUT], 400, "call_id c1"),
        ([USER, {**CALL, "call_id": "c" * 65}, OUTPUT], 400, "maximum length 64"),
        ([USER, {**CALL, "arguments": {}}, OUTPUT], 400, "Invalid type for 'input[1].arguments'"),
        ([{"role": "tool", "content": "x"}], 400, "Invalid value: 'tool'."),
        ([{"role": "critic", "content": "x"}], 400, "Invalid value: 'critic'."),
        ([{"role": "user", "content": None}], 400, "Missing required parameter: 'input[0].content'."),
        ([{"role": "user"}], 400, "Missing required parameter: 'input[0].content'."),
        ([{"note": "no type"}], 400, "Invalid value"),
        ([{"type": "chatter"}], 400, "Invalid value: 'chatter'."),
    ],
)
async def test_items_are_refused_as_openai_refuses_them(items: list[Any], status: int, words: str) -> None:
    got, message = await refusal("responses", input=items)
    assert (got, words in message) == (status, True), message


@pytest.mark.parametrize("stream", [False, True])
async def test_an_item_needs_the_reasoning_that_led_to_it(stream: bool) -> None:
    answers = [Answer("done", tool_calls=[tool_call("t")], reasoning="Hm."), "ok", "ok"]
    async with ModelServer(answers) as server, httpx.AsyncClient(base_url=server.base_url) as client:
        body = {"model": "gpt-5.2", "store": False, "include": ["reasoning.encrypted_content"]}
        first = await client.post("/responses", json={**body, "input": [USER]})
        reasoning, said, call = first.json()["output"]
        output = {**OUTPUT, "call_id": call["call_id"]}
        for left_out, items in (("msg", [said, call]), ("fc", [call])):
            refused = await client.post("/responses", json={**body, "input": [USER, *items, output]})
            assert refused.status_code == 400
            message = refused.json()["error"]["message"]
            assert message.startswith(f"Item '{left_out}_")
            assert message.endswith(
                f"was provided without its required 'reasoning' item: '{reasoning['id']}'."
            )
        for items in ([reasoning, said, call], [{k: v for k, v in call.items() if k != "id"}]):
            taken = await client.post("/responses", json={**body, "input": [USER, *items, output]})
            assert taken.status_code == 200


async def test_reasoning_is_found_by_its_id_only_where_it_was_stored() -> None:
    answers = [Answer("a", reasoning="Hm."), Answer("b", reasoning="Hm."), "ok"]
    async with ModelServer(answers) as server, httpx.AsyncClient(base_url=server.base_url) as client:
        for store, status in ((False, 404), (True, 200)):
            body = {"model": "gpt-5.2", "store": store}
            output = (await client.post("/responses", json={**body, "input": [USER]})).json()["output"]
            again = await client.post("/responses", json={**body, "input": [USER, *output, USER]})
            assert again.status_code == status


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "critic", "content": "x"}], "Invalid value: 'critic'."),
        ([{"role": "user", "content": None}], "got null"),
        ([USER, {"role": "tool", "tool_call_id": "c1", "content": "x"}], "must be a response to a preceding"),
    ],
)
async def test_messages_are_refused_as_openai_refuses_them(messages: list[Any], words: str) -> None:
    status, message = await refusal("chat/completions", messages=messages)
    assert (status, words in message) == (400, True), message


@pytest.mark.parametrize("ids", [["c" * 41], ["c1", "c1"]])
async def test_ids_of_calls_are_short_and_differ(ids: list[str]) -> None:
    calls = [{"id": each, "type": "function", "function": {"name": "t", "arguments": "{}"}} for each in ids]
    results = [{"role": "tool", "tool_call_id": each, "content": "x"} for each in ids]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    status, _ = await refusal("chat/completions", messages=[USER, said, *results])
    assert status == 400


@pytest.mark.parametrize(
    ("settings", "reasoning"), [({}, 3), ({"store": True}, 1), ({"extra_body": {"include": None}}, 0)]
)
async def test_a_session_with_reasoning_goes_on_whatever_is_stored(
    settings: dict[str, Any], reasoning: int
) -> None:
    def find(q: str) -> str:
        """Find something."""
        return f"found {q}"

    answers = [
        Answer(tool_calls=[tool_call("find", q="x")], reasoning="Hm."),
        Answer("ok", reasoning="So."),
    ] * 2
    async with ModelServer(answers) as server:
        model = OpenAIResponses("gpt-5.2", base_url=server.base_url, api_key="any", max_retries=0, **settings)
        agent = Agent(model=model, tools=[find], add_history_to_context=True)
        for _ in range(2):
            assert (await agent.arun("x")).content == "ok"
        kinds = [item.get("type") for item in server.requests[-1].body["input"]]
        assert kinds.count("reasoning") == reasoning
