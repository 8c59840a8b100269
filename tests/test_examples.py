"""The programs of examples/, against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import uvicorn

from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, no_leaks, tool_call

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
Play = Callable[[ReceivedRequest], Answer | str]


def run_example(name: str, play: Play, folder: Path, **more: str) -> tuple[str, list[ReceivedRequest]]:
    """Run the example in a process of its own, as a reader would; returns what it printed."""
    with ModelServer(play) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", f"examples.{name}"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONIOENCODING": "utf-8",
                "OPENAI_BASE_URL": server.base_url,
                "OPENAI_API_KEY": "sk-any",
                **more,
            },
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, server.requests


def delegate(**tasks: str) -> Answer:
    """A turn that gives each member its task."""
    return Answer(
        tool_calls=[
            tool_call("delegate_task_to_member", member_id=member, task=task)
            for member, task in tasks.items()
        ]
    )


def leads(request: ReceivedRequest) -> bool:
    return "delegate_task_to_member" in request.tool_names


def results(request: ReceivedRequest) -> str:
    return "; ".join(message.content or "" for message in request.tool_results)


def printed(output: str, label: str) -> list[str]:
    return [line.removeprefix(label).strip() for line in output.splitlines() if line.startswith(label)]


def test_every_example_is_run_by_a_test() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"__init__"}
    tested = set(re.findall(r"^(?:async )?def test_(\w+)\(", Path(__file__).read_text(), re.MULTILINE))
    engines = (Path(__file__).parent / "engines" / "test_engine_examples.py").read_text(encoding="utf-8")
    run = set(re.findall(r'run_example\("(\w+)"', engines))
    assert {name for name in names - run if not any(test.startswith(name) for test in tested)} == set()


def test_async_program(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if request.tool_results:
            return f"Said: {results(request)}"
        city = re.search(r"What about (\w+)", request.user_text)
        if leads(request):
            assert city is not None
            return delegate(historian=f"The past of {city[1]}", cook=f"The food of {city[1]}")
        return Answer(tool_calls=[tool_call("note_fact", fact=request.user_text)])

    output, requests = run_example("async_program", play, tmp_path)
    for city in ("Lisbon", "Kraków"):
        assert f"{city}: Said: Said: noted; Said: noted" in output
    facts = printed(output, "  facts:")
    assert [sorted(json.loads(line.replace("'", '"'))) for line in facts] == [
        ["The food of Lisbon", "The past of Lisbon"],
        ["The food of Kraków", "The past of Kraków"],
    ]
    assert len(printed(output, "  requests: 6, tokens:")) == 2
    assert len(requests) == 12


def test_stream_to_console(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if "have you booked" in request.user_text:
            return "A train and a hotel."
        if request.tool_results:
            return f"Done, {results(request)}."
        if leads(request):
            return delegate(booker="a hotel" if "hotel" in request.user_text else "a train to Porto")
        return Answer(tool_calls=[tool_call("book", what=request.user_text)])

    output, requests = run_example("stream_to_console", play, tmp_path)
    assert output.startswith("Done, Done, booked: a train to Porto..\n")
    assert "Travel Desk > Booker calls book({'what': 'a hotel'})" in output
    assert (
        "Travel Desk > Booker changed the state: [{'op': 'add', 'path': '/booked/1', 'value': 'a hotel'}]"
        in output
    )
    assert output.count("A train and a hotel.") == 1
    assert all(request.stream for request in requests if leads(request))


def test_shared_state(tmp_path: Path) -> None:
    wanted = {"Clothes": "rain jacket", "Repair": "spare tube", "Food": "muesli"}

    def play(request: ReceivedRequest) -> Answer | str:
        if "read_list" in request.tool_names and request.tool_results[-1:]:
            said = request.tool_results[-1].tool_name == "read_list"
            return f"Pack {results(request)}." if said else Answer(tool_calls=[tool_call("read_list")])
        if request.tool_results:
            return "Done"
        if "read_list" in request.tool_names:
            return delegate(clothes="Clothes", gear="all of it")
        if leads(request):
            return delegate(repair="Repair", food="Food")
        return Answer(tool_calls=[tool_call("put_on_list", item=wanted[request.user_text])])

    output, _ = run_example("shared_state", play, tmp_path)
    (state,) = printed(output, "State:")
    assert "'count': 3" in state
    for item in wanted.values():
        assert item in state
        assert output.count(item) >= 2


def test_agentic_state(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if request.tool_results:
            return "Noted."
        if leads(request):
            return delegate(keeper=request.user_text)
        assert request.tool_names == ["update_session_state"]
        finished = "finished" in request.user_text
        assert finished == ('"to_read": ["Middlemarch", "Stoner"]' in request.system_text)
        updates = (
            {"to_read": ["Middlemarch"], "read": ["Stoner"]}
            if finished
            else {"to_read": ["Middlemarch", "Stoner"]}
        )
        return Answer(tool_calls=[tool_call("update_session_state", session_state_updates=updates)])

    output, _ = run_example("agentic_state", play, tmp_path)
    assert printed(output, "State:") == ["{'to_read': ['Middlemarch'], 'read': ['Stoner']}"]
    assert (tmp_path / "tmp" / "book_club.db").is_file()


def test_state_in_instructions(tmp_path: Path) -> None:
    output, requests = run_example("state_in_instructions", lambda request: "You are Ada.", tmp_path)
    assert "You are Ada." in output
    assert 'Answer Ada in English. Dates look like {"day": 1}.' in requests[0].system_text
    assert requests[0].user_text == "Who am I, and what does {guest.name} mean?"


def test_change_state_on_run(tmp_path: Path) -> None:
    output, requests = run_example("change_state_on_run", lambda request: "At your service.", tmp_path)
    served = [re.search(r"You serve (\w+) in room (\w+)", request.system_text) for request in requests]
    assert [found.groups() for found in served if found] == [
        ("Ada", "12"),
        ("Bob", "7"),
        ("Ada", "12"),
        ("Ada", "14"),
    ]
    assert printed(output, "Refused:") == [
        "session 'stay-1' belongs to another user: pass its owner as user_id="
    ]
    assert printed(output, "State:") == ["{'guest': 'Ada', 'room': 14}"]


def test_overwrite_state(tmp_path: Path) -> None:
    output, _ = run_example("overwrite_state", lambda request: "I will.", tmp_path)
    assert printed(output, "Merged:") == ["{'city': 'Oslo', 'trip': {'days': 3, 'by': 'train'}}"]
    assert printed(output, "Overwritten:") == ["{'city': 'Bergen'}"]


def test_member_interactions(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if leads(request):
            done = sum(message.role == "tool" for message in request.messages)
            tasks = [{"researcher": "LEDs"}, {"writer": "a report"}]
            return delegate(**tasks[done]) if done < 2 else f"Here it is: {results(request)}"
        if "look_up" in request.tool_names:
            called = Answer(tool_calls=[tool_call("look_up", topic="LED")])
            return results(request) if request.tool_results else called
        assert "grown in layers on a wafer of sapphire" in request.user_text
        return "A report on sapphire."

    output, _ = run_example("member_interactions", play, tmp_path)
    assert "Here it is: A report on sapphire." in output
    assert "Writer (" in output


# The FastAPI handler: a real uvicorn, a real client.


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's names, with its database in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
    return runpy.run_path(str(EXAMPLES / "server_sent_events.py"))


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """Serve `app` by uvicorn on a free port; its address."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.serve())
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True


