"""All remedies together: what is promised, in virtual time and over real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentlab import engines, lab
from agentlab.errors import ConfigError, ModelError, RetriesExhausted, Stopped
from agentlab.resilience import Breaker, Guard, Hedge, RateLimit, Retry
from agentlab.resilience.limiters import Adaptive
from agentlab.settings import DATA
from agentlab.trace import trace
from agentlab.workflow import Workflow

ROUGH = str(DATA / "faults" / "rough.yaml")


def guard(**changes: Any) -> Guard:
    return Guard(
        **({"retry": Retry(attempts=10), "max_concurrency": 50, "attempt_timeout_s": 60} | changes)
    )


async def ask_many(many: int, guard: Guard) -> list[str]:
    return await asyncio.gather(
        *(guard.ask(f"Describe river {n}.", max_tokens=5) for n in range(many))
    )


def test_a_rough_endpoint_loses_nothing(fresh_lab: None):
    """1,000 calls with 20% 429, 5% 500, 2% resets, 1% stalls: 0 lost, 1.45 requests a call."""
    with lab.configure(faults=ROUGH):
        answers, t = lab.simulate(ask_many(1000, guard()))
    assert len(answers) == sum(span.ok for span in t.spans) == 1000
    assert t.requests <= 1450


def test_a_rough_endpoint_loses_nothing_over_http(fresh_lab: None):
    """The same for 200 calls in real time, with real connections that break.

    What a busy machine answers too late counts for nothing: such a request met no fault.
    """
    with lab.configure(faults=ROUGH, time_scale=40), trace() as t:
        answers = asyncio.run(ask_many(200, guard(attempt_timeout_s=200, deadline_s=None)))
    assert len(answers) == 200
    assert sum(span.ok or span.fault is not None for span in t.spans) <= 1.8 * 200


@pytest.mark.parametrize("client", ["ask", "chat_model", "openai"])
def test_a_dead_endpoint_gets_exactly_k_requests(fresh_lab: None, client: str):
    """Whoever calls: the guard is the one owner of retries."""

    async def main() -> None:
        model = lab.chat_model()
        calls: dict[str, Any] = {
            "ask": lambda: lab.ask("x"),
            "chat_model": lambda: model.ainvoke("x"),
            "openai": lambda: model.root_async_client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            ),
        }
        with pytest.raises(RetriesExhausted, match="4 failed attempts") as gave_up:
            await guard(retry=Retry(attempts=4)).run(calls[client])
        assert gave_up.value.attempts == len(gave_up.value.errors) == 4

    with lab.configure(faults=[{"kind": "error", "status": 500, "probability": 1.0}]):
        _, t = lab.simulate(main())
    assert t.requests == 4


@pytest.mark.parametrize("kind", ["drip", "stall"])
def test_the_deadline_holds(fresh_lab: None, kind: str):
    """Against bytes that drip for ever and against silence: within the deadline + .2 s in virtual
    time. Over real HTTP it ends, too, and not before its time."""

    async def main() -> float:
        began_s = lab.now_s()
        with pytest.raises(RetriesExhausted, match="deadline of 10 model seconds"):
            await guard(deadline_s=10, attempt_timeout_s=None).ask("x")
        return lab.now_s() - began_s

    with lab.configure(faults=[{"kind": kind, "probability": 1.0}]):
        elapsed_s, _ = lab.simulate(main())
        assert 10 <= elapsed_s <= 10.2
        assert asyncio.run(asyncio.wait_for(main(), timeout=60)) >= 10


def test_a_refusal_is_raised_as_it_is(fresh_lab: None):
    """A wrong request is no case for giving up after attempts: one request, the model's error."""
    with lab.configure(faults=[{"kind": "error", "status": 400, "probability": 1.0}]):
        error, t = lab.simulate(guard().ask("x"), catch=ModelError)
    assert (error.status, t.requests) == (400, 1)


def test_a_bug_in_the_caller_stays_one():
    """It is neither repeated nor renamed."""

    async def buggy() -> None:
        raise KeyError("topic")

    with pytest.raises(KeyError, match="topic"):
        lab.simulate(guard().run(buggy))


def test_a_slot_is_free_during_back_off(fresh_lab: None):
    """One slot: while the first call backs off 100 s, the second is served."""
    faults = [{"kind": "error", "status": 429, "calls": [1], "agent": "a", "retry_after_s": 100}]

    async def main() -> list[float]:
        one = guard(max_concurrency=1)

        async def timed(agent: str) -> float:
            await one.ask("x", agent=agent, max_tokens=1)
            return lab.now_s()

        return await asyncio.gather(timed("a"), timed("b"))

    with lab.configure(faults=faults):
        (slow_s, quick_s), t = lab.simulate(main())
    assert quick_s == 1
    assert slow_s >= 100
    assert t.peak == 1


