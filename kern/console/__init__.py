"""Shows runs in the terminal, and has the chat loop.

Views read events and outputs. They do not know agents, teams or the engine.
"""

from kern.console._batch import Progress, open_progress
from kern.console._open import open_view
from kern.console._view import View, ViewOptions, was_shown
from kern.console.chat import chat

__all__ = ["Progress", "View", "ViewOptions", "chat", "open_progress", "open_view", "was_shown"]
