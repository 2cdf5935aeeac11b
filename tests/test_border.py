"""The border to a real model: every door, in front of an upstream that misbehaves in every way.

A door is a way in which somebody asks: `lab.ask`, LangChain's and CrewAI's clients, a guard, the
engines, the commands, a class. A mode is one thing that endpoints do in the field; `awkward.MODES`
has who does it. The tables below say what each pair must do. Everything is real: the doors, the
forwarder in its process, HTTP, and a key that is checked.

The words of a table:

    answer       a whole answer came
    shown        the client's own message came, and shows that it is not whole: by its
                 finish_reason, or because it has no text
    NAME         an error of that class, or of one derived from it
    xN           it took N requests at the upstream; otherwise one
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import awkward
import httpx
import pytest
from awkward import KEY, MODEL, Upstream
from classroom_process import Class
from matplotlib.figure import Figure
from pydantic import BaseModel

from agentlab import engines, lab
from agentlab.bench import plots
from agentlab.commands import main as cli
from agentlab.errors import ModelError, StepError
from agentlab.resilience import Guard, Retry
from agentlab.trace import Trace, trace
from agentlab.workflow import Step, Workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import doctor

QUESTION = "Name three rivers."
PATIENCE_S = 60.0
SHORT_S = 2.0
"""How long a door waits for an upstream that stalls; for any other it has time."""

# --- The tables ---

# `chat` is ainvoke, invoke and tools, which must agree; `engines` are those that need no process,
# whose StepError carries it. What LangChain, openai's client and CrewAI make of an answer that is
# none is theirs: the table says what that is, and that a guard around them makes sense of it.
CALLS = """
mode              | ask, streamed, engines | chat                 | astream              | structured           | guard                | guarded_chat
kind              | answer               | answer               | answer               | answer               | answer               | answer
nousage           | answer               | answer               | answer               | answer               | answer               | answer
null_usage        | answer               | answer               | answer               | answer               | answer               | answer
no_finish         | answer               | answer               | answer               | answer               | answer               | answer
parts             | answer               | answer               | answer               | ValidationError      | answer               | answer
reasoning_first   | answer               | answer               | answer               | answer               | answer               | answer
tiny_budget       | answer               | answer               | answer               | answer               | answer               | answer
two_at_a_time     | answer               | answer               | answer               | answer               | answer               | answer
keepalive         | answer               | answer               | answer               | answer               | answer               | answer
empty_chunks      | answer               | answer               | answer               | answer               | answer               | answer
leading_newlines  | answer               | answer               | answer               | answer               | answer               | answer
crlf              | answer               | answer               | answer               | answer               | answer               | answer
no_done           | answer               | answer               | answer               | answer               | answer               | answer
ignores_temperature | answer             | answer               | answer               | answer               | answer               | answer
echo_key_header   | answer               | answer               | answer               | answer               | answer               | answer
length            | AnswerTruncated      | shown                | shown                | LengthFinishReasonError | AnswerTruncated   | shown
filtered          | AnswerFiltered       | shown                | shown                | ContentFilterFinishReasonError | AnswerFiltered | shown
filtered_whole    | AnswerFiltered       | shown                | shown                | ContentFilterFinishReasonError | AnswerFiltered | shown
empty             | AnswerEmpty          | shown                | shown                | ValueError           | RetriesExhausted x3            | shown
blank             | AnswerEmpty          | shown                | shown                | ValueError           | RetriesExhausted x3            | shown
null_content      | AnswerEmpty          | shown                | shown                | ValueError           | RetriesExhausted x3            | shown
reasoning_only    | ReasoningExhausted   | shown                | shown                | LengthFinishReasonError | ReasoningExhausted | shown
reasoning_hidden  | ReasoningExhausted   | shown                | shown                | LengthFinishReasonError | ReasoningExhausted | shown
refusal           | AnswerRefused        | shown                | shown                | OpenAIRefusalError   | AnswerRefused        | shown
error_in_200      | ModelError           | ValueError           | APIError             | TypeError            | RetriesExhausted x3            | RetriesExhausted x3
quota_in_200      | ModelError           | ValueError           | APIError             | TypeError            | ModelError           | ValueError
no_choices        | ModelError           | IndexError           | shown                | IndexError           | RetriesExhausted x3            | RetriesExhausted x3
not_utf8          | ModelError           | ValueError           | ValueError           | ValueError           | RetriesExhausted x3            | RetriesExhausted x3
html_200          | ModelError           | ValueError           | ValueError           | AttributeError       | RetriesExhausted x3            | RetriesExhausted x3
empty_body        | ModelError           | ValueError           | ValueError           | ValueError           | RetriesExhausted x3            | RetriesExhausted x3
cut               | EndpointError        | APIConnectionError   | RemoteProtocolError  | APIConnectionError   | RetriesExhausted x3            | RetriesExhausted x3
stall             | TimeoutError         | APITimeoutError      | APITimeoutError      | APITimeoutError      | RetriesExhausted x3            | RetriesExhausted x3
stall_midway      | TimeoutError         | APITimeoutError      | ReadTimeout          | APITimeoutError      | RetriesExhausted x3            | RetriesExhausted x3
server_error      | ModelError           | InternalServerError  | InternalServerError  | InternalServerError  | RetriesExhausted x3            | RetriesExhausted x3
bad_gateway       | ModelError           | InternalServerError  | InternalServerError  | InternalServerError  | RetriesExhausted x3            | RetriesExhausted x3
overloaded        | ModelError           | InternalServerError  | InternalServerError  | InternalServerError  | RetriesExhausted x3            | RetriesExhausted x3
overloaded_529    | ModelError           | InternalServerError  | InternalServerError  | InternalServerError  | RetriesExhausted x3            | RetriesExhausted x3
no_v1             | ModelError           | NotFoundError        | NotFoundError        | NotFoundError        | ModelError           | NotFoundError
no_model          | ModelError           | NotFoundError        | NotFoundError        | NotFoundError        | ModelError           | NotFoundError
bad_key           | ModelError           | AuthenticationError  | AuthenticationError  | AuthenticationError  | ModelError           | AuthenticationError
forbidden         | ModelError           | PermissionDeniedError | PermissionDeniedError | PermissionDeniedError | ModelError         | PermissionDeniedError
error_list        | ModelError           | BadRequestError      | BadRequestError      | BadRequestError      | ModelError           | BadRequestError
context_length    | ModelError           | BadRequestError      | BadRequestError      | BadRequestError      | ModelError           | BadRequestError
echo_key          | ModelError           | AuthenticationError  | AuthenticationError  | AuthenticationError  | ModelError           | AuthenticationError
echo_key_page     | ModelError           | InternalServerError  | InternalServerError  | InternalServerError  | RetriesExhausted x3            | RetriesExhausted x3
too_large         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
quota             | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
quota_type        | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
quota_code        | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
quota_moonshot    | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
quota_prose       | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
day_over          | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | ModelError           | RateLimitError
rate_day          | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | RetriesExhausted               | RetriesExhausted
rate_hour         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | RetriesExhausted               | RetriesExhausted
rate_date         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | RetriesExhausted               | RetriesExhausted
rate_tokens       | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_requests     | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_groq         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_gemini       | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_organisation | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_no_header    | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_date_past    | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_negative     | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_nan          | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_inf          | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_text         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
rate_page         | ModelError           | RateLimitError       | RateLimitError       | RateLimitError       | answer x2            | answer x2
"""  # noqa: E501

# These doors take seconds, so they meet the modes in which they may differ from others; "-" is not
# driven. CrewAI's LLM repeats by itself what a 429 refuses, three times in all (lesson 03b), and
# hands on text that was cut. A class breaks off what broke off before it, so no answer has begun.
SLOW_CALLS = """
mode             | crew                | engine_crewai      | engine_dask     | class
kind             | answer              | answer             | answer          | answer
leading_newlines | answer              | answer             | -               | answer
length           | answer              | AnswerTruncated    | AnswerTruncated | AnswerTruncated
empty            | shown               | AnswerEmpty        | -               | AnswerEmpty
reasoning_only   | shown               | ReasoningExhausted | -               | ReasoningExhausted
error_in_200     | InternalServerError | ModelError         | -               | ModelError
not_utf8         | ValueError          | ModelError         | -               | ModelError
cut              | ConnectionError     | EndpointError      | EndpointError   | ModelError
no_model         | ValueError          | ModelError         | -               | ModelError
bad_key          | AuthenticationError | ModelError         | -               | ModelError
echo_key         | AuthenticationError | ModelError         | ModelError      | ModelError
quota_type       | RateLimitError x3   | ModelError         | ModelError      | ModelError
"""

# What a refused parameter makes of a request that has both, by the number of requests that the
# first door's takes; every later door's takes one, and every door gets its answer.
PARAMETERS = {
    "notemp": (2, {"temperature"}),
    "notemp_prose": (2, {"temperature"}),
    "strict": (2, {"max_completion_tokens"}),
    "max_tokens_only": (2, {"max_completion_tokens"}),
    "strict_notemp": (3, {"max_completion_tokens", "temperature"}),
}

# "done" has exit code 0 and a file for each topic; the others have exit code 1 and no file.
# "stopped" is what every topic would meet: one question is asked, and a short one where that is in
# doubt, each with its own repeats; no topic is blamed. "undone" may be the topic's own fault.
WRITE = """
mode              | outcome | words
kind              | done    | 2 done
parts             | done    | 2 done
nousage           | done    | 2 done
leading_newlines  | done    | 2 done
ignores_limit     | done    | 2 done
notemp            | done    | 2 done
strict            | done    | 2 done
rate_no_header    | done    | 2 done
empty             | stopped | no text
filtered_whole    | undone  | filter
reasoning_only    | stopped | max_tokens
refusal           | undone  | refused
error_list        | stopped | API key not valid
no_model          | stopped | does not exist
no_v1             | stopped | OPENAI_BASE_URL
bad_key           | stopped | 401
forbidden         | stopped | 403
quota_in_200      | stopped | Insufficient credits
quota_type        | stopped | 429
quota_prose       | stopped | balance is too low
day_over          | stopped | per-day
too_large         | stopped | too large
echo_key          | stopped | 401
"""
WHOLE_NO_MORE = ("length", "filtered", "filtered_whole", "empty", "reasoning_only", "refusal")

# "measured": exit code 0, and nothing in the report says what is true of the local model only.
BENCH = """
mode              | outcome  | words
kind              | measured | tokens
nousage           | measured |
ignores_limit     | measured | did not keep
strict_notemp     | measured | temperature
empty             | stopped  | no text
reasoning_only    | stopped  | max_tokens
no_model          | stopped  | does not exist
bad_key           | stopped  | 401
quota_type        | stopped  | 429
echo_key          | stopped  | 401
"""

# A word of the verdict, and one of the cure.
DOCTOR = """
mode              | verdict | words
kind              | OK      | answers
parts             | OK      | answers
nousage           | OK      | answers
leading_newlines  | OK      | answers
tiny_budget       | OK      | answers
bad_key           | FAIL    | OPENAI_API_KEY
echo_key          | FAIL    | OPENAI_API_KEY
forbidden         | FAIL    | access|country|project
no_model          | FAIL    | OPENAI_MODEL
no_v1             | FAIL    | OPENAI_BASE_URL.*/v1
strict            | OK      | 1 token asked
max_tokens_only   | OK      | 1 token asked
quota             | FAIL    | credit
quota_type        | FAIL    | credit
quota_code        | FAIL    | credit
quota_prose       | FAIL    | credit
quota_moonshot    | FAIL    | credit
rate_no_header    | WARN    | wait
rate_gemini       | WARN    | wait
server_error      | FAIL    | 500
echo_key_page     | FAIL    | 500
html_200          | FAIL    | OPENAI_BASE_URL
"""

# --- The doors ---


class River(BaseModel):
    name: str
    length_km: int


def get_tides(place: str) -> str:
    """Get the tides of a place."""
    return f"high at {place}"


Door = Callable[..., Awaitable[Any]]
FINISH = {"length", "content_filter"}


async def ask(patience_s: float, **asked: Any) -> Any:
    return await lab.ask(QUESTION, timeout_s=patience_s, **asked)


async def ainvoke(patience_s: float, **asked: Any) -> Any:
    return await lab.chat_model(timeout=patience_s, **asked).ainvoke(QUESTION)


async def streamed(patience_s: float, **asked: Any) -> Any:
    return (await lab.reply(QUESTION, timeout_s=patience_s, stream=True, **asked)).text


async def invoke(patience_s: float, **asked: Any) -> Any:
    model = lab.chat_model(timeout=patience_s, **asked)
    return await asyncio.to_thread(model.invoke, QUESTION)


async def tools(patience_s: float, **asked: Any) -> Any:
    model = lab.chat_model(timeout=patience_s, **asked).bind_tools([get_tides])
    return await model.ainvoke("Get the tides of Busan.")


async def astream(patience_s: float, **asked: Any) -> Any:
    model = lab.chat_model(timeout=patience_s, **asked)
    first, *rest = [piece async for piece in model.astream(QUESTION)]
    return sum(rest, first)


async def structured(patience_s: float, **asked: Any) -> Any:
    model = lab.chat_model(timeout=patience_s, **asked)
    return await model.with_structured_output(River).ainvoke(QUESTION)


def guard_for(patience_s: float) -> Guard:
    retry = Retry(attempts=3, first_s=0.01, most_s=0.01)
    return Guard(retry=retry, attempt_timeout_s=patience_s, deadline_s=30)


async def guard(patience_s: float, **asked: Any) -> Any:
    return await guard_for(patience_s).ask(QUESTION, **asked)


async def guarded_chat(patience_s: float, **asked: Any) -> Any:
    model = lab.chat_model(timeout=patience_s, **asked)
    return await guard_for(patience_s).run(lambda: model.ainvoke(QUESTION))


async def crew(patience_s: float, **asked: Any) -> Any:
    return await lab.crew_llm(timeout=patience_s, **asked).acall(QUESTION)


async def an_engine(engine: str, patience_s: float, *, ask: Any = None, **asked: Any) -> Any:
    """One step; a StepError is what its step's error was."""
    workflow = Workflow([Step("rivers", QUESTION, **asked)])
    if engine != "dask":  # whose workers ask by themselves
        ask = partial(lab.ask, timeout_s=patience_s)
    try:
        return (await engines.run(workflow, engine=engine, ask=ask))["rivers"]
    except StepError as error:
        assert (error.step, error.results) == ("rivers", {})
        raise error.__cause__ or error from error


