"""The lab: where the model is, and how to ask it.

The endpoint is started by the first use and ends with this process. With `OPENAI_BASE_URL` or
`OPENAI_API_KEY` set it forwards to that model; inside `run_virtual` the local model answers in
any case. Nothing here reads the real key or changes the environment.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from agentlab import settings
from agentlab.clock import is_virtual, run_virtual
from agentlab.endpoint import faults, presets
from agentlab.endpoint.process import EndpointProcess
from agentlab.endpoint.serve import allow_many_connections
from agentlab.errors import ConfigError, ModelError
from agentlab.settings import Settings
from agentlab.trace import Trace, attach, trace
from agentlab.transport import BlockingTransport, LabTransport
from agentlab.wire import Answer

if TYPE_CHECKING:
    from crewai import LLM
    from langchain_openai import ChatOpenAI

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

_lock = threading.RLock()
_chosen: Settings | None = None
_shared: Address | None = None
_endpoint: EndpointProcess | None = None


class Configured:
    """What `configure` returns: leaving its `with` block restores the settings before it."""

    def __init__(self, before: Settings | None):
        self._before = before

    def __enter__(self) -> None:
        return

    def __exit__(self, *problem: object) -> None:
        _use(self._before)

    def __repr__(self) -> str:
        return where()


def configure(**changes: Any) -> Configured:
    """From now on, or in a `with` block, use the environment's settings with these `changes`.

    An endpoint that runs is stopped; the next question starts one. Virtual runs follow, too.

    Args:
        changes: Any field of `agentlab.settings.Settings`: `preset`, `time_scale`, `seed`,
            `requests_per_minute`, `tokens_per_minute`, `capacity`, `faults`, `record`, `replay`,
            `upstream` (None for the local model), `model`.

    Raises:
        ConfigError: If a setting cannot work; everything stays as it was.

    Example:
        lab.configure(preset="laptop-ollama", time_scale=50)
        with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.1}]):
            await lab.ask("Name three rivers.")
    """
    before, chosen = _chosen, settings.from_environment(**changes)
    presets.load(chosen.preset)
    faults.load(chosen.faults)
    _use(chosen)
    return Configured(before)


def _use(chosen: Settings | None) -> None:
    global _chosen, _shared
    with _lock:
        stop()
        _shared = None
        _chosen = chosen


def stop() -> None:
    """End the endpoint; the next question starts one. Does nothing where none runs."""
    global _endpoint
    with _lock:
        if _endpoint is not None:
            _endpoint.stop()
        _endpoint = None


atexit.register(stop)


class Address(NamedTuple):
    """Where an endpoint is, and how fast its time runs: what another process needs to share it."""

    url: str
    key: str
    time_scale: float
    model: str


def address() -> Address | None:
    """Of the endpoint that runs here; None where a real model answers, which all can ask."""
    chosen = _settings()
    if chosen.real:
        return None
    return Address(base_url(), api_key(), chosen.time_scale, chosen.model)


def connect(shared: Address) -> None:
    """Ask an endpoint that another process of this machine runs, from now on."""
    global _shared
    if shared != _shared:
        _use(settings.from_environment(upstream=None, time_scale=shared.time_scale))
        _shared = shared


def base_url() -> str:
    """The endpoint's address, ending in `/v1`, for any OpenAI-compatible client."""
    return _shared.url if _shared else _running().url


def api_key() -> str:
    """The lab's own key for the endpoint; it opens nothing else."""
    return _shared.key if _shared else _running().key


def where() -> str:
    """Which model answers, in one line.

    Example:
        >>> where()  # doctest: +SKIP
        'the local model, preset course; 10 model seconds pass in one second'
    """
    chosen = _settings()
    if chosen.replay is not None:
        return (
            f"the recording {chosen.replay}; {chosen.time_scale:g} model seconds pass in one second"
        )
    if chosen.upstream is not None:
        return f"{chosen.model} at {chosen.upstream}, through the lab's endpoint"
    return (
        f"the local model, preset {chosen.preset}; "
        f"{chosen.time_scale:g} model seconds pass in one second"
    )


class Reply(NamedTuple):
    """An answer, and what the endpoint counted for it."""

    text: str
    prompt_tokens: int
    completion_tokens: int


async def ask(prompt: str, *, agent: str = "agent", **options: Any) -> str:
    """Ask the model one thing, once; returns its answer. There are no retries.

    Takes what `reply` takes, and raises what it raises.

    Example:
        await lab.ask("Name three rivers.", agent="geographer")
    """
    return (await reply(prompt, agent=agent, **options)).text


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

    Args:
        agent: The name under which the trace shows the call.
        system: What the model is told to be.
        max_tokens: The most tokens the answer may have; it is cut there.
        timeout_s: How long to wait for the answer, in model seconds.

    Raises:
        ModelError: If the model answers with an error, or with something that is no answer.
        TimeoutError: If the whole answer takes longer than `timeout_s`.
        EndpointError: If the connection breaks off.

    Example:
        (await lab.reply("Name three rivers.")).completion_tokens
    """
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    asked = {
        "model": _settings().model,
        "messages": messages,
        "max_completion_tokens": max_tokens,
        "temperature": temperature,
    }
    url, key = _address()
    try:
        async with timeout(timeout_s):
            answer = await _transport.post(
                f"{url}/chat/completions",
                msgspec.json.encode({k: v for k, v in asked.items() if v is not None}),
                {"authorization": f"Bearer {key}", **_named(agent)},
            )
    except TimeoutError:
        raise TimeoutError(f"no answer to {agent!r} within {timeout_s:g} model seconds") from None
    return _reply_of(answer)


def now_s() -> float:
    """The running event loop's time, in model seconds."""
    return asyncio.get_running_loop().time() * model_seconds_a_second()


