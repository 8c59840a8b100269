"""Session summaries: what was said so far, in short, kept with the session and renewed by each run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from kern._log import named
from kern.errors import KernError
from kern.messages import Message
from kern.models.base import Model
from kern.runtime.model_request import ask
from kern.runtime.run_tree import Run
from kern.runtime.sink import SilentSink

log: Final = named("kern")

_TASK = """\
You keep the summary of a conversation. Write the new summary: what was in the old one and still matters, and
what the newest exchange adds. Keep names, numbers, decisions and open questions; leave out pleasantries.
Write plain sentences, at most about 200 words, and nothing else."""


@dataclass(slots=True, frozen=True)
class Summarize:
    """The step after an answer that renews the session's summary, by one more request.

    Args:
        model: Who writes it; None is the model of the run.
    """

    model: Model | None

    async def __call__(self, run: Run) -> None:
        """Write the summary; it is stored in the same transaction as the run. Members' runs write none.

        If that fails, or the run's time is up meanwhile, the summary stays as it was, which is logged.
        """
        if run.parent is not None:
            return
        old = current_summary(run) or "There is none yet."
        new = f"The user: {run.input.input_content}\n\nThe answer: {run.output.get_content_as_string()}"
        messages = [
            Message("system", _TASK),
            Message("user", f"<old_summary>\n{old}\n</old_summary>\n\n<exchange>\n{new}\n</exchange>"),
        ]
        failure: BaseException
        try:
            answer = await ask(
                run, self.model or run.spec.model, messages, tools={}, sink=lambda run: SilentSink(run.out)
            )
        except KernError as error:
            failure = error
        except asyncio.CancelledError as error:
            if not run.out_of_time:
                raise
            failure = error
        else:
            if answer.content:
                run.tree.session.summary = answer.content
            return
        # The run has its answer, which people may have seen: it is no failure of the run's.
        why = f"{type(failure).__name__}: {failure}" if str(failure) else "the time of the run is up"
        log.warning("run %s: the session summary was not updated: %s", run.run_id, why)


def current_summary(run: Run) -> str | None:
    """The session's summary as it was last written, or is about to be."""
    session = run.tree.session
    return session.summary or session.row.summary
