"""Numbers that are none, errors of every shape, cancellations, waits and sources: all in virtual
time, and what a guard holds is given back whatever ends a call."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from decimal import Decimal
from itertools import count, product
from random import Random
from typing import Any

import pytest

from agentlab import lab
from agentlab.bench.trial import Fixed
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError, EndpointError, ModelError, RetriesExhausted
from agentlab.resilience import (
    Breaker,
    Guard,
    Hedge,
    RateLimit,
    Retry,
    RetryBudget,
    amap,
    asked_to_wait_s,
    classify,
)
from agentlab.resilience.limiters import Adaptive

NAN, INF = math.nan, math.inf

# --------------------------------------------------------------------------- numbers

NOT_NUMBERS = [NAN, INF, -INF, "3", b"3", True, [1], {}, 1j, Decimal(2), 10**400, 10**5000, object]
NOT_COUNTS = [*NOT_NUMBERS, 1.5, 2.0, 0, -1, -(10**30)]
NOT_ABOVE_0 = [*NOT_NUMBERS, 0, -1, -1e-300, -0.0]
NOT_FROM_0 = [*NOT_NUMBERS, -1, -1e-300]
NOT_WHOLE = [*NOT_NUMBERS, 0.5, 2.0]


def nonsense(**values: list[Any]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}={str(type(value) if callable(value) else value)[:9]}")
        if not isinstance(value, int) or abs(value) < 10**300
        else pytest.param(name, value, id=f"{name}={value.bit_length()} bits")
        for name, wrong in values.items()
        for value in wrong
    ]


def refused(make: Callable[..., Any], name: str, value: Any) -> None:
    """The error names the parameter, what is allowed, and the value."""
    with pytest.raises(ConfigError, match=rf"^{name} must be .*; got ") as error:
        make(**{name: value})
    if not isinstance(value, int) or abs(value) < 10**50:
        assert repr(value) in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "value"),
    nonsense(
        deadline_s=NOT_ABOVE_0,
        attempt_timeout_s=NOT_ABOVE_0,
        longest_wait_s=NOT_FROM_0,
        max_concurrency=NOT_COUNTS,
    ),
)
def test_a_guard_takes_no_nonsense(name: str, value: Any):
    """A deadline of -1 or nan, or one and a half calls in flight, must not be taken."""
    refused(Guard, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    nonsense(
        attempts=[*NOT_COUNTS, None],
        first_s=[*NOT_FROM_0, None],
        most_s=NOT_FROM_0,
        window_s=NOT_FROM_0,
        seed=NOT_WHOLE,
    ),
)
def test_a_retry_takes_no_nonsense(name: str, value: Any):
    """Half an attempt, or a back-off of nan, must not be taken."""
    refused(Retry, name, value)


@pytest.mark.parametrize(("name", "value"), nonsense(share=NOT_FROM_0, reserve=NOT_FROM_0))
def test_a_budget_takes_no_nonsense(name: str, value: Any):
    """A share of nan would allow every retry or none."""
    refused(RetryBudget, name, value)


@pytest.mark.parametrize(("name", "value"), nonsense(failures=NOT_COUNTS, open_s=NOT_ABOVE_0))
def test_a_breaker_takes_no_nonsense(name: str, value: Any):
    """One that opens for ever, or after nan failures, must not be made."""
    refused(Breaker, name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    nonsense(after_s=NOT_ABOVE_0, quantile=[*NOT_ABOVE_0, 1, 1.5], share=[*NOT_ABOVE_0, 1.01]),
)
def test_a_hedge_takes_no_nonsense(name: str, value: Any):
    """After nan seconds nothing is ever late, or everything is."""
    refused(Hedge, name, value)


LIMITERS = {
    Adaptive: {
        "initial": NOT_COUNTS,
        "most": [*NOT_COUNTS, 10**8],
    },
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        pytest.param(kind, *one.values, id=f"{kind.__name__}-{one.id}")
        for kind, wrong in LIMITERS.items()
        for one in nonsense(**wrong)
    ],
)
def test_a_limiter_takes_no_nonsense(kind: Any, name: str, value: Any):
    """A limit that is no whole number starves all calls, or lets all in."""
    refused(kind, name, value)


@pytest.mark.parametrize(
    ("name", "value"), nonsense(max_concurrency=[*NOT_COUNTS, None], max_memory_mb=NOT_ABOVE_0)
)
def test_a_stream_takes_no_nonsense(name: str, value: Any):
    """It is refused before any item is taken."""
    items = iter([1, 2])

    def first(**given: Any) -> Any:
        return run_virtual(anext(amap(lab.ask, items, **{"max_concurrency": 2, **given})))

    refused(first, name, value)
    assert list(items) == [1, 2]


@pytest.mark.parametrize("tokens", [*NOT_FROM_0, None], ids=lambda value: str(type(value)))
def test_a_call_that_counts_for_nonsense_is_not_sent(tokens: Any):
    """Tokens below none would fill a bucket that others have emptied."""
    calls = Calls(None)
    with pytest.raises(ConfigError, match="tokens must be"):
        run_virtual(Guard(rate_limit=RateLimit(60)).run(calls, tokens=tokens))
    assert calls.made == 0


@pytest.mark.parametrize("name", ["workers", "calls_per_worker"])
@pytest.mark.parametrize("value", NOT_COUNTS, ids=lambda value: str(type(value)))
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_a_cluster_takes_no_nonsense(name: str, value: Any):
    """No process is started for half a worker."""
    from agentlab.engines.dask import Cluster

    refused(Cluster, name, value)


# ---------------------------------------------------------------------------- errors


class Calls:
    """A call that ends as told, the next one with the next end; then well."""

    def __init__(self, *ends: BaseException | None, took_s: float = 0.0):
        self.ends, self.took_s, self.made = list(ends), took_s, 0

    def __call__(self) -> Awaitable[str]:
        self.made += 1
        end = self.ends.pop(0) if self.ends else None

        async def call() -> str:
            await asyncio.sleep(self.took_s)
            if end is not None:
                raise end
            return "well"

        return call()


class Wordless(ConnectionError):
    """One that may pass, whose text fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoText(ConnectionError):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class Unreadable(ModelError):
    """One of which nothing can be read."""

    def __init__(self) -> None:
        Exception.__init__(self, "unreadable")

    def __getattribute__(self, name: str) -> Any:
        if name in ("status", "code", "kind", "retry_after_s"):
            raise LookupError(name)
        return super().__getattribute__(name)


