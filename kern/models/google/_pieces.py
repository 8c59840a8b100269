"""The arguments of a function call that Vertex AI streams piece by piece (`streamFunctionCallArguments`).

Source: `PartialArg` on https://googleapis.github.io/js-genai/release_docs/interfaces/types.PartialArg.html
"""

from __future__ import annotations

import re
from typing import Any

from kern.models._reading import damaged, items_of, text_of

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_DEEPEST = 64
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class Pieces:
    """Builds the arguments of one call."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self._open: str | None = None
        """The path of the text that is still to be continued."""

    @property
    def complete(self) -> bool:
        """Whether no text is still to be continued."""
        return self._open is None

    def add(self, pieces: Any) -> None:
        """Add `partialArgs`.

        Raises:
            StreamFault: A piece has a path that leads nowhere.
        """
        for piece in items_of(pieces):
            path = text_of(piece.get("jsonPath"))
            name = next((name for name in _VALUES if name in piece), None)
            if name is not None:
                value = None if name == "nullValue" else piece[name]
                continued = path == self._open and isinstance(value, str)
                self._put(path, value, continued=continued)
            self._open = path if piece.get("willContinue") else None

    def _put(self, path: str, value: Any, *, continued: bool) -> None:
        steps = _steps(path)
        place: Any = self.value
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if isinstance(step, int) != isinstance(place, list):
                raise damaged(path, "the path of an argument", "one that fits those before it")
            if isinstance(place, list):
                if step == len(place):
                    place.append(None)
                elif not isinstance(step, int) or step > len(place):
                    raise damaged(path, "the path of an argument", "one that fits those before it")
            if following is None:
                before = place[step] if isinstance(place, list) else place.get(step)
                place[step] = before + value if continued and isinstance(before, str) else value
                return
            inner = place[step] if isinstance(place, list) else place.get(step)
            if inner is None:
                inner = place[step] = [] if isinstance(following, int) else {}
            place = inner


def _steps(path: str) -> list[Any]:
    """The keys and indices of a JSON path such as "$.rooms[0].name"."""
    steps: list[Any] = []
    at = 1
    while path[:1] == "$" and at < len(path) and len(steps) < _DEEPEST:
        found = _STEP.match(path, at)
        if found is None:
            break
        name, index, *quoted = found.groups()
        steps.append(int(index) if index is not None else name or "".join(filter(None, quoted)))
        at = found.end()
    if not steps or at < len(path):
        raise damaged(path, "the path of an argument", "a JSON path")
    return steps
