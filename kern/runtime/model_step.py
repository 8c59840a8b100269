"""One request to a model as a step of a run with a journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import unified_diff
from typing import Any, cast

from kern._json import json_bytes
from kern.durable.journal import Playback
from kern.durable.keys import EnvironmentKeys, same
from kern.errors import KernError, ReplayMismatch
from kern.messages import Citation, ProviderCall
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse, answered
from kern.runtime.run_tree import Run
from kern.runtime.sink import RunSink
from kern.runtime.step_data import (
    Data,
    error_data,
    error_from,
    reading,
    request_data,
    response_data,
    response_from,
)
from kern.runtime.steps import JournalSignal, Steps, signalled
from kern.usage import Usage

_TEXTS = ("content", "reasoning", "commentary")
"""The methods of a sink that take a delta of a text."""


class ModelStep:
    """One request to a model as a step.

    Args:
        run: The run that makes the request.
        steps: The steps of the run.
        request: The request.
    """

    def __init__(self, run: Run, steps: Steps, request: ModelRequest) -> None:
        self._run = run
        self._steps = steps
        self._request = request
        self.key: str = f"{run.run_id}/model/{run.progress.requests}"
        self._deltas: list[list[Any]] = []
        self._played = False
        self._thrown_away: Sequence[Usage] = ()
        self.on_record: bool = self.key in steps
        """Whether the request is recorded: no limit refuses it then."""

    async def respond(self, model: Model, sink: RunSink) -> ModelResponse:
        """Return the recorded response, or ask the model.

        Raises:
            KernError: The error of the model, recorded or new.
            JournalSignal: The journal cannot be written, or the recorded request differs.
        """
        steps, request = self._steps, self._request
        broken = steps.broken.get(self.key)
        if broken is not None and request.stream:
            self._put_deltas(broken, sink)  # the deltas up to the point where the recorded run was cut short
        data = await steps.recorded(self._run, self.key)
        if data is not None:
            self._played = True
            return self._again(data, sink)
        tee = cast("DeltaSink", _Tee(sink, self._deltas)) if steps.detailed and request.stream else sink
        try:
            response = await answered(model, request, tee)
        except asyncio.CancelledError:
            if steps.detailed:
                steps.broke_off(self.key, {"deltas": self._deltas})
            raise
        except KernError as error:
            self._thrown_away = sink.thrown_away
            await self.keep_error(error)
            raise
        self._thrown_away = sink.thrown_away
        steps.tick(self._run)
        return response

    async def keep(self, response: ModelResponse) -> None:
        """Record the response, after its events."""
        if not self._played:
            data = {**response_data(response), **self._asked()}
            if self._deltas:
                data["deltas"] = self._deltas
            await self._steps.keep(self._run, "model", self.key, data)

    async def keep_error(self, error: KernError) -> None:
        """Record that the request failed, or was refused by a limit."""
        self._steps.tick(self._run)
        await self._steps.keep(self._run, "model", self.key, {"error": error_data(error), **self._asked()})

    def _asked(self) -> Data:
        """Return the usage of discarded answers, and, if requests are recorded, the part of the request that
        is new since the run's last one.
        """
        steps, run_id = self._steps, self._run.run_id
        paid = [usage.to_dict() for usage in self._thrown_away]
        data: Data = {"thrown_away": paid} if paid else {}
        if not steps.detailed:
            return data
        asked = request_data(self._request)
        last = steps.asked.get(run_id, {})
        steps.asked[run_id] = asked
        return {**data, "asked": shortened(asked, last)}

    def _again(self, data: Data, sink: RunSink) -> ModelResponse:
        """Return the recorded response, or raise the recorded error, after its deltas."""
        steps, run_id = self._steps, self._run.run_id
        if "asked" in data:
            with signalled(), reading(self.key):
                recorded = lengthened(data["asked"], steps.asked.get(run_id, {}))
            steps.asked[run_id] = recorded
            if steps.playback is Playback.strict:
                self._compare(recorded)
        if self._request.stream:
            self._put_deltas(data, sink)
        with signalled(), reading(self.key):
            sink.thrown_away = [Usage.from_dict(usage) for usage in data.get("thrown_away", ())]
            came_to = error_from(data["error"]) if "error" in data else response_from(data)
        if isinstance(came_to, KernError):
            raise came_to
        return came_to

    def _put_deltas(self, data: Data, sink: RunSink) -> None:
        """Send the deltas of a recorded answer to a sink."""
        with signalled(), reading(self.key):
            for verb, value, *call in _deltas_of(data):
                if verb in _TEXTS:
                    if (put := getattr(sink, verb, None)) is not None:
                        put(value)
                elif verb == "tool_arguments":
                    call_id, name = call
                    sink.tool_arguments(call_id, name, value)
                elif verb == "provider_call":
                    sink.provider_call(ProviderCall.from_dict(value))
                elif verb == "citation":
                    sink.citation(Citation.from_dict(value))

    def _compare(self, recorded: Data) -> None:
        now = request_data(self._request)
        if not same(recorded, now):
            who = " > ".join(self._run.source.path)
            shown = difference(recorded, EnvironmentKeys().masked(now))
            error = ReplayMismatch(f"{self.key}: the request of {who} differs from the recording:\n{shown}")
            raise JournalSignal(error)


def _deltas_of(data: Data) -> Sequence[Sequence[Any]]:
    """Return the recorded deltas of an answer, or its whole texts if no deltas are recorded."""
    deltas: Sequence[Sequence[Any]] | None = data.get("deltas")
    if deltas is None and "message" in data:
        message: Mapping[str, Any] = data["message"]
        named = (("reasoning", "reasoning_content"), ("commentary", "commentary"), ("content", "content"))
        deltas = [[verb, message[name]] for verb, name in named if message.get(name)]
    return deltas or ()


class _Tee:
    """A sink that records deltas and passes everything on."""

    def __init__(self, sink: RunSink, deltas: list[list[Any]]) -> None:
        self._sink = sink
        self._deltas = deltas

    def __getattr__(self, name: str) -> Any:
        put = getattr(self._sink, name)
        if name not in _TEXTS:
            return put

        def tee(text: str) -> None:
            self._deltas.append([name, text])
            put(text)

        return tee

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        """Record a delta of the arguments of a call."""
        self._deltas.append(["tool_arguments", delta, call_id, name])
        self._sink.tool_arguments(call_id, name, delta)

    def provider_call(self, call: ProviderCall) -> None:
        """Record the start or the end of a call of the provider, as events show it."""
        self._deltas.append(["provider_call", replace(call, media=[], provider_data=None).to_dict()])
        self._sink.provider_call(call)

    def citation(self, citation: Citation) -> None:
        """Record a source."""
        self._deltas.append(["citation", citation.to_dict()])
        self._sink.citation(citation)


def shortened(asked: Data, last: Data) -> Data:
    """Return a request without the parts that are the same in the one before it."""
    before, messages = last.get("messages", []), asked["messages"]
    same = 0
    while same < min(len(before), len(messages)) and before[same] == messages[same]:
        same += 1
    data: Data = {"after": same, "messages": messages[same:]}
    data.update(
        {name: value for name, value in asked.items() if name != "messages" and last.get(name) != value}
    )
    if gone := [name for name in last if name not in asked]:
        data["without"] = gone
    return data


def lengthened(data: Data, last: Data) -> Data:
    """Undo `shortened`."""
    kept = {name: value for name, value in last.items() if name not in data.get("without", ())}
    new = {name: value for name, value in data.items() if name not in ("after", "without")}
    return {**kept, **new, "messages": [*last.get("messages", [])[: data["after"]], *data["messages"]]}


def difference(recorded: Data, now: Data) -> str:
    """Return the difference of two requests as a text for people."""
    before, after = _lines(recorded), _lines(now)
    return "\n".join(unified_diff(before, after, "recorded", "now", lineterm="", n=1))


def _lines(asked: Data) -> list[str]:
    lines: list[str] = []
    for message in asked["messages"]:
        rest = {name: value for name, value in message.items() if name not in ("role", "content")}
        lines += [f"[{message['role']}]", *str(message.get("content") or "").splitlines()]
        lines += json_bytes(rest, indent=2).decode().splitlines() if rest else []
    for name, value in asked.items():
        if name != "messages":
            lines += [f"[{name}]", *json_bytes(value, indent=2).decode().splitlines()]
    return lines
