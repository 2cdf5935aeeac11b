"""The lab: where the model is, and how to ask it.

The endpoint is started by the first use and ends with this process. With `OPENAI_BASE_URL` or
`OPENAI_API_KEY` set it forwards to that model; inside `run_virtual` the local model answers in
any case. Nothing here reads the real key or changes the environment.
"""

from __future__ import annotations

import linecache
from collections.abc import Coroutine
from copy import copy
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from agentlab._blind_spots import raised_at
from agentlab.clock import is_virtual, run_virtual
from agentlab.errors import AgentLabError, ConfigError, reason
from agentlab.model_time import (
    duration_s,
    model_seconds_a_second,
    now_s,
    retry_after_s,
    sleep,
    sleep_until,
    timeout,
)
from agentlab.notices import say_once
from agentlab.reply import Reply, read
from agentlab.running import (
    Address,
    Configured,
    address,
    api_key,
    base_url,
    configure,
    connect,
    current,
    stop,
    where,
)
from agentlab.trace import Trace, trace
from agentlab.transport import BlockingTransport, LabTransport

if TYPE_CHECKING:
    from crewai import LLM
    from langchain_openai import ChatOpenAI

__all__ = [
    "Address",
    "Configured",
    "Reply",
    "address",
    "api_key",
    "ask",
    "base_url",
    "chat_model",
    "configure",
    "connect",
    "crew_llm",
    "duration_s",
    "model_seconds_a_second",
    "now_s",
    "reply",
    "retry_after_s",
    "simulate",
    "sleep",
    "sleep_until",
    "stop",
    "timeout",
    "where",
]

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
    """Ask the model one thing, once; returns its answer. There are no retries.

    Args:
        agent: The name under which the trace shows the call.
        system: What the model is told to be.
        max_tokens: The most tokens the answer may have; it is cut there.
        temperature: How freely the model chooses its words, from 0 to 2; None leaves it to it.
        timeout_s: How long to wait for the answer, in model seconds.

    Raises:
        ModelError: If the model answers with an error, or with something that is no answer.
        TimeoutError: If the whole answer takes longer than `timeout_s`.
        EndpointError: If the connection breaks off.
        ConfigError: If `agent` is no text.

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
    """Ask the model one thing, once; returns its answer and its tokens. There are no retries.

    Takes what `ask` takes, and raises what it raises.

    Example:
        (await lab.reply("Name three rivers.")).completion_tokens
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    asked = {
        "model": current().model,
        "messages": messages,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    named = _named(agent)
    url, key = _address()
    try:
        async with timeout(timeout_s):
            answer = await _transport.post(
                f"{url}/chat/completions",
                msgspec.json.encode({k: v for k, v in asked.items() if v is not None}),
                {"authorization": f"Bearer {key}", "content-type": "application/json", **named},
            )
    except TimeoutError:
        raise TimeoutError(f"no answer to {agent!r} within {timeout_s:g} model seconds") from None
    answered = read(answer, max_tokens=max_tokens)
    if max_tokens is not None and answered.completion_tokens > max_tokens:
        say_once(
            url,
            f"the model does not keep a limit: {max_tokens} tokens were asked for, and "
            f"{answered.completion_tokens} came; AGENTLAB_LEAVE_OUT=max_completion_tokens sends "
            "max_tokens instead",
        )
    return answered


def simulate(
    program: Coroutine[Any, Any, T], *, catch: type[E] | tuple[type[E], ...] = ()
) -> tuple[T | E, Trace]:
    """Run a program of agents in virtual time; return its result, and what the endpoint saw.

    Args:
        catch: The kinds of error that are returned instead of the result; others are raised.

    Raises:
        ConfigError: If `program` is no coroutine, such as a function that was not called; or if
            it does what takes no virtual time, such as a blocking call, whatever a client made
            of that.
        DeadlockError: If nothing is left that could ever happen, naming the tasks that wait.

    Example:
        answer, t = lab.simulate(lab.ask("Name three rivers."))
        print(t.makespan_s)
    """
    with trace() as t:
        try:
            return run_virtual(program).result, t
        except Exception as error:
            told = reason(error)
            if isinstance(error, AgentLabError) or not isinstance(told, ConfigError):
                told = error
            if isinstance(told, catch):
                return told, t
            if told is error:
                raise
            told = copy(told)
            if at := raised_at(error):
                line = linecache.getline(at.file, at.line).strip()
                told.add_note(f"It was met in {at.function!r}, in the line: {line}")
            raise told from None  # what the client made of it, a long story, stays its context


def chat_model(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> ChatOpenAI:
    """LangChain's own `ChatOpenAI`, connected to the endpoint.

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself. Not at all, unless
            told: retries have one owner, and that is you.
        options: Anything else that `ChatOpenAI` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Raises:
        ConfigError: If `agent` is no text.

    Example:
        answer = await lab.chat_model(agent="writer").ainvoke("Name three rivers.")
        answer.content
    """
    from langchain_openai import ChatOpenAI  # takes a second or two, so only where it is used

    from agentlab.completions import shorten

    url, key = _address()
    connected: dict[str, Any] = {
        "model": current().model,
        "base_url": url,
        "api_key": key,
        "default_headers": {**_named(agent), **(options.pop("default_headers", None) or {})},
        "http_async_client": _client,
        "http_client": _blocking_client,
        "stream_usage": True,  # else a custom base_url gets no token counts in streams
        "max_retries": max_retries,
    }
    return shorten(ChatOpenAI(**(connected | options)), _transport.post, _client)


def crew_llm(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> LLM:
    """CrewAI's own `LLM`, connected to the endpoint; CrewAI is imported silent (`agentlab.crews`).

    An `Agent` retries by itself, too: give it `max_retry_limit=0`. And whatever `max_retries` says,
    CrewAI's LLM sends what a 429 refuses three times, a used-up quota included (crewai 1.15).

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself.
        options: Anything else that `crewai.LLM` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Raises:
        ConfigError: In virtual time, where CrewAI's own client cannot be, or if `agent` is no text.

    Example:
        from crewai import Agent

        writer = Agent(role="Writer", goal="...", backstory="...", llm=lab.crew_llm(agent="writer"))
    """
    if is_virtual():
        raise ConfigError(
            "crewai.LLM sends through a client of its own, so it takes no virtual "
            "time; use it in real time"
        )
    named = _named(agent)
    from openai import AsyncOpenAI

    from agentlab import crews  # takes some five seconds, so only where it is used

    if options.get("timeout") is not None:
        options["timeout"] /= model_seconds_a_second()
    connected: dict[str, Any] = {
        "model": current().model,
        "provider": "openai",  # else the model's name decides which client is used
        "base_url": base_url(),
        "api_key": api_key(),
        "default_headers": {**named, **(options.pop("default_headers", None) or {})},
        "max_retries": max_retries,
    }
    llm = crews.LLM(**(connected | options))
    native: Any = llm  # of the subclass that the provider chose
    # `acall` then sends as everything here does; its own client would leave its connections to
    # whichever event loop is running when it is thrown away.
    native._async_client = AsyncOpenAI(**native._get_client_params(), http_client=_client)
    return llm


def _address() -> tuple[str, str]:
    if is_virtual():  # the transport leads to the model inside the loop, whatever the address
        return "http://127.0.0.1/v1", "virtual"
    return base_url(), api_key()


def _named(agent: str) -> dict[str, str]:
    if not isinstance(agent, str):
        raise ConfigError(
            f'agent={agent!r} is no name; give a text such as "writer", or leave it out'
        )
    # A header carries ASCII only; the endpoint unquotes names in any language.
    return {"x-agent": quote(agent, safe=" !#$&'()*+,/:;=?@[]")}


_transport = LabTransport(current, model_seconds_a_second)
# What one answer leaves behind, no other request carries: requests are alike, whoever sends them.
_NO_COOKIES = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
_client = httpx.AsyncClient(
    transport=_transport, trust_env=False, timeout=None, cookies=_NO_COOKIES
)
_blocking_client = httpx.Client(
    transport=BlockingTransport(model_seconds_a_second),
    trust_env=False,
    timeout=None,
    cookies=_NO_COOKIES,
)
