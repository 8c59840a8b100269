"""Makes the JSON schema of a callable's parameters, and validates a model's arguments against it."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Optional

import pydantic
from pydantic import ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import ErrorDetails, from_json, to_json

from kern._error_text import message_of
from kern._json import SURELY_FLAT, UNREAL, check_depth, non_finite, order_sets, unreal
from kern.errors import ToolArgumentsError, UsageError
from kern.tools.docstring import Docstring, parse_docstring
from kern.tools.schema import Schema, undo_strict, without_titles
from kern.tools.signature import PerFunction, Signature, describe, evaluate, signature_of

_MOST_ERRORS = 8
_MOST_CHARACTERS = 120
_BAD_TYPE = (
    PydanticUserError,
    PydanticUndefinedAnnotation,
    TypeError,
    NameError,
    AttributeError,
    SyntaxError,
)


# Made on first use: loading pydantic's models takes longer than the rest of `import kern`.
@cache
def _closed() -> type[pydantic.BaseModel]:
    return pydantic.create_model("Closed", __config__=pydantic.ConfigDict(extra="forbid"))


@cache
def _open() -> type[pydantic.BaseModel]:
    return pydantic.create_model("Open", __config__=pydantic.ConfigDict(extra="allow"))


@cache
def _json_schema() -> type[pydantic.json_schema.GenerateJsonSchema]:
    """pydantic's generator, without the warning that a default value cannot be written as JSON."""
    base = pydantic.json_schema.GenerateJsonSchema
    ignored = base.ignored_warning_kinds | {"non-serializable-default"}

    def encode_default(self: Any, default: Any) -> Any:
        return order_sets(base.encode_default(self, default), default)

    return type("JsonSchema", (base,), {"ignored_warning_kinds": ignored, "encode_default": encode_default})


@cache
def load_pydantic() -> None:
    """Load now what pydantic would import, slowly, with its first model and its first schema."""
    first = pydantic.create_model("First", __base__=_closed(), field=(int, ...))
    first.model_json_schema(schema_generator=_json_schema())


