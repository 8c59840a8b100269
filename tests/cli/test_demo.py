"""`kern demo`, as a person starts it: a process of its own, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from kern import __version__
from kern.cli import main
from kern.cli._shopping import shopping_team
from kern.cli._standin import StandIn
from kern.db.sqlite import SqliteDb
from kern.testing import ModelServer, ScriptedModel

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "kern.cli"]
LEFT = {"shopping_list": ["flour", "milk", "dish soap", "bin bags"], "edits": 8}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that stays ours."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **variables,
    }


def kern(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=25,
        check=False,
    )


def facts(output: str, label: str) -> list[dict[str, object]]:
    """The states after `label`, however they were wrapped."""
    found = re.findall(rf"^{label} +(\{{.*?\}})$", output, re.MULTILINE | re.DOTALL)
    return [json.loads(re.sub(r"\n +", " ", state)) for state in found]


def test_demo_needs_no_key_and_no_network(tmp_path: Path, closed_port: int) -> None:
    proxy = f"http://127.0.0.1:{closed_port}"  # whatever left this machine would end here
    done = kern(tmp_path, "demo", HTTP_PROXY=proxy, HTTPS_PROXY=proxy, ALL_PROXY=proxy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "none that is real: a few rules" in done.stdout
    assert [state["edits"] for state in facts(done.stdout, "Before")] == [0, 6]
    assert [state["edits"] for state in facts(done.stdout, "After")] == [6, 8]
    assert "6 edits by 2 members at the same time; the state has counted 6." in done.stdout
    assert done.stdout.count("  → Grocer: ") == done.stdout.count("  → Housekeeper: ") == 2
    assert done.stdout.count("\nGrocer (") == done.stdout.count("\nHousekeeper (") == 2
    (found,) = facts(done.stdout, "Found")
    assert sorted(found["shopping_list"]) == sorted(LEFT["shopping_list"])
    assert re.search(r"On your list: (\w| |,)+\.\s+\d+\.\ds · \d+ tokens\s*$", done.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", ["1", "8", "11"])
def test_demo_fits_the_smallest_terminal(tmp_path: Path, columns: str) -> None:
    done = kern(tmp_path, "demo", "--ask", "Add milk.", COLUMNS=columns)
    assert (done.returncode, done.stderr) == (0, "")


def test_demo_works_without_a_standard_output(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m kern.cli demo --db list.db --ask 'Add milk.' >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_demo_keeps_its_list_in_a_file(tmp_path: Path) -> None:
    for _ in range(2):
        assert kern(tmp_path, "demo", "--db", "list.db", "--ask", "Add milk and some soap.").returncode == 0
    state = shopping_team(ScriptedModel([]), SqliteDb(tmp_path / "list.db")).get_session_state()
    assert sorted(state["shopping_list"]) == ["milk", "soap"]
    assert state["edits"] == 2


def test_demo_asks_no_real_model_because_a_key_happens_to_be_exported(
    tmp_path: Path, closed_port: int
) -> None:
    where = f"http://127.0.0.1:{closed_port}/v1"
    done = kern(tmp_path, "demo", OPENAI_API_KEY="sk-of-somebody", OPENAI_BASE_URL=where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none that is real: a few rules" in done.stdout


def test_demo_asks_a_real_model_where_it_is_told_to(tmp_path: Path) -> None:
    with ModelServer(StandIn(), api_key="sk-of-the-test") as server:
        done = kern(tmp_path, "demo", "--base-url", server.base_url, OPENAI_API_KEY="sk-of-the-test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a real one, openai/gpt-5.2" in done.stdout
    assert "stand-in" not in done.stdout
    assert {request.model for request in server.requests} == {"gpt-5.2"}
    assert "sk-of-the-test" not in done.stdout + done.stderr


def test_demo_takes_a_model_by_name(tmp_path: Path) -> None:
    with ModelServer(StandIn()) as server:
        arguments = [
            "--model",
            "openai-chat:llama3.2",
            "--base-url",
            server.base_url,
            "--ask",
            "What is on my list?",
        ]
        done = kern(tmp_path, "demo", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {(request.protocol, request.model) for request in server.requests} == {("chat", "llama3.2")}


def test_demo_takes_the_stand_in_although_there_is_a_key(tmp_path: Path) -> None:
    done = kern(tmp_path, "demo", "--model", "stand-in", "--ask", "Hello?", OPENAI_API_KEY="sk-any")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "I am only a few rules" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--base-url", "SERVER"], "Incorrect API key"),
        (["--base-url", "http://127.0.0.1:CLOSED/v1"], "no connection to 127.0.0.1:CLOSED"),
        (["--base-url", "nonsense"], "base_url"),
        (["--model", "nonsense"], "no model 'nonsense'"),
        (["--model", "stand-in", "--db", "file/list.db"], "file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failed_demo_ends_in_one_line(
    tmp_path: Path, closed_port: int, arguments: list[str], text: str
) -> None:
    (tmp_path / "file").touch()
    with ModelServer([], api_key="sk-the-right-one") as server:
        places = {"SERVER": server.base_url, "CLOSED": str(closed_port)}
        for name, value in places.items():
            arguments = [argument.replace(name, value) for argument in arguments]
            text = text.replace(name, value)
        done = kern(tmp_path, "demo", *arguments, OPENAI_API_KEY="sk-the-wrong-one")
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("kern: ")
    assert text in line
    assert "Traceback" not in done.stdout
    assert "sk-the-wrong-one" not in done.stdout + done.stderr


def test_a_real_model_needs_a_key(tmp_path: Path) -> None:
    done = kern(tmp_path, "demo", "--model", "openai:gpt-5.2")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "set the environment variable OPENAI_API_KEY" in line


def test_ctrl_c_ends_the_demo_quietly(tmp_path: Path) -> None:
    terminal = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "demo"],
        env=environment(tmp_path, TERM="xterm"),
        encoding="utf-8",
        timeout=20,
    )
    terminal.expect("Add flour")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 128 + signal.SIGINT
    assert "kern: interrupted" in (terminal.before or "")
    assert "Traceback" not in (terminal.before or "")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_one_error(tmp_path: Path, closed_port: int) -> None:
    arguments = [*COMMAND[1:], "demo", "--base-url", f"http://127.0.0.1:{closed_port}/v1"]
    terminal = pexpect.spawn(
        COMMAND[0], arguments, env=environment(tmp_path, TERM="xterm"), encoding="utf-8", timeout=20
    )
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.before or "")
    assert "Error:" in shown
    assert "kern: " not in shown


def test_a_reader_that_goes_away_ends_the_demo(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 1


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--version"], 0), (["demo", "--help"], 0), ([], 2), (["demmo"], 2)]
)
def test_the_command_line(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    said = capsys.readouterr()
    assert (__version__ in said.out) == (arguments == ["--version"])
    assert ("usage: kern" in said.err) == (code == 2)
