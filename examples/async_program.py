"""A team inside an async program: awaited like anything else, several runs at once.

Each run has a session of its own. The team is a definition: it is made once, and may run any number of times
at the same moment.
"""

import asyncio

from kern import Agent, RunContext, Team


async def note_fact(run_context: RunContext, fact: str) -> str:
    """Write a fact about the city down.

    Args:
        fact: One sentence.
    """
    run_context.session_state["facts"].append(fact)
    return "noted"


team = Team(
    name="City Guide",
    members=[
        Agent(name="Historian", role="Knows the past of cities", tools=[note_fact]),
        Agent(name="Cook", role="Knows what people eat there", tools=[note_fact]),
    ],
    session_state={"facts": []},
    instructions="Ask both members about the city in the same turn, then sum up in two sentences.",
)


async def main() -> None:
    cities = ["Lisbon", "Kraków"]
    outputs = await asyncio.gather(*(team.arun(f"What about {city}?", session_id=city) for city in cities))
    for city, output in zip(cities, outputs, strict=True):
        print(f"{city}: {output.content}")
        print(f"  facts: {(output.session_state or {})['facts']}")
        print(f"  requests: {output.metrics.requests}, tokens: {output.metrics.total_tokens}")


if __name__ == "__main__":
    asyncio.run(main())
