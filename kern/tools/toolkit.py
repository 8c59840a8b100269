"""`Toolkit`, a named set of tools; and the functions that flatten the `tools` list of an agent."""

from __future__ import annotations

import asyncio
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from kern._keywords import ChecksArguments
from kern._log import named
from kern._numbers import check_seconds
from kern.errors import UsageError
from kern.tools.function import Function
from kern.tools.options import ToolOptions
from kern.tools.server_tool import ServerTool
from kern.tools.signature import describe

log: Final = named("kern")


class Toolkit(ChecksArguments):
    """A named set of tools. Subclass it, or use it as it is.

        class Notes(Toolkit):
            def __init__(self, path: Path) -> None:
                self.path = path
                super().__init__(name="notes", tools=[self.read, self.write])

    Args:
        name: The name of the set, for people.
        tools: Functions, bound methods or `Function`s.
        instructions: A text to add to the system message of agents and teams that have the toolkit.
        include_tools: Only these tools, by name.
        exclude_tools: All but these tools, by name.
        requires_confirmation_tools: Tools whose calls a person has to approve, by name.
        external_execution_required_tools: Tools that the application executes, by name.
        stop_after_tool_call_tools: Tools that end the run, by name.
        show_result_tools: Tools whose results are shown to the user, by name.
        cache_results: Cache the results of its tools on disk, except of those with a `run_context`.
        cache_ttl: How long a cached result is valid, in seconds.
        cache_dir: The folder of the cached results; None: one in the system's folder for temporary files.

    Raises:
        UsageError: A name is not in the set, two tools have the same name, or an item is not a tool.
    """

    def __init__(
        self,
        name: str = "toolkit",
        tools: Sequence[Callable[..., Any] | Function] = (),
        *,
        instructions: str | None = None,
        include_tools: Sequence[str] | None = None,
        exclude_tools: Sequence[str] | None = None,
        requires_confirmation_tools: Sequence[str] = (),
        external_execution_required_tools: Sequence[str] = (),
        stop_after_tool_call_tools: Sequence[str] = (),
        show_result_tools: Sequence[str] = (),
        cache_results: bool = False,
        cache_ttl: float = 3600,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.name = name
        self.instructions = instructions
        self.functions: dict[str, Function] = {}
        """The selected tools by name."""
        check_seconds(f"the toolkit {name}: cache_ttl", cache_ttl)
        found = collect(tools)
        self._check_marked(found)
        for keyword, names in (
            ("include_tools", include_tools or ()),
            ("exclude_tools", exclude_tools or ()),
            ("requires_confirmation_tools", requires_confirmation_tools),
            ("external_execution_required_tools", external_execution_required_tools),
            ("stop_after_tool_call_tools", stop_after_tool_call_tools),
            ("show_result_tools", show_result_tools),
        ):
            if unknown := [name for name in names if name not in found]:
                raise UsageError(
                    f"the toolkit {self.name}: {keyword} names unknown tools: "
                    f"{', '.join(unknown)}; its tools are: {', '.join(found) or 'none'}"
                )
        for key, function in found.items():
            if (include_tools is not None and key not in include_tools) or key in (exclude_tools or ()):
                continue
            changes = ToolOptions()
            if key in requires_confirmation_tools:
                changes["requires_confirmation"] = True
            if key in external_execution_required_tools:
                changes["external_execution"] = True
            if key in stop_after_tool_call_tools:
                changes["stop_after_tool_call"] = changes["show_result"] = True
            if key in show_result_tools:
                changes["show_result"] = True
            if cache_results and not function.cache_results and function.context_parameter is None:
                changes.update({"cache_results": True, "cache_ttl": cache_ttl, "cache_dir": cache_dir})
            self.functions[key] = function.replace(**changes) if changes else function

    def _check_marked(self, found: Mapping[str, Function]) -> None:
        """Refuse a toolkit that passes no tools though methods are marked; log which marked ones are left."""
        kind = type(self)
        marked = {
            name: item
            for base in kind.__mro__[::-1]
            for name, item in vars(base).items()
            if isinstance(item, Function) and getattr(kind, name, None) is not None
        }
        given = {
            function.entrypoint.__name__
            for function in found.values()
            if hasattr(function.entrypoint, "__name__")
        }
        left = [name for name, item in marked.items() if item.name not in found and name not in given]
        if left and not found:
            listed = ", ".join(f"self.{name}" for name in left)
            raise UsageError(
                f"the toolkit {self.name} passes no tools, but {kind.__name__} marks methods with @tool; "
                f"pass them: super().__init__(..., tools=[{listed}])"
            )
        if left or not found:
            _log_once(kind.__name__, self.name, ", ".join(left))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, tools=[{', '.join(self.functions)}])"