class Alien(BaseException):
    pass


def refusal(status: Any = 503, said: str = "x", **more: Any) -> ModelError:
    return ModelError(said, **{"status": status, "code": None, "request_id": None, **more})


FINAL = {
    "StopAsyncIteration": lambda: StopAsyncIteration("end"),
    "StopAsyncIteration, wordless": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "a BaseException": lambda: Alien("x"),
    "a group": lambda: ExceptionGroup("many", [TimeoutError(), refusal()]),
    "a group in a group": lambda: ExceptionGroup("a", [ExceptionGroup("b", [KeyError(1)])]),
    "a group of BaseExceptions": lambda: BaseExceptionGroup("many", [Alien(), GeneratorExit()]),
    "no words": Exception,
    "a bug": lambda: KeyError("topic"),
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "ConfigError": lambda: ConfigError("key"),
    "its own RetriesExhausted": lambda: RetriesExhausted("inner", attempts=1, errors=[]),
    "unreadable": Unreadable,
    "a status of text": lambda: refusal("503"),
    "a wrong key": lambda: refusal(401),
}
PASSING = {
    "TimeoutError": TimeoutError,
    "TimeoutError with words": lambda: TimeoutError("the callee was late"),
    "text that fails": Wordless,
    "text that is none": NoText,
    "text of white space": lambda: ConnectionError(" \n"),
    "503": refusal,
    "a code that is a list": lambda: refusal(code=["x"]),
    "limit of commas": lambda: refusal(429, said="limit: , requested: ,"),
    "cancelled by itself": asyncio.CancelledError,
    "EndpointError, wordless": lambda: EndpointError(""),
}
REMEDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "slots": lambda: {"max_concurrency": 2},
    "seats": lambda: {"limit": Fixed(2)},
    "adaptive": lambda: {"limit": Adaptive(2)},
    "pace": lambda: {"rate_limit": RateLimit(6000)},
    "breaker": lambda: {"breaker": Breaker(failures=50)},
    "hedge": lambda: {"hedge": Hedge(after_s=0.5, share=1)},
    "attempt_timeout_s": lambda: {"attempt_timeout_s": 30},
    "no deadline": lambda: {"deadline_s": None},
    "all": lambda: {
        "limit": Fixed(2),
        "rate_limit": RateLimit(6000),
        "breaker": Breaker(failures=50),
        "hedge": Hedge(after_s=0.5, share=1),
        "attempt_timeout_s": 30,
    },
}