def test_never_more_in_flight_than_slots(fresh_lab: None):
    """max_concurrency=3, hedges included."""
    with lab.configure(faults=ROUGH):
        _, t = lab.simulate(
            ask_many(60, guard(max_concurrency=3, hedge=Hedge(after_s=1.2, share=1)))
        )
    assert t.peak == 3


def test_cancelling_leaves_nothing_in_flight(fresh_lab: None):
    """Of 20 calls that are cancelled in mid-flight, the endpoint sees 20 clients hang up."""

    async def main() -> int:
        before = len(asyncio.all_tasks())
        everything = guard(breaker=Breaker(), hedge=Hedge(after_s=2), rate_limit=RateLimit())
        batch = asyncio.create_task(ask_many(20, everything))
        await lab.sleep(1.2)
        batch.cancel()
        await asyncio.wait([batch])
        await lab.sleep(5)
        return len(asyncio.all_tasks()) - before

    orphans, t = lab.simulate(main())
    assert orphans == 0
    assert {span.status for span in t.spans} == {499}


def test_an_engine_takes_its_ask(fresh_lab: None):
    """A workflow on a rough endpoint: the results of a smooth one."""
    report, given = Workflow.load("report"), {"topic": "tides", "data": "heights"}
    smooth, _ = lab.simulate(engines.run(report, given))
    with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.5}]):
        for engine in ["sequential", "asyncio", "langgraph", "openai-agents", "pydantic-ai"]:
            run = engines.run(report, given, engine=engine, ask=guard().ask)
            assert lab.simulate(run)[0] == smooth


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_a_crews_own_call_is_guarded(fresh_lab: None):
    """crewai.LLM.acall, over real HTTP: two refusals, and the answer at the third attempt."""

    async def main() -> str:
        llm = lab.crew_llm(agent="writer")
        patient = guard(attempt_timeout_s=None, deadline_s=None)  # CrewAI waits in real seconds
        return await patient.run(lambda: llm.acall("Describe tides."), agent="writer")

    refusals = [{"kind": "error", "status": 429, "calls": [1, 2], "retry_after_s": 1}]
    with lab.configure(faults=refusals, time_scale=20), trace() as t:
        assert asyncio.run(main())
    assert [span.status for span in t.spans] == [429, 429, 200]


def test_one_guard_one_loop():
    """Its times are of one clock, so another loop is refused, with the way out."""
    one = guard()

    async def call() -> None:
        return None

    lab.simulate(one.run(call))
    with pytest.raises(ConfigError, match="new Guard"):
        lab.simulate(one.run(call))


