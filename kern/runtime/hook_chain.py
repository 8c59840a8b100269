"""A tool with hooks around it: a chain of sync and async links that is one call and one transaction.

The hooks are middleware: each one gets `function_call`, which calls the next link, and returns the result.
Sync links run in a thread, async ones on the event loop. `function_call` switches where two neighbours
differ, so that a sync hook calls it and an async hook awaits it. All links share one `CallState`, which the
running link owns.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from kern._sync.threads import thread_place_released
from kern.errors import ToolError, UsageError
from kern.runtime.invoke import FunctionCall
from kern.runtime.outcome import CallSite
from kern.runtime.return_values import Listener, close_unused, ended, ended_here, is_unfinished, without_cache
from kern.runtime.run_tree import Run
from kern.state.stepping import step
from kern.state.transaction import keeps_edits
from kern.state.transaction_block import snapshot
from kern.tools.cache import ResultCache
from kern.tools.function import Function
from kern.tools.inject import call_kwargs, context_parameter
from kern.tools.options import Hook
from kern.tools.signature import describe, signature_of

Next = Callable[..., Any]


class Link(Protocol):
    """A hook, or the function itself.

    It is called with the chain, a function that calls the next link, and the arguments of the tool. An async
    link returns a coroutine.
    """

    is_async: bool
    takes_context: bool

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        """Carry out the link."""


def links_of(function: Function, hooks: Sequence[Hook]) -> tuple[Link, ...]:
    """Return the links that a call of `function` passes through, outermost first; empty without hooks.

    Args:
        function: The tool.
        hooks: The `tool_hooks` of the agent or team, which wrap those of the tool.

    Raises:
        UsageError: A hook is not a function, or has an unknown parameter.
    """
    links: list[Link] = []
    if function.pre_hook is not None:
        links.append(_PreHook(function.name, function.pre_hook))
    if function.post_hook is not None:
        links.append(_PostHook(function.name, function.post_hook))
    links += around_hooks(function.name, (*hooks, *function.tool_hooks))
    if function.cache_results:
        links.append(_CacheLink(ResultCache(function)))
    return (*links, _FunctionLink(function)) if links else ()


def around_hooks(name: str, hooks: Sequence[Hook]) -> list[Link]:
    """Return the links of hooks around calls of the tool `name`, outermost first.

    Raises:
        UsageError: A hook is not a function, or has an unknown parameter.
    """
    return [_AroundHook(name, hook) for hook in hooks]


class _Hooked:
    """A hook, called with the parameters that its signature names."""

    offered: tuple[str, ...]

    def __init__(self, name: str, hook: Hook) -> None:
        if not callable(hook):
            raise UsageError(f"the tool {name}: a hook must be a function, not {hook!r}")
        kind = signature_of(hook).kind
        if kind not in ("sync", "async"):
            raise UsageError(
                f"the tool {name}: the hook {describe(hook)} is a generator, and a hook must "
                "return its value instead of yielding it"
            )
        self.is_async = kind == "async"
        self.takes_context = context_parameter(hook) is not None
        self._name = name
        self._hook = hook
        call_kwargs(hook, dict.fromkeys(("function_name", "arguments", "run_context", *self.offered)))

    def call(self, chain: Chain, arguments: dict[str, Any], **more: Any) -> Any:
        """Call the hook."""
        available = {"function_name": self._name, "arguments": arguments, **more}
        kwargs = call_kwargs(self._hook, {**available, "run_context": chain.context})
        return chain.call(self._hook, kwargs, None, here=self.is_async)


class _AroundHook(_Hooked):
    """A hook around the call: it decides whether to call `function_call(**arguments)`."""

    offered = ("function_call",)

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        return self.call(chain, arguments, function_call=function_call)


class _PreHook(_Hooked):
    """A hook before the call. It may change `arguments` in place."""

    offered = ()

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        returned = self.call(chain, arguments)
        if self.is_async:
            return _then(returned, lambda _: function_call(**arguments))
        return function_call(**arguments)


class _PostHook(_Hooked):
    """A hook after the call. It gets the `result`."""

    offered = ("result",)

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        result = function_call(**arguments)
        if self.is_async:
            return self._call_async(chain, arguments, result)
        self.call(chain, arguments, result=result)
        return result

    async def _call_async(
        self, chain: Chain, arguments: dict[str, Any], pending: Coroutine[Any, Any, Any]
    ) -> Any:
        result = await pending
        await self.call(chain, arguments, result=result)
        return result


async def _then(first: Coroutine[Any, Any, Any], then: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    return await then(await first)


class _CacheLink:
    """The cache of results. It reads and writes files, so it is sync, also for an async function."""

    is_async = False
    takes_context = False

    def __init__(self, cache: ResultCache) -> None:
        self._cache = cache

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        return self._cache.get_or_make(arguments, lambda: function_call(**arguments))


class _FunctionLink:
    """The function."""

    def __init__(self, function: Function) -> None:
        self.is_async = function.kind in ("async", "async_generator")
        self.takes_context = function.context_parameter is not None
        self._function = function

    def __call__(self, chain: Chain, function_call: Next, arguments: dict[str, Any]) -> Any:
        function = self._function
        if function.context_parameter is not None:
            arguments = {**arguments, function.context_parameter: chain.context}
        return chain.call(function.entrypoint, arguments, chain.listener, here=self.is_async)


class Chain(FunctionCall):
    """One call of a tool, through all its links.

    Args:
        run: The run that makes the call.
        site: The call.
        links: The links, outermost first; the last is the function itself.
        listener: Called with the chunks of a generator.
    """

    def __init__(self, run: Run, site: CallSite, links: Sequence[Link], listener: Listener | None) -> None:
        super().__init__(
            run,
            site.call.name,
            takes_context=any(link.takes_context for link in links),
            tool_call_id=site.call.id,
            slot=site.slot,
            listener=listener,
            start=site.start,
        )
        self._links = links
        self._loop = asyncio.get_running_loop()
        self._mutex = threading.Lock()
        self._given_up = False
        self._lost = False
        self._busy: set[int] = set()
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def has_state(self) -> bool:
        """Whether the running hook holds the session state, for the call or in a transaction block."""
        return self.state is not None and self.state.has_state()

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Carry out the call, and return the value of the outermost link."""
        first, given = self._links[0], dict(arguments)
        value = await self.carry_out(lambda: first(self, self._next(0), given), is_async=first.is_async)
        if self._lost:
            raise ToolError(
                "a hook stopped waiting for function_call while the function still ran in its "
                "thread: its changes to the session state are undone"
            )
        return value

    def _next(self, index: int) -> Next:
        """Return the `function_call` of link number `index`: sync for a sync link, async for an async one."""
        if index + 1 == len(self._links):
            return _nothing
        caller, callee = self._links[index], self._links[index + 1]

        def start(arguments: dict[str, Any]) -> Any:
            return callee(self, self._next(index + 1), arguments)

        async def call_async(**arguments: Any) -> Any:
            with self._one_call(index):
                if callee.is_async:
                    return await self._here(start(arguments))
                return await self.in_thread(lambda: start(arguments))

        def call_sync(**arguments: Any) -> Any:
            with self._one_call(index):
                return self.on_loop(lambda: start(arguments)) if callee.is_async else start(arguments)

        return call_async if caller.is_async else call_sync

    @contextmanager
    def _one_call(self, index: int) -> Iterator[None]:
        """Wrap one use of `function_call`, and undo its changes to the state if it fails."""
        if index in self._busy:
            raise UsageError("a hook called function_call again before the first call had returned")
        self._busy.add(index)
        call = self.state
        before = snapshot(call) if call is not None and call.touched else None
        try:
            yield
        except BaseException as error:
            if call is not None and call.touched and not keeps_edits(error):
                with suppress(UsageError):  # the call was given up, which undoes everything
                    call.state_type.restore(
                        call.read(),
                        call.state_type.load(call.shared_state.text) if before is None else before,
                    )
            raise
        finally:
            self._busy.discard(index)

    async def _here(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run an async link for an async one, in the task that steps the call or in a child task of it."""
        if self.state is None or self.state.steps_current_task():
            return await coroutine
        return await step(self.state, coroutine)

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Run sync links in a thread."""
        touched = self.state is not None and self.state.touched
        try:
            return await super().in_thread(function)
        except asyncio.CancelledError:
            self._lost = touched
            raise

    def call(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        listener: Listener | None,
        *,
        here: bool,
    ) -> Any:
        """Call a link's function and return its final value; for an async one (`here`), a coroutine."""
        function = without_cache(function)
        if here:
            return self.called(lambda: function(**arguments), listener)
        value = ended_here(function(**arguments), listener)
        if not is_unfinished(value):
            return value
        try:
            return self.on_loop(lambda: ended(value, listener, self.in_thread))
        finally:
            close_unused(value)

    def on_loop(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run an async link on the event loop for a sync one, whose thread waits."""
        call = self.state
        if call is not None and not call.touched and call.has_state():  # would wait for the hook's own block
            raise UsageError(
                "a hook calls function_call inside `with run_context.transaction()`, and so "
                "holds the session state that the function needs: end the transaction before the "
                "call, or use run_context.session_state"
            )
        with self._mutex:
            if self._given_up:
                raise UsageError(
                    "the tool call was cancelled or timed out, so its thread cannot call "
                    "function_call any more"
                )
            future = asyncio.run_coroutine_threadsafe(self._for_thread(start), self._loop)
            self._futures.add(future)
        try:
            with thread_place_released():  # the async link may need a thread itself
                return future.result()
        finally:
            with self._mutex:
                self._futures.discard(future)

    async def _for_thread(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await (start() if self.state is None else step(self.state, start()))
        finally:
            self._tasks.discard(task)

    async def give_up(self) -> None:
        """Stop waiting for a thread of the call: void its state, and cancel its links on the event loop."""
        with self._mutex:
            self._given_up = True
            futures, tasks = list(self._futures), list(self._tasks)
        if self.state is not None:
            self.state.void()
        for future in futures:
            future.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await super().give_up()


def _nothing(**arguments: Any) -> Any:
    raise AssertionError("nothing comes after the function itself")
