from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from kern.console import ViewOptions, open_view
from kern.console._panels import Harmless
from kern.console._progress import Progress
from kern.console._screen import Screen
from kern.errors import MissingExtraError, ModelServerError, UsageError
from kern.run import (
    BaseRunEvent,
    ModelRetryEvent,
    ReasoningContentDeltaEvent,
    RunCancelledEvent,
    RunErrorEvent,
    RunStartedEvent,
    RunStatus,
    ToolCallStartedEvent,
)
from tests.console.console_events import (
    LEADER,
    SOLO,
    agent_output,
    call,
    end,
    feed,
    member,
    team_output,
    team_run,
    tool,
    turn,
)


def shown(
    events: Iterable[BaseRunEvent] = (),
    output: Any = None,
    *,
    error: BaseException | None = None,
    message: str = "",
    width: int = 60,
    terminal: bool = False,
    **options: Any,
) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, height=20, force_terminal=terminal)
    with open_view(message, ViewOptions(**options), stream=True, console=console) as view:
        feed(view, events)
        if output is not None:
            view.finish(output)
        if error is not None:
            view.fail(error)
    return file.getvalue()


def told(text: str) -> list[str]:
    """The lines, without the frame's borders and the times of this run of the test."""
    lines = [line.strip("╭─╮╰╯│ ").strip() for line in text.splitlines()]
    return [re.sub(r"\d+\.\ds", "0.0s", line) for line in lines if line]


def test_a_team_run_is_told_in_lines_and_its_answer_framed() -> None:
    text = shown(
        team_run("All ", "done."), team_output("All done."), message="Buy milk", show_member_responses=True
    )
    assert told(text) == [
        "> Buy milk",
        "→ Buyer: Buy it",
        'Buyer: add_item(item="milk") (0.0s)',
        "Buyer (0.0s)",
        "Bought.",
        "Shop",
        "All done.",
        "0.0s",
    ]
    assert text.count("╭") == 1
    assert "╭─ Shop ─" in text
    assert "\x1b" not in text


def test_a_members_time_is_that_of_its_events() -> None:
    buyer = member("Buyer")
    events = [RunStartedEvent(LEADER), RunStartedEvent(buyer), *turn(buyer, "Bought."), *end(buyer)]
    for second, event in enumerate(events):
        event.created_at = 1_000_000.0 + second
    assert "Buyer (4.0s)" in shown(events, team_output("Done."), show_member_responses=True)


def test_members_are_shown_on_request_only() -> None:
    text = shown(team_run("All done."), team_output("All done."))
    assert told(text)[2:] == ["← Buyer: 0.0s", "Shop", "All done.", "0.0s"]


def test_without_events_the_output_tells_all() -> None:
    buyer = agent_output("Bought.", run_id="run-b", agent_name="Buyer", tools=[call("add_item", item="milk")])
    output = team_output("Done.", member_responses=[buyer], tools=[call("look")], reasoning_content="Hm.")
    text = shown(output=output, show_member_responses=True)
    assert told(text) == [
        "look() (0.0s)",
        "→ Buyer",
        'Buyer: add_item(item="milk") (0.0s)',
        "Buyer (0.0s)",
        "Bought.",
        "Reasoning",
        "Hm.",
        "Shop",
        "Done.",
        "0.0s",
    ]


def test_reasoning_stands_before_the_text_that_follows_it() -> None:
    thought = [ReasoningContentDeltaEvent(SOLO, "Think. "), ReasoningContentDeltaEvent(SOLO, "More.")]
    later = [*turn(SOLO), ReasoningContentDeltaEvent(SOLO, "Again.")]
    events = [*turn(SOLO), *thought, *tool(SOLO, call("look")), *later, *turn(SOLO, "Yes."), *end(SOLO)]
    text = shown(events, agent_output("Yes.", reasoning_content="Think. More.Again."))
    lines = ["Reasoning", "Think. More.", "look() (0.0s)", "Reasoning", "Again.", "Solo", "Yes.", "0.0s"]
    assert told(text) == lines
    assert text.count("Think. More.") == text.count("Again.") == 1
    assert "Think" not in shown(events, agent_output("Yes."), show_reasoning=False)


def test_text_is_no_rich_markup_and_no_emoji_code() -> None:
    text = "[red]not red[/red] [/] [link=x]y :smile: [bold"
    events = [
        *turn(SOLO, text),
        *tool(SOLO, call("[red]f", a="[/red]")),
        *turn(member("[red]M"), text),
        *end(member("[red]M")),
    ]
    out = shown(events, agent_output(text), message=text, width=100, show_member_responses=True)
    assert out.count(text) == 3
    assert '[red]f(a="[/red]")' in out
    assert "[red]M (" in out
    assert "[/x]" in shown(error=RuntimeError("[/x]"))


