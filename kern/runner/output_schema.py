"""`output_schema`, `parser_model` and `output_model`: how they change the spec of an agent or a team."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from kern.errors import ModelBehaviorError, UsageError
from kern.messages import Message
from kern.models import resolve
from kern.models.base import Model
from kern.runner.definition import Definition
from kern.runner.options import RunOptions
from kern.runtime.answer_schema import ANSWER_TOOL, AnswerSchema, BadAnswer, answer_schema
from kern.runtime.model_request import ask
from kern.runtime.out import Answer, RetryAnswer
from kern.runtime.run_tree import Review, Run, RunnerSpec, SinkFactory
from kern.runtime.sink import AnswerSink, AsideSink, RunSink
from kern.runtime.structured_answer import CHECK, AnswerTool, GrowingSink, reviewing, shortened

_WRITE = "Now write the final answer for the user, on the ground of this whole conversation."
_PARSE = (
    "Turn the text that you are given into structured data. Take all of it from the text; invent nothing."
)
_CALL = f"When you have all that you need, answer by calling the tool `{ANSWER_TOOL}`, and not in words."


def _aside(run: Run) -> RunSink:
    return AsideSink(run.out)


def _words(run: Run) -> RunSink:
    return AnswerSink(run.out)


Prompt = Callable[[Run], Awaitable[list[Message]]]


def with_output(spec: RunnerSpec, definition: Definition, options: RunOptions) -> RunnerSpec:
    """Return `spec` with the form of the answer that `definition`, or the run's `options`, declare.

    Raises:
        UsageError: The parameters contradict each other.
    """
    declared = definition.output_schema if options.output_schema is None else options.output_schema
    schema = None if declared is None or declared is str else answer_schema(declared)
    writer, parser = _model(definition.output_model), _model(definition.parser_model)
    if parser is not None and schema is None:
        raise UsageError(
            f"{definition!r}: parser_model has no effect without an output_schema: pass one, or "
            "remove parser_model"
        )
    if schema is not None:
        spec = replace(
            spec, structured=True, typed=schema.recorded, after=(partial(_coerce_answer, schema), *spec.after)
        )
    if writer is not None or parser is not None:
        review = partial(_review_by_others, writer, parser, schema)
        return replace(spec, sink=_aside, review=_both(spec.review, review))
    if schema is None:
        return spec
    models = [spec.model, *spec.retries.fallbacks]
    return _structured(spec, schema, "words" if definition.use_json_mode else _way(models, spec))


Way = Literal["native", "tool", "words"]


def _way(models: Sequence[Model], spec: RunnerSpec | None = None) -> Way:
    """Choose how to get an answer that fits the schema from all of `models`, given the tools of `spec`."""
    means = {model.structured_output for model in models}
    if "none" in means:
        return "words"
    if spec is not None and not all(model.structured_beside_tools for model in models):
        if spec.server_tools:
            return "words"
        if spec.tools:
            return "tool"
    return "tool" if "tool" in means else "native"


def _structured(spec: RunnerSpec, schema: AnswerSchema, way: Way) -> RunnerSpec:
    """Return `spec` for a structured answer from the run's own model."""
    spec = replace(
        spec,
        sink=lambda run: GrowingSink(run.out, schema),
        review=_both(spec.review, reviewing(schema, enforced=way == "native")),
    )
    if way == "native":
        return replace(spec, response_format=schema.response_format())
    if way == "words":
        return replace(spec, prompt=_with_rules(spec.prompt, schema.in_words()))
    if ANSWER_TOOL in spec.tools:
        raise UsageError(f"{spec.title}: output_schema adds a tool named {ANSWER_TOOL!r}: rename yours")
    return replace(
        spec,
        tools={**spec.tools, ANSWER_TOOL: AnswerTool(schema)},
        answer_tool=ANSWER_TOOL,
        prompt=_with_rules(spec.prompt, _CALL),
    )


