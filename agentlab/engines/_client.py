"""OpenAI's own client, which agent frameworks are built on, with an `ask` function beneath it."""

from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any

import httpx
import msgspec
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from agentlab.engines import Ask


def through_agents(ask_agent: Callable[..., Awaitable[str]], ask: Ask) -> Ask:
    """Return what answers a step by `ask_agent(client, ...)`, whose client asks by `ask`.

    What an agent does not say itself, such as the names of tools, reaches `ask` past it. If `ask`
    fails, so does the step, with that error, whatever the framework makes of it.
    """

    async def answer(prompt: str, *, agent: str, **options: Any) -> str:
        said = {name: options.pop(name, None) for name in ("system", "max_tokens", "temperature")}
        asking = _Asking(partial(ask, agent=agent, **options))
        http = DefaultAsyncHttpxClient(transport=asking, trust_env=False)
        # `ask` knows the model's address and its key.
        client = AsyncOpenAI(base_url="http://lab", api_key="none", max_retries=0, http_client=http)
        try:
            return await ask_agent(client, prompt, agent=agent, **said)
        except Exception as error:
            failed = asking.failed or error
        raise failed

    return answer


class _Asking(httpx.AsyncBaseTransport):
    def __init__(self, ask: Ask):
        self._ask = ask
        self.failed: Exception | None = None

    async def handle_async_request(self, request: Any) -> Any:
        asked = msgspec.json.decode(await request.aread())
        *system, prompt = [message["content"] for message in asked["messages"]]
        try:
            text = await self._ask(
                prompt,
                system=system[0] if system else None,
                max_tokens=asked.get("max_completion_tokens") or asked.get("max_tokens"),
                temperature=asked.get("temperature"),
            )
        except Exception as error:
            self.failed = error
            raise
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "lab"}
        http = import_module(type(request).__module__.partition(".")[0])  # httpx; or httpx2
        return http.Response(200, json=answer | {"choices": [choice]})
