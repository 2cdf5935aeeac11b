"""A step as an Agent of OpenAI's Agents SDK; code decides which of them run at the same time."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from agents import Agent, Model, ModelResponse, ModelSettings, RunConfig, Runner, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from agentlab.engines import Ask

_UNTRACED = RunConfig(tracing_disabled=True)  # by default OpenAI gets every prompt and answer


async def ask(answers: Ask, prompt: str, *, agent: str, system: str | None, **options: Any) -> str:
    """Ask as one run of an agent, whose model is `answers`; see `engines.run`."""
    settings = ModelSettings(**{name: options.pop(name) for name in ("max_tokens", "temperature")})
    model = _Asking(partial(answers, agent=agent, **options))
    asked: Any = Agent(name=agent, instructions=system, model=model, model_settings=settings)
    return str((await Runner.run(asked, prompt, run_config=_UNTRACED)).final_output)


class _Asking(Model):  # type: ignore[misc]
    def __init__(self, answers: Ask) -> None:
        self._answers = answers

    async def get_response(
        self, system_instructions: str | None, input: Any, model_settings: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        length, heat = model_settings.max_tokens, model_settings.temperature
        options = {"system": system_instructions, "max_tokens": length, "temperature": heat}
        said = await self._answers(input[0]["content"], **options)
        part = ResponseOutputText(type="output_text", text=said, annotations=[])
        whole: Any = {"type": "message", "role": "assistant", "status": "completed"}
        message = ResponseOutputMessage(id="1", content=[part], **whole)
        return ModelResponse([message], Usage(requests=1), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError  # Runner.run asks for no stream