class Arguments:
    """The arguments that a model may pass to one callable; the pydantic model is made on first use."""

    __slots__ = ("_docstring", "_model", "_owner", "_schema", "signature")

    def __init__(self, signature: Signature, owner: str) -> None:
        self.signature: Signature = signature
        self._owner = owner
        self._docstring: Docstring | None = None
        self._model: type[pydantic.BaseModel] | None = None
        self._schema: Schema | None = None
        for parameter in signature.parameters:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                raise UsageError(
                    f"{owner}: a model passes arguments by name and cannot fill "
                    f"*{parameter.name}; take a list instead: {parameter.name}: list[...]"
                )

    @property
    def docstring(self) -> Docstring:
        """The callable's parsed docstring."""
        if self._docstring is None:
            self._docstring = parse_docstring(self.signature.doc)
        return self._docstring

    @property
    def schema(self) -> Schema:
        """The JSON schema of the arguments; do not change it.

        Raises:
            UsageError: A parameter's annotation has no JSON schema.
        """
        if self._schema is None:
            try:
                schema = self._as_model().model_json_schema(schema_generator=_json_schema())
            except _BAD_TYPE as error:
                raise self._blamed(error) from error
            schema.pop("description", None)
            self._schema = {"type": "object", "properties": {}, **without_titles(schema)}
        return self._schema

    def validate(
        self, arguments_json: str, *, tool: str, strict: bool, extra: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Parse and validate arguments; see `Function.validate`."""
        text = arguments_json.strip() or "{}"
        value = parsed(text, tool)
        if hidden := value.keys() & self.signature.hidden:  # **kwargs would let them through
            raise ToolArgumentsError(
                f"the arguments of {tool} do not fit:\n- {min(hidden)}: no such argument", tool=tool
            )
        if strict:
            value = undo_strict(value, self.schema)
        if extra:
            value = {**value, **extra}
        if strict or extra:
            text = to_json(value, inf_nan_mode="constants").decode()
        model = self._as_model()
        try:
            filled = model.model_validate_json(text)
        except ValidationError as error:
            raise ToolArgumentsError(self._complaint(error, tool), tool=tool) from error
        kwargs = self._as_kwargs(filled)
        if UNREAL.search(text) is not None and (found := unreal(kwargs)) is not None:
            raise ToolArgumentsError(
                f"the arguments of {tool} do not fit:\n- {found} is not a number in JSON", tool=tool
            )
        return kwargs

    def _as_kwargs(self, filled: pydantic.BaseModel) -> dict[str, Any]:
        """The arguments that were passed, and the defaults of `Field(...)`; Python fills in the others."""
        kwargs = {
            parameter.name: getattr(filled, f"p{at}")
            for at, parameter in enumerate(self._named())
            if f"p{at}" in filled.model_fields_set or _pydantic_fills_in(parameter)
        }
        return {**kwargs, **(filled.model_extra or {})}

    def _named(self) -> list[inspect.Parameter]:
        return [p for p in self.signature.parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]

    def _as_model(self) -> type[pydantic.BaseModel]:
        if self._model is None:
            if self.signature.parameters and self.signature.parameters[0].name == "self":
                raise UsageError(
                    f"{self._owner} is an unbound method: pass the method of an object, obj.method"
                )
            fields: dict[str, Any] = {}
            base: type[pydantic.BaseModel] = _closed()
            try:
                for parameter in self.signature.parameters:
                    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                        base = self._open(parameter)
                    else:  # numbered fields with aliases: pydantic does not allow every name as a field
                        fields[f"p{len(fields)}"] = self._field(parameter)
                self._model = pydantic.create_model("Arguments", __base__=base, **fields)
            except _BAD_TYPE as error:
                raise self._blamed(error) from error
        return self._model

    def _open(self, parameter: inspect.Parameter) -> type[pydantic.BaseModel]:
        annotation = self._annotation(parameter)
        if annotation is Any:
            return _open()
        namespace = {
            "__module__": __name__,
            "__annotations__": {"__pydantic_extra__": dict[str, annotation]},  # type: ignore[valid-type]  # at run time
        }
        return type("_OpenTyped", (_open(),), namespace)

    def _field(self, parameter: inspect.Parameter) -> tuple[Any, Any]:
        """A parameter as a field for pydantic's `create_model`: annotation and default."""
        annotation = self._annotation(parameter)
        metadata: tuple[Any, ...] = ()
        if typing.get_origin(annotation) is Annotated:
            annotation, metadata = annotation.__origin__, annotation.__metadata__
        if parameter.default is None:  # `x: int = None` means that None is allowed
            annotation = Optional[annotation]  # noqa: UP045  # | is not defined for every annotation
        known = pydantic.Field(
            alias=parameter.name, description=self.docstring.parameters.get(parameter.name)
        )
        told = [pydantic.Field(description=item) if isinstance(item, str) else item for item in metadata]
        # An empty Field() leaves a default in the annotation as it is: `Annotated[int, Field(default=7)]`.
        default = pydantic.Field() if parameter.default is inspect.Parameter.empty else parameter.default
        return Annotated[(annotation, known, *told)], default

    def _annotation(self, parameter: inspect.Parameter) -> Any:
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            return Any
        if isinstance(annotation, str):
            return evaluate(annotation, self.signature.namespace or {})
        return annotation

    def _blamed(self, error: Exception) -> UsageError:
        """The error, with the name of the parameter that causes it."""
        for parameter in self.signature.parameters:
            try:
                one = pydantic.create_model("Argument", __base__=_closed(), p0=self._field(parameter))
                one.model_json_schema(schema_generator=_json_schema())
            except _BAD_TYPE as own:
                if isinstance(parameter.annotation, str):
                    hint = (
                        f"its annotation {parameter.annotation!r} cannot be evaluated ({own}); import the "
                        "name at run time, not only for type checkers, and define it at the top of a module"
                    )
                else:
                    hint = (
                        f"pydantic cannot describe its annotation {parameter.annotation!r}: "
                        f"{message_of(own).splitlines()[0]}"
                    )
                return UsageError(
                    f"{self._owner}: the parameter {parameter.name!r} has no JSON schema: {hint}"
                )
        return UsageError(f"{self._owner} cannot be used as a tool: {error}")

    def _complaint(self, error: ValidationError, tool: str) -> str:
        known = ", ".join(self.schema["properties"]) or "none"
        details = error.errors(include_url=False, include_context=False)
        lines = [_line(detail, known) for detail in details[:_MOST_ERRORS]]
        if len(details) > _MOST_ERRORS:
            lines.append(f"- and {len(details) - _MOST_ERRORS} more")
        return "\n".join([f"the arguments of {tool} do not fit:", *lines])


def _pydantic_fills_in(parameter: inspect.Parameter) -> bool:
    """Whether a parameter's default, if it has one, is known to pydantic only."""
    return parameter.default is inspect.Parameter.empty or isinstance(
        parameter.default, pydantic.fields.FieldInfo
    )


def _read(function: Callable[..., Any]) -> Arguments:
    return Arguments(signature_of(function), describe(function))


arguments_of: PerFunction[Arguments] = PerFunction(_read)
"""The `Arguments` of a callable.

Raises:
    UsageError: It cannot be called with named arguments only, or has no readable signature.
"""


def parsed(text: str | bytes, tool: str) -> dict[str, Any]:
    """Parse the arguments that a model wrote for `tool`.

    Raises:
        ToolArgumentsError: They are not a JSON object, or contain NaN or Infinity.
    """
    try:
        value = from_json(text.strip() or b"{}")
        if len(text) > SURELY_FLAT:
            check_depth(text.encode(errors="replace") if isinstance(text, str) else text)
    except ValueError as error:
        raise ToolArgumentsError(f"the arguments of {tool} are not valid JSON: {error}", tool=tool) from error
    if not isinstance(value, dict):
        raise ToolArgumentsError(
            f"the arguments of {tool} must be one JSON object, not {_shown(value)}", tool=tool
        )
    if (found := non_finite(value)) is not None:
        raise ToolArgumentsError(
            f"the arguments of {tool} are not valid JSON: {found} is not a JSON number; "
            "leave it out, or pass null where that fits",
            tool=tool,
        )
    return value


def misfits_of(error: ToolArgumentsError) -> dict[str, str]:
    """The arguments that do not fit, by name, with a line on each; empty if they are not a JSON object."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return {}
    details = cause.errors(include_url=False, include_context=False)
    return {str(detail["loc"][0]): _line(detail, "")[2:] for detail in reversed(details) if detail["loc"]}


def _line(detail: ErrorDetails, known: str) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(
        "."
    )
    if detail["type"] == "missing":
        return f"- {where}: required, but missing"
    if detail["type"] == "extra_forbidden":
        names = f"; the arguments are: {known}" if len(detail["loc"]) == 1 else ""
        return f"- {where}: no such argument{names}"
    return f"- {where or 'all'}: {detail['msg']}, not {_shown(detail['input'])}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
