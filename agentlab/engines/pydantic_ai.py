"""A step as an Agent of pydantic-ai, where code decides which of them run side by side."""

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def ask(client: Any, prompt: str, *, agent: str, system: str | None, **settings: Any) -> str:
    """Return the answer of one `Agent.run`; see `engines.run`."""
    given: Any = {name: value for name, value in settings.items() if value is not None}
    asked = Agent(
        OpenAIChatModel("lab", provider=OpenAIProvider(openai_client=client)),
        name=agent,
        instructions=system,
        model_settings=given,
        retries=0,  # an answer that it does not take would be asked for again, and paid for
    )
    return (await asked.run(prompt)).output
