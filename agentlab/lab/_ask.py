"""The lab: where the model is, and how to ask it.

The endpoint is started by the first use and ends with this process. With `OPENAI_BASE_URL` or
`OPENAI_API_KEY` set it forwards to that model; inside `run_virtual` the local model answers in
any case. Nothing here reads the real key or changes the environment.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from agentlab import errors
from agentlab._support.blind_spots import raised_at
from agentlab._support.extras import extras
from agentlab.clock import is_virtual, run_virtual
from agentlab.errors import AgentLabError, ConfigError, IncompleteAnswer, ModelError, reason
from agentlab.lab._model_time import (
    duration_s,
    model_seconds_a_second,
    now_s,
    retry_after_s,
    sleep,
    sleep_until,
    timeout,
)
from agentlab.lab._transport import LabTransport, before_blocking, post
from agentlab.lab.connection import (
    Address,
    Answer,
    Configured,
    address,
    api_key,
    base_url,
    configure,
    connect,
    connection,
    current,
    endpoint,
    say_once,
    stop,
    where,
)
from agentlab.trace import Trace, trace

if TYPE_CHECKING:
    from crewai import LLM
    from langchain_openai import ChatOpenAI

__all__ = [
    "Address", "Answer", "Configured", "Reply", "address", "api_key", "ask", "base_url",
    "chat_model", "configure", "connect", "crew_llm", "current", "duration_s", "endpoint",
    "model_seconds_a_second", "now_s", "read", "reply", "retry_after_s", "simulate", "sleep",
    "sleep_until", "stop", "timeout", "where",
]  # fmt: skip

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

SHOWN = 300
"""How many characters are shown of an answer that is not a chat completion."""

# How endpoints say why an answer ended, where it is not whole; in lower case.
_CUT = frozenset({"length", "max_tokens", "model_length"})  # OpenAI, Anthropic, Mistral
_FILTERED = frozenset(  # OpenAI and Azure; Gemini has a word for each reason
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
)
_INTERRUPTED = frozenset(  # vLLM and SGLang; OpenRouter and Mistral; DeepSeek
    {"abort", "aborted", "cancelled", "error", "insufficient_system_resource"}
)


class Reply(NamedTuple):
    """A whole answer, and what the endpoint counted for it.

    Attributes:
        finish_reason: ``"stop"``, ``"length"`` where the caller's own limit cut it off, or what
            else the endpoint says; None where it says nothing.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str | None = None


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
        ConfigError: If `agent` is not a text.

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
    named, there = _named(agent), connection()
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    asked = {
        "model": there.model,
        "messages": messages,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    try:
        async with asyncio.timeout(timeout_s and timeout_s / there.time_scale):
            answer = await post(
                f"{there.url}/chat/completions",
                msgspec.json.encode({k: v for k, v in asked.items() if v is not None}),
                {"authorization": f"Bearer {there.key}", "content-type": "application/json"}
                | named,
                there=there,
            )
    except TimeoutError:
        raise TimeoutError(f"no answer to {agent!r} within {timeout_s:g} model seconds") from None
    answered = read(answer, max_tokens=max_tokens)
    if max_tokens is not None and answered.completion_tokens > max_tokens:
        say_once(
            there.url,
            f"the model does not keep a limit: {max_tokens} tokens were asked for, and "
            f"{answered.completion_tokens} came; AGENTLAB_LEAVE_OUT=max_completion_tokens sends "
            "max_tokens instead",
        )
    return answered


def read(answer: Answer, *, max_tokens: int | None = None) -> Reply:
    """Read the reply in an endpoint's answer, be it the lab's own endpoint or another.

    Status 200 says only that the endpoint did its part. `finish_reason`, a refusal and the text
    itself say whether the model did. Text that was cut off at the caller's own limit, `max_tokens`,
    is what was asked for; without one it is not an answer.

    Raises:
        IncompleteAnswer: If the answer was cut off, filtered, refused or is empty.
        ModelError: If it is an error, with whatever status, or not a chat completion.

    Example:
        >>> said = b'{"choices": [{"message": {"content": "Danube."}, "finish_reason": "stop"}]}'
        >>> read(Answer(200, {}, said))
        Reply(text='Danube.', prompt_tokens=0, completion_tokens=0, finish_reason='stop')
    """
    try:
        said = msgspec.json.decode(answer.content)
        problem = _problem(said)
        if problem is None:
            completion = msgspec.convert(said, type=_Completion)
            choice = completion.choices[0]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError):
        raise _as_error(None, answer) from None
    if problem is not None or not 200 <= answer.status < 300:
        raise _as_error(problem, answer)
    message, used = choice.message, completion.usage or _Usage()
    parts = message.content if isinstance(message.content, list) else [message.content]
    said = [part.get("refusal") for part in parts if isinstance(part, dict)]
    refusal = message.refusal or " ".join(text for text in said if isinstance(text, str))
    reply = Reply(
        refusal or "".join(map(_text, parts)),
        _count(used.prompt_tokens),
        _count(used.completion_tokens),
        choice.finish_reason,
    )
    kind, why = _flaw(reply, message, refusal, max_tokens)
    if kind is not None:
        raise kind(why, request_id=answer.headers.get("x-request-id"), **reply._asdict())
    cut = (choice.finish_reason or "").lower() in _CUT  # one word for it, in any server's spelling
    return reply._replace(finish_reason="length") if cut else reply


