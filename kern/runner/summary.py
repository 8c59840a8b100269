"""Session summaries: a text on the conversation so far, stored with the session and updated by each run."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from kern._log import named
from kern.errors import KernError
from kern.messages import Message
from kern.models.base import Model
from kern.runtime.model_request import ask
from kern.runtime.new_summary import summary_of
from kern.runtime.run_tree import Run
from kern.runtime.sink import SilentSink

log: Final = named("kern")

_TASK = """\
You keep the summary of a conversation. Write the new summary: what was in the old one and still matters, and
what the newest exchange adds. Keep names, numbers, decisions and open questions; leave out pleasantries.
Write plain sentences, at most about 200 words, and nothing else."""


@dataclass(slots=True, frozen=True)
class Summarize:
    """The step after an answer that updates the session's summary, with one more model request.

    Args:
        model: The model that writes the summary; None: the model of the run.
    """

    model: Model | None

    async def __call__(self, run: Run) -> None:
        """Write the summary, which is stored in the same transaction as the run. Team members write none.

        If the request fails, the run's timeout passes, or the consumer of its stream leaves, the old summary
        stays and a warning is logged.
        """
        if run.parent is not None:
            return
        failure: BaseException
        try:
            await self._write(run)
        except KernError as error:
            failure = error
        except asyncio.CancelledError as error:
            if not (run.out_of_time or run.consumer_left):
                raise
            failure = error
        else:
            return
        # The run has its answer, which people may have seen: the run itself has not failed.
        why = f"{type(failure).__name__}: {failure}" if str(failure) else _cut_short(run)
        log.warning("run %s: the session summary was not updated: %s", run.run_id, why)

    async def _write(self, run: Run) -> None:
        session = run.tree.session
        new = f"The user: {run.input.input_content}\n\nThe answer: {run.output.get_content_as_string()}"
        summary = summary_of(session)
        await summary.turn.acquire()
        try:
            stored, old = session.row.summary, current_summary(run) or "There is none yet."
            asked = f"{block('old_summary', old)}\n\n{block('exchange', new)}"
            messages = [Message("system", _TASK), Message("user", asked)]
            model = self.model or run.spec.model
            answer = await ask(run, model, messages, tools={}, sink=lambda run: SilentSink(run.out))
            if answer.content:
                summary.set(answer.content, stored, run.run_id)
        finally:
            summary.turn.release()


def block(name: str, text: str) -> str:
    """The text between tags. A tag of that name within the text is escaped: it could end the block."""
    safe = re.sub(rf"<(?=\s*/?\s*{name}\b)", "&lt;", text, flags=re.IGNORECASE)
    return f"<{name}>\n{safe}\n</{name}>"


def _cut_short(run: Run) -> str:
    return "the consumer has left its stream" if run.consumer_left else "the time of the run is up"


def current_summary(run: Run) -> str | None:
    """Return the session's summary, as it will be committed or as it is stored."""
    session = run.tree.session
    return session.summary.text or session.row.summary
