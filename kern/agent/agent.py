"""An agent: a model with instructions, tools and a session."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kern.agent.options import RunOptions
from kern.agent.prompt import Prompt
from kern.agent.running import Runner
from kern.models.base import Model
from kern.run.output import RunOutput
from kern.runtime.run import Run
from kern.runtime.spec import RunnerSpec


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Agent(Runner[RunOutput]):
    """A model with instructions, tools and a session.

        agent = Agent(model=OpenAIResponses(id="gpt-5.2"), tools=[add_item], session_state={"items": []})
        output = await agent.arun("Add milk")

    The parameters are those of `Definition`.
    """

    def build_spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        """What the engine is told of this agent for one run."""
        spec = RunnerSpec(
            id=self.get_id(),
            name=self.name,
            is_team=False,
            model=self.chosen_model(inherited_model),
            tools={**self.function_tools(), **self.context_tools()},
            prompt=Prompt.of(self, options),
            after=self.steps_after(),
            tool_choice=self.tool_choice,
            tool_call_limit=self.tool_call_limit,
            retries=self.retry_policy(),
        )
        if not self.has_tool_sources:
            return spec

        async def expand(run: Run) -> RunnerSpec:
            return replace(spec, tools={**await self.loaded_tools(), **self.context_tools()}, expand=None)

        return replace(spec, expand=expand)
