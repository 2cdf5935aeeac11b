"""The loop of an agent with tools: ask, run what the model calls, ask again with the results."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import to_json

from agentlab import trace
from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere
from agentlab.errors import ConfigError, TurnsExhausted
from agentlab.lab import Reply, ToolCall

Tools = Mapping[str, "Callable[..., Any] | Tool"]
"""Plain functions, async or not, or a `Tool` of each, by the names by which a model calls them."""

LONGEST = 20_000  # characters of a result that the model is told

# asyncio's own threads are few (six on two processors), and the rest of a turn would wait for them.
_threads = ThreadPoolExecutor(256, thread_name_prefix="tool")


def with_tools(
    ask: Callable[..., Awaitable[Reply | str]], functions: Tools
) -> Callable[..., Awaitable[str]]:
    """Return a function that is called as `lab.ask` is, and lets the model call `tools`.

    All tools that an answer calls run at the same time; an async one in the event loop, any other
    in a thread, which takes no virtual time. Then `ask`, such as `lab.reply`, is told the results
    in the order of the calls. A tool that fails tells the error, and ends nothing else.

    Raises:
        ConfigError: If a tool is no function with parameters that have names.
        TurnsExhausted: From what is returned, if each of `max_turns` answers calls tools.

    Example:
        ask = with_tools(lab.reply, {"search": search})
        await ask("Search for rivers in Spain.", tools=["search"], agent="geographer")
    """
    known = {name: f if isinstance(f, Tool) else Tool(name, f) for name, f in functions.items()}

    async def asked(
        prompt: str, *, agent: str = "agent", tools: Any = (), max_turns: int = 10, **options: Any
    ) -> str:
        offered = {name: known[name] for name in tools}
        turns: list[dict[str, Any]] = []
        with trace.agent(agent):
            for _ in range(max_turns):
                if offered:
                    options |= {"tools": [t.schema for t in offered.values()], "turns": [*turns]}
                reply = await ask(prompt, agent=agent, **options)
                if isinstance(reply, str) or not reply.tool_calls:
                    return reply if isinstance(reply, str) else reply.text
                async with asyncio.TaskGroup() as group:
                    told = [group.create_task(_told(c, offered)) for c in reply.tool_calls]
                said = {"role": "assistant", "content": reply.text or None}
                turns += [said | {"tool_calls": reply.tool_calls}, *(t.result() for t in told)]
        says = f"{agent!r} called tools in each of its {max_turns} answers"
        raise TurnsExhausted(f"{says}; allow it more by max_turns, or ask for less", turns=turns)

    return asked


async def _told(call: ToolCall, offered: Mapping[str, "Tool"]) -> dict[str, Any]:
    """Run what the model calls, and return the message that tells it what came of that."""
    name = call.function.name
    with trace.tool(name) as span:
        try:
            if name not in offered:
                raise ConfigError(f"there is no tool {name!r}; call one of {', '.join(offered)}")
            text = await raise_if_cancelled_elsewhere(offered[name].run(call.function.arguments))
        except Exception as error:
            span.fault = text = f"{type(error).__name__}: {error}"
    if (more := len(text) - LONGEST) > 0:
        text = f"{text[:LONGEST]}\n[cut: {more:,} more characters]"
    return {"role": "tool", "tool_call_id": call.id, "content": text}


class Tool:
    """A function as a tool: its `schema`, which the model is told, and how it is run."""

    def __init__(self, name: str, function: Callable[..., Any]):
        self._is_async = inspect.iscoroutinefunction(function)
        try:
            # It checks arguments, and calls the function with them.
            self._called: TypeAdapter[Any] = TypeAdapter(function)
            parameters = self._called.json_schema()
        except (PydanticUserError, NameError):
            parameters = {}
        if parameters.get("type") != "object":
            takes = f"tool {name!r} is {function!r}, which cannot be called by names"
            raise ConfigError(f"{takes}; give a function such as search(query: str)")
        about = {"name": name, "description": inspect.getdoc(function) or ""}
        self.schema = {"type": "function", "function": about | {"parameters": parameters}}

    async def run(self, arguments: str) -> str:
        """Call the function with JSON, and return its result as text."""
        call = partial(self._called.validate_json, arguments or "{}")
        try:
            if self._is_async:
                result = await call()
            else:
                loop, context = asyncio.get_running_loop(), copy_context()
                result = await loop.run_in_executor(_threads, context.run, call)
                result = await result if inspect.isawaitable(result) else result
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ValueError(f"{error.title}: {'; '.join(wrong)}") from None
        return result if isinstance(result, str) else to_json(result).decode()