async def engine_dask(patience_s: float, **asked: Any) -> Any:
    from agentlab.engines.dask import Cluster

    async with Cluster(workers=1) as cluster:
        return await an_engine("dask", patience_s, ask=cluster.ask, **asked)


HERE = {e: partial(an_engine, e) for e in engines.ENGINES if e not in ("crewai", "dask")}
GROUPS: dict[str, dict[str, Door]] = {
    "ask": {"ask": ask},
    "streamed": {"streamed": streamed},
    "engines": HERE,
    "chat": {"ainvoke": ainvoke, "invoke": invoke, "tools": tools},
    "astream": {"astream": astream},
    "structured": {"structured": structured},
    "guard": {"guard": guard},
    "guarded_chat": {"guarded_chat": guarded_chat},
    "crew": {"crew": crew},
    "engine_crewai": {"engine_crewai": partial(an_engine, "crewai")},
    "engine_dask": {"engine_dask": engine_dask},
    "class": {"class": ask},
}
ONCE = {name for name in awkward.REFUSALS if name.startswith("rate_")}
"""Modes that end: the first request is refused, the next one is not."""


# --- What a pair does ---


class Outcome(NamedTuple):
    """What became of one call: the words of the table that are true of it, and all it said."""

    words: set[str]
    requests: int
    said: str
    trace: Trace


