"""An agent: a model with instructions, tools and a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kern.models.base import Model
from kern.run.output import RunOutput
from kern.runner.checks import check_tool_choice
from kern.runner.hooks import with_hooks
from kern.runner.input_schema import with_input
from kern.runner.options import RunOptions
from kern.runner.output_schema import with_output
from kern.runner.prompt import Prompt
from kern.runner.terminal import TerminalRunner
from kern.runtime.run import Run
from kern.runtime.spec import RunnableTool, RunnerSpec


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Agent(TerminalRunner[RunOutput]):
    """A model with instructions, tools and a session.

        agent = Agent(model=OpenAIResponses(id="gpt-5.2"), tools=[add_item], session_state={"items": []})
        output = await agent.arun("Add milk")

    The parameters are those of `Definition`.
    """

    def build_spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this agent for one run."""
        model = self.chosen_model(inherited_model)
        spec = self._spec(options, model, self.function_tools())
        if not self.has_tool_sources:
            return spec

        async def expand(run: Run) -> RunnerSpec:
            return self._spec(options, model, await self.loaded_tools())

        return replace(spec, expand=expand)

    def _spec(self, options: RunOptions, model: Model, functions: Mapping[str, RunnableTool]) -> RunnerSpec:
        spec = RunnerSpec(
            id=self.get_id(),
            name=self.name,
            is_team=False,
            model=model,
            tools=self.with_context_tools(functions),
            prompt=Prompt.of(self, options),
            after=self.steps_after(),
            tool_choice=check_tool_choice(self.tool_choice),
            tool_call_limit=self.tool_call_limit,
            max_requests=self.max_requests,
            retries=self.retry_policy(),
        )
        return with_output(with_input(with_hooks(spec, self), self.input_schema), self, options)