def guarded(remedy: str, **more: Any) -> Guard:
    retry = Retry(attempts=3, first_s=0.1, window_s=0)
    return Guard(**{"retry": retry, **REMEDIES[remedy](), **more})


async def is_whole(guard: Guard) -> None:
    """Nothing is held any more: as many calls as ever run at the same time, right now."""
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    began_s = lab.now_s()
    good = Calls(took_s=1)
    assert await asyncio.gather(guard.run(good), guard.run(good)) == ["well", "well"]
    assert lab.now_s() - began_s <= 2.5
    assert guard.monitor.health()["in_flight"] == 0


@pytest.mark.parametrize("took_s", [0, 2], ids=["immediately", "hedged"])
@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("name", FINAL)
def test_an_error_that_is_final_stays_what_it_is(name: str, remedy: str, took_s: float):
    """It must not be renamed, repeated, or taken for the deadline's; nothing stays held."""
    error = FINAL[name]()

    async def main() -> None:
        guard, calls = guarded(remedy), Calls(error, error, took_s=took_s)
        with pytest.raises(type(error)) as raised:
            await guard.run(calls)
        assert raised.value is error
        assert calls.made == (2 if took_s and guard.hedge else 1)
        await is_whole(guard)

    run_virtual(main())


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("name", PASSING)
def test_an_error_that_passes_is_repeated_and_has_words(name: str, remedy: str):
    """Who gives up says why, and speaks of a deadline only if one passed."""

    async def main() -> None:
        guard, calls = guarded(remedy), Calls(*(PASSING[name]() for _ in range(3)))
        with pytest.raises(RetriesExhausted) as raised:
            await guard.run(calls)
        before, _, why = str(raised.value).partition(": ")
        assert before == "'agent' gave up after 3 failed attempts"
        assert why.strip()
        assert "deadline" not in why
        assert calls.made == raised.value.attempts == 3
        assert raised.value.__cause__ is raised.value.errors[-1]
        await is_whole(guard)

    run_virtual(main())


@pytest.mark.parametrize("name", [*FINAL, *PASSING])
def test_a_probe_is_given_back(name: str):
    """An open breaker whose probe ends oddly lets the next one through, and not before its time."""

    async def main() -> None:
        breaker = Breaker(failures=1, open_s=5)
        with suppress(ModelError):
            async with breaker.admitted():
                raise refusal()
        error = (FINAL | PASSING)[name]()
        with suppress(BaseException):
            async with breaker.admitted():
                raise error
        async with asyncio.timeout(11), breaker.admitted():
            pass
        assert not breaker.is_open
        assert lab.now_s() <= 10

    run_virtual(main())


def no_generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("remedy", ["none", "hedge", "all"])
@pytest.mark.parametrize(
    "made",
    [None, "text", 5, [], {}, object(), no_generator(), print, lab.ask],
    ids=lambda made: type(made).__name__,
)
def test_what_cannot_be_awaited_is_said_once(made: Any, remedy: str):
    """A function that forgets to make a call must not be called again and again."""
    made_times = []

    async def main() -> None:
        guard = guarded(remedy)
        with pytest.raises(TypeError, match="await"):
            await guard.run(lambda: made_times.append(1) or made)
        await is_whole(guard)

    run_virtual(main())
    assert len(made_times) == 1