def _flaw(
    reply: Reply, message: _Message, refusal: str, max_tokens: int | None
) -> tuple[type[IncompleteAnswer] | None, str]:
    """Return what keeps an answer from being whole, and the way out; (None, "") if nothing does."""
    text, reason = reply.text, reply.finish_reason
    ended, blank = (reason or "").lower(), not text.strip()
    if refusal:
        return errors.AnswerRefused, (
            f"the model refused to answer: {text[:SHOWN]}; ask in another way"
        )
    if ended in _FILTERED:
        return errors.AnswerFiltered, (
            f"the provider's content filter withheld the answer, of which came: {text[:80]!r}; "
            "ask for something else"
        )
    if ended in _INTERRUPTED:
        return errors.AnswerInterrupted, (
            f"the endpoint broke its answer off (finish_reason {reason!r}), which ends in "
            f"{text[-40:]!r}; ask again"
        )
    if blank and ended in _CUT:
        spent = max_tokens or reply.completion_tokens
        budget = f"the limit of {spent} tokens" if spent else "the limit on tokens"
        return errors.ReasoningExhausted, (
            f"{budget} was used up before the answer began, as models do that reason first; "
            "raise max_tokens"
        )
    if blank and (message.reasoning_content or message.reasoning):
        return errors.AnswerEmpty, "the model reasoned, and then answered with no text; ask again"
    if blank:
        return errors.AnswerEmpty, (
            f"the model answered with no text (finish_reason {reason!r}); ask again"
        )
    if ended in _CUT and max_tokens is None:
        return errors.AnswerTruncated, (
            f"the answer was cut off after {reply.completion_tokens or 'an unknown number of'} "
            f"tokens by a limit of the endpoint's own, and ends in {text[-40:]!r}; pass a larger "
            "max_tokens, or ask for a shorter answer"
        )
    return None, ""


def _text(part: Any) -> str:
    """Return the text of one part of a message, which may be text itself; else nothing."""
    if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
        part = part.get("text")
    return part if isinstance(part, str) else ""


def _count(tokens: Any) -> int:
    """Return a number of tokens as an endpoint says it; 0 for anything else."""
    return tokens if isinstance(tokens, int) and tokens > 0 and tokens is not True else 0


def _problem(said: Any) -> dict[str, Any] | None:
    """Return the error that an answer holds, in any of the shapes in use, or None."""
    if isinstance(said, list):  # Gemini's OpenAI route: a list of one
        said = said[0] if len(said) == 1 else None
    if not isinstance(said, dict):
        return None
    error = said.get("error")
    if isinstance(error, str) and error:  # Ollama, llama-cpp-python's proxies
        return {"message": error}
    if isinstance(error, dict):
        return error
    detail = said.get("detail")
    if detail and "choices" not in said:
        return _from_fastapi(detail)
    several = said.get("errors")  # Cloudflare
    if isinstance(several, list) and several and isinstance(several[0], dict):
        return several[0]
    # vLLM before 0.9, Mistral, Cohere
    return said if isinstance(said.get("message"), str) and "choices" not in said else None