def through(door: Door, upstream: Upstream, mode: str, **asked: Any) -> Outcome:
    """One call through a door; every request must have shown the key, and nothing may say it."""
    patience_s = SHORT_S if "stall" in mode else PATIENCE_S
    upstream.use(mode, times=1 if mode in ONCE else None)
    with trace() as t:
        try:
            result = asyncio.run(asyncio.wait_for(door(patience_s, **asked), PATIENCE_S))
            words, said = _of_result(result), repr(result)
        except Exception as error:
            words = {kind.__name__ for kind in type(error).__mro__}
            said = "".join(traceback.format_exception(error)) + _response(error)
    assert {seen.key for seen in upstream.asked} == {KEY}
    said += repr(t.spans)
    return Outcome(words, len(upstream.asked), said, t)


def _of_result(result: Any) -> set[str]:
    reason = getattr(result, "response_metadata", {}).get("finish_reason")
    content = getattr(result, "content", result)
    empty = not str(content).strip() and not getattr(result, "tool_calls", None)
    return {"shown" if empty or reason in FINISH else "answer"}


def _response(error: BaseException) -> str:
    """What openai's errors carry along."""
    response = getattr(error, "response", None)
    return f"{response.text} {response.headers}" if isinstance(response, httpx.Response) else ""


def _table(text: str) -> dict[str, dict[str, str]]:
    """Mode -> column -> cell."""
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().split("\n")]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def _told(text: str) -> list[Any]:
    """Mode, outcome and words, one a line; the words may hold bars of their own."""
    rows = [[c.strip() for c in line.split("|", 2)] for line in text.strip().split("\n")[1:]]
    return [pytest.param(*row, id=row[0]) for row in rows]


