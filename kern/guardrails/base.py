"""What a guardrail is: a hook with settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable

from kern.runtime.request import RunInput


class BaseGuardrail(ABC):
    """A check with settings, for `pre_hooks` or `post_hooks`: an object that is called.

        class NoShouting(BaseGuardrail):
            def __call__(self, run_input: RunInput) -> None:
                if run_input.input_content.isupper():
                    raise InputCheckError("please do not shout")

    Like every hook it may take more parameters, by name, such as `run_context`, or `run_output` after the
    run. A sync one runs in a thread, and may take its time.
    """

    @abstractmethod
    def __call__(self, run_input: RunInput) -> Awaitable[None] | None:
        """Let the run go on, or refuse it.

        Raises:
            InputCheckError: The input will not do.
            OutputCheckError: The output will not do.
        """
