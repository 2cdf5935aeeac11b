"""Which errors are worth another attempt, how long between, how many for all calls together."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import (
    AnswerEmpty,
    AnswerInterrupted,
    EndpointError,
    IncompleteAnswer,
    ModelError,
)
from agentlab.resilience import Retry, RetryBudget, classify
from agentlab.resilience._classify import RetryDecision


def model_error(status: int, code: str | None = None) -> ModelError:
    return ModelError("x", status=status, code=code, request_id=None)


@pytest.mark.parametrize(
    ("error", "retry", "outage"),
    [
        (model_error(429), True, False),
        (model_error(429, "insufficient_quota"), False, False),
        (model_error(500), True, True),
        (model_error(503), True, True),
        (model_error(200), True, False),
        (model_error(400), False, False),
        (model_error(401), False, False),
        (model_error(404), False, False),
        (EndpointError("gone"), True, True),
        (TimeoutError(), True, True),
        (ConnectionResetError(), True, True),
        (json.JSONDecodeError("x", "y", 0), True, False),
        (KeyError("a bug"), False, False),
        (ValueError("a bug"), False, False),
    ],
    ids=repr,
)
def test_verdicts(error: Exception, retry: bool, outage: bool):
    """Passing trouble is worth an attempt; refusals and bugs are not; only outages are outages."""
    assert (classify(error).retry, classify(error).outage) == (retry, outage)


def refusal(
    message: str, status: int = 429, code: str | None = None, kind: str | None = None, **more: Any
) -> ModelError:
    return ModelError(message, status=status, code=code, kind=kind, request_id=None, **more)


TPM = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
WORDINGS = {
    "OpenAI, rate": (refusal(TPM + "Limit 30,000, Used 29,000, Requested 2,000."), True, False),
    "OpenAI, too large": (refusal(TPM + "Limit 30000, Requested 47000."), False, False),
    "too large, in prose": (refusal("Request too large. It must be reduced."), False, False),
    "quota by code": (refusal("x", code="insufficient_quota"), False, True),
    "quota by type": (refusal("x", kind="insufficient_quota"), False, True),
    "quota in prose": (
        refusal("You exceeded your current quota, please check your plan and billing details."),
        False,
        True,
    ),
    "Moonshot": (refusal("x", kind="exceeded_current_quota_error"), False, True),
    "DeepSeek": (refusal("Insufficient Balance", 402, code="invalid_request_error"), False, True),
    "Gemini, a rate": (
        refusal("You exceeded your current quota, check your plan. Please retry in 34.07s."),
        True,
        False,
    ),
    "a day's limit": (refusal("Limit reached on requests per day (RPD): Limit 200"), False, True),
    "a day's limit, soon": (
        refusal("on requests per day (RPD): Limit 10000, Used 10000. Try again in 8.64s."),
        True,
        False,
    ),
    "in flight": (refusal("organization max concurrency reached"), True, False),
    "quota with 403": (refusal("insufficient credits", 403), False, True),
    "an error inside 200": (refusal("x", 200, code="model_not_found"), False, False),
    "trouble inside 200": (refusal("Provider returned error", 502, code="502"), True, False),
    "a server that is busy": (refusal("per day", 503), True, False),
}


@pytest.mark.parametrize(("error", "retry", "exhausted"), WORDINGS.values(), ids=WORDINGS)
def test_a_verdict_reads_type_code_message_and_numbers(
    error: ModelError, retry: bool, exhausted: bool
):
    """Each published shape of a refusal, told apart by all that it says."""
    assert (classify(error).retry, classify(error).exhausted) == (retry, exhausted)


@pytest.mark.parametrize("kind", IncompleteAnswer.__subclasses__())
def test_what_is_no_whole_answer_is_asked_again_if_that_may_help(kind: type[IncompleteAnswer]):
    """An empty or interrupted one may change; the others would come again."""
    assert classify(kind("x")).retry is (kind in (AnswerEmpty, AnswerInterrupted))


@given(limit=st.integers(1, 10**7), requested=st.integers(1, 10**7))
def test_more_than_the_limit_is_final(limit: int, requested: int):
    """No waiting admits a request that alone is larger than its limit."""
    verdict = classify(refusal(f"{TPM}Limit {limit:,}, Requested {requested:,}."))
    assert verdict.retry is (requested <= limit)


@pytest.mark.parametrize("client", ["ask", "chat_model"])
@pytest.mark.parametrize(
    ("fault", "retry"),
    [
        ({"kind": "error", "status": 429, "retry_after_s": 3}, True),
        ({"kind": "quota"}, False),
        ({"kind": "error", "status": 401}, False),
        ({"kind": "error", "status": 503}, True),
        ({"kind": "reset"}, True),
        ({"kind": "broken"}, True),
        ({"kind": "truncated_json"}, True),
        ({"kind": "empty_choices"}, True),
        ({"kind": "html"}, True),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_verdicts_on_what_clients_raise(
    fresh_lab: None, client: str, fault: dict[str, Any], retry: bool
):
    """The same trouble gets the same verdict, whichever client met it; the wait is read."""

    async def main() -> RetryDecision:
        try:
            await (lab.ask("x") if client == "ask" else lab.chat_model().ainvoke("x"))
        except Exception as error:
            return classify(error)
        raise AssertionError("it did not fail")

    with lab.configure(faults=[{**fault, "probability": 1.0}]):
        verdict, _ = lab.simulate(main())
    assert verdict.retry is retry
    if not retry:
        assert not verdict.outage
    if fault.get("status") == 429:
        assert verdict.wait_s == 3


async def attempts(retry: Retry, error: Exception) -> list[float]:
    """When each attempt of a call began that always fails."""
    times = []

    async def fails() -> None:
        times.append(lab.now_s())
        raise error

    with suppress(type(error)):
        await retry(fails)
    return times


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_dead_server_gets_exactly_so_many_requests(most: int):
    """attempts=k sends k."""
    assert len(run_virtual(attempts(Retry(attempts=most), model_error(500))).result) == most


def test_a_refusal_is_sent_once():
    """A wrong key is no better the second time."""
    assert len(run_virtual(attempts(Retry(), model_error(401))).result) == 1


@pytest.mark.parametrize("wait_s", [None, 1.0])
def test_a_rate_limit_is_outlasted(wait_s: float | None):
    """Refused for a minute, with or without a word on how long: five attempts are not the end."""
    times = run_virtual(attempts(Retry(), refusal("x", retry_after_s=wait_s))).result
    assert 60 <= times[-1] < 60 + 60 + 2
    assert len(times) < 70


@given(seed=st.integers(0, 10_000))
def test_back_off_stays_below_its_bounds(seed: int):
    """Full jitter: wait i is between 0 and first_s doubled i times, at most most_s."""
    times = run_virtual(attempts(Retry(7, first_s=1, most_s=8, seed=seed), model_error(500))).result
    waits = [after - before for before, after in pairwise(times)]
    assert all(0 <= wait <= bound for wait, bound in zip(waits, [1, 2, 4, 8, 8, 8], strict=True))


def test_a_wait_that_is_asked_for_is_obeyed():
    """Never earlier than the endpoint says, and not all at one instant."""
    error = ModelError("x", status=429, code=None, request_id=None, retry_after_s=7)
    times = [run_virtual(attempts(Retry(2, seed=seed), error)).result[1] for seed in range(20)]
    assert all(7 <= time <= 8 for time in times)
    assert len(set(times)) == 20


def test_the_budget_bounds_all_retries_together():
    """Of 1,000 calls that all fail, 20% and the reserve are repeated, not 400%."""
    budget = RetryBudget(share=0.2, reserve=10)
    retry = Retry(attempts=5, budget=budget)

    async def main() -> int:
        calls = await asyncio.gather(*(attempts(retry, model_error(503)) for _ in range(1000)))
        return sum(map(len, calls))

    assert 1000 < run_virtual(main()).result <= 1000 * 1.2 + 10


def test_a_budget_does_not_hinder_what_seldom_fails():
    """One failure in ten calls is always repeated."""
    budget = RetryBudget(share=0.2, reserve=1)
    for _ in range(100):
        for _ in range(10):
            budget.pay_in()
        assert budget.take()