def test_a_call_that_runs_out_of_items_is_reported():
    """`next()` of an empty iterator, in the function that makes the call."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        run_virtual(Guard().run(lambda: next(iter([]))))


# ------------------------------------------------------------------ deadlines and waits


@pytest.mark.parametrize("remedy", ["none", "slots", "seats", "breaker", "hedge", "all"])
@pytest.mark.parametrize(
    ("deadline_s", "attempt_timeout_s", "callee_s"),
    [*product([3, 10], [3, 5, 10], [3, 5, 10]), (1e-9, 1, 1), (1 / 3, 1 / 3, 1 / 3)],
)
def test_the_deadline_is_named_if_it_passed(
    deadline_s: float, attempt_timeout_s: float, callee_s: float, remedy: str
):
    """Three limits that may fall together: the call ends by the deadline, and says which it was."""

    async def callee() -> str:
        async with asyncio.timeout(callee_s):
            await asyncio.sleep(1e6)
        return ""

    async def main() -> None:
        retry = Retry(attempts=2, first_s=0)
        more = {"retry": retry, "deadline_s": deadline_s, "attempt_timeout_s": attempt_timeout_s}
        guard = guarded(remedy, **more)
        with pytest.raises(RetriesExhausted) as raised:
            await guard.run(callee)
        assert lab.now_s() <= deadline_s * (1 + 1e-9) + 1e-9
        assert ("the deadline of" in str(raised.value)) <= (lab.now_s() >= deadline_s * (1 - 1e-9))
        if min(attempt_timeout_s, callee_s) * 2 < deadline_s:
            assert "the deadline of" not in str(raised.value)
        if min(attempt_timeout_s, callee_s) > deadline_s:
            assert "the deadline of" in str(raised.value)
        assert str(raised.value).rpartition(": ")[2]
        guard.deadline_s = guard.attempt_timeout_s = None
        await is_whole(guard)

    run_virtual(main())


@pytest.mark.parametrize("late", [KeyError("x"), ValueError(), Alien("x"), refusal(401)], ids=repr)
def test_what_fails_while_the_deadline_ends_it_is_told(late: BaseException):
    """A call whose clean-up fails at the deadline: its error is not taken for the deadline's."""

    async def call() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise late from None
        return ""

    with pytest.raises(type(late)) as raised:
        run_virtual(Guard(deadline_s=5).run(call))
    assert raised.value is late


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError("x"), refusal()], ids=repr)
@pytest.mark.parametrize("ends", ["the deadline", "its caller"])
def test_a_call_that_hides_its_cancellation_is_not_repeated(
    error: Exception, ends: str, remedy: str
):
    """It makes an error of it that passes; another attempt would be ended by nobody."""
    calls = []

    async def call() -> str:
        calls.append(1)
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise error from None
        return ""

    async def main() -> None:
        guard = guarded(remedy, deadline_s=5 if ends == "the deadline" else None)
        task = asyncio.create_task(guard.run(call))
        if ends == "its caller":
            asyncio.get_running_loop().call_later(5, task.cancel)
        await asyncio.wait([task])
        assert lab.now_s() == 5
        if ends == "the deadline":
            assert "the deadline of 5 model seconds passed" in str(task.exception())
        else:
            assert task.cancelled()
        guard.deadline_s = guard.attempt_timeout_s = None
        await is_whole(guard)

    run_virtual(main())
    assert len(calls) <= 2  # with the hedge


WAITS = [NAN, INF, -INF, -1.0, -0.0, 0.0, 1e300, 1.7e308, 1_700_000_000, 4e7, "5", "x", [5]]


@pytest.mark.parametrize("remedy", ["no deadline", "pace", "adaptive", "all"])
@pytest.mark.parametrize("wait_s", WAITS, ids=repr)
def test_a_wait_that_is_none_is_not_waited_for(wait_s: Any, remedy: str):
    """nan, infinity, less than none, a date in place of seconds: the call goes on, soon."""

    async def main() -> None:
        guard = guarded(remedy)
        with suppress(ModelError):
            await guard.run(Calls(refusal(429, retry_after_s=wait_s)))
        assert lab.now_s() < 10
        await is_whole(guard)

    run_virtual(main())


@pytest.mark.parametrize("deadline_s", [60, 3600, None])
@pytest.mark.parametrize("wait_s", [61, 86_400, 31 * 86_400.0])
def test_a_long_wait_is_kept_or_refused(wait_s: float, deadline_s: float | None):
    """A day's wait is believed: it is waited for, or the call gives up and names it; never both."""

    async def main() -> None:
        guard = Guard(deadline_s=deadline_s, rate_limit=RateLimit())
        call = guard.run(Calls(refusal(429, retry_after_s=wait_s)))
        if deadline_s is not None and wait_s > deadline_s:
            with pytest.raises(RetriesExhausted, match=f"asks to wait {wait_s:,.0f} model seconds"):
                await call
            assert lab.now_s() == 0
        else:
            assert await call == "well"
            assert wait_s <= lab.now_s() <= wait_s + 2

    run_virtual(main())