def test_the_monitor_is_right_under_concurrent_runs(fresh_lab: None):
    """Two batches at once: calls, attempts and failures are the endpoint's own counts."""

    async def main() -> Guard:
        both = guard(retry=Retry(attempts=3))
        await asyncio.gather(ask_many(40, both), ask_many(60, both), return_exceptions=True)
        return both

    with lab.configure(faults=[{"kind": "error", "status": 503, "probability": 0.2}]):
        both, t = lab.simulate(main())
    health = both.monitor.health()
    assert health["calls"] == 100
    assert health["attempts"] == t.requests
    assert health["failed_attempts"] == sum(not span.ok for span in t.spans)
    assert health["in_flight"] == 0
    assert all(type(health[n]) is int for n in ("in_flight", "calls", "failed", "attempts"))
    text = both.monitor.prometheus()
    assert 'agentlab_attempts_total{error_type="ModelError",gen_ai_agent_name="agent"}' in text
    duration = {
        (sample.labels["error_type"], sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "gen_ai_client_inference_duration_seconds_bucket"
        and sample.labels["gen_ai_operation_name"] == "chat"
        and sample.labels["gen_ai_provider_name"] == "openai"
    }
    bounds = [le for error, le in duration if not error]
    assert (bounds[0], bounds[-2:]) == ("0.01", ["81.92", "+Inf"]) and len(bounds) == 15
    assert sum(n for (_, le), n in duration.items() if le == "+Inf") == 100


@pytest.mark.parametrize("paced", [True, False])
@pytest.mark.parametrize("limits", [{"deadline_s": 60}, {"deadline_s": None, "longest_wait_s": 60}])
def test_a_wait_that_is_too_long_is_not_begun(
    fresh_lab: None, paced: bool, limits: dict[str, float | None]
):
    """Told to come back in 3,600 s: all give up immediately, and say why."""
    faults = [{"kind": "error", "status": 429, "probability": 1.0, "retry_after_s": 3600}]

    async def main() -> tuple[list[Any], float]:
        one = Guard(rate_limit=RateLimit() if paced else None, **limits)
        calls = (one.ask("x", agent=f"{n}") for n in range(3))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        return [*ended, *await asyncio.gather(one.ask("y"), return_exceptions=True)], lab.now_s()

    with lab.configure(faults=faults):
        (ended, now_s), t = lab.simulate(main())
    assert now_s < 1
    assert t.requests == (3 if paced else 4)
    assert all("asks to wait 3,600" in str(error) for error in ended)


def test_a_time_out_has_words(fresh_lab: None):
    """Of one attempt and of the whole call: what was waited for, and for how long."""
    silent = [{"kind": "stall", "probability": 1.0}]

    async def main() -> str:
        try:
            await Guard(retry=Retry(attempts=2), attempt_timeout_s=2).ask("x")
        except RetriesExhausted as error:
            return str(error)
        return ""

    with lab.configure(faults=silent):
        said, _ = lab.simulate(main())
    assert said.endswith("no answer within 2 model seconds")


def test_stop_lets_what_is_in_flight_finish(fresh_lab: None):
    """Two of five are in flight: they are answered; the other three are never sent."""

    async def main() -> list[Any]:
        one = guard(max_concurrency=2)
        batch = asyncio.create_task(ask_or_error(one, 5))
        await lab.sleep(0.1)
        one.stop()
        one.stop("twice")  # the first reason stays
        return [*await batch, lab.now_s()]

    (*ended, now_s), t = lab.simulate(main())
    assert [type(each) for each in ended] == [str, str, Stopped, Stopped, Stopped]
    assert str(ended[2]) == "nothing more is sent: the guard was stopped"
    assert t.requests == 2
    assert now_s > 0.1


async def ask_or_error(guard: Guard, many: int) -> list[Any]:
    calls = (guard.ask(f"Describe river {n}.", max_tokens=5) for n in range(many))
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    "waits",
    [
        {"max_concurrency": 1},
        {"limit": Adaptive()},
        {"rate_limit": RateLimit(1)},
        {"max_concurrency": 1, "hedge": Hedge(after_s=30)},
    ],
)
def test_stop_ends_every_wait_before_sending(fresh_lab: None, waits: dict[str, Any]):
    """For a slot, a learned limit, the pace, each with one request in flight: at the same instant,
    nothing is left behind, and the one in flight is answered."""

    async def main() -> tuple[list[Any], float, int]:
        before = len(asyncio.all_tasks())
        one = Guard(**waits)
        batch = asyncio.create_task(ask_or_error(one, 3))
        await lab.sleep(0.01)
        one.stop()
        ended = await batch
        return ended, lab.now_s(), len(asyncio.all_tasks()) - before

    (ended, now_s, orphans), t = lab.simulate(main())
    assert [type(each) for each in ended] == [str, Stopped, Stopped]
    assert t.requests == 1
    assert now_s < 5
    assert orphans == 0


def test_stop_ends_back_off_and_an_open_breaker(fresh_lab: None):
    """Those that back off, and those that wait for a probe, end at the instant of the stop."""

    async def main() -> tuple[list[Any], float]:
        one = guard(
            max_concurrency=None, breaker=Breaker(failures=1, open_s=1000), retry=Retry(first_s=1)
        )
        batch = asyncio.create_task(ask_or_error(one, 20))
        await lab.sleep(3)
        one.stop("enough")
        return await batch, lab.now_s()

    with lab.configure(faults=[{"kind": "error", "status": 500, "probability": 1.0}]):
        (ended, now_s), _ = lab.simulate(main())
    assert {str(each) for each in ended} == {"nothing more is sent: enough"}
    assert now_s == 3


def test_what_fails_after_a_stop_is_not_repeated(fresh_lab: None):
    """The request in flight ends with a 503 that would be retried: it ends as stopped."""

    async def main() -> tuple[list[Any], int]:
        one = guard(max_concurrency=1)
        sent = 0

        async def fails() -> None:
            nonlocal sent
            sent += 1
            one.stop()  # by the call itself, too
            await lab.sleep(1)
            raise ConnectionError("broken")

        ended = await asyncio.gather(one.run(fails), one.run(fails), return_exceptions=True)
        return ended, sent

    (ended, sent), _ = lab.simulate(main())
    assert [type(each) for each in ended] == [Stopped, Stopped]
    assert sent == 1


def test_a_cancelled_call_of_a_stopped_guard_is_cancelled(fresh_lab: None):
    """A cancellation by the caller stays one: in flight, and while it waits in the same instant."""

    async def main() -> list[bool]:
        one = guard(max_concurrency=1)
        calls = [asyncio.create_task(one.ask("x")) for _ in range(2)]
        await lab.sleep(0.01)
        one.stop()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return [call.cancelled() for call in calls]

    (in_flight, waiting), _ = lab.simulate(main())
    assert in_flight
    assert waiting
