"""Reads the signature of a callable: parameters, annotations, and which parameter is the `RunContext`."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import keyword
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar, Union
from weakref import WeakKeyDictionary

import pydantic
import typing_extensions
from typing_extensions import ReadOnly, get_type_hints, is_typeddict

from kern.errors import UsageError
from kern.run.context import RunContext

T = TypeVar("T")

Kind = Literal["sync", "async", "generator", "async_generator"]

_CONTEXT_NAME = "run_context"
_PLAIN = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)
# In some versions of Python, typing and typing_extensions define these as different objects.
_UNPACK = (typing.Unpack, typing_extensions.Unpack)
_REQUIRED = (typing.Required, typing_extensions.Required)
_NOT_REQUIRED = (typing.NotRequired, typing_extensions.NotRequired)
LEFT_OUT = object()
"""The default of a TypedDict key that is not required: if it is left out, nothing is passed."""
_MOST_WRAPPERS = 100  # stops at a function that wraps itself
_RUNNERS = ("Agent", "Team")
# A textual annotation that cannot be evaluated, such as a name that is imported for type checkers only
_UNION_TEXT = r"(?:(?:\w+\.)*(?:Optional|Union)\[|None\s*\|\s*)?\s*"
_CONTEXT_TEXT = re.compile(_UNION_TEXT + r"(?:\w+\.)*RunContext\b")
_RUNNER_TEXT = re.compile(_UNION_TEXT + r"(?:\w+\.)*(?:Agent|Team)\b")


@dataclass(slots=True, frozen=True)
class Signature:
    """The signature of a callable, as a tool or a hook needs it.

    Args:
        parameters: The parameters that a caller fills in: without `self`, those fixed by a partial, and the
            context. Annotations are evaluated; one that could not be is still a str.
        context_parameter: The name of the parameter that receives the `RunContext`.
        hidden: The names that a caller may not pass: the context's, and those fixed by a partial.
        kind: How the callable is called.
        positional_only: All parameters that cannot be passed by name, the context's included.
        doc: The docstring, unchanged.
        namespace: Globals in which to evaluate annotations that are still text; None if there are none.
    """

    parameters: tuple[inspect.Parameter, ...]
    context_parameter: str | None
    hidden: frozenset[str]
    kind: Kind
    positional_only: tuple[inspect.Parameter, ...]
    doc: str
    namespace: dict[str, Any] | None


class PerFunction(Generic[T]):
    """A cache with one value per function, which is dropped with the function.

    A bound method is looked up by its function. Other callables (partials, objects) are not cached: they are
    rare and usually used once. A value must not refer to its function, or neither would ever be freed.
    """

    def __init__(self, compute: Callable[[Callable[..., Any]], T]) -> None:
        self._compute = compute
        self._plain: WeakKeyDictionary[Callable[..., Any], T] = WeakKeyDictionary()
        self._bound: WeakKeyDictionary[Callable[..., Any], T] = WeakKeyDictionary()

    def __call__(self, function: Callable[..., Any]) -> T:
        """The value for `function`, computed at the first call."""
        if isinstance(function, types.FunctionType):
            cache, key = self._plain, function
        elif isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
            cache, key = self._bound, function.__func__
        else:
            return self._compute(function)
        value = cache.get(key)
        if value is None:
            value = cache[key] = self._compute(function)
        return value


def _read(function: Callable[..., Any]) -> Signature:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (
        NameError,
        TypeError,
        ValueError,
    ) as error:  # NameError: annotations are evaluated here from Python 3.14 on
        raise UsageError(f"{describe(function)} has no readable signature: {error}") from error
    fixed: set[str] = set(function.keywords) if isinstance(function, functools.partial) else set()
    target = _definition(function)
    hints = _hints(target, parameters)
    offered = []
    contexts = []
    parameters, hints = _unpacked(function, parameters, hints)
    for parameter in parameters:
        if parameter.name in fixed:
            continue
        annotation = hints.get(parameter.name, parameter.annotation)
        _refuse_runner(function, parameter.name, annotation)
        if parameter.name == _CONTEXT_NAME or _is_context(annotation):
            contexts.append(parameter.name)
        else:
            offered.append(parameter.replace(annotation=annotation))
    if len(contexts) > 1:
        raise UsageError(
            f"{describe(function)} has several RunContext parameters ({', '.join(contexts)}); keep one"
        )
    return Signature(
        parameters=tuple(offered),
        context_parameter=contexts[0] if contexts else None,
        hidden=frozenset(fixed.union(contexts)),
        kind=kind_of(function),
        positional_only=tuple(p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY),
        doc=_doc(function),
        namespace=getattr(target, "__globals__", None)
        if any(isinstance(parameter.annotation, str) for parameter in offered)
        else None,
    )


def _unpacked(
    function: Callable[..., Any], parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[list[inspect.Parameter], dict[str, Any]]:
    """The parameters, with the keys of a TypedDict in place of `**kwargs: Unpack[...]` (PEP 692)."""
    if not parameters or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return parameters, hints
    last = parameters[-1]
    annotation = hints.get(last.name, last.annotation)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) not in _UNPACK or not is_typeddict(arguments[0]):
        return parameters, hints
    keys = get_type_hints(arguments[0], include_extras=True)
    named = {parameter.name for parameter in parameters[:-1]}
    if bad := [key for key in keys if key in named or not key.isidentifier() or keyword.iskeyword(key)]:
        raise UsageError(
            f"{describe(function)}: **{last.name} has the key {bad[0]!r}, which is not a Python "
            "identifier or is the name of another parameter"
        )
    more = [_keyword(key, hint, key in arguments[0].__required_keys__) for key, hint in keys.items()]
    return [*parameters[:-1], *more], {name: hint for name, hint in hints.items() if name in named}


def _keyword(name: str, hint: Any, required: bool) -> inspect.Parameter:
    """A key of a TypedDict. Its class does not see Required and NotRequired inside textual annotations."""
    while (qualifier := typing.get_origin(hint)) in (*_REQUIRED, *_NOT_REQUIRED, ReadOnly):
        required = required if qualifier is ReadOnly else qualifier in _REQUIRED
        (hint,) = typing.get_args(hint)
    default = inspect.Parameter.empty if required else LEFT_OUT
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


signature_of: PerFunction[Signature] = PerFunction(_read)
"""The `Signature` of a callable.