HEADERS = [
    "nan", "inf", "-inf", "-1", "1e400", "-1e400", "9" * 5000, "0x10", "5 s", "5,5", "", " ", "\0",
    "\xb2", "--5", "Wed, 21 Oct 99999999999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999",
    "Wed, 99 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 0000 07:28:00 GMT",
    "Wed, 31 Dec 9999 23:59 -2300",
    "Wed, 21 Oct 2015 99999999999:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Oct", "Wed, ,,,:",
    "21 " * 2000, ":" * 5000, "(" * 500,
]  # fmt: skip


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms"])
@pytest.mark.parametrize("text", HEADERS, ids=lambda text: repr(text[:20]))
def test_a_header_that_is_no_time_says_nothing(text: str, name: str):
    """It must not raise, and what it says is a time that can be waited for."""
    headers = {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", name: text}
    wait_s = lab.retry_after_s(headers)
    assert wait_s is None or 0 <= wait_s < INF


@pytest.mark.parametrize("tail", ["", "!", "x!", " !"])
@pytest.mark.parametrize(
    "text", ["1", "1s", "1 ", "1.1", "1a ", "1 s", "9", "1ms"], ids=lambda text: repr(text)
)
def test_a_time_in_words_is_read_in_no_time(text: str, tail: str):
    """Thousands of digits and units: it must not be tried in all ways in which it could be cut."""
    headers = {"x-ratelimit-limit-requests": "9", "x-ratelimit-remaining-requests": "8"}

    async def learn() -> None:
        RateLimit().learn({**headers, "x-ratelimit-reset-requests": text * 3000 + tail})

    run_virtual(learn())
    wait_s = asked_to_wait_s(f"Please try again in {text * 3000}{tail}")
    assert wait_s is None or 0 <= wait_s < INF


@pytest.mark.parametrize("many", [1023, 1024, 1025, 1100, 3000])
def test_many_attempts_are_made(many: int):
    """Back-off that doubles must not become more than a float holds."""
    calls = Calls(*[refusal()] * (many - 1))
    guard = Guard(retry=Retry(attempts=many, first_s=0.001, most_s=0.01), deadline_s=None)
    assert run_virtual(guard.run(calls)).result == "well"
    assert calls.made == many


@pytest.mark.parametrize("name", [*FINAL, *PASSING])
def test_every_error_has_a_verdict(name: str):
    """Whoever asks for one is about to give something back, so it must not raise."""
    assert classify((FINAL | PASSING)[name]()).retry is (
        name in PASSING and "cancelled" not in name
    )


# ------------------------------------------------------------------------------ storms


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_storm_of_cancellations_loses_nothing(remedy: str, seed: int):
    """Calls that are cancelled while they wait, send, back off or hedge; some fail meanwhile."""
    chance = Random(seed)
    ends: list[Callable[[], BaseException | None]] = [
        lambda: None, refusal, TimeoutError, StopAsyncIteration, asyncio.CancelledError, Alien,
    ]  # fmt: skip

    async def main() -> None:
        guard = guarded(remedy, deadline_s=chance.choice([None, 5.0]))
        tasks = []
        for _ in range(100):
            call = Calls(chance.choice(ends)(), took_s=chance.choice([0, 0.3, 1]))
            tasks.append(asyncio.create_task(guard.run(call)))
            if chance.random() < 0.7:
                delay_s = chance.choice([0, 0.1, 0.3, 1, 3])
                asyncio.get_running_loop().call_later(delay_s, tasks[-1].cancel)
            await asyncio.sleep(chance.choice([0, 0, 0.1]))
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(60)
        guard.deadline_s = guard.attempt_timeout_s = None
        await is_whole(guard)

    run_virtual(main())


# ----------------------------------------------------------------------------- streams


async def doubled(item: Any) -> Any:
    await asyncio.sleep(1)
    if isinstance(item, BaseException):
        raise item
    return item * 2


def failing(after: int, error: BaseException) -> Iterator[int]:
    yield from range(after)
    raise error


async def outcomes_of(
    items: Any, max_concurrency: int = 3
) -> tuple[list[Any], BaseException | None]:
    given: list[Any] = []
    try:
        async for outcome in amap(doubled, items, max_concurrency=max_concurrency):
            given.append(outcome)
    except BaseException as error:
        return given, error
    return given, None


@pytest.mark.parametrize("max_concurrency", [1, 3, 100])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(
    "error",
    [ValueError("no more"), OSError(), ExceptionGroup("g", [KeyError("x")]), TimeoutError()],
    ids=repr,
)
def test_a_source_that_fails_loses_nothing(error: Exception, after: int, max_concurrency: int):
    """What was begun before is given first; then comes the source's error, as it is."""
    given, raised = run_virtual(outcomes_of(failing(after, error), max_concurrency)).result
    assert sorted(outcome.result for outcome in given) == [2 * n for n in range(after)]
    assert raised is error


@pytest.mark.parametrize("error", [StopAsyncIteration(), RuntimeError("x")], ids=repr)
def test_a_source_that_fails_oddly_is_told(error: Exception):
    """An end of another kind of loop must not be taken for the end of the items."""
    given, raised = run_virtual(outcomes_of(failing(2, error))).result
    assert len(given) == 2
    assert raised is error or (isinstance(raised, RuntimeError) and raised.__cause__ is error)


@pytest.mark.parametrize("items", [None, 5, lab.ask, object()], ids=lambda items: str(type(items)))
def test_what_is_no_source_is_said(items: Any):
    """At the first step."""
    with pytest.raises(TypeError, match="not iterable"):
        run_virtual(anext(amap(doubled, items, max_concurrency=2)))


@pytest.mark.parametrize("closed", [True, False], ids=["aclosing", "break"])
@pytest.mark.parametrize("taken", [1, 2, 5])
@pytest.mark.parametrize("max_concurrency", [1, 4])
def test_leaving_early_leaves_nothing_behind(max_concurrency: int, taken: int, closed: bool):
    """Of a source without end no more is taken than was asked for, and no task stays."""
    items = count()

    async def main() -> None:
        outcomes: Any = amap(doubled, items, max_concurrency=max_concurrency)

        async def leave(outcomes: AsyncIterator[Any]) -> None:
            given = 0
            async for _ in outcomes:
                given += 1
                if given == taken:
                    break

        if closed:
            async with aclosing(outcomes):
                await leave(outcomes)
        else:
            await leave(outcomes)
            del outcomes
            gc.collect()
            await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())
    assert next(items) <= taken + max_concurrency


