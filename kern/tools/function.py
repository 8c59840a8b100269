"""`Function`: a callable as a tool, with its JSON schema and its options."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Self, cast, get_args

from typing_extensions import ParamSpec, TypeVar, Unpack

from kern._keywords import ChecksArguments
from kern._numbers import check_seconds
from kern.errors import UsageError
from kern.messages import CacheMark
from kern.tools.arguments import Arguments, arguments_of
from kern.tools.by_keyword import ByKeyword, without_keywords
from kern.tools.options import Effect, Hook, ToolOptions
from kern.tools.portable import found_at, place_of, portable, restored
from kern.tools.schema import Schema, strict_schema
from kern.tools.signature import Kind, describe, named

P = ParamSpec("P", default=...)
R = TypeVar("R", default=Any)

# What providers accept: https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXCLUSIVE = ("requires_confirmation", "requires_user_input", "external_execution")


class _Doc:
    """`__doc__`: the class's own text on the class, the wrapped callable's on an object."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __get__(self, instance: Function[..., Any] | None, owner: type) -> str | None:
        return self._text if instance is None else instance.entrypoint.__doc__


class _Wrapped:
    """`__wrapped__`: only an object wraps something; `inspect.signature` asks the class, too."""

    def __get__(self, instance: Function[P, R] | None, owner: type) -> Callable[P, R]:
        if instance is None:
            raise AttributeError("the class wraps nothing")
        return instance.entrypoint