async def sleep(seconds: float) -> None:
    """Wait for so many model seconds."""
    await asyncio.sleep(seconds / model_seconds_a_second())


def timeout(seconds: float | None) -> asyncio.Timeout:
    """`asyncio.timeout` in model seconds: the whole block must end by then, whatever it awaits."""
    return asyncio.timeout(seconds and seconds / model_seconds_a_second())


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long an answer's headers ask to wait, in model seconds; None if they do not say.

    Its `retry-after-ms`, or else `retry-after` in seconds, counted on the client's own clock.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s * model_seconds_a_second()
        except (KeyError, ValueError):  # absent, or a date, which no endpoint of this kind sends
            continue
    return None


def simulate(
    program: Coroutine[Any, Any, T], *, catch: type[E] | tuple[()] = ()
) -> tuple[T | E, Trace]:
    """Run a program of agents in virtual time; return its result, and what the endpoint saw.

    Args:
        catch: A kind of error that is returned in place of the result; any other is raised.

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
    """LangChain's own `ChatOpenAI`, connected to the endpoint.

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself. Not at all, unless
            told: retries have one owner, and that is you.
        options: Anything else that `ChatOpenAI` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Example:
        answer = await lab.chat_model(agent="writer").ainvoke("Name three rivers.")
        answer.content
    """
    from langchain_openai import ChatOpenAI  # takes a second or two, so only where it is used

    from agentlab.completions import shorten

    url, key = _address()
    connected: dict[str, Any] = {
        "model": _settings().model,
        "base_url": url,
        "api_key": key,
        "default_headers": _named(agent),
        "http_async_client": _client,
        "http_client": _blocking_client,
        "stream_usage": True,  # else a custom base_url gets no token counts in streams
        "max_retries": max_retries,
    }
    return shorten(ChatOpenAI(**(connected | options)), _transport.post)


def crew_llm(*, agent: str = "agent", max_retries: int = 0, **options: Any) -> LLM:
    """CrewAI's own `LLM`, connected to the endpoint; CrewAI is imported silent (`agentlab.crews`).

    An `Agent` retries by itself, too: give it `max_retry_limit=0`.

    Args:
        agent: The name under which the trace shows its calls.
        max_retries: How often the client repeats a failed call by itself.
        options: Anything else that `crewai.LLM` takes, such as `temperature`, or `timeout` (in
            model seconds).

    Raises:
        ConfigError: Inside `run_virtual`, where CrewAI's own client cannot be.

    Example:
        from crewai import Agent

        writer = Agent(role="Writer", goal="...", backstory="...", llm=lab.crew_llm(agent="writer"))
    """
    if is_virtual():
        raise ConfigError(
            "crewai.LLM sends through a client of its own, so it takes no virtual "
            "time; use it outside run_virtual"
        )
    from openai import AsyncOpenAI

    from agentlab import crews  # takes some five seconds, so only where it is used

    if options.get("timeout") is not None:
        options["timeout"] /= model_seconds_a_second()
    connected: dict[str, Any] = {
        "model": _settings().model,
        "provider": "openai",  # else the model's name decides which client is used
        "base_url": base_url(),
        "api_key": api_key(),
        "default_headers": _named(agent),
        "max_retries": max_retries,
    }
    llm = crews.LLM(**(connected | options))
    native: Any = llm  # of the subclass that the provider chose
    # `acall` then sends as everything here does; its own client would leave its connections to
    # whichever event loop is running when it is thrown away.
    native._async_client = AsyncOpenAI(**native._get_client_params(), http_client=_client)
    return llm


def _running() -> EndpointProcess:
    global _endpoint
    with _lock:
        if _endpoint is None or not _endpoint.alive:
            stop()
            allow_many_connections()
            _endpoint = EndpointProcess(_settings())
            attach(_endpoint)
        return _endpoint


def _settings() -> Settings:
    return _chosen or settings.from_environment()


def model_seconds_a_second() -> float:
    """How fast the model's time runs here: 1 in virtual time and with a real model.

    Where another lab's endpoint answers, such as a classroom's, it is that one's.
    """
    if is_virtual():
        return 1.0
    chosen = _settings()
    return _running().time_scale if chosen.real else chosen.time_scale


def _address() -> tuple[str, str]:
    if is_virtual():  # the transport leads to the model inside the loop, whatever the address
        return "http://127.0.0.1/v1", "virtual"
    return base_url(), api_key()


def _named(agent: str) -> dict[str, str]:
    # A header carries ASCII only; the endpoint unquotes names in any language.
    return {"x-agent": quote(agent, safe=" !#$&'()*+,/:;=?@[]")}


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None  # not every endpoint counts


class _Problem(msgspec.Struct):
    message: str
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Problem


def _reply_of(answer: Answer) -> Reply:
    try:
        if answer.status == 200:
            completion = msgspec.json.decode(answer.content, type=_Completion)
            used = completion.usage or _Usage()
            text = completion.choices[0].message.content
            return Reply(text, used.prompt_tokens, used.completion_tokens)
        problem = msgspec.json.decode(answer.content, type=_Refusal).error
    except (msgspec.DecodeError, IndexError):
        start = answer.content[:80].decode(errors="replace")
        problem = _Problem(f"it answered with what is no chat completion: {start!r}")
    raise ModelError(
        f"the model answered {answer.status}: {problem.message}",
        status=answer.status,
        code=problem.code,
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=retry_after_s(answer.headers),
    )


_transport = LabTransport(_settings, model_seconds_a_second)
_client = httpx.AsyncClient(transport=_transport, trust_env=False, timeout=None)
_blocking_client = httpx.Client(
    transport=BlockingTransport(model_seconds_a_second), trust_env=False, timeout=None
)