Raises:
    UsageError: It cannot be read, or it asks for an Agent or a Team, or for two contexts.
"""


def context_parameter(function: Callable[..., Any]) -> str | None:
    """The name of the parameter that receives the `RunContext`: `run_context`, or one annotated as such."""
    return signature_of(function).context_parameter


def describe(function: Callable[..., Any]) -> str:
    """The name of a callable for error texts: its module and qualified name."""
    function = _unpartial(function)
    if not hasattr(function, "__qualname__"):
        function = type(function)
    # A method of a built-in class has no module of its own.
    owner = getattr(function, "__objclass__", type(function))
    return f"{getattr(function, '__module__', None) or owner.__module__}.{function.__qualname__}"


def _unpartial(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _definition(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside partials, methods, callable objects and wrappers, whose globals its annotations
    refer to. As in `inspect`, the search ends at a wrapper with a `__signature__`."""
    for _ in range(_MOST_WRAPPERS):
        function = _unpartial(function)
        if hasattr(function, "__signature__"):
            return function
        if (wrapped := wrapped_by(function)) is not None:
            function = wrapped
        elif isinstance(function, _PLAIN):
            return function
        else:
            function = type(function).__call__
    return function


def wrapped_by(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The callable that a wrapper wraps, according to its `__wrapped__` (see `functools.wraps`)."""
    wrapped = getattr(function, "__wrapped__", None)
    return wrapped if callable(wrapped) and wrapped is not function else None


def named(function: Callable[..., Any]) -> Callable[..., Any]:
    """The callable whose name and docstring the tool takes: the innermost one, as far as wrappers have a
    `__wrapped__` with another name. A wrapper with the same name (`functools.wraps`) is taken itself."""
    spokesman = function
    for _ in range(_MOST_WRAPPERS):
        if isinstance(function, functools.partial) and "__name__" not in vars(function):
            spokesman = function = function.func
        elif (wrapped := wrapped_by(function)) is not None:
            own = getattr(function, "__qualname__", None)
            if own is None or own != getattr(wrapped, "__qualname__", None):
                spokesman = wrapped
            function = wrapped
        else:
            break
    return spokesman


def kind_of(function: Callable[..., Any]) -> Kind:
    """How a callable is called, by its outermost wrapper, which may hide what the function returns."""
    function = _unpartial(function)
    for candidate in (function, getattr(type(function), "__call__", None)):  # noqa: B004  # not a callable() test
        if inspect.isasyncgenfunction(candidate):
            return "async_generator"
        if inspect.iscoroutinefunction(candidate):
            return "async"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "sync"


def _doc(function: Callable[..., Any]) -> str:
    function = named(function)
    if isinstance(function, _PLAIN):
        return function.__doc__ or ""
    own = getattr(function, "__dict__", {}).get("__doc__")  # as functools.update_wrapper sets it
    wrapped = wrapped_by(function)
    if own or wrapped is not None:
        return own or _doc(wrapped or function)
    return type(function).__call__.__doc__ or type(function).__doc__ or ""


def _hints(target: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """The annotations, evaluated; a textual one that cannot be evaluated is left out."""
    if not hasattr(target, "__signature__"):  # which has annotations of its own
        try:
            return typing.get_type_hints(target, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError):
            pass  # one bad annotation fails all: evaluate them one by one
    namespace = getattr(target, "__globals__", {})
    hints = {}
    for parameter in parameters:
        if isinstance(parameter.annotation, str):
            try:
                hints[parameter.name] = evaluate(parameter.annotation, namespace)
            except (NameError, AttributeError, TypeError, SyntaxError):
                continue
    return hints


def evaluate(annotation: str, namespace: dict[str, Any]) -> Any:
    """The type that a textual annotation means; raises what the evaluation raises."""
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, globalns=namespace, include_extras=True)["it"]


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without Annotated and type arguments; one member for anything else."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _alternatives(annotation.__origin__)
    if origin is Union or origin is types.UnionType:
        return [part for member in typing.get_args(annotation) for part in _alternatives(member)]
    return [origin or annotation]


def _is_context(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _CONTEXT_TEXT.match(annotation) is not None
    return any(isinstance(part, type) and issubclass(part, RunContext) for part in _alternatives(annotation))


def _refuse_runner(function: Callable[..., Any], name: str, annotation: Any) -> None:
    if isinstance(annotation, str):
        asked = _RUNNER_TEXT.match(annotation) is not None
    else:
        asked = any(_is_runner(part) for part in _alternatives(annotation))
    if asked:
        raise UsageError(
            f"{describe(function)}: the parameter {name!r} is annotated as an Agent or a Team, "
            "but Kern passes only a RunContext: name a parameter run_context and use "
            "run_context.agent_id or .team_id"
        )


def _is_runner(part: Any) -> bool:
    """Whether a type is Kern's Agent or Team, by name: this layer cannot import them. A data class of the
    application with such a name is not.
    """
    if not isinstance(part, type) or part.__name__ not in _RUNNERS:
        return False
    data = (
        issubclass(part, (pydantic.BaseModel, enum.Enum))
        or dataclasses.is_dataclass(part)
        or is_typeddict(part)
    )
    return part.__module__.startswith("kern.") or not data
