"""The session state as a pydantic model.

The state is stored as JSON under the names of the fields, not under their aliases, so that it reads back as
the same value. Pydantic does not check edits that are made in place, so the state is validated when the call
commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pydantic
from pydantic import ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, from_json, to_json

from kern._error_text import raised_by
from kern._json import order_sets
from kern.errors import InvalidStateError, KernError, UsageError
from kern.state.codec import same
from kern.state.losses import first_loss
from kern.state.overlay import deep_merge
from kern.state.pointer import join
from kern.state.state_type import DICT, StateType, check_updates, put_back

_LONGEST_SHOWN = 80
_MOST_SHOWN = 5


class ModelStateType:
    """The state as an instance of a pydantic model.

    Args:
        model: The class.
    """

    def __init__(self, model: type[pydantic.BaseModel]) -> None:
        self.model = model
        self._has_sets = _has_sets(model)

    def covers(self, other: StateType) -> bool:
        """Whether every instance of the other type is an instance of this one."""
        return isinstance(other, ModelStateType) and issubclass(other.model, self.model)

    def takes(self, name: str) -> bool:
        """Whether the state can have the top-level key `name`."""
        return name in self.model.model_fields or self.model.model_config.get("extra") == "allow"

    def load(self, text: bytes) -> Any:
        """A new instance.

        Raises:
            InvalidStateError: The text does not fit the model.
        """
        try:
            return self.model.model_validate_json(text, by_alias=False, by_name=True)
        except ValidationError as error:
            raise self._invalid(error) from error
        except KernError:
            raise
        except Exception as error:
            raise InvalidStateError(f"{raised_by(error)} (of {self.model.__name__})") from error

    def load_tree(self, tree: Any) -> Any:
        """A new instance; see `load`."""
        return self.load(to_json(tree))

    def dump(self, value: Any) -> Any:
        """The instance as plain JSON data.

        Raises:
            InvalidStateError: It does not fit the model any more, cannot be written as a JSON object, or
                changes when it is written and read.
        """
        given = self._write(value)
        valid = self.load(given)
        _check_kept(value, valid)
        text = self._write(valid)
        tree = self._tree(text, valid)
        if text != given:  # otherwise reading it again changes nothing
            self._check_steady(tree)
        return tree

    def _tree(self, text: bytes, value: Any) -> Any:
        tree = from_json(text)
        if not isinstance(tree, dict):
            raise InvalidStateError(f"{self.model.__name__} does not serialize to a JSON object")
        if self._has_sets:
            order_sets(tree, value)
        return tree

    def _check_steady(self, tree: dict[str, Any]) -> None:
        """Check that validators do not change the state each time it is read."""
        valid = self.load_tree(tree)
        again = self._tree(self._write(valid), valid)
        if same(again, tree):
            return
        name = next((name for name in tree if not same(tree[name], again.get(name))), "")
        raise InvalidStateError(
            f"its validators change it each time it is read: {_shortened(tree.get(name))} becomes "
            f"{_shortened(again.get(name))}; let them accept their own results (of {self.model.__name__})",
            path=join("", name),
        )

    def fit(self, tree: Any) -> Any:
        """The state with all fields of the class; missing ones get their defaults."""
        fitting = self.dump(self.load_tree(tree))
        return tree if same(fitting, tree) else fitting

    def accept(self, value: Any) -> None:
        """Refuse with a TypeError what is not an instance of the model."""
        if not isinstance(value, self.model):
            name = self.model.__name__
            raise TypeError(f"session_state must be a {name}, not {type(value).__name__}; assign {name}(...)")

    def restore(self, target: Any, source: Any) -> None:
        """Give `target` the fields of `source`."""
        put_back(target, source)

    def update(self, value: Any, updates: Mapping[str, Any]) -> None:
        """Set fields. They are validated together, before any of them is set."""
        check_updates(updates)
        self._check_names(updates)
        updated = self.load_tree({**from_json(self._write(value)), **updates})
        self._check_updates_kept(updates, updated)
        self.restore(value, updated)

    def lay_over(self, base: Mapping[str, Any], given: Any) -> dict[str, Any]:
        """`base` with `given` merged over it: all keys of a dict; of an instance the fields that were set or
        differ from their defaults.
        """
        if isinstance(given, self.model):
            given = self._said(given)
        elif not isinstance(given, Mapping):
            raise UsageError(
                f"session_state must be a {self.model.__name__} or a dict here, not {type(given).__name__}"
            )
        self._check_names(given)
        merged: dict[str, Any] = self.fit(deep_merge(base, from_json(to_json(given))))
        self._check_updates_kept(given, self.load_tree(merged))
        return merged

    def _check_updates_kept(self, given: Mapping[str, Any], made: pydantic.BaseModel) -> None:
        for name, value in given.items():
            _check_kept(value, getattr(made, name), join("", name))

    def _said(self, value: pydantic.BaseModel) -> dict[str, Any]:
        tree = self.dump(value)
        differs = value.model_dump(mode="json", by_alias=False, exclude_defaults=True, warnings="none")
        return {name: tree[name] for name in tree if name in value.model_fields_set or name in differs}

    def _write(self, value: pydantic.BaseModel) -> bytes:
        try:
            return value.model_dump_json(by_alias=False, round_trip=True, warnings="none").encode()
        except PydanticSerializationError as error:
            raise InvalidStateError(
                f"cannot be written as JSON: {error}", path=_failing_field(value)
            ) from error

    def _check_names(self, given: Mapping[str, Any]) -> None:
        for name in given:
            if not self.takes(name):
                known = ", ".join(self.model.model_fields) or "none"
                raise InvalidStateError(
                    f"{self.model.__name__} has no field of this name; its fields are: {known}",
                    path=join("", str(name)),
                )

    def _invalid(self, error: ValidationError) -> InvalidStateError:
        """The error for the first problem, with its path. The text also lists the next ones."""
        problems = error.errors(include_url=False, include_context=False)
        (path, message), *others = [(_pointer(problem["loc"]), _message(problem)) for problem in problems]
        texts = [message, *(f"{place}: {text}" for place, text in others[: _MOST_SHOWN - 1])]
        if len(others) >= _MOST_SHOWN:
            texts.append(f"and {len(others) - _MOST_SHOWN + 1} more")
        return InvalidStateError(f"{'; '.join(texts)} (of {self.model.__name__})", path=path)


def state_type_of(state: Any) -> StateType:
    """The `StateType` for the `session_state` of an agent or team, or for an object that a call edits.

    Args:
        state: A dict, a pydantic model class or instance, or None for a dict.

    Raises:
        UsageError: It is something else.
    """
    if state is None or isinstance(state, Mapping):
        return DICT
    if isinstance(state, pydantic.BaseModel):
        return _model_state_type(type(state))
    if isinstance(state, type) and issubclass(state, pydantic.BaseModel):
        return _model_state_type(state)
    raise UsageError(
        "session_state must be a dict, a pydantic model class or an instance of one, "
        f"not {type(state).__name__}"
    )


def initial_state(state: Any) -> dict[str, Any]:
    """The state that a new session starts with: the dict, the values of the instance, or the class's
    defaults.

    Raises:
        UsageError: The class has required fields, or a value changes when it is written as JSON and read.
        InvalidStateError: The values are not JSON, or do not fit the class.
    """
    state_type = state_type_of(state)
    if not isinstance(state_type, ModelStateType):
        return dict(state or {})
    value = state if isinstance(state, pydantic.BaseModel) else _defaults(state_type.model)
    loss = first_loss(value, state_type.load(state_type._write(value)))
    if loss is not None:
        path, before, after = loss
        raise UsageError(
            f"{state_type.model.__name__}{path.replace('/', '.')} changes when it is stored as JSON: "
            f"{before!r} is read back as {after!r}; use a type that JSON can hold"
        )
    tree: dict[str, Any] = state_type.dump(value)
    again = state_type.load_tree(tree)
    for name, declared in state_type.model.model_fields.items():
        if not declared.exclude and getattr(again, name) != getattr(value, name):
            raise UsageError(
                f"{state_type.model.__name__}.{name} changes when it is stored as JSON: "
                f"{getattr(value, name)!r} is read back as {getattr(again, name)!r}; use a type "
                "that JSON can hold"
            )
    return tree


@lru_cache(maxsize=256)
def _model_state_type(model: type[pydantic.BaseModel]) -> ModelStateType:
    return ModelStateType(model)


def _check_kept(value: Any, again: Any, path: str = "") -> None:
    """Check that a value survived being written and read.

    Raises:
        InvalidStateError: It did not.
    """
    loss = first_loss(value, again, path)
    if loss is not None:
        place, before, after = loss
        raise InvalidStateError(
            f"{_shortened(before)} would be stored as JSON and read back as {_shortened(after)}; use a value "
            "that the type of the field can hold, or another type",
            path=place,
        )


def _defaults(model: type[pydantic.BaseModel]) -> pydantic.BaseModel:
    required = [name for name, declared in model.model_fields.items() if declared.is_required()]
    if required:
        raise UsageError(
            f"session_state={model.__name__}: a new session starts from the defaults of the class, and "
            f"these fields have none: {', '.join(required)}; pass an instance, or add defaults"
        )
    try:
        return model()
    except ValidationError as error:
        raise UsageError(f"session_state={model.__name__}: the defaults are not valid: {error}") from error


def _has_sets(model: type[pydantic.BaseModel]) -> bool:
    """Whether the model has sets, whose elements have no fixed order in the text."""
    try:
        schema = model.model_json_schema(mode="serialization")
    except (PydanticUserError, PydanticSchemaGenerationError):  # a type of the application has no schema
        return True
    return b'"uniqueItems":true' in to_json(schema)


def _failing_field(value: pydantic.BaseModel) -> str:
    """The JSON Pointer of the first top-level field that cannot be written; "" if each of them can."""
    for name in type(value).model_fields:
        try:
            value.model_dump_json(include={name}, warnings="none")
        except PydanticSerializationError:
            return join("", name)
    return ""


def _pointer(places: tuple[int | str, ...]) -> str:
    path = ""
    for place in places:
        path = join(path, place)
    return path


def _message(problem: Any) -> str:
    if problem["type"] == "missing":
        return str(problem["msg"])
    return f"{problem['msg']}, not {_shortened(problem['input'])}"


def _shortened(value: Any) -> str:
    """The value as Python writes it, not too long for an error."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "..."
