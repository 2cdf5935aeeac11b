"""The lab with real clients over real HTTP: openai, ChatOpenAI, and its own ask()."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import openai
import pytest

from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, DeadlockError, ModelError
from agentlab.settings import DATA
from agentlab.trace import trace

HELLO = "Say hello and tell me in one sentence what you are."


async def ask_three(lab: ModuleType) -> list[str]:
    return await asyncio.gather(*(lab.ask(HELLO, agent=name) for name in "abc"))


def test_the_endpoint_counts_three_in_flight_and_exact_work(fresh_lab: ModuleType):
    """In real time: peak 3 for three at once, 12 model seconds of work, to the digit."""
    fresh_lab.configure(time_scale=1)  # so slow that no machine sends the third after the first
    with trace() as t:
        asyncio.run(ask_three(fresh_lab))
    assert (t.requests, t.peak, t.work_s) == (3, 3, 12.0)
    assert sorted(span.agent for span in t.spans) == ["a", "b", "c"]


def test_one_after_the_other_is_never_two_in_flight(fresh_lab: ModuleType):
    """In real time: peak 1."""

    async def main() -> None:
        for name in "abc":
            await fresh_lab.ask(HELLO, agent=name, max_tokens=2)

    with trace() as t:
        asyncio.run(main())
    assert (t.requests, t.peak) == (3, 1)


def test_openais_own_client_is_served(fresh_lab: ModuleType):
    """openai.OpenAI, plain and streamed with usage: the same text, and its token counts."""
    client = openai.OpenAI(base_url=fresh_lab.base_url(), api_key=fresh_lab.api_key())
    messages = [{"role": "user", "content": HELLO}]
    with client:
        whole = client.chat.completions.create(model="any", messages=messages)
        stream = client.chat.completions.create(
            model="any", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        models = [model.id for model in client.models.list()]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert models == ["local"]


def test_openais_own_client_raises_its_own_errors(fresh_lab: ModuleType):
    """A bad parameter is a BadRequestError that names it, with the request id."""
    client = openai.OpenAI(base_url=fresh_lab.base_url(), api_key="any", max_retries=0)
    with client, pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "x"}], max_tokens=0
        )
    assert error.value.param == "max_tokens"
    assert error.value.request_id is not None


def test_chat_openai_invokes_and_streams(fresh_lab: ModuleType):
    """invoke, ainvoke and astream give the same text; the last carries the token counts."""
    model = fresh_lab.chat_model(agent="chat")

    async def streamed() -> tuple[str, int]:
        text, tokens = "", 0
        async for chunk in model.astream(HELLO):
            text += chunk.content
            tokens += (chunk.usage_metadata or {}).get("output_tokens", 0)
        return text, tokens

    whole = model.invoke(HELLO)
    assert whole.usage_metadata["output_tokens"] == 31
    assert asyncio.run(streamed()) == (whole.content, 31)
    assert asyncio.run(model.ainvoke(HELLO)).content == whole.content


def test_one_model_serves_several_event_loops_without_duplicates(fresh_lab: ModuleType):
    """Four asyncio.run calls with one ChatOpenAI make four requests, not seven or eight."""
    model = fresh_lab.chat_model(max_tokens=1)
    with trace() as t:
        for _ in range(4):
            asyncio.run(model.ainvoke("x"))
    assert t.requests == 4


@pytest.fixture
def no_queue(tmp_path: Path) -> str:
    """The course preset with one slot and no queue: a second request at once gets 503."""
    path = tmp_path / "no-queue.yaml"
    places = "{{value: {}, basis: chosen, source: for this test}}"
    limits = f"slots: {places.format(1)}\nqueue: {places.format(0)}\n"
    path.write_text((DATA / "endpoints/course.yaml").read_text() + limits)
    return str(path)


@pytest.mark.parametrize(("max_retries", "requests"), [(0, 2), (1, 3)])
def test_chat_openai_retries_only_when_told(
    fresh_lab: ModuleType, no_queue: str, max_retries: int, requests: int
):
    """Two at once where one is refused: two requests by default, three with one retry."""
    fresh_lab.configure(preset=no_queue)
    model = fresh_lab.chat_model(max_retries=max_retries)

    async def two_at_once() -> list[object]:
        calls = (model.ainvoke(HELLO) for _ in range(2))
        return await asyncio.gather(*calls, return_exceptions=True)

    with trace() as t:
        results = run_virtual(two_at_once()).result
    assert t.requests == requests
    assert any(isinstance(result, openai.InternalServerError) for result in results)


def test_ask_names_the_models_error(fresh_lab: ModuleType):
    """Status, code and request id are attributes, and the message says what is wrong."""
    with pytest.raises(ModelError, match="max_completion_tokens") as error:
        run_virtual(fresh_lab.ask(HELLO, max_tokens=0))
    assert (error.value.status, error.value.code) == (400, "integer_below_min_value")
    assert error.value.request_id == "req_000001"


def test_ask_keeps_its_deadline_in_model_seconds(fresh_lab: ModuleType):
    """An answer of 4 s is given up after 2, in virtual time and over HTTP alike."""
    with pytest.raises(TimeoutError, match="within 2 model seconds"):
        run_virtual(fresh_lab.ask(HELLO, timeout_s=2))
    with pytest.raises(TimeoutError, match="within 2 model seconds"):
        asyncio.run(fresh_lab.ask(HELLO, timeout_s=2))


def test_a_chat_models_timeout_is_in_model_seconds(fresh_lab: ModuleType):
    """At ten to one a stall of 100 takes 10 s: 20 cut it off, and 1,000 let a whole answer pass."""
    slow = {"kind": "stall", "agent": "slow", "stall_s": 100, "probability": 1.0}
    fresh_lab.configure(time_scale=10, faults=[slow])
    model = fresh_lab.chat_model(timeout=1000)
    assert asyncio.run(model.ainvoke(HELLO)).content.startswith("Hello")
    with pytest.raises(openai.APITimeoutError):
        asyncio.run(fresh_lab.chat_model(agent="slow", timeout=20).ainvoke(HELLO))


def test_a_blocking_call_in_virtual_time_is_refused(fresh_lab: ModuleType):
    """It would take no virtual time and so tell a wrong figure; the cause says what to do."""
    model = fresh_lab.chat_model()

    async def main() -> None:
        model.invoke(HELLO)

    # openai 2 wraps what its transport raises; openai 3 lets it pass.
    with pytest.raises((openai.APIConnectionError, ConfigError)) as error:
        run_virtual(main())
    causes: list[BaseException | None] = [error.value]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert any(isinstance(cause, ConfigError) and "ainvoke" in str(cause) for cause in causes)
    assert "use ainvoke" in "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])


def test_virtual_time_follows_the_configuration(fresh_lab: ModuleType):
    """Another preset takes another time, without any endpoint being started."""
    fresh_lab.configure(preset="instant")
    assert run_virtual(fresh_lab.ask(HELLO)).elapsed_s == 0.0


def imported(code: str) -> set[str]:
    """Which modules a fresh interpreter has after this code."""
    code += "\nimport sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


FRAMEWORKS = {"agents", "crewai", "langchain_openai", "langgraph", "matplotlib", "openai"}
FRAMEWORKS |= {"pydantic_ai"}
_SERVER_FILES = ("serve", "app", "_forward", "local_model")
SERVER = ("uvicorn", *(f"agentlab.endpoint.server.{file}" for file in _SERVER_FILES))


def test_nothing_is_imported_that_takes_long():
    """`import agentlab` imports no framework, no plots, and not even the lab."""
    assert not imported("import agentlab") & {*FRAMEWORKS, "agentlab.lab"}


def test_the_lab_imports_no_framework_and_no_server():
    """`from agentlab import lab` takes few files, and what a kernel that asks can use."""
    modules = imported("from agentlab import lab")
    assert not modules & (FRAMEWORKS | {"aiohttp"})
    assert [name for name in modules if name.startswith(SERVER)] == []
    assert len([name for name in modules if name.startswith("agentlab")]) <= 30


def test_a_kernel_that_asks_imports_no_server():
    """A question in real time, its trace, and which model answered: the endpoint is elsewhere."""
    asks = (
        "import asyncio; from agentlab import lab; from agentlab.trace import trace\n"
        "with trace() as t: asyncio.run(lab.ask('Hello.', max_tokens=1))\n"
        "assert t.requests == 1 and lab.where()"
    )
    assert [name for name in imported(asks) if name.startswith(SERVER)] == []


def test_simulate_returns_result_and_trace(fresh_lab):
    """One line runs a program in virtual time, and gives its result and what was seen of it."""
    answer, t = fresh_lab.simulate(fresh_lab.ask("Describe tides.", agent="one", max_tokens=11))
    assert isinstance(answer, str)
    assert (t.makespan_s, t.seconds) == (2.0, {"one": 2.0})


def test_simulate_catches_what_it_is_told_to(fresh_lab):
    """The error comes in place of the result; one of another kind is raised."""
    with fresh_lab.configure(faults=[{"kind": "error", "status": 503, "probability": 1.0}]):
        error, t = fresh_lab.simulate(fresh_lab.ask("Hello."), catch=ModelError)
        assert (error.status, t.requests) == (503, 1)
        with pytest.raises(ModelError):
            fresh_lab.simulate(fresh_lab.ask("Hello."), catch=TimeoutError)


def test_simulate_says_who_waits_for_ever(fresh_lab: ModuleType):
    """A program in which nothing can happen any more is an error, not a kernel that hangs."""
    with pytest.raises(DeadlockError, match="nothing can ever happen"):
        fresh_lab.simulate(asyncio.Event().wait())


def test_simulate_speaks_of_what_it_was_given(fresh_lab: ModuleType):
    """A function that was not called: the message names it, and no function but that one."""
    with pytest.raises(ConfigError, match=r"runs a coroutine, .*; got <function ask") as error:
        fresh_lab.simulate(fresh_lab.ask)
    assert "run_virtual" not in str(error.value)


def test_ask_and_reply_take_the_same(fresh_lab: ModuleType):
    """Each writes its parameters out, with the same defaults, so that Shift-Tab shows them.

    What a text cannot carry, tools and the turns with them, only `reply` takes, and streams.
    """
    taken = [dict(inspect.signature(way).parameters) for way in (fresh_lab.ask, fresh_lab.reply)]
    more = [taken[1].pop(name).default for name in ("tools", "turns", "stream")]
    assert more == [None, (), False]
    assert taken[0] == taken[1]
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in taken[0].values())


def test_a_misspelt_option_is_said_of_the_function_that_was_called(fresh_lab: ModuleType):
    """ask() is what the learner wrote."""
    with pytest.raises(TypeError, match=r"^ask\(\) got an unexpected .*'max_token'"):
        fresh_lab.ask(HELLO, max_token=3)


def test_ask_passes_on_all_that_it_takes(fresh_lab: ModuleType):
    """System prompt, length and agent reach the endpoint."""
    with trace() as plain:
        fresh_lab.simulate(fresh_lab.ask(HELLO))
    with trace() as t:
        asking = fresh_lab.ask(HELLO, agent="a", system="Be brief.", max_tokens=3, temperature=0)
        fresh_lab.simulate(asking)
    (span,) = t.spans
    assert (span.agent, span.completion_tokens) == ("a", 3)
    assert span.prompt_tokens > plain.spans[0].prompt_tokens


@pytest.mark.parametrize("by", ["ask", "chat_model", "crew_llm"])
def test_an_agent_without_a_name_is_told_the_way_out(fresh_lab: ModuleType, by: str):
    """Whoever asks: None is no name, and the error says what to give."""

    async def main() -> None:
        asked = (HELLO,) if by == "ask" else ()
        made = getattr(fresh_lab, by)(*asked, agent=None)
        await made

    with pytest.raises(ConfigError, match="agent=None is no name; give a text"):
        asyncio.run(main())


def test_all_that_the_lab_offers_is_there(fresh_lab: ModuleType):
    """`lab.x` of every name that it lists, whichever file holds it."""
    assert [name for name in fresh_lab.__all__ if not hasattr(fresh_lab, name)] == []
