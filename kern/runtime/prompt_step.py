"""The prompt of a run with a journal as a step, and the values that it is made from, such as the history.

A run that is resumed takes the recorded prompt. A replay makes the prompt again from the recorded values, so
that a change of the program's own texts shows up in the requests.
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
    """Return the recorded messages of the first request, or make and record them."""
    steps = run.tree.steps
    if steps is None:
        return await run.spec.prompt(run)
    key = f"{run.run_id}/prompt"
    data = await steps.recorded(run, key)
    if data is not None and steps.playback is Playback.resume:
        with signalled(), reading(key):
            if not (messages := messages_from(data)):
                raise ValueError("messages is empty")
            return messages
    owner = (run.run_id, None)
    with steps.in_progress(owner):
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
    """The values that a prompt is made from, in addition to the program's texts: recorded, or made and noted.

    Args:
        steps: The steps of the run.
        recorded: The recorded values; None if they are made now.
    """

    def __init__(self, steps: Steps, recorded: Data | None) -> None:
        self._steps = steps
        self._recorded = recorded
        self._state: dict[str, Any] | None = None
        self.values: Data = {}
        """The values that were made now, by name, as JSON."""

    async def value(
        self,
        name: str,
        make: Callable[[], Awaitable[T]],
        dump: Callable[[T], Any] = jsonable,
        load: Callable[[Any], T] | None = None,
    ) -> T:
        """Return the recorded value of that name, or make it now."""
        if self._recorded is not None and name in self._recorded:
            found: Any = self._recorded[name]
            return found if load is None else load(found)
        made = await make()
        self.values[name] = dump(made)
        return made

    def state(self) -> dict[str, Any]:
        """Return the session state that the prompt shows."""
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
    """Make a value for the prompt of a run, or take the recorded one if the run has a journal.

    Args:
        run: The run.
        name: The name of the value in the record.
        make: Makes the value.
        dump, load: Turn the value into JSON, and back.
    """
    values = run.given
    return await make() if values is None else await values.value(name, make, dump, load)
