"""What a run that is cut short leaves in its conversation: shown text, and what its members did."""

from __future__ import annotations

from kern.messages import Message
from kern.run.output import RunStatus
from kern.run.tool_execution import ToolExecution
from kern.runtime.run import Run


def left_open(run: Run) -> list[Message]:
    """What the conversation of a run that is cut short still lacks."""
    said = run.spoken.unfinished or (run.speaker.words if run.speaker is not None else "")
    told = [message for execution in run.output.tools for message in _delegation(run, execution)]
    return [*told, *([Message("assistant", said)] if said else [])]


def _delegation(run: Run, execution: ToolExecution) -> list[Message]:
    """The result of a delegation that has not come to one: what the members did, and had answered."""
    ids = {execution.child_run_id, *(execution.child_run_ids or ())}
    children = [child for child in run.children if child.run_id in ids]
    if execution.result is not None or not children:
        return []
    text = "\n\n".join(filter(None, [_outcome(child) for child in children]))
    call_id, name = execution.tool_call_id, execution.tool_name
    return [Message("tool", text, tool_call_id=call_id, tool_name=name, tool_call_error=True)]


def _outcome(child: Run) -> str:
    output, label = child.output, child.spec.label
    if output.status is RunStatus.completed:
        return f"{label}: {output.last_turn or output.get_content_as_string()}"
    done = deeds(child, "no result; it may have acted all the same")
    return "\n".join(filter(None, [f"{label} had not answered when the run ended.", done]))


def deeds(run: Run, of_unfinished: str = "") -> str:
    """What a run that has not answered had done by its calls: nobody is to do it again unknowingly.

    Args:
        of_unfinished: What is told of a call that had not ended; without it nothing is.
    """
    lines = []
    for execution in run.output.tools:
        ids = {execution.child_run_id, *(execution.child_run_ids or ())}
        children = [child for child in run.children if child.run_id in ids]
        if execution.result is not None:
            lines.append(f"- {execution.tool_name}: {execution.result}")
        elif children:
            lines += [deeds(child, of_unfinished) for child in children]
        elif of_unfinished:
            lines.append(f"- {execution.tool_name}: {of_unfinished}")
    done = "\n".join(line for line in lines if line)
    return f"Calls of {run.spec.label} before that:\n{done}" if done else ""
