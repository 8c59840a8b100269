"""An agent: a model with instructions, tools and a session."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kern.models.base import Model
from kern.run.output import RunOutput
from kern.runner.compile import function_tools, has_sources, loaded_tools, model_of, spec_of, with_checks
from kern.runner.options import RunOptions
from kern.runner.session_state import StateAccess
from kern.runner.sessions import SessionAccess
from kern.runner.terminal import Terminal
from kern.runtime.run import Run
from kern.runtime.spec import RunnerSpec


@dataclass(kw_only=True, eq=False, repr=False, slots=True)
class Agent(Terminal[RunOutput], SessionAccess, StateAccess):
    """A model with instructions, tools and a session.

        agent = Agent(model=OpenAIResponses(id="gpt-5.2"), tools=[add_item], session_state={"items": []})
        output = await agent.arun("Add milk")

    The parameters are those of `Definition`.
    """

    def _spec(self, options: RunOptions, inherited_model: Model | None = None) -> RunnerSpec:
        model = model_of(self, inherited_model)
        spec = with_checks(spec_of(self, options, model, function_tools(self)), self, options)
        if not has_sources(self):
            return spec

        async def expand(run: Run) -> RunnerSpec:
            return with_checks(spec_of(self, options, model, await loaded_tools(self)), self, options)

        return replace(spec, expand=expand)
