"""Values of the state in the instructions: `{key}`, without an f-string.

Unknown keys and other braces stay as they are written, and what the user types is never substituted.
"""

from kern import Agent

guide = Agent(
    session_state={"guest": {"name": "Ada", "language": "English"}},
    instructions='Answer {guest.name} in {guest.language}. Dates look like {"day": 1}.',
)

if __name__ == "__main__":
    guide.print_response("Who am I, and what does {guest.name} mean?", stream=True)
