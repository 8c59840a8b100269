"""The prompt of a run with a journal as a step, and what it is made of: values that only that moment knew.

A run that goes on in another process takes the recorded prompt. A replay makes it anew, from the recorded
values, so that a change in the program's own words shows in the requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from kern._json import jsonable
from kern.durable.journal import Playback
from kern.messages import Message
from kern.runtime.run_tree import Run
from kern.runtime.step_data import Data, messages_data, messages_from, reading
from kern.runtime.steps import Steps, signalled

T = TypeVar("T")


async def made_prompt(run: Run) -> list[Message]:
    """The conversation up to the first request."""
    steps = run.tree.steps
    if steps is None:
        return await run.spec.prompt(run)
    key = f"{run.run_id}/prompt"
    data = await steps.recorded(run, key)
    if data is not None and steps.playback is Playback.resume:
        with signalled(), reading(key):
            if not (messages := messages_from(data)):
                raise ValueError("it has no messages")
            return messages
    owner = (run.run_id, None)
    with steps.under_way(owner):
        run.given = given = Given(steps, None if data is None else data["given"])
        try:
            messages = await run.spec.prompt(run)
        finally:
            run.given = None
        if data is None:
            steps.tick(run)
            kept: Data = {"given": given.values}
            if not steps.detailed:
                kept.update(messages_data(messages))
            await steps.keep(run, "prompt", key, kept, owner)
    return messages


class Given:
    """What a prompt is made of beside the program's own words: taken from the record, or kept for it.

    Args:
        steps: The steps of the run.
        recorded: The values on record; None if they are made now.
    """

    def __init__(self, steps: Steps, recorded: Data | None) -> None:
        self._steps = steps
        self._recorded = recorded
        self._state: dict[str, Any] | None = None
        self.values: Data = {}
        """The values by name, as JSON."""

    async def value(
        self,
        name: str,
        make: Callable[[], Awaitable[T]],
        dump: Callable[[T], Any] = jsonable,
        load: Callable[[Any], T] | None = None,
    ) -> T:
        """The value of that name, made now or on record."""
        if self._recorded is not None and name in self._recorded:
            found: Any = self._recorded[name]
            return found if load is None else load(found)
        made = await make()
        self.values[name] = dump(made)
        return made

    def state(self) -> dict[str, Any]:
        """The session state, as the prompt shows it."""
        if self._state is None:
            if self._recorded is not None and "commits" in self._recorded:
                self._state = self._steps.line.state_at(self._recorded["commits"])
            else:
                self.values["commits"], self._state = self._steps.line.now()
        return self._state


async def given(
    run: Run,
    name: str,
    make: Callable[[], Awaitable[T]],
    dump: Callable[[T], Any] = jsonable,
    load: Callable[[Any], T] | None = None,
) -> T:
    """A value that only the moment knows: of the run's prompt, if it has a journal, by name."""
    values = run.given
    return await make() if values is None else await values.value(name, make, dump, load)
