"""A step as an Agent of pydantic-ai; code decides which of them run at the same time."""

from typing import Any

from pydantic_ai import Agent, ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from agentlab.engines import Ask


async def ask(answers: Ask, prompt: str, *, agent: str, system: str | None, **options: Any) -> str:
    """Ask as one run of an agent, whose model is `answers`; see `engines.run`."""
    settings: Any = {name: options.pop(name) for name in ("max_tokens", "temperature")}

    async def model(messages: list[Any], said: Any) -> ModelResponse:
        asked, settings = messages[0].parts[0].content, said.model_settings
        text = await answers(asked, agent=agent, system=said.instructions, **settings, **options)
        return ModelResponse([TextPart(text)])

    # An answer that the agent does not take would be asked for again, and paid for.
    asked: Agent[None, str] = Agent(
        FunctionModel(model), name=agent, instructions=system, model_settings=settings, retries=0
    )
    return str((await asked.run(prompt)).output)
