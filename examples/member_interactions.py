"""Members that learn from each other.

With `share_member_interactions` a member's task is preceded by what other members have answered in this run.
"""

from kern import Agent, Team

NOTES = {
    "led": "An LED is a diode of a semiconductor crystal, grown in layers on a wafer of sapphire.",
    "laser": "A laser diode adds mirrors to that.",
}


def look_up(topic: str) -> str:
    """Look a topic up in the notes.

    Args:
        topic: One word.
    """
    return NOTES.get(topic.lower(), "There are no notes on that.")


researcher = Agent(name="Researcher", role="Finds facts in the notes", tools=[look_up])
writer = Agent(name="Writer", role="Writes reports from what was found")

team = Team(
    name="Report Team",
    members=[researcher, writer],
    share_member_interactions=True,
    show_members_responses=True,
    instructions="First let the Researcher find the facts, then let the Writer write a report.",
)

if __name__ == "__main__":
    team.print_response("How are LEDs made?")
