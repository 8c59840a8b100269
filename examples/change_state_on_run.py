"""State that a run brings along: merged into the session that it names, and there for the runs after it.

Sessions of different users are apart; another user's session is refused.
"""

from kern import Team
from kern.db.in_memory import InMemoryDb
from kern.errors import SessionOwnershipError

concierge = Team(members=[], db=InMemoryDb(), instructions="You serve {guest} in room {room}.")

if __name__ == "__main__":
    concierge.print_response(
        "Good morning", session_id="stay-1", user_id="ada", session_state={"guest": "Ada", "room": 12}
    )
    concierge.print_response(
        "Good evening", session_id="stay-2", user_id="bob", session_state={"guest": "Bob", "room": 7}
    )
    concierge.print_response("Who am I?", session_id="stay-1", user_id="ada")
    concierge.print_response("I have moved", session_id="stay-1", user_id="ada", session_state={"room": 14})
    try:
        concierge.run("Who lives here?", session_id="stay-1", user_id="bob")
    except SessionOwnershipError as error:
        print(f"Refused: {error}")
    print(f"State: {concierge.get_session_state('stay-1')}")