@pytest.mark.parametrize("slow_s", [0, 0.5, 1, 10])
@pytest.mark.parametrize("max_concurrency", [1, 3, 50])
def test_a_slow_consumer_gets_everything(max_concurrency: int, slow_s: float):
    """What ends while the consumer is busy waits for it; no more than so many are in flight."""
    in_flight = peak = 0

    async def work(item: int) -> int:
        nonlocal in_flight, peak
        in_flight += 1
        peak = max(peak, in_flight)
        await asyncio.sleep(1)
        in_flight -= 1
        return item

    async def main() -> list[Any]:
        given = []
        async for outcome in amap(work, range(20), max_concurrency=max_concurrency):
            await asyncio.sleep(slow_s)
            given.append(outcome.result)
        return given

    assert sorted(run_virtual(main()).result) == list(range(20))
    assert peak <= max_concurrency


@pytest.mark.parametrize("outer", [1, 3])
@pytest.mark.parametrize("inner", [1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_a_stream_in_a_stream(outer: int, inner: int, fails: bool):
    """The inner one's failure is an outcome of the outer one's."""

    async def rows(row: int) -> int:
        source = failing(4, ValueError(row)) if fails else iter(range(4))
        return len([one async for one in amap(doubled, source, max_concurrency=inner)])

    async def main() -> list[Any]:
        return [one async for one in amap(rows, range(5), max_concurrency=outer)]

    given = run_virtual(main()).result
    assert sorted(one.item for one in given) == list(range(5))
    assert all(isinstance(one.error, ValueError) if fails else one.result == 4 for one in given)


@pytest.mark.parametrize("at_s", [0, 0.5, 1, 1.5])
@pytest.mark.parametrize("max_concurrency", [1, 5])
def test_a_cancelled_consumer_leaves_nothing_behind(max_concurrency: int, at_s: float):
    """Its calls are cancelled with it."""

    async def main() -> None:
        task = asyncio.create_task(outcomes_of(count(), max_concurrency))
        await asyncio.sleep(at_s)
        task.cancel()
        await asyncio.wait([task])
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())