def _model(given: Model | str | None) -> Model | None:
    return resolve(given) if isinstance(given, str) else given


def _both(first: Review | None, second: Review) -> Review:
    """The second review, of what the first lets through."""
    if first is None:
        return second
    earlier = first

    async def review(run: Run, message: Message) -> Answer | RetryAnswer:
        verdict = await earlier(run, message)
        return verdict if isinstance(verdict, RetryAnswer) else await second(run, message)

    return review


def _with_rules(prompt: Prompt, rules: str) -> Prompt:
    """Return the prompt with `rules` at the end of its system message."""

    async def with_rules(run: Run) -> list[Message]:
        messages = await prompt(run)
        if messages and messages[0].role in ("system", "developer"):
            system = messages[0]
            content = f"{system.content}\n\n{rules}" if system.content else rules
            return [replace(system, content=content), *messages[1:]]
        return [Message("system", rules), *messages]

    return with_rules


async def _coerce_answer(schema: AnswerSchema, run: Run) -> None:
    """Check and convert an answer that did not come from a review, such as the result of a tool."""
    output = run.output
    if run.model_refused or (output.content_type == schema.type_name and schema.made(output.content)):
        return
    try:
        content = output.content
        # What is no text is from a tool, or is the JSON of an answer that was on record.
        answer = schema.read(content) if isinstance(content, str) else schema.recorded(content, run.messages)
    except BadAnswer as error:
        raise ModelBehaviorError(
            f"{run.spec.title} ended with an answer that does not fit output_schema: {error}"
        ) from error
    output.content, output.content_type = answer.content, answer.content_type
    run.out.answer(answer)


async def _review_by_others(
    writer: Model | None, parser: Model | None, schema: AnswerSchema | None, run: Run, message: Message
) -> Answer:
    """Have `output_model` and `parser_model` make the answer from the text of the run's own model."""
    text = message.content or ""
    if writer is not None:
        wanted = schema if parser is None else None
        asked = [*run.messages, Message("user", _instruction(run, _WRITE, writer, wanted))]
        sink: SinkFactory = _words if parser is None else _aside
        reply, answer = await _ask(run, writer, asked, wanted, sink)
        run.messages[-1] = reply
        if parser is None:
            return answer
        text = reply.content or ""
    assert parser is not None
    asked = [Message("system", _instruction(run, _PARSE, parser, schema)), Message("user", text)]
    _, answer = await _ask(run, parser, asked, schema)
    return answer


def _instruction(run: Run, task: str, model: Model, schema: AnswerSchema | None) -> str:
    return task if schema is None or _native(run, model, schema) else f"{task}\n\n{schema.in_words()}"


def _native(run: Run, model: Model, schema: AnswerSchema) -> bool:
    """Whether `model` and all fallback models enforce the schema."""
    return _way([model, *run.spec.retries.fallbacks]) == "native"


async def _ask(
    run: Run,
    model: Model,
    messages: Sequence[Message],
    schema: AnswerSchema | None,
    sink: SinkFactory = _aside,
) -> tuple[Message, Answer]:
    """Ask another model than the run's own. Its answer is a text, sent to `sink`, or fits the schema."""
    if schema is None:
        reply = await ask(run, model, messages, tools={}, sink=sink)
        return reply, Answer(reply.content or "")
    enforced = _native(run, model, schema)
    while True:
        reply = await ask(
            run,
            model,
            messages,
            tools={},
            response_format=schema.response_format() if enforced else None,
            sink=lambda run: GrowingSink(run.out, schema),
        )
        try:
            answer = schema.read(reply.content or "", enforced=enforced)
        except BadAnswer as error:
            run.send_back(CHECK, f"{error} The last answer was {shortened(reply.content)}")
            messages = [*messages, reply, Message("user", f"{error}\nAnswer again, with the whole JSON.")]
            continue
        return reply, answer
