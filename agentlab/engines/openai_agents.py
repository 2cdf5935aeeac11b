"""A step as an Agent of OpenAI's Agents SDK, where code decides which of them run side by side."""

from typing import Any

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner

_UNTRACED = RunConfig(tracing_disabled=True)  # by default OpenAI gets every prompt and answer


async def ask(client: Any, prompt: str, *, agent: str, system: str | None, **settings: Any) -> str:
    """Return the answer of one `Runner.run`; see `engines.run`."""
    asked = Agent(
        name=agent,
        instructions=system,
        model=OpenAIChatCompletionsModel("lab", client),
        model_settings=ModelSettings(**settings),
    )
    return str((await Runner.run(asked, prompt, run_config=_UNTRACED)).final_output)
