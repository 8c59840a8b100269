"""The models keep the state themselves, with a tool that Kern gives them.

`add_session_state_to_context` shows them the state, `enable_agentic_state` lets them change it.
"""

from kern import Agent, Team
from kern.db.sqlite import SqliteDb

keeper = Agent(
    name="Keeper",
    role="Keeps the reading list",
    add_session_state_to_context=True,
    enable_agentic_state=True,
)

book_club = Team(
    name="Book Club",
    members=[keeper],
    db=SqliteDb("tmp/book_club.db"),
    session_id="book-club",
    session_state={"to_read": [], "read": []},
    add_session_state_to_context=True,
    enable_agentic_state=True,
    show_members_responses=True,
)

if __name__ == "__main__":
    book_club.print_response("We want to read Middlemarch and Stoner")
    book_club.print_response("We have finished Stoner")
    print(f"State: {book_club.get_session_state()}")