@pytest.mark.parametrize("markdown", [False, True])
def test_no_escape_code_of_a_model_gets_to_the_terminal(markdown: bool) -> None:
    evil = "\x1b]0;owned\x07 \x1b[2J \x9b5m &#27;[5m &#x9b;5m [a](http://x/\x1b[5m&#27;) `\x1b[5m` \x1b]8;;http://evil\x1b\\"
    events = [
        ReasoningContentDeltaEvent(SOLO, evil),
        *turn(SOLO, evil),
        *tool(SOLO, call("f" + evil, error=True, result=evil, a=evil)),
        *turn(member(evil), f"```{evil}\n{evil}\n```\n| {evil} |\n|--|\n| {evil} |"),
        *end(member(evil)),
    ]
    out = shown(events, error=RuntimeError(evil), message=evil, markdown=markdown, show_member_responses=True)
    assert not set(out) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}


def test_what_a_renderer_brings_out_is_made_harmless_too() -> None:
    file = io.StringIO()
    Console(file=file, width=60).print(Harmless(Text("a\x1b[31mb")))
    assert file.getvalue() == "a␛[31mb\n"


def test_markdown_is_rendered_and_links_show_where_they_lead() -> None:
    text = "# Head\n\n- **bold** and [here](http://example.org/a)\n"
    out = shown(turn(SOLO, text), agent_output(text), markdown=True)
    assert "**" not in out
    assert "• bold" in out
    assert "(http://example.org/a)" in out
    assert "**bold**" in shown(turn(SOLO, text), agent_output(text))


@pytest.mark.parametrize(
    "text",
    [
        ">" * 500 + " deep",
        "- " * 300 + "x",
        "[" * 2000,
        "`" * 999,
        "|" * 500 + "\n" + "|-" * 500,
        "\n" * 500,
        "<b>&nbsp;" * 50,
    ],
)
def test_odd_markdown_is_shown_at_any_width(text: str) -> None:
    for width in (1, 4, 10, 80):
        shown(turn(SOLO, text), agent_output(text), markdown=True, width=width)


def test_structured_content_is_indented_json() -> None:
    out = shown(turn(SOLO, '{"title":"Soup"}'), agent_output({"title": "Soup", "tags": ["[red]"]}))
    assert '"title": "Soup",' in out
    assert '"[red]"' in out
    assert out.count("Soup") == 1


def test_each_ending_is_told_once() -> None:
    broken = [*turn(SOLO, "Half an"), RunErrorEvent(SOLO, "it broke", "ModelServerError")]
    out = shown(broken, error=ModelServerError("it broke", status=500, provider="openai"))
    assert told(out) == ["Solo (unfinished)", "Half an", "Error:", "openai: HTTP 500: it broke"]
    assert told(shown(broken)) == ["Solo (unfinished)", "Half an", "Error:", "it broke"]
    stopped = [*turn(SOLO, "Half an"), RunCancelledEvent(SOLO, "by the user")]
    out = shown(stopped, agent_output("Half an", status=RunStatus.cancelled))
    assert told(out)[2:] == ["Cancelled:", "by the user", "cancelled · 0.0s"]


def test_a_retried_turn_is_shown_as_it_came_at_last() -> None:
    events = [
        *turn(SOLO, "Wrong te"),
        ModelRetryEvent(SOLO, "cut", 1, 0.5),
        *turn(SOLO, "Right."),
        *end(SOLO),
    ]
    out = shown(events, agent_output("Right."))
    assert "Wrong" not in out
    assert "Right." in out


def test_calls_with_the_same_id_in_two_turns_are_both_shown() -> None:
    first, second = call("look", n=1), call("look", n=2)
    first.tool_call_id = second.tool_call_id = "call_0"
    out = shown([*tool(SOLO, first), *tool(SOLO, second), *turn(SOLO, "Yes.")], agent_output("Yes."))
    assert "look(n=1)" in out
    assert "look(n=2)" in out


def test_what_was_shown_of_an_interrupted_answer_stays() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60)
    view = open_view("", ViewOptions(show_member_responses=True), stream=True, console=console)

    def answer() -> None:
        with view:
            feed(view, [*turn(LEADER, "Half an answer"), *turn(member("Buyer"), "Looking")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer()
    assert told(file.getvalue()) == ["Buyer (unfinished)", "Looking", "Shop (unfinished)", "Half an answer"]


def test_the_wrong_console_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"rich\.console\.Console, not StringIO"):
        open_view("", ViewOptions(), stream=True, console=io.StringIO())
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(MissingExtraError, match="kern-agents\\[console\\]"):
        open_view("", ViewOptions(), stream=True, console=object())


def test_an_ascii_console_gets_ascii() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=60)
    with open_view("Grüße", ViewOptions(markdown=True), stream=True, console=console) as view:
        feed(view, turn(SOLO, "- schön 😎"))
        view.finish(agent_output("- schön 😎"))
    assert b"Gr??e" in raw.getvalue()
    assert b"sch?n ?" in raw.getvalue()


