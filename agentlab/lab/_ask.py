"""Ask the model: in one line, through LangChain's client or CrewAI's, and in virtual time."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from agentlab._support.schedule import Schedule
from agentlab._support.system import extras
from agentlab.clock import is_virtual, run_virtual
from agentlab.errors import ConfigError
from agentlab.lab._model_time import model_seconds_a_second
from agentlab.lab._read import Reply, read
from agentlab.lab._transport import LabTransport, before_blocking, post
from agentlab.lab.connection import connection
from agentlab.trace import Trace, simulation, trace

if TYPE_CHECKING:
    from crewai import LLM
    from langchain_openai import ChatOpenAI

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


async def ask(
    prompt: str, *, agent: str = "agent", system: str | None = None,
    max_tokens: int | None = None, temperature: float | None = None,
    timeout_s: float = 600.0, ignore_eos: bool | None = None,
) -> str:  # fmt: skip
    """Ask the model one thing, once, and return its answer. There are no retries.

    The model's errors are ModelErrors, one that is no answer among them; a connection that breaks
    off is an EndpointError, and an answer that comes too late a TimeoutError.

    Args:
        agent: The name under which the trace shows the call.
        system: What the model is told to be.
        max_tokens: The most tokens the answer may have; it is cut there.
        temperature: From 0 to 2: how freely the model chooses its words.
        timeout_s: How long to wait for the answer, in model seconds.
        ignore_eos: vLLM's: whether the answer goes on until it has `max_tokens`.

    Example:
        await lab.ask("Name three rivers.", agent="geographer")
    """
    return (await reply(**locals())).text  # which takes the same


async def reply(
    prompt: str, *, agent: str = "agent", system: str | None = None,
    max_tokens: int | None = None, temperature: float | None = None,
    timeout_s: float = 600.0, ignore_eos: bool | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None, turns: Sequence[Mapping[str, Any]] = (),
    stream: bool = False,
) -> Reply:  # fmt: skip
    """Ask as `ask` does, and return the answer with its tokens: `(...).completion_tokens`.

    Args:
        tools: What the model may call, in OpenAI's form; it does so in the reply's `tool_calls`.
        turns: The messages since the prompt: earlier replies, and what their tools returned.
        stream: Whether the answer comes bit by bit, so that the trace has its first token's time.
    """
    headers, there = _headers(agent), connection()
    first = [{"role": "system", "content": system}] if system else []
    messages = [*first, {"role": "user", "content": prompt}, *turns]
    options: dict[str, Any] = {"max_completion_tokens": max_tokens, "temperature": temperature}
    options |= {"ignore_eos": ignore_eos, "tools": tools}
    if stream:
        options |= {"stream": True, "stream_options": {"include_usage": True}}
    given = {name: value for name, value in options.items() if value is not None}
    body = msgspec.json.encode({"model": there.model, "messages": messages, **given})
    headers |= {"authorization": f"Bearer {there.key}", "content-type": "application/json"}
    try:
        async with asyncio.timeout(timeout_s and timeout_s / there.time_scale):
            answer = await post(f"{there.url}/chat/completions", body, headers)
    except TimeoutError:
        raise TimeoutError(f"no answer to {agent!r} within {timeout_s:g} model seconds") from None
    return read(answer, max_tokens=max_tokens)


def simulate(
    program: Coroutine[Any, Any, T], *, catch: type[E] | tuple[type[E], ...] = (),
    schedule: int | Schedule | None = None,
) -> tuple[T | E, Trace]:  # fmt: skip
    """Run a program of agents in virtual time; return its result, and what the endpoint saw.

    Errors of the kinds in `catch` are returned instead of the result. It takes the `schedule` and
    raises what `agentlab.clock.run_virtual` does, such as a DeadlockError.

    Example:
        answer, t = lab.simulate(lab.ask("Name three rivers."))
        print(t.makespan_s)
    """
    outer = simulation.set(object())
    try:
        with trace() as t:
            try:
                return run_virtual(program, schedule=schedule).result, t
            except catch as error:
                return error, t
    finally:
        simulation.reset(outer)


def chat_model(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> ChatOpenAI:
    """Return LangChain's own `ChatOpenAI`, connected to the endpoint.

    The trace shows its calls under the name `agent`. By default the client itself repeats no failed
    call. The `options` are `ChatOpenAI`'s own; a `timeout` is in model seconds.

    Example:
        (await lab.chat_model(agent="writer").ainvoke("Name three rivers.")).content
    """
    with extras("langgraph"):  # takes a second or two, so only where it is used
        from langchain_openai import ChatOpenAI

    connected = _connected(agent, max_retries, options)
    client, blocking = _clients()
    # Without stream_usage, a base_url of one's own gets no token counts in streams.
    ours = {"http_async_client": client, "http_client": blocking, "stream_usage": True}
    return ChatOpenAI(**(connected | ours | options))


def crew_llm(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> LLM:
    """Return an `LLM` of CrewAI's, connected; CrewAI is imported silent (`agentlab.lab.crews`).

    It takes what `chat_model` takes, and anything else that `crewai.LLM` does. An `Agent` retries
    by itself, too: give it `max_retry_limit=0`. CrewAI's LLM sends what a 429 refuses three times.

    Example:
        from crewai import Agent

        writer = Agent(role="Writer", goal="...", backstory="...", llm=lab.crew_llm(agent="writer"))
    """
    if is_virtual():
        raise ConfigError("crewai.LLM's client takes no virtual time; use it in real time")
    connected = _connected(agent, max_retries, options)
    with extras("crewai"):  # takes some five seconds, so only where it is used
        from openai import AsyncOpenAI

        from agentlab.lab import crews

    if options.get("timeout") is not None:
        options["timeout"] /= model_seconds_a_second()
    # Without the provider, the model's name decides which client is used.
    llm = crews.LLM(**(connected | {"provider": "openai"} | options))
    native: Any = llm  # of the subclass that the provider chose
    # The collector may come to a socket before it comes to the client that would close it.
    weakref.finalize(native._client, native._client._client.close)
    # Its own client would leave its connections to whichever event loop runs when it is dropped.
    native._async_client = AsyncOpenAI(**native._get_client_params(), http_client=_clients()[0])
    return llm


def _connected(agent: str, max_retries: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return what connects a client; take its headers out of its `options`."""
    with extras("langgraph"):
        from openai.types.chat import ChatCompletion

    ChatCompletion.model_rebuild()  # at its first use several threads would, which is not safe
    headers = _headers(agent) | (options.pop("default_headers", None) or {})
    there = connection()
    way = {"model": there.model, "base_url": there.url, "api_key": there.key}
    return way | {"default_headers": headers, "max_retries": max_retries}


def _headers(agent: str) -> dict[str, str]:
    if not isinstance(agent, str):
        raise ConfigError(f'agent={agent!r} is no name; give a text such as "writer"')
    # A header carries ASCII only; the endpoint unquotes names in any language.
    return {"x-agent": quote(agent, safe=" !#$&'()*+,/:;=?@[]")}


@cache
def _clients() -> tuple[httpx.AsyncClient, httpx.Client]:
    # What one answer leaves behind, no other request carries: requests of all clients are alike.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    alike: dict[str, Any] = {"trust_env": False, "timeout": None, "cookies": no_cookies}
    # Blocking calls come from many threads: a connection each, and no pool to wait for.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    blocking = httpx.Client(limits=limits, event_hooks={"request": [before_blocking]}, **alike)
    return httpx.AsyncClient(transport=LabTransport(), **alike), blocking
