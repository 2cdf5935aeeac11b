"""Ask the model: in one line, through LangChain's client or CrewAI's, and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from agentlab._support.extras import extras
from agentlab.clock import is_virtual, run_virtual
from agentlab.errors import ConfigError
from agentlab.lab._model_time import model_seconds_a_second
from agentlab.lab._read import Reply, read
from agentlab.lab._transport import LabTransport, before_blocking, post
from agentlab.lab.connection import connection
from agentlab.trace import Trace, trace

if TYPE_CHECKING:
    from crewai import LLM
    from langchain_openai import ChatOpenAI

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


async def ask(
    prompt: str,
    *,
    agent: str = "agent",
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    timeout_s: float = 600.0,
) -> str:
    """Ask the model one thing, once, and return its answer. There are no retries.

    Args:
        agent: The name under which the trace shows the call.
        system: What the model is told to be.
        max_tokens: The most tokens the answer may have; it is cut there.
        temperature: How freely the model chooses its words, from 0 to 2; None leaves it to it.
        timeout_s: How long to wait for the answer, in model seconds.

    Raises:
        ModelError: If the model answers with an error, or with something that is not an answer.
        TimeoutError: If the whole answer takes longer than `timeout_s`.
        EndpointError: If the connection breaks off.

    Example:
        await lab.ask("Name three rivers.", agent="geographer")
    """
    answered = await reply(
        prompt,
        agent=agent,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        timeout_s=timeout_s,
    )
    return answered.text


async def reply(
    prompt: str,
    *,
    agent: str = "agent",
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    timeout_s: float = 600.0,
) -> Reply:
    """Ask as `ask` does, and return the answer with its tokens.

    Example:
        (await lab.reply("Name three rivers.")).completion_tokens
    """
    headers, there = _headers(agent), connection()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    asked = {
        "model": there.model,
        "messages": messages,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    body = msgspec.json.encode({k: v for k, v in asked.items() if v is not None})
    headers |= {"authorization": f"Bearer {there.key}", "content-type": "application/json"}
    try:
        async with asyncio.timeout(timeout_s and timeout_s / there.time_scale):
            answer = await post(f"{there.url}/chat/completions", body, headers)
    except TimeoutError:
        raise TimeoutError(f"no answer to {agent!r} within {timeout_s:g} model seconds") from None
    return read(answer, max_tokens=max_tokens)


def simulate(
    program: Coroutine[Any, Any, T], *, catch: type[E] | tuple[type[E], ...] = ()
) -> tuple[T | E, Trace]:
    """Run a program of agents in virtual time; return its result, and what the endpoint saw.

    Args:
        catch: The kinds of error that are returned instead of the result; others are raised.

    Raises:
        ConfigError: As by `run_virtual`, if `program` does what takes no virtual time.
        DeadlockError: If nothing is left that could ever happen, naming the tasks that wait.

    Example:
        answer, t = lab.simulate(lab.ask("Name three rivers."))
        print(t.makespan_s)
    """
    with trace() as t:
        try:
            return run_virtual(program).result, t
        except catch as error:
            return error, t


def chat_model(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> ChatOpenAI:
    """Return LangChain's own `ChatOpenAI`, connected to the endpoint.

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself. Retries have one owner,
            and by default that is you.
        options: Anything else that `ChatOpenAI` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Example:
        (await lab.chat_model(agent="writer").ainvoke("Name three rivers.")).content
    """
    with extras():  # takes a second or two, so only where it is used
        from langchain_openai import ChatOpenAI

    connected = _connected(agent, max_retries, options)
    client, blocking_client = _clients()
    connected |= {
        "http_async_client": client,
        "http_client": blocking_client,
        "stream_usage": True,  # else a custom base_url gets no token counts in streams
    }
    return ChatOpenAI(**(connected | options))


def crew_llm(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> LLM:
    """Return an `LLM` of CrewAI's, connected; CrewAI is imported silent (`agentlab.lab.crews`).

    It takes what `chat_model` takes, and anything else that `crewai.LLM` does. An `Agent` retries
    by itself, too: give it `max_retry_limit=0`. And whatever `max_retries` says, CrewAI's LLM sends
    what a 429 refuses three times, a used-up quota included (crewai 1.15).

    Raises:
        ConfigError: In virtual time, where CrewAI's client cannot be.

    Example:
        from crewai import Agent

        writer = Agent(role="Writer", goal="...", backstory="...", llm=lab.crew_llm(agent="writer"))
    """
    if is_virtual():
        says = "crewai.LLM's client is its own, so it takes no virtual time; use it in real time"
        raise ConfigError(says)
    connected = _connected(agent, max_retries, options)
    from openai import AsyncOpenAI

    with extras():  # takes some five seconds, so only where it is used
        from agentlab.lab import crews

    if options.get("timeout") is not None:
        options["timeout"] /= model_seconds_a_second()
    # Without the provider, the model's name decides which client is used.
    llm = crews.LLM(**(connected | {"provider": "openai"} | options))
    native: Any = llm  # of the subclass that the provider chose
    # `acall` then sends as everything here does; its own client would leave its connections to
    # whichever event loop is running when it is thrown away.
    native._async_client = AsyncOpenAI(**native._get_client_params(), http_client=_clients()[0])
    return llm


def _connected(agent: str, max_retries: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return what connects a client; take its headers out of its `options`."""
    headers = _headers(agent) | (options.pop("default_headers", None) or {})
    there = connection()
    way = {"model": there.model, "base_url": there.url, "api_key": there.key}
    return {**way, "default_headers": headers, "max_retries": max_retries}


def _headers(agent: str) -> dict[str, str]:
    if not isinstance(agent, str):
        raise ConfigError(f'agent={agent!r} is no name; give a text such as "writer"')
    # A header carries ASCII only; the endpoint unquotes names in any language.
    return {"x-agent": quote(agent, safe=" !#$&'()*+,/:;=?@[]")}


@cache
def _clients() -> tuple[httpx.AsyncClient, httpx.Client]:
    """Make the clients that other clients send through, once: each event loop has its session."""
    # What one answer leaves behind, no other request carries: requests of all clients are alike.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    alike: dict[str, Any] = {"trust_env": False, "timeout": None, "cookies": no_cookies}
    # Blocking calls come from many threads: a connection each, and no pool to wait for.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    hooks = {"request": [before_blocking]}
    return (
        httpx.AsyncClient(transport=LabTransport(), **alike),
        httpx.Client(limits=limits, event_hooks=hooks, **alike),
    )
