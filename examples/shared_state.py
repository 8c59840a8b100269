"""One state, shared by a leader, its members and the members of a nested team.

All tools see the same `session_state`. Each call has it to itself from its first touch until it returns, so
members that work at the same time lose nothing.
"""

from kern import Agent, RunContext, Team


def put_on_list(run_context: RunContext, item: str) -> str:
    """Put an item on the packing list.

    Args:
        item: Such as "rain jacket".
    """
    state = run_context.session_state
    state["packing_list"].append(item)
    state["count"] += 1
    return f"{item} is on the list"


def read_list(run_context: RunContext) -> str:
    """The packing list as it stands."""
    return ", ".join(run_context.session_state["packing_list"]) or "nothing yet"


clothes = Agent(name="Clothes", role="Knows what to wear", tools=[put_on_list])
tools = Agent(name="Repair", role="Knows what breaks on a tour", tools=[put_on_list])
food = Agent(name="Food", role="Knows what to eat on the way", tools=[put_on_list])

bike_tour = Team(
    name="Bike Tour",
    members=[clothes, Team(name="Gear", role="Everything but clothes", members=[tools, food])],
    session_state={"packing_list": [], "count": 0},
    tools=[read_list],
    instructions="Ask all members in the same turn. Use read_list to say what is on the list.",
)

if __name__ == "__main__":
    bike_tour.print_response("We cycle along the Elbe for three days. What do we pack?", stream=True)
    print(f"State: {bike_tour.get_session_state()}")