def _marks(mode: str, door: str) -> list[pytest.MarkDecorator]:
    if door in ("crew", "engine_crewai", "engine_dask") or (mode, door) == ("parts", "structured"):
        return [pytest.mark.filterwarnings("ignore")]  # the libraries' own
    return []


def _cells(text: str) -> Iterator[Any]:
    for mode, row in _table(text).items():
        for columns, cell in row.items():
            if cell == "-":
                continue
            for name, door in (
                pair for column in columns.split(", ") for pair in GROUPS[column].items()
            ):
                values = (mode, name, door, cell)
                yield pytest.param(*values, id=f"{mode}-{name}", marks=_marks(mode, name))


def agrees(outcome: Outcome, cell: str) -> None:
    """The outcome is what the table says."""
    word, _, number = cell.partition(" x")
    assert word in outcome.words, outcome.said[-2000:]
    assert outcome.requests == int(number or 1), outcome.said[-2000:]


# --- The upstream, and a lab before it ---


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


@pytest.fixture
def short_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awkward, "LONGEST_STALL_S", 6 * SHORT_S)


@pytest.fixture(scope="module")
def forwarding(upstream: Upstream) -> Iterator[None]:
    """A lab whose endpoint stays up for all tests that take it in turn."""
    with pytest.MonkeyPatch.context() as patch:
        point_at(upstream, patch)
        lab.configure()
        lab.base_url()
        yield
    lab.configure()


