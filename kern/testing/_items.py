"""The ids of output items, and the checks of the real Responses API for items that are sent back.

An id tells which answer its item is part of, whether reasoning led to it, and whether the answer was stored,
as OpenAI's store would know. The texts are those that OpenAI answers with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from kern.testing._refusal import Refused

_OWN = re.compile(r"(?P<prefix>rs|msg|fc)_k(?P<answer>(?P<reasoned>[01])(?P<stored>[01])[0-9a-f]{32})\d{4}")
_PREFIXES = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
_LONGEST_CALL_ID = 64


class ItemIds:
    """The ids of one answer's items.

    Args:
        reasoned: The answer begins with reasoning.
        stored: The request asks for the answer to be stored, which is the API's default.
    """

    def __init__(self, *, reasoned: bool, stored: bool) -> None:
        self._answer = f"{int(reasoned)}{int(stored)}{uuid4().hex}"

    def of(self, prefix: str, number: int = 0) -> str:
        """The id of an item."""
        return f"{prefix}_k{self._answer}{number:04}"


def check_items(items: Sequence[dict[str, Any]]) -> None:
    """Refuse items without the reasoning that they need, reasoning without its item, and repeated ids.

    Raises:
        Refused: As OpenAI words it.
    """
    seen: set[str] = set()
    for index, item in enumerate(items):
        item_id = item.get("id")
        if not isinstance(item_id, str):
            if item.get("type") == "reasoning":
                _check_reasoning(items, index)
            continue
        kind = item.get("type") or "message"
        prefix = _PREFIXES.get(kind) if kind != "message" or item.get("role") == "assistant" else None
        if prefix is not None and not item_id.startswith(prefix):
            text = f"Invalid 'input[{index}].id': '{item_id}'. Expected an ID that begins with '{prefix}'."
            raise Refused(400, text, code="invalid_value", param=f"input[{index}].id")
        if item_id in seen:
            text = f"Duplicate item found with id {item_id}. Remove duplicate items from your input"
            raise Refused(400, f"{text} and try again.", param="input")
        seen.add(item_id)
        if kind == "reasoning":
            _check_reasoning(items, index)
        elif (own := _OWN.fullmatch(item_id)) and own["reasoned"] == "1":
            needed = f"rs_k{own['answer']}0000"
            if needed not in seen:
                text = (
                    f"Item '{item_id}' of type '{kind}' was provided without its required 'reasoning' item: "
                    f"'{needed}'."
                )
                raise Refused(400, text, param="input")


def check_call_ids(items: Sequence[dict[str, Any]]) -> None:
    """Refuse calls and outputs whose ids are too long or repeated.

    Raises:
        Refused: The reason.
    """
    for kind in ("function_call", "function_call_output"):
        seen: set[str] = set()
        for index, item in enumerate(items):
            call_id = item.get("call_id")
            if item.get("type") != kind or not isinstance(call_id, str):
                continue
            check_length(call_id, _LONGEST_CALL_ID, f"input[{index}].call_id")
            if call_id in seen:
                text = f"Duplicate '{kind}' item found with call_id {call_id}."
                raise Refused(400, text, param="input")
            seen.add(call_id)


def check_length(text: str, longest: int, path: str) -> None:
    """Refuse a text that is too long.

    Raises:
        Refused: As OpenAI words it.
    """
    if len(text) > longest:
        words = (
            f"Invalid '{path}': string too long. Expected a string with maximum length {longest}, "
            f"but got a string with length {len(text)} instead."
        )
        raise Refused(400, words, code="string_above_max_length", param=path)


def _check_reasoning(items: Sequence[dict[str, Any]], index: int) -> None:
    """Check that reasoning has its content, or is stored, and that the item that it led to follows."""
    item = items[index]
    item_id = item.get("id")
    own = _OWN.fullmatch(item_id) if isinstance(item_id, str) else None
    if not (item.get("encrypted_content") or item.get("content") or (own and own["stored"] == "1")):
        text = (
            f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. Try "
            "again with `store` set to true, or remove this item from your input."
        )
        raise Refused(404, text, param="input")
    later = (items[place] for place in range(index + 1, len(items)))
    following = next((other for other in later if other.get("type") != "reasoning"), {})
    kind = following.get("type") or ("message" if "role" in following else "")
    if kind == "function_call_output" or not kind or (kind == "message" and following["role"] != "assistant"):
        text = f"Item '{item_id}' of type 'reasoning' was provided without its required following item."
        raise Refused(400, text, param="input")