class Broken(io.StringIO):
    """A terminal that goes away."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


async def test_a_terminal_that_goes_away_is_raised_once_and_leaves_no_thread() -> None:
    file = Broken()
    console = Console(file=file, force_terminal=True, width=60, height=20)
    stdout = sys.stdout
    view = open_view("Hi", ViewOptions(), stream=True, console=console).__enter__()
    file.gone = True

    async def keep_on() -> None:
        while True:
            feed(view, turn(SOLO, "x"))
            await asyncio.sleep(0.01)

    with pytest.raises(OSError, match="Input/output"):
        await keep_on()
    view.event(RunStartedEvent(SOLO))
    view.finish(agent_output("x"))
    view.__exit__(None, None, None)
    assert sys.stdout is stdout


async def test_the_view_gives_back_stdout_and_its_thread() -> None:
    stdout, stderr = sys.stdout, sys.stderr
    out = shown(team_run("All done."), team_output("All done."), terminal=True)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    assert out.rindex("\x1b[?25h") > out.rindex("\x1b[?25l")
    painters = [thread for thread in threading.enumerate() if thread.name == "kern-console"]
    for painter in painters:
        painter.join(5)
        assert not painter.is_alive()


def plain(name: str) -> str:
    """Every member has the terminal's own color."""
    return "default"


def screen_text(
    progress: Progress, width: int, height: int, *, stream: bool = True, **options: Any
) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    lines = Screen(console, progress, ViewOptions(**options), plain, stream=stream).lines()
    return ["".join(segment.text for segment in line) for line in lines]


def progress_of(events: Iterable[BaseRunEvent]) -> Progress:
    progress = Progress()
    for event in events:
        progress.apply(event)
    return progress


def many_members() -> list[BaseRunEvent]:
    names = [f"Member{i}" for i in range(30)]
    calls = [ToolCallStartedEvent(LEADER, call("delegate_task_to_member", member_id=name)) for name in names]
    return [*turn(LEADER, "word " * 500), *calls, *(RunStartedEvent(member(name)) for name in names)]


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 10, 24])
@pytest.mark.parametrize("width", [1, 3, 10, 40, 80])
def test_the_live_region_is_always_lower_than_the_terminal(width: int, height: int, markdown: bool) -> None:
    for events in (many_members(), list(turn(SOLO, "日本語 " * 300)), [RunStartedEvent(SOLO)], []):
        lines = screen_text(progress_of(events), width, height, markdown=markdown)
        assert len(lines) <= max(1, height - 1)


def test_the_live_region_shows_who_works() -> None:
    buying = ToolCallStartedEvent(member("Buyer"), call("add_item", item="milk"))
    looking = ToolCallStartedEvent(LEADER, call("look", where="shop"))
    events = [
        *turn(LEADER),
        looking,
        RunStartedEvent(member("Buyer")),
        buying,
        RunStartedEvent(member("Cook")),
    ]
    lines = screen_text(progress_of(events), 80, 24)
    assert len(lines) == 3
    assert 'look(where="shop")' in lines[0]
    assert 'Buyer 0.0s · add_item(item="milk")' in lines[1]
    assert "Cook 0.0s" in lines[2]
    ended = progress_of([*events, *end(member("Buyer")), *end(member("Cook"))])
    assert "Buyer" not in "".join(screen_text(ended, 80, 24))


def test_the_live_region_shows_the_end_of_the_text() -> None:
    progress = progress_of(turn(SOLO, "\n".join(f"line {i}" for i in range(500))))
    lines = screen_text(progress, 40, 10)
    assert [line.strip("│ ") for line in lines[1:-1]] == [f"line {i}" for i in range(493, 500)]


def test_without_streaming_the_live_region_shows_who_works_and_no_text() -> None:
    events = [*turn(LEADER, "Secret"), RunStartedEvent(member("Buyer"))]
    lines = screen_text(progress_of(events), 40, 10, stream=False)
    assert len(lines) == 1
    assert "Buyer" in lines[0]
    assert "Working" in screen_text(Progress(), 40, 10, stream=False)[0]


def test_a_repaint_renders_no_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    monkeypatch.setattr(
        "kern.console._screen.body_of",
        lambda text, form, real=sys.modules["kern.console._panels"].body_of: (
            rendered.append(len(text)) or real(text, form)
        ),
    )
    progress = progress_of(turn(SOLO, "A paragraph of text.\n\n" * 50_000))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    screen = Screen(console, progress, ViewOptions(markdown=True), plain, stream=True)
    screen.lines()
    screen.lines()
    assert len(rendered) <= 2
    assert max(rendered) < 80 * 24 + 600