async def events_of(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def grocery(request: ReceivedRequest) -> Answer | str:
    if request.tool_results:
        return "It is on the list."
    if leads(request):
        return delegate(grocer=request.user_text)
    return Answer(tool_calls=[tool_call("add_item", item="milk")])


async def test_server_sent_events_reach_a_client(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(grocery) as models, serve(served["app"]) as address, httpx.AsyncClient() as client:
        monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
        request = client.stream("POST", f"{address}/chats/1/messages", json={"text": "Milk, please"})
        async with request as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = [event async for event in events_of(response)]
    names = [event["event"] for event in events]
    assert names[0] == "TeamRunStarted"
    assert names[-1] == "TeamRunCompleted"
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert "".join(e["content"] for e in events if e["event"] == "TeamRunContent") == "It is on the list."
    (changed,) = (event for event in events if event["event"].endswith("SessionStateChanged"))
    assert changed["patch"] == [{"op": "add", "path": "/shopping_list/0", "value": "milk"}]
    assert await served["team"].aget_session_state("1", user_id="ann") == {"shopping_list": ["milk"]}


async def test_server_sent_events_tell_of_a_failed_run(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Fault.status(400, message="no such thing")
    async with (
        ModelServer([refusal]) as models,
        serve(served["app"]) as address,
        httpx.AsyncClient() as client,
    ):
        monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
        request = client.stream("POST", f"{address}/chats/1/messages", json={"text": "Milk, please"})
        async with request as response:
            events = [event async for event in events_of(response)]
    assert events[-1]["event"] == "TeamRunError"
    assert events[-1]["error_type"] == "ModelBadRequestError"
    assert "no such thing" in events[-1]["error"]


@pytest.mark.parametrize("silent", [False, True], ids=["while text comes", "while the model is silent"])
async def test_server_sent_events_end_with_the_client(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """A client that goes away cancels the run; its end is committed, and nothing is left running."""
    endless = (
        Answer("One two three four.", fault=Fault.stall(after=3))
        if silent
        else Answer("word " * 5000, pace=0.002)
    )

    def play(request: ReceivedRequest) -> Answer | str:
        if request.user_text == "Milk, please" and leads(request) and request.tool_results:
            return endless
        return grocery(request)

    async with ModelServer(play) as models, serve(served["app"]) as address, httpx.AsyncClient() as client:
        monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
        # A first chat, so that what belongs to the server's own life is there already.
        first = await client.post(f"{address}/chats/0/messages", json={"text": "Hi"}, timeout=20)
        assert first.status_code == 200
        async with no_leaks(models):
            request = client.stream("POST", f"{address}/chats/1/messages", json={"text": "Milk, please"})
            async with request as response:
                async for event in events_of(response):
                    if event["event"] == "TeamRunContent":
                        break
            output = await cancelled_run(served["team"])
        assert output.content.startswith("One" if silent else "word")
        assert output.tools[0].result == "It is on the list."
        assert await served["team"].aget_session_state("1", user_id="ann") == {"shopping_list": ["milk"]}

        refused = await client.post(f"{address}/chats/1/messages", json={"text": " "})
        assert refused.status_code == 422


async def test_who_is_refused_is_told_so_by_the_status(
    served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelServer(grocery) as models, serve(served["app"]) as address, httpx.AsyncClient() as client:
        monkeypatch.setenv("OPENAI_BASE_URL", models.base_url)
        mine = await client.post(f"{address}/chats/7/messages", json={"text": "Hi"}, timeout=20)
        assert mine.status_code == 200
        asked = len(models.requests)
        served["app"].dependency_overrides[served["current_user"]] = lambda: "bob"
        refused = await client.post(f"{address}/chats/7/messages", json={"text": "Hi"}, timeout=20)
        assert refused.status_code == 404
        assert refused.json() == {"error": "SessionOwnershipError"}
        assert len(models.requests) == asked
        served["app"].dependency_overrides.clear()


async def cancelled_run(team: Any) -> Any:
    """The run of chat 1, once its end is in the database; the accessor waits for none."""
    with anyio.fail_after(10):
        while (output := await team.aget_last_run_output("1", user_id="ann")) is None:
            await anyio.sleep(0.01)
    assert output.status == "CANCELLED"
    return output
