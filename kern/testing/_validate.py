"""The checks of OpenAI's API that runtimes fail most often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kern.messages import Message
from kern.testing._refusal import Refused

_MOST_CALLS = 128


def check_response_pairs(items: Sequence[dict[str, Any]]) -> None:
    """Check that every function call has its output, and that every output follows its call (Responses)."""
    calls: dict[str, None] = {}
    outputs: set[str] = set()
    for item in items:
        call_id = item.get("call_id")
        if item.get("type") == "function_call":
            calls[str(call_id)] = None
        elif item.get("type") == "function_call_output":
            if call_id not in calls:
                text = f"No tool call found for function call output with call_id {call_id}."
                raise Refused(400, text, param="input")
            outputs.add(str(call_id))
    for call_id in calls:
        if call_id not in outputs:
            raise Refused(400, f"No tool output found for function call {call_id}.", param="input")


def check_chat_pairs(messages: Sequence[Message]) -> None:
    """Check that tool messages follow each assistant message with tool calls (Chat Completions)."""
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                text = (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message "
                    "with 'tool_calls'."
                )
                raise Refused(400, text, param=f"messages.[{index}].role")
            open_calls.remove(message.tool_call_id)
        else:
            _none_open(open_calls, index)
            open_calls = [call.id for call in message.tool_calls]
            if len(open_calls) > _MOST_CALLS:
                text = (
                    f"Invalid 'messages[{index}].tool_calls': array too long. Expected an array with maximum "
                    f"length {_MOST_CALLS}, but got an array with length {len(open_calls)} instead."
                )
                raise Refused(
                    400, text, code="array_above_max_length", param=f"messages.[{index}].tool_calls"
                )
            if len(set(open_calls)) < len(open_calls):
                text = f"Invalid 'messages[{index}].tool_calls': the ids of the calls are not unique."
                raise Refused(400, text, param=f"messages.[{index}].tool_calls")
    _none_open(open_calls, len(messages))


def _none_open(open_calls: Sequence[str], index: int) -> None:
    if open_calls:
        text = (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(open_calls)}"
        )
        raise Refused(400, text, param=f"messages.[{index}].role")


_DEEPEST = 10
_MOST_VALUES = 1_000


def check_strict(schema: Any, param: str, name: str, context: tuple[str, ...] = ()) -> None:
    """Check that a strict schema closes every object and requires every property.

    Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if not isinstance(schema, dict):
        return
    if (depth := context.count("properties") + 1) > _DEEPEST and schema.get("type") == "object":
        _bad_schema(name, context, f"{depth} levels of nesting exceeds limit of {_DEEPEST}.", param)
    if len(schema.get("enum") or ()) > _MOST_VALUES:
        _bad_schema(name, context, f"an enum has more than {_MOST_VALUES} values.", param)
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        if schema.get("additionalProperties") is not False:
            _bad_schema(
                name, context, "'additionalProperties' is required to be supplied and to be false.", param
            )
        missing = [key for key in properties if key not in (schema.get("required") or ())]
        if missing:
            reason = (
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{missing[0]}'."
            )
            _bad_schema(name, context, reason, param)
    for group in ("properties", "$defs"):
        for key, part in (schema.get(group) or {}).items():
            check_strict(part, param, name, (*context, group, key))
    for index, part in enumerate(schema.get("anyOf") or ()):
        check_strict(part, param, name, (*context, "anyOf", str(index)))
    if "items" in schema:
        check_strict(schema["items"], param, name, (*context, "items"))


def _bad_schema(name: str, context: tuple[str, ...], reason: str, param: str) -> None:
    text = f"Invalid schema for '{name}': In context={context}, {reason}"
    raise Refused(400, text, code="invalid_function_parameters", param=param)
