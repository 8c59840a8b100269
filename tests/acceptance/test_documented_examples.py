"""The documentation's own examples, as they stand, against a real HTTP server on loopback.

They live beside the project, in shared/acceptance/; where that folder is not there, `examples/` covers the
same ground.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kern.testing import Answer, ModelServer, ReceivedRequest, tool_call

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT.parent / "shared" / "acceptance"

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(),
    reason="shared/acceptance is not beside the project; tests/test_examples.py covers it",
)


def run_example(
    name: str, play: Callable[[ReceivedRequest], Answer | str], folder: Path
) -> tuple[str, list[ReceivedRequest]]:
    """Run the example in a process of its own, as a reader would; returns what it printed."""
    with ModelServer(play) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / name)],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PYTHONIOENCODING": "utf-8",
                "OPENAI_BASE_URL": server.base_url,
                "OPENAI_API_KEY": "sk-secret-of-the-test",
            },
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sk-secret-of-the-test" not in done.stdout + done.stderr
    return done.stdout + done.stderr, server.requests


def members(request: ReceivedRequest) -> list[str]:
    return re.findall(r'<member id="([^"]+)"', request.system_text)


def results(request: ReceivedRequest) -> str:
    return " / ".join(message.content or "" for message in request.tool_results)


def printed(output: str, label: str) -> list[str]:
    return [line.removeprefix(label).strip() for line in output.splitlines() if line.startswith(label)]


def test_shopping_team(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if request.tool_results:
            return f"Done: {results(request)}"
        if "add_item" in request.tool_names:
            if "Add" in request.user_text:
                return Answer(tool_calls=[tool_call("add_item", item=i) for i in ("milk", "eggs", "bread")])
            return Answer(tool_calls=[tool_call("remove_item", item="EGGS")])
        if "What's on my list" in request.user_text:
            return Answer(tool_calls=[tool_call("list_items")])
        task = request.user_text
        calls = [tool_call("delegate_task_to_member", member_id=members(request)[0], task=task)]
        if "got" in task:
            calls.append(tool_call("add_chore", chore="bought eggs"))
        return Answer(tool_calls=calls)

    output, _ = run_example("shopping_team.py", play, tmp_path)
    assert printed(output, "Shared state:") == [
        "{'shopping_list': ['milk', 'eggs', 'bread'], 'chores': []}",
        "{'shopping_list': ['milk', 'bread'], 'chores': ['bought eggs']}",
    ]
    assert "- milk\n- eggs\n- bread" in output.replace("\r", "")


def test_agentic_state(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        assert "<session_state>" in request.system_text
        if request.tool_results:
            return f"Done: {results(request)}"
        if "delegate_task_to_member" in request.tool_names:
            call = tool_call("delegate_task_to_member", member_id=members(request)[0], task=request.user_text)
            return Answer(tool_calls=[call])
        assert request.tool_names == ["update_session_state"]
        first = "Add" in request.user_text
        if not first:
            assert '["milk", "eggs", "bread"]' in request.system_text
        items = ["milk", "eggs", "bread"] if first else ["milk", "bread"]
        return Answer(
            tool_calls=[tool_call("update_session_state", session_state_updates={"shopping_list": items})]
        )

    output, _ = run_example("agentic_state.py", play, tmp_path)
    assert printed(output, "Session state:") == ["{'shopping_list': ['milk', 'bread']}"]
    assert "Shopping List Agent" in output
    assert (tmp_path / "tmp" / "agents.db").is_file()


def test_state_in_instructions(tmp_path: Path) -> None:
    output, requests = run_example("state_in_instructions.py", lambda request: "You are John.", tmp_path)
    assert "You are John." in output
    assert "Users name is John" in requests[0].system_text
    assert requests[0].stream


def test_change_state_on_run(tmp_path: Path) -> None:
    _, requests = run_example("change_state_on_run.py", lambda request: "As you say.", tmp_path)
    seen = [
        re.search(r"Users name is (\w+) and age is (\w+)", r.system_text or "").groups() for r in requests
    ]
    assert seen == [("John", "30"), ("John", "30"), ("Jane", "25"), ("Jane", "25")]


def test_overwrite_stored_state(tmp_path: Path) -> None:
    output, requests = run_example("overwrite_stored_state.py", lambda request: "It holds this.", tmp_path)
    assert printed(output, "Stored session state:") == [
        "{'shopping_list': ['Potatoes']}",
        "{'secret_number': 43}",
    ]
    assert '{"secret_number": 43}' in requests[1].system_text
    assert "Potatoes" not in requests[1].system_text


def test_member_interactions(tmp_path: Path) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        if "delegate_task_to_member" not in request.tool_names:
            if "web research agent" in request.system_text:
                return "LEDs are made of layers of semiconductors."
            assert "LEDs are made of layers of semiconductors." in request.user_text
            return "A report."
        done = sum(message.role == "tool" for message in request.messages)
        if done == 2:
            return f"Here it is: {results(request)}"
        call = tool_call("delegate_task_to_member", member_id=members(request)[done], task=f"step {done}")
        return Answer(tool_calls=[call])

    output, _ = run_example("member_interactions.py", play, tmp_path)
    assert "Here it is: A report." in output
    assert "DEBUG kern" in output