def _from_fastapi(detail: Any) -> dict[str, Any]:
    """Read FastAPI's error: a sentence, or a list of faults, each with its place."""
    faults = [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
    if not faults:
        return {"message": str(detail)}
    locs = [fault.get("loc") for fault in faults]
    places = [".".join(map(str, loc)) if isinstance(loc, list) and loc else "body" for loc in locs]
    said = [f"{at}: {one.get('msg', 'invalid')}" for at, one in zip(places, faults, strict=True)]
    param = places[0].removeprefix("body.")
    return {"message": "; ".join(said), "type": faults[0].get("type"), "param": param}


def _as_error(problem: dict[str, Any] | None, answer: Answer) -> ModelError:
    """Return the error for an answer that holds a problem, or else is not a chat completion."""
    said, status = problem or {}, answer.status
    # OpenAI's codes are names; vLLM's and llama.cpp's are numbers.
    facts = {name: str(value) for name, value in said.items() if value not in (None, "")}
    message = said.get("message")
    if problem is None:
        start = answer.content[:SHOWN].decode(errors="replace")
        message = f"it answered with what is no chat completion: {start!r}"
    elif not isinstance(message, str) or not message:
        message = json.dumps(problem)[:SHOWN]
    if status == 404 and (problem is None or "model" not in message.lower()):
        message += "; is OPENAI_BASE_URL right? Most servers' ends in /v1"
    code = said.get("code")
    if 200 <= status < 300 and isinstance(code, int) and 400 <= code < 600:
        status = code  # an error inside a good answer: its code is the status that it means
    return ModelError(
        f"the model answered {answer.status}: {message}",
        status=status,
        code=facts.get("code"),
        kind=facts.get("type"),
        param=facts.get("param"),
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=retry_after_s(answer.headers),
    )


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None  # DeepSeek, vLLM, llama.cpp
    reasoning: Any = None  # OpenRouter


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):  # some endpoints count nothing, and some say null
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def simulate(
    program: Coroutine[Any, Any, T], *, catch: type[E] | tuple[type[E], ...] = ()
) -> tuple[T | E, Trace]:
    """Run a program of agents in virtual time; return its result, and what the endpoint saw.

    Args:
        catch: The kinds of error that are returned instead of the result; others are raised.

    Raises:
        ConfigError: If `program` is not a coroutine, such as a function that was not called; or
            if it does what takes no virtual time, such as a blocking call, whatever a client made
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
                told.add_note(f"It was met in {at.name!r}, in the line: {at.line}")
            raise told from None  # what the client made of it, a long story, stays its context


def chat_model(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> ChatOpenAI:
    """Return a `ChatOpenAI` of LangChain's, connected to the endpoint.

    What it sends, returns and raises is its own. Only a plain `ainvoke` (no stream, no retries of
    the client's) takes a shorter way than through openai's client, which saves two thirds of what
    a call costs this machine: see `agentlab.lab._langchain`.

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself. Retries have one owner,
            and by default that is you.
        options: Anything else that `ChatOpenAI` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Raises:
        ConfigError: If `agent` is not a text.

    Example:
        (await lab.chat_model(agent="writer").ainvoke("Name three rivers.")).content
    """
    with extras():  # takes a second or two, so only where it is used
        from langchain_openai import ChatOpenAI

    from agentlab.lab._langchain import shorten

    connected = _connected(agent, max_retries, options)
    client, blocking_client = _clients()
    connected |= {
        "http_async_client": client,
        "http_client": blocking_client,
        "stream_usage": True,  # else a custom base_url gets no token counts in streams
    }
    return shorten(ChatOpenAI(**(connected | options)), post, client)


def crew_llm(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> LLM:
    """Return an `LLM` of CrewAI's, connected; CrewAI is imported silent (`agentlab.lab.crews`).

    It takes what `chat_model` takes, and anything else that `crewai.LLM` does. An `Agent` retries
    by itself, too: give it `max_retry_limit=0`. And whatever `max_retries` says, CrewAI's LLM sends
    what a 429 refuses three times, a used-up quota included (crewai 1.15).

    Raises:
        ConfigError: In virtual time, where CrewAI's client cannot be, or if `agent` is not a text.

    Example:
        from crewai import Agent

        writer = Agent(role="Writer", goal="...", backstory="...", llm=lab.crew_llm(agent="writer"))
    """
    if is_virtual():
        raise ConfigError(
            "crewai.LLM sends through a client of its own, so it takes no virtual "
            "time; use it in real time"
        )
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
    headers = _named(agent) | (options.pop("default_headers", None) or {})
    there = connection()
    return {
        "model": there.model,
        "base_url": there.url,
        "api_key": there.key,
        "default_headers": headers,
        "max_retries": max_retries,
    }


def _named(agent: str) -> dict[str, str]:
    if not isinstance(agent, str):
        raise ConfigError(
            f'agent={agent!r} is no name; give a text such as "writer", or leave it out'
        )
    # A header carries ASCII only; the endpoint unquotes names in any language.
    return {"x-agent": quote(agent, safe=" !#$&'()*+,/:;=?@[]")}


@cache
def _clients() -> tuple[httpx.AsyncClient, httpx.Client]:
    """Make the clients that other clients send through, once: each event loop has its session."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy

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
