"""What a run is asked, and on which terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kern.messages import Message
from kern.models.base import Model
from kern.run.requirement import RunRequirement

OnBusy = Literal["share", "queue", "reject"]
"""What a run does when its session has one already: work beside it, wait for its end, or refuse."""

OnDuplicate = Literal["raise", "return", "retry_failed"]
"""What a run does whose id is taken: refuse, come to the stored output, or try a failed one again."""


@dataclass(slots=True, kw_only=True)
class RunInput:
    """What a run is asked; hooks before the run may change it.

    Args:
        value: The input as the output repeats it: text or JSON.
        messages: The same as messages, usually one of role "user".
    """

    value: Any
    messages: list[Message]

    @property
    def input_content(self) -> str:
        """The text of the input; assign to replace it, in the run and in what is stored."""
        return self.messages[-1].content or ""

    @input_content.setter
    def input_content(self, text: str) -> None:
        self.messages[-1] = replace(self.messages[-1], content=text, said=None)
        self.value = text


@dataclass(slots=True, frozen=True)
class Resume:
    """The answers of people for a paused run."""

    requirements: Sequence[RunRequirement]


@dataclass(slots=True, frozen=True)
class Retries:
    """What a run does when a model request has failed for good, its own retries included.

    What the run has done so far is kept: only the request is made again.

    Args:
        count: How often it is made again.
        delay: Seconds before that.
        exponential: Double the delay each time.
        fallbacks: Models that are asked after that, in this order.
    """

    count: int = 0
    delay: float = 1.0
    exponential: bool = False
    fallbacks: Sequence[Model] = ()

    def wait(self, attempt: int) -> float:
        """Seconds before attempt number `attempt` of one model; its first one (0) comes at once."""
        if attempt == 0:
            return 0.0
        return self.delay * (2 ** (attempt - 1) if self.exponential else 1)
