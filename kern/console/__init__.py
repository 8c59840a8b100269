"""What a person sees: a view of a run in the terminal, and a chat loop.

Views consume events and outputs, and know neither Agent nor Team nor the engine.
"""

from kern.console._batch import Progress, open_progress
from kern.console._open import open_view
from kern.console._view import View, ViewOptions, was_shown
from kern.console.chat import chat

__all__ = ["Progress", "View", "ViewOptions", "chat", "open_progress", "open_view", "was_shown"]