@lru_cache(maxsize=256)
def _log_once(kind: str, name: str, left: str) -> None:
    if left:
        log.warning(
            "the toolkit %s does not list %s of %s, marked with @tool: no model sees it", name, left, kind
        )
    else:
        log.warning("the toolkit %s has no tools: pass tools=[...]", name)


class ToolSource(ChecksArguments, ABC):
    """Tools that are known only at run time, such as those of an MCP server.

    In the `tools` list of an agent or a team, it is replaced by the toolkit that `load` returns.
    """

    @abstractmethod
    async def load(self) -> Toolkit:
        """Return the current tools; called at the beginning of each run.

        While the tools do not change, return the same object: Kern then reuses their schemas.

        Raises:
            ToolError: The tools are not available.
        """


Tool = Callable[..., Any] | Function | Toolkit | ToolSource | ServerTool
"""What a `tools` list may contain."""


async def loaded(tools: Sequence[Tool]) -> list[Tool]:
    """The tools that Kern runs, with each source replaced by its toolkit. All sources load concurrently.

    Raises:
        ToolError: The tools of a source are not available.
    """
    sources = [tool for tool in tools if isinstance(tool, ToolSource)]
    try:
        async with asyncio.TaskGroup() as group:
            loading = {id(source): group.create_task(source.load()) for source in sources}
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [
        loading[id(tool)].result() if isinstance(tool, ToolSource) else tool
        for tool in tools
        if not isinstance(tool, ServerTool)
    ]


def without_sources(tools: Sequence[Tool]) -> list[Tool]:
    """The tools that Kern runs and that are known without loading a source."""
    return [tool for tool in tools if not isinstance(tool, ToolSource | ServerTool)]


def collect(tools: Iterable[Tool]) -> dict[str, Function]:
    """The functions of a `tools` list by name, in order, with those of toolkits; duplicates are dropped.

    Raises:
        UsageError: Two different tools have the same name, or an item is not a tool.
    """
    if isinstance(tools, str | dict) or not isinstance(tools, Iterable):
        raise UsageError(f"tools must be a list of functions and toolkits, not {tools!r}")
    found: dict[str, Function] = {}
    for tool in tools:
        for function in _functions(tool):
            known = found.setdefault(function.name, function)
            if not _same(known, function):
                raise UsageError(
                    f"two tools are named {function.name!r}: {describe(known.entrypoint)} and "
                    f"{describe(function.entrypoint)}; rename one with @tool(name=...), or the tools of an "
                    "MCP server with its tool_name_prefix"
                )
    return found


def instructions_of(tools: Iterable[Tool]) -> list[str]:
    """The `instructions` of toolkits and tools for the system message, in order, each text once."""
    texts: dict[str, None] = {}
    for tool in tools:
        if isinstance(tool, Toolkit) and tool.instructions:
            texts[tool.instructions] = None
        # Plain functions have no instructions.
        for function in _functions(tool) if isinstance(tool, Toolkit | Function) else ():
            if function.instructions:
                texts[function.instructions] = None
    return list(texts)


def _functions(tool: Tool) -> Iterable[Function]:
    if isinstance(tool, Toolkit):
        if not hasattr(tool, "functions"):
            kind = type(tool).__name__
            raise UsageError(f"{kind}.__init__ must call super().__init__(name=..., tools=[...])")
        return tool.functions.values()
    if isinstance(tool, ToolSource | ServerTool):
        raise UsageError(f"{tool!r} cannot be part of a toolkit: pass it in the tools of the agent or team")
    if isinstance(tool, types.MethodType) and isinstance(tool.__func__, Function):
        return (tool.__func__.__get__(tool.__self__),)  # @classmethod over @tool, from Python 3.13 on
    return (Function.from_callable(tool),)


def _same(one: Function, other: Function) -> bool:
    if one is other:
        return True
    return one.entrypoint == other.entrypoint and one.options() == other.options()
