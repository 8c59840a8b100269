"""Streaming, three ways: the answer's text, every event of the team, and a finished view for the terminal."""

import asyncio

from kern import Agent, RunContext, Team
from kern.run.events import RunContentEvent, SessionStateChangedEvent, ToolCallStartedEvent


def book(run_context: RunContext, what: str) -> str:
    """Book something for the trip.

    Args:
        what: Such as "a train to Porto".
    """
    run_context.session_state["booked"].append(what)
    return f"booked: {what}"


team = Team(
    name="Travel Desk",
    members=[Agent(name="Booker", role="Books trains and hotels", tools=[book])],
    session_state={"booked": []},
)


async def text_only() -> None:
    """`stream=True`: pieces of the answer."""
    async with team.arun("A train to Porto, please", stream=True) as events:
        async for event in events:
            print(event.content, end="", flush=True)
    print()


async def everything() -> None:
    """`stream_events=True`: what leader and members do, and what they change in the shared state."""
    async with team.arun("And a hotel there", stream=True, stream_events=True) as events:
        async for event in events:
            who = " > ".join(event.source.path)
            match event:
                case ToolCallStartedEvent(tool=call):
                    print(f"{who} calls {call.tool_name}({call.tool_args})")
                case SessionStateChangedEvent(patch=patch, agent_path=path):
                    print(f"{' > '.join(path)} changed the state: {patch}")
                case RunContentEvent(content=text) if event.nested_depth == 0:
                    print(text, end="", flush=True)
    print()


async def main() -> None:
    await text_only()
    await everything()
    await team.aprint_response("What have you booked?", stream=True)


if __name__ == "__main__":
    asyncio.run(main())
