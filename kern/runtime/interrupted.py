"""The last messages of a run that is cut short: the text that was shown, and the work of its members."""

from __future__ import annotations

from kern.messages import Message
from kern.run.output import RunStatus
from kern.run.tool_execution import ToolExecution
from kern.runtime.run_tree import Run

NOT_DECIDED = "[Not carried out: a person has not decided on it.]"


def closing_messages(run: Run) -> list[Message]:
    """Return the messages that complete the conversation of a run that was cut short."""
    said = run.out.unfinished
    return [*results_of_open_calls(run), *([Message("assistant", said)] if said else [])]


def results_of_open_calls(run: Run) -> list[Message]:
    """Return results for delegations that have not ended, and for calls that wait for a person."""
    waiting = {requirement.tool_call_id for requirement in run.requirements}
    results = []
    for execution in run.output.tools:
        text = NOT_DECIDED if execution.tool_call_id in waiting else _delegation(run, execution)
        if text:
            call_id, name = execution.tool_call_id, execution.tool_name
            results.append(Message("tool", text, tool_call_id=call_id, tool_name=name, tool_call_error=True))
    return results


def _delegation(run: Run, execution: ToolExecution) -> str:
    """Describe the work and the answers of the members in a delegation without a result."""
    ids = {execution.child_run_id, *(execution.child_run_ids or ())}
    children = [child for child in run.children if child.run_id in ids]
    if execution.result is not None or not children:
        return ""
    return "\n\n".join([_outcome(child) for child in children])


def _outcome(child: Run) -> str:
    output, label = child.output, child.spec.label
    if output.status is RunStatus.completed:
        return f"{label}: {output.last_turn or output.get_content_as_string()}"
    waits = output.status is RunStatus.paused
    how = "waits for a person and has not answered." if waits else "had not answered when the run ended."
    done = summary_of_calls(child, "no result; it may have acted all the same")
    return "\n".join([f"{label} {how}", *([done] if done else [])])


def summary_of_calls(run: Run, of_unfinished: str = "") -> str:
    """Describe the calls of a run that has not answered, so that they are not repeated unknowingly.

    Args:
        run: The run.
        of_unfinished: The text for a call that had not ended; "": such calls are left out.
    """
    lines = []
    waiting = {requirement.tool_call_id for requirement in run.requirements}
    for execution in run.output.tools:
        ids = {execution.child_run_id, *(execution.child_run_ids or ())}
        children = [child for child in run.children if child.run_id in ids]
        if execution.result is not None:
            lines.append(f"- {execution.tool_name}: {execution.result}")
        elif children:
            lines += [summary_of_calls(child, of_unfinished) for child in children]
        elif of_unfinished and execution.tool_call_id not in waiting:
            lines.append(f"- {execution.tool_name}: {of_unfinished}")
    done = "\n".join(line for line in lines if line)
    return f"Calls of {run.spec.label} before that:\n{done}" if done else ""