class Function(ChecksArguments, Generic[P, R]):
    """A tool: a callable, its JSON schema, and the options of its calls.

    It can be called like the callable itself. Do not change a `Function` that is in use: `replace` returns a
    changed copy.

    Args:
        entrypoint: The callable: a function, method, partial, or an object with `__call__`; sync, async, or
            a generator of either kind. The schema is made from its signature and docstring.
        name: The tool's name for the model: letters, digits, _ and -, at most 64; by default the callable's.
        description: When and how to use the tool; by default from the docstring.
        parameters: A JSON schema of type object to show instead of the signature's. Arguments are still
            validated against the signature: declare `**kwargs` to accept anything.
        strict: Ask the provider to guarantee arguments that fit the schema. In the schema an optional
            parameter is then required but nullable, and null means its default.
        instructions: A text to add to the system message of agents and teams that have the tool.
        show_result: Show the result to the user as content of the run; None: only with
            `stop_after_tool_call`. False: also a call that ends the run shows nothing.
        stop_after_tool_call: End the run after the turn with this call.
        requires_confirmation: A person has to approve each call.
        requires_user_input: A person has to fill in arguments of each call.
        user_input_fields: The parameters that a person fills in, hidden from the model; () with
            `requires_user_input`: all of them. Setting it implies `requires_user_input`.
        external_execution: The application executes the call outside the run.
        pre_hook: Called before each call with the arguments that it declares, by name: function_name,
            arguments (a dict that it may change), run_context.
        post_hook: Called after each call, likewise; it may also declare result.
        tool_hooks: Wrapped around each call, the first one outermost: `hook(function_name, function_call,
            arguments)`, and run_context if declared, calls `function_call(**arguments)` (and awaits it if
            the hook is async) and returns the result. A call and its hooks are one transaction of the
            session state. An error in a hook is an error of the call, and the model reads it.
        cache_results: Cache results on disk, by tool and arguments. Not allowed for a tool with a
            `run_context`: its result depends on more than its arguments.
        cache_ttl: How long a cached result is valid, in seconds.
        cache_dir: The folder of the cached results; None: one in the system's folder for temporary files.
        timeout: How long a call may take, in seconds; None: any time.
        cache: The provider may cache the prompt up to the end of this tool's definition, for this time.
        effect: Whether a call may be repeated when a durable run continues after its process died during
            the call: "read" and "idempotent" calls are repeated; for "once" and None a person decides. See
            `run_context.idempotency_key`.

    Raises:
        UsageError: The callable cannot be a tool, or the options contradict each other.
    """

    __slots__ = (
        "__weakref__",
        "_arguments",
        "_given_parameters",
        "_parameters",
        "_static",
        "cache",
        "cache_dir",
        "cache_results",
        "cache_ttl",
        "description",
        "effect",
        "entrypoint",
        "external_execution",
        "instructions",
        "name",
        "post_hook",
        "pre_hook",
        "requires_confirmation",
        "requires_user_input",
        "show_result",
        "stop_after_tool_call",
        "strict",
        "timeout",
        "tool_hooks",
        "user_input_fields",
    )

    def __init__(
        self,
        entrypoint: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Schema | None = None,
        strict: bool = False,
        instructions: str | None = None,
        show_result: bool | None = None,
        stop_after_tool_call: bool = False,
        requires_confirmation: bool = False,
        requires_user_input: bool = False,
        user_input_fields: Sequence[str] = (),
        external_execution: bool = False,
        pre_hook: Hook | None = None,
        post_hook: Hook | None = None,
        tool_hooks: Sequence[Hook] = (),
        cache_results: bool = False,
        cache_ttl: float = 3600,
        cache_dir: str | Path | None = None,
        timeout: float | None = None,
        cache: CacheMark | None = None,
        effect: Effect | None = None,
    ) -> None:
        self._static = isinstance(entrypoint, staticmethod)
        plain: Callable[P, R] = _checked(entrypoint)
        self._arguments: Arguments = arguments_of(plain)
        positional_only = self._arguments.signature.positional_only
        self.entrypoint: Callable[P, R] = ByKeyword(plain, positional_only) if positional_only else plain
        self.name: str = _checked_name(name, plain)
        self.description: str = self._arguments.docstring.description if description is None else description
        self.strict: bool = strict
        self.instructions: str | None = instructions
        self.show_result: bool = stop_after_tool_call if show_result is None else show_result
        self.stop_after_tool_call: bool = stop_after_tool_call
        self.requires_confirmation: bool = requires_confirmation
        if isinstance(user_input_fields, str):
            raise UsageError(f"user_input_fields must be a list of names, not {user_input_fields!r}")
        self.requires_user_input: bool = requires_user_input or bool(user_input_fields)
        self.user_input_fields: tuple[str, ...] = tuple(user_input_fields)
        self.external_execution: bool = external_execution
        self.pre_hook: Hook | None = pre_hook
        self.post_hook: Hook | None = post_hook
        self.tool_hooks: tuple[Hook, ...] = tuple(tool_hooks)
        self.cache_results: bool = cache_results
        self.cache_ttl: float = cache_ttl
        self.cache_dir: str | Path | None = cache_dir
        self.timeout: float | None = timeout
        self.effect: Effect | None = effect
        self.cache: CacheMark | None = cache
        self._given_parameters = parameters
        self._parameters: Schema | None = None
        self._check()

    @classmethod
    def from_callable(cls, function: Callable[P, R] | Function[P, R]) -> Function[P, R]:
        """The callable as a tool; a `Function` is returned as it is.

        The schema is computed once per function, however many tools are made from it.

        Raises:
            UsageError: The callable cannot be a tool.
        """
        return function if isinstance(function, Function) else cls(function)

    @property
    def kind(self) -> Kind:
        """How the entrypoint is called: "sync", "async", "generator" or "async_generator"."""
        return self._arguments.signature.kind

    @property
    def context_parameter(self) -> str | None:
        """The name of the parameter that receives the `RunContext`; None if there is none."""
        return self._arguments.signature.context_parameter

    @property
    def evaluated(self) -> bool:
        """Whether all annotations could be evaluated; if not, they are evaluated again at the first use."""
        return self._arguments.signature.namespace is None

    @property
    def parameters(self) -> Schema:
        """The JSON schema that the model reads. It is computed on first use; do not change it.

        Raises:
            UsageError: An annotation has no JSON schema, or none that strict mode allows.
        """
        if self._parameters is None:
            schema = self._given_parameters or self._without_user_input(self._arguments.schema)
            try:
                self._parameters = strict_schema(schema) if self.strict else schema
            except UsageError as error:
                raise UsageError(f"the tool {self.name}: {error}") from error
        return self._parameters

    @property
    def user_input_schema(self) -> Schema:
        """The JSON schema of the arguments that a person fills in: `user_input_fields`, or all parameters."""
        schema = self._arguments.schema
        return _only(schema, self.user_input_fields) if self.user_input_fields else schema

    def validate(self, arguments_json: str, *, user_input: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Parse and validate arguments; returns keyword arguments for `entrypoint`, without the context.

        pydantic converts the values to the types of the parameters. A parameter that was not passed is not
        in the result: Python fills in its default.

        Args:
            arguments_json: The JSON that the model wrote; an empty text means no arguments.
            user_input: Values that a person filled in, by parameter; they override those of the model.

        Raises:
            ToolArgumentsError: The arguments do not fit; the text tells the model which ones, and why.
        """
        return self._arguments.validate(arguments_json, tool=self.name, strict=self.strict, extra=user_input)

    def replace(self, **options: Unpack[ToolOptions]) -> Function[P, R]:
        """A copy of the tool with some options changed."""
        return cast("Function[P, R]", self._copy(self.entrypoint, options))

    def __copy__(self) -> Self:
        """The same object: a `Function` is immutable."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Function[P, R]:
        """A copy for a bound method, whose object is copied, too; the same object for a plain function."""
        plain = without_keywords(self.entrypoint)
        twin = copy.deepcopy(plain, memo)
        return self if twin is plain else cast("Function[P, R]", self._copy(twin, {}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a module-level `@tool` by its name, as functions are; any other by its callable and
        options.
        """
        place = place_of(self.entrypoint)
        if place is not None and found_at(*place) is self:
            return found_at, place
        return _remade, (portable(without_keywords(self.entrypoint)), self.options(), self._static)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the entrypoint as it is: no validation, no context, no hooks."""
        return self.entrypoint(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Function[..., R]:
        """Bind a tool that is defined in a class to an object, like a method."""
        if instance is None or self._static or not hasattr(self.entrypoint, "__get__"):
            return self
        return self._copy(self.entrypoint.__get__(instance, owner), {})

    @property
    def __name__(self) -> str:
        return getattr(self.entrypoint, "__name__", self.name)

    __wrapped__ = _Wrapped()

    def __repr__(self) -> str:
        return f"Function(name={self.name!r}, entrypoint={describe(self.entrypoint)})"

    def options(self) -> ToolOptions:
        """All options: `Function(entrypoint, **options)` makes an equal tool."""
        return ToolOptions(
            name=self.name,
            description=self.description,
            parameters=self._given_parameters,
            strict=self.strict,
            instructions=self.instructions,
            show_result=self.show_result,
            stop_after_tool_call=self.stop_after_tool_call,
            requires_confirmation=self.requires_confirmation,
            requires_user_input=self.requires_user_input,
            user_input_fields=self.user_input_fields,
            external_execution=self.external_execution,
            pre_hook=self.pre_hook,
            post_hook=self.post_hook,
            tool_hooks=self.tool_hooks,
            cache_results=self.cache_results,
            cache_ttl=self.cache_ttl,
            cache_dir=self.cache_dir,
            timeout=self.timeout,
            cache=self.cache,
            effect=self.effect,
        )

    def _copy(self, entrypoint: Callable[..., R], changes: ToolOptions) -> Function[..., R]:
        options = self.options()
        options.update(changes)
        copy = Function(entrypoint, **options)
        copy._static = self._static
        return copy

    def _check(self) -> None:
        if self.effect not in (None, *get_args(Effect)):
            raise UsageError(
                f"the tool {self.name}: effect must be one of {', '.join(get_args(Effect))}, "
                f"not {self.effect!r}"
            )
        exclusive = [name for name in _EXCLUSIVE if getattr(self, name)]
        if len(exclusive) > 1:
            raise UsageError(
                f"the tool {self.name}: {' and '.join(exclusive)} cannot be combined; choose one"
            )
        if self.cache_results and self.context_parameter is not None:
            raise UsageError(
                f"the tool {self.name}: cache_results cannot be combined with {self.context_parameter}: "
                "a cached result would skip what the call does to the session state"
            )
        known = [parameter.name for parameter in self._arguments.signature.parameters]
        if unknown := [name for name in self.user_input_fields if name not in known]:
            raise UsageError(
                f"the tool {self.name}: user_input_fields names unknown parameters: {', '.join(unknown)}; "
                f"its parameters are: {', '.join(known) or 'none'}"
            )
        for name in ("timeout", "cache_ttl"):
            if (value := getattr(self, name)) is not None:
                check_seconds(f"the tool {self.name}: {name}", value)

    def _without_user_input(self, schema: Schema) -> Schema:
        if not self.user_input_fields:
            return schema
        return _only(schema, [name for name in schema["properties"] if name not in self.user_input_fields])


Function.__doc__ = _Doc(Function.__doc__ or "")  # type: ignore[assignment]  # told in _Doc


def _remade(entrypoint: Any, options: ToolOptions, static: bool) -> Function[..., Any]:
    """Unpickle a `Function`."""
    function = Function(restored(entrypoint), **options)
    function._static = static
    return function


def _checked(entrypoint: Callable[P, R]) -> Callable[P, R]:
    if isinstance(entrypoint, staticmethod):
        return entrypoint.__func__
    if isinstance(entrypoint, ByKeyword):
        return without_keywords(entrypoint)
    if isinstance(entrypoint, classmethod):
        raise UsageError("@tool cannot wrap a classmethod: write @classmethod above @tool")
    if isinstance(entrypoint, type):
        name = entrypoint.__name__
        raise UsageError(f"{name} is a class; pass an instance of it, {name}(), or a function")
    if isinstance(entrypoint, str):
        raise UsageError(f"{entrypoint!r} is no function; for the name write @tool(name={entrypoint!r})")
    if not callable(entrypoint):
        raise UsageError(
            f"{entrypoint!r} is not callable and cannot be a tool; "
            "pass functions and toolkits as tools, and agents and teams as members: Team(members=[...])"
        )
    return entrypoint


def _checked_name(name: str | None, function: Callable[..., Any]) -> str:
    if name is None:
        function = named(function)
        name = str(getattr(function, "__name__", type(function).__name__))
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} is not a valid tool name (letters, digits, _ and -, at most 64 characters): "
            "choose one with @tool(name=...) or Function(..., name=...)"
        )
    return name


def _only(schema: Schema, names: Sequence[str]) -> Schema:
    """The schema of an object, reduced to these properties."""
    result = {**schema, "properties": {name: schema["properties"][name] for name in names}}
    if required := [name for name in schema.get("required", ()) if name in names]:
        return {**result, "required": required}
    result.pop("required", None)
    return result
