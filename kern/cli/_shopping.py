"""The team of the demo: a leader and two members who edit one shopping list at the same time."""

from __future__ import annotations

from kern.agent import Agent
from kern.db.base import Db
from kern.models.base import Model
from kern.run import RunContext
from kern.team import Team

SESSION = "kern-demo"
EDITED = ("Added ", "Removed ")
"""The beginnings of the results of calls that changed the list."""


def add_item(run_context: RunContext, item: str) -> str:
    """Put an item on the shopping list.

    Args:
        item: What to buy, such as "milk".
    """
    state = run_context.session_state
    if item.lower() in (known.lower() for known in state["shopping_list"]):
        return f"{item} was on the list already"
    state["shopping_list"].append(item)
    state["edits"] += 1
    return f"Added {item}"


def remove_item(run_context: RunContext, item: str) -> str:
    """Take an item off the shopping list, once it is bought.

    Args:
        item: The item, as it stands on the list.
    """
    state = run_context.session_state
    left = [known for known in state["shopping_list"] if known.lower() != item.lower()]
    if len(left) == len(state["shopping_list"]):
        return f"{item} was not on the list"
    state["shopping_list"] = left
    state["edits"] += 1
    return f"Removed {item}"


def show_list(run_context: RunContext) -> str:
    """The items on the shopping list."""
    return ", ".join(run_context.session_state["shopping_list"]) or "The list is empty."


def shopping_team(model: Model, db: Db) -> Team:
    """The team, with its sessions in `db`."""
    grocer = Agent(
        name="Grocer",
        role="Looks after food and drink on the shopping list",
        tools=[add_item, remove_item],
    )
    housekeeper = Agent(
        name="Housekeeper",
        role="Looks after household goods on the shopping list, such as soap and sponges",
        tools=[add_item, remove_item],
    )
    return Team(
        name="Shopping Team",
        model=model,
        members=[grocer, housekeeper],
        tools=[show_list],
        db=db,
        session_id=SESSION,
        session_state={"shopping_list": [], "edits": 0},
        instructions=[
            "You keep a shopping list.",
            "To add or remove items, give each member its part of them, both in the same turn.",
            "To tell what is on the list, use show_list.",
            "Answer in one sentence.",
        ],
        show_members_responses=True,
    )