def point_at(upstream: Upstream, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("OPENAI_BASE_URL", upstream.url)
    patch.setenv("OPENAI_API_KEY", upstream.key)
    patch.setenv("OPENAI_MODEL", MODEL)
    patch.delenv("AGENTLAB_LOCAL", raising=False)


@pytest.fixture
def fresh(upstream: Upstream, forwarding: None) -> Iterator[Upstream]:
    """The upstream behind an endpoint of the test's own, which has learned nothing yet."""
    lab.configure()
    yield upstream
    lab.configure()


# --- Calls ---


def test_the_tables_leave_no_mode_out():
    """Every mode is in a table."""
    of_parameters = {*PARAMETERS, "ignores_limit", "no_stream_options"}
    assert _table(CALLS).keys() | of_parameters == awkward.MODES.keys()


@pytest.mark.usefixtures("short_stalls", "forwarding")
@pytest.mark.parametrize(("mode", "name", "door", "cell"), list(_cells(CALLS)))
def test_calls(
    mode: str,
    name: str,
    door: Door,
    cell: str,
    upstream: Upstream,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    """Each pair does what the table says; the key is right on every request, and nowhere said."""
    outcome = through(door, upstream, mode)
    agrees(outcome, cell)
    assert KEY not in outcome.said + "".join(capfd.readouterr()) + caplog.text


@pytest.mark.usefixtures("short_stalls", "forwarding")
@pytest.mark.parametrize(
    ("mode", "name", "door", "cell"),
    [param for param in _cells(SLOW_CALLS) if param.values[1] != "class"],
)
def test_slow_calls(
    mode: str,
    name: str,
    door: Door,
    cell: str,
    upstream: Upstream,
    capfd: pytest.CaptureFixture[str],
):
    """The same of CrewAI and Dask, on the modes that are named for them."""
    outcome = through(door, upstream, mode)
    agrees(outcome, cell)
    assert KEY not in outcome.said + "".join(capfd.readouterr())


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize("mode", ["rate_day", "rate_hour", "rate_date"])
def test_a_wait_that_the_deadline_will_not_outlast_is_not_begun(mode: str, upstream: Upstream):
    """The error says how long the endpoint asks to wait, be it in prose, a header or a date."""
    outcome = through(guard, upstream, mode)
    waits = [int(n.replace(",", "")) for n in re.findall(r"asks to wait ([\d,]+)", outcome.said)]
    least, most = {"rate_day": (432, 432), "rate_hour": (3600, 3600), "rate_date": (50, 61)}[mode]
    assert waits and least <= waits[0] <= most


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize(
    ("mode", "status", "said"),
    [
        ("error_in_200", 502, "model overloaded"),
        ("quota_in_200", 402, "Insufficient credits"),
        ("error_list", 400, "API key not valid"),
        ("refusal", 200, "I'm sorry, I can't help."),
        ("no_v1", 404, "404 page not found"),
        ("too_large", 429, "must be reduced"),
    ],
)
def test_an_error_says_what_the_endpoint_said(
    mode: str, status: int, said: str, upstream: Upstream
):
    """Status and words are the endpoint's, wherever in its answer they stand."""
    upstream.use(mode)
    with pytest.raises(ModelError) as error:
        asyncio.run(lab.ask(QUESTION))
    assert error.value.status == status
    assert said in str(error.value)


@pytest.mark.usefixtures("forwarding")
def test_text_that_the_callers_own_limit_cut_is_an_answer(upstream: Upstream):
    """Of five tokens, as was asked; its reply says why it ended."""
    upstream.use("kind")
    reply = asyncio.run(lab.reply(QUESTION, max_tokens=5))
    assert (reply.completion_tokens, reply.finish_reason) == (5, "length")


@pytest.mark.usefixtures("forwarding")
def test_parts_are_joined_without_the_thinking(upstream: Upstream):
    """A list of parts is an answer: its texts, and nothing else."""
    upstream.use("parts")
    text = asyncio.run(lab.ask(QUESTION))
    assert awkward.REASONING not in text and text.count("no. ") == 1


@pytest.mark.usefixtures("forwarding")
def test_no_two_answers_are_worded_alike(upstream: Upstream):
    """The upstream is no recording: what compares answers word by word must fail in front of it."""
    upstream.use("kind")

    async def four() -> list[str]:
        return await asyncio.gather(*(lab.ask(QUESTION, temperature=0) for _ in range(4)))

    assert len(set(asyncio.run(four()))) == 4


@pytest.mark.usefixtures("forwarding")
def test_a_limit_on_what_is_in_flight_is_kept_by_a_guard_that_knows_it(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    """Twelve questions, two at a time: twelve requests, none refused."""
    monkeypatch.setattr(upstream, "delay_s", 0.2)  # so that they meet
    upstream.use("two_at_a_time")

    async def twelve() -> list[str]:
        two = Guard(max_concurrency=2)
        return await asyncio.gather(*(two.ask(QUESTION) for _ in range(12)))

    assert all(asyncio.run(twelve()))
    assert (len(upstream.asked), upstream.peak) == (12, 2)


# --- The record ---


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize("mode", ["keepalive", "empty_chunks"])
def test_a_comment_or_an_empty_chunk_is_no_token(
    mode: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    """The first token is noted after the five things that come before it, 50 ms each."""
    monkeypatch.setattr(upstream, "delay_s", 0.05)
    (span,) = through(astream, upstream, mode).trace.spans
    assert span.first_token_s is not None and span.end_s is not None
    assert 5 * 0.05 <= span.first_token_s - span.arrived_s <= span.end_s - span.arrived_s


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize("repeat", range(3))
def test_one_after_the_other_is_one_at_a_time_in_the_record(repeat: int, upstream: Upstream):
    """Forty steps: peak 1 there and at the upstream, and no bound that was beaten."""
    upstream.use("kind")
    workflow = Workflow([Step(f"s{n}", QUESTION, max_tokens=3) for n in range(40)])

    async def run() -> float:
        began_s = asyncio.get_running_loop().time()
        await engines.run(workflow, engine="sequential")
        return asyncio.get_running_loop().time() - began_s

    with trace() as t:
        elapsed_s = asyncio.run(run())
    assert (t.requests, t.peak, upstream.peak) == (40, 1, 1)
    assert workflow.plan(t.seconds).work_s <= elapsed_s


@pytest.mark.usefixtures("forwarding")
def test_tokens_are_the_upstreams(upstream: Upstream):
    """Plain and streamed, the record has the counts that the answer has."""
    for door in (ainvoke, astream):
        upstream.use("kind")
        with trace() as t:
            usage = asyncio.run(door(PATIENCE_S)).usage_metadata
        assert t.spans[0].completion_tokens == usage["output_tokens"] > 0
        assert t.spans[0].prompt_tokens == usage["input_tokens"] > 0


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize("mode", ["echo_key", "echo_key_page", "echo_key_header"])
def test_the_key_is_in_no_answer_or_header(mode: str, upstream: Upstream):
    """What an upstream echoes does not come back, whoever asks."""
    upstream.use(mode)
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    for stream in (False, True):
        answer = httpx.post(
            f"{lab.base_url()}/chat/completions",
            json=body | {"stream": stream},
            headers={"authorization": f"Bearer {lab.api_key()}"},
            trust_env=False,
            timeout=PATIENCE_S,
        )
        assert KEY not in answer.text + str(answer.headers)
    assert len(upstream.asked) == 2


# --- Parameters ---

DOORS_WITH_PARAMETERS = {
    name: door
    for column in (
        "ask",
        "streamed",
        "chat",
        "astream",
        "structured",
        "guard",
        "guarded_chat",
        "engines",
    )
    for name, door in GROUPS[column].items()
    if name != "structured"  # twenty tokens are too few for it
}


@pytest.mark.parametrize("mode", PARAMETERS)
def test_a_refused_parameter_is_left_out_for_every_door(
    mode: str, fresh: Upstream, caplog: pytest.LogCaptureFixture
):
    """It is refused once in a run, told once, and every door has its answer, the limit kept."""
    first, refused = PARAMETERS[mode]
    counts, asked = [], {"max_tokens": 20, "temperature": 0}
    for door in DOORS_WITH_PARAMETERS.values():
        outcome = through(door, fresh, mode, **asked)
        assert outcome.words & {"answer", "shown"}, outcome.said[-2000:]
        counts.append(outcome.requests)
        last = fresh.asked[-1].body or {}
        assert not refused & last.keys()
        assert 20 in (last.get("max_tokens"), last.get("max_completion_tokens"))
    assert counts == [first] + [1] * (len(counts) - 1)
    told = [r.getMessage() for r in caplog.records if r.name.startswith("agentlab")]
    for name in refused:
        assert sum(name in message for message in told) == 1, told


def test_a_stream_is_asked_for_without_what_is_refused(fresh: Upstream):
    """The answer comes in the second request, and in the first of a later one; uncounted."""
    fresh.use("no_stream_options")
    for requests in (2, 3):
        reply = asyncio.run(lab.reply(QUESTION, stream=True))
        assert reply.text and reply.completion_tokens == 0
        assert len(fresh.asked) == requests
    assert (fresh.asked[-1].body or {})["stream"] is True


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize(
    "mode", ["kind", "keepalive", "empty_chunks", "reasoning_first", "no_done"]
)
def test_a_streamed_answer_has_a_first_token(mode: str, upstream: Upstream):
    """Which is a word: comments and empty chunks, five of 50 ms each, come before."""
    upstream.use(mode)
    upstream.delay_s, usual_s = 0.05, upstream.delay_s
    with trace() as t:
        asyncio.run(lab.reply(QUESTION, stream=True))
    upstream.delay_s = usual_s
    (span,) = t.spans
    assert span.end_s is not None and span.ttft_s is not None
    assert 0.05 * (6 if mode in ("keepalive", "empty_chunks") else 1) <= span.ttft_s + 1e-3
    assert span.arrived_s + span.ttft_s <= span.end_s


@pytest.mark.usefixtures("forwarding")
def test_a_limit_that_is_not_kept_is_seen(upstream: Upstream):
    """The reply has the tokens that came, more than were asked for."""
    upstream.use("ignores_limit")
    assert asyncio.run(lab.reply(QUESTION, max_tokens=20)).completion_tokens > 20


# --- The commands ---


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize(("mode", "outcome", "words"), _told(WRITE))
def test_write(
    mode: str,
    outcome: str,
    words: str,
    upstream: Upstream,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    """All topics are written, or it says before the first one what every topic would meet."""
    upstream.use(mode, times=1 if mode in ONCE else None)
    code, said = _written(tmp_path, capfd)
    assert {seen.key for seen in upstream.asked} == {KEY}
    assert words.lower() in said.lower()
    if outcome == "done":
        assert (code, len(_published(tmp_path))) == (0, 2), said
        return
    assert (code, _published(tmp_path)) == (1, []), said
    if outcome == "stopped":
        assert _blamed(tmp_path) == []
        # One question of each of the two topics, and a probe; of three attempts where one may help.
        assert len(upstream.asked) <= (9 if mode == "empty" else 3)


@pytest.mark.parametrize(
    "mode",
    WHOLE_NO_MORE,
)
@pytest.mark.usefixtures("forwarding")
def test_what_is_no_whole_answer_is_never_published(
    mode: str,
    upstream: Upstream,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """From the third request on nothing is whole: no topic is done, and no file says it is."""
    # Where all was well before, empty text is waited out.
    monkeypatch.setenv("AGENTLAB_CONTENT_LONGEST_WAIT_SECONDS", "1")
    upstream.use(mode, after=2)
    code, said = _written(tmp_path, capfd)
    assert (code, _published(tmp_path)) == (1, []), said
    assert re.search(r"\b0 done", said)


def _written(folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    topics = folder / "topics.txt"
    topics.write_text("Why tides come twice\nHow rivers bend\n")
    code = cli.main(["write", str(topics), "--out", str(folder / "out")])
    said = "".join(capfd.readouterr())
    files = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert KEY not in said and KEY.encode() not in files
    return code, said


def _published(folder: Path) -> list[Path]:
    return [file for file in (folder / "out").rglob("*.md") if file.name != "README.md"]


def _blamed(folder: Path) -> list[Any]:
    """The topics whose failures the journal counts."""
    file = folder / "out" / "journal.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as journal:
        return journal.execute("select * from agentlab_jobs").fetchall()


EXPERIMENT = """\
about: How far does my endpoint go?
clock: real
repeats: 2
workloads: [{agents: 2}]
engines: [sequential, asyncio]
"""


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes seconds to draw, and shows nothing that the table does not."""
    monkeypatch.setattr(plots, "figure", lambda _: Figure())


@pytest.mark.parametrize(("mode", "outcome", "words"), _told(BENCH))
def test_bench(
    mode: str,
    outcome: str,
    words: str,
    fresh: Upstream,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """A table of measurements that stands by itself, or the first question's error instead."""
    fresh.use(mode)
    if mode != "kind":
        without_pictures(monkeypatch)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    code = cli.main(["bench", str(tmp_path / "mine.yaml"), "--yes", "--out", str(tmp_path / "out")])
    said = "".join(capfd.readouterr()) + caplog.text
    files = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in said and KEY.encode() not in files
    assert {seen.key for seen in fresh.asked} == {KEY}
    assert words.lower() in said.lower()
    if outcome == "measured":
        assert code == 0, said
        for lie in ("not comparable", "course, seed 7", "model seconds"):
            assert lie not in said.lower()
        return
    assert code == 1, said
    assert not (tmp_path / "out" / "mine.md").exists()
    assert len(fresh.asked) <= 5


@pytest.mark.parametrize("command", ["write", "bench"])
def test_what_is_left_out_from_the_start_is_never_sent(
    command: str,
    fresh: Upstream,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """With --leave-out nothing is refused: no request has it, and the limit has its other name."""
    fresh.use("strict_notemp")
    without_pictures(monkeypatch)
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    (tmp_path / "topics.txt").write_text("Why tides\n")
    first = {"write": ["topics.txt"], "bench": ["mine.yaml", "--yes"]}[command]
    given = [command, str(tmp_path / first[0]), *first[1:], "--out", str(tmp_path / "out")]
    assert cli.main([*given, "--leave-out", "temperature,max_completion_tokens"]) == 0, capfd
    asked = [seen.body or {} for seen in fresh.asked]
    assert asked and not any(
        {"temperature", "max_completion_tokens"} & body.keys() for body in asked
    )
    assert all("max_tokens" in body for body in asked)


@pytest.mark.usefixtures("forwarding")
@pytest.mark.parametrize(("mode", "verdict", "words"), _told(DOCTOR))
def test_doctor(
    mode: str,
    verdict: str,
    words: str,
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
):
    """It names the real cure, and never the key."""
    if mode not in PARAMETERS:  # which an endpoint learns; the others meet one that is up already
        monkeypatch.setattr(lab, "configure", lambda **_: nullcontext())
    upstream.use(mode)
    finding = doctor.check_real_model()
    assert finding.verdict == verdict, finding
    assert re.search(words, str(finding)), finding
    assert KEY not in str(finding)


@pytest.mark.parametrize(
    ("key", "verdict"),
    [(f" {KEY}\n", "OK"), (f"{KEY}\u200b", "FAIL"), (f'"{KEY}"', "FAIL")],
    ids=["newline", "unseen", "quotes"],
)
def test_a_key_that_was_copied_badly(
    key: str, verdict: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
):
    """What is around it is taken away, or it is named: never the network."""
    point_at(upstream, monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    upstream.use("kind")
    monkeypatch.setattr(doctor, "CHECKS", {"real model": doctor.check_real_model})
    (finding,) = doctor.examine()
    assert finding.verdict == verdict, finding
    assert "network" not in str(finding) and KEY not in str(finding)
    if verdict == "FAIL":
        assert "OPENAI_API_KEY" in str(finding)
    assert {seen.key for seen in upstream.asked} <= {KEY}


# --- A class ---


@pytest.fixture(scope="module")
def learner(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The lab of Ada, in a class whose teacher's key pays."""
    names = tmp_path_factory.mktemp("class") / "class.txt"
    names.write_text("Ada\n")
    with pytest.MonkeyPatch.context() as patch:
        point_at(upstream, patch)
        with Class("--learners", str(names), "--yes") as served:
            assert served.url, served.said
            patch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
            patch.setenv("OPENAI_API_KEY", "Ada")
            lab.configure()
            yield lab
            lab.stop()
    lab.configure()


@pytest.mark.parametrize(
    ("mode", "name", "door", "cell"),
    [param for param in _cells(SLOW_CALLS) if param.values[1] == "class"],
)
def test_a_class_that_forwards(
    mode: str, name: str, door: Door, cell: str, upstream: Upstream, learner: ModuleType
):
    """Two forwarders on the way, one with the learner's name, one with the teacher's key."""
    outcome = through(door, upstream, mode)
    agrees(outcome, cell)
    assert KEY not in outcome.said


@pytest.mark.parametrize("name", ["ainvoke", "invoke", "tools", "astream", "structured"])
def test_langchain_in_a_class(name: str, upstream: Upstream, learner: ModuleType):
    """Its client shows the key that the lab gave it, by whichever way it goes."""
    doors = GROUPS["chat"] | GROUPS["astream"] | GROUPS["structured"]
    agrees(through(doors[name], upstream, "kind"), "answer")
