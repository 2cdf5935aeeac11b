"""Rate limits: the bucket's arithmetic, OpenAI's headers and refusals, the SDK that obeys them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.clock import run_virtual
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.middleware.rate_limits import Limits, a_minutes, duration
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.integers(1, 200))
def test_a_bucket_never_gives_more_than_its_rate(gaps_s: list[float], per_minute: int):
    """In any window of a minute: at most a full bucket and what it gained meanwhile."""
    bucket, now_s, taken = a_minutes(per_minute), 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        if not bucket.wait_s(1, now_s):
            bucket.take(1, now_s)
            taken.append(now_s)
    for start in taken:
        window = [at_s for at_s in taken if start <= at_s < start + 60]
        assert len(window) <= 2 * per_minute


@given(st.integers(1, 100), st.floats(0, 100), st.integers(1, 100))
def test_after_the_wait_it_is_there(per_minute: int, now_s: float, amount: int):
    """What wait_s says is enough, and no more than a minute a bucketful."""
    bucket = a_minutes(per_minute)
    bucket.take(per_minute, 0.0)
    wait_s = bucket.wait_s(amount, now_s)
    if amount > per_minute:
        assert wait_s == float("inf")
    else:
        assert wait_s <= 60
        assert bucket.wait_s(amount, now_s + wait_s + 1e-9) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0004, "1ms"), (0.02, "20ms"), (1, "1s"), (20, "20s"), (59.9999, "1m0s"),
     (90.5, "1m30.5s"), (360, "6m0s")],
)  # fmt: skip
def test_durations_read_as_openais(seconds: float, text: str):
    """20ms, 1s, 6m0s."""
    assert duration(seconds) == text


def test_a_refusal_says_which_limit_and_when_to_come_back():
    """The fourth request of three a minute: 20 s."""
    limits = Limits(3, None)
    for _ in range(3):
        limits.admit(10, 0.0, "m")
    with pytest.raises(RequestError, match=r"Limit 3, Used 3, Requested 1. .* try again in 20s"):
        limits.admit(10, 0.0, "m")


def test_what_can_never_pass_is_told_so():
    """More tokens than the limit of a minute: no retry-after, for waiting will not help."""
    with pytest.raises(RequestError, match="too large") as error:
        Limits(None, 100).admit(101, 0.0, "m")
    assert (error.value.status, error.value.retry_after_s) == (429, None)


def client(max_retries: int = 0, **settings: Any) -> openai.AsyncOpenAI:
    app = local_app(Settings(**settings), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    return openai.AsyncOpenAI(
        base_url="http://127.0.0.1/v1", api_key="any", http_client=http, max_retries=max_retries
    )


def ask(asking: openai.AsyncOpenAI, **options: Any) -> Any:
    fields: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
    return asking.chat.completions.with_raw_response.create(**(fields | options))


def test_every_answer_says_what_is_left():
    """After one of 60 requests and its tokens: 59, and what its text and its limit need."""

    async def main() -> Any:
        asking = client(requests_per_minute=60, tokens_per_minute=1000, preset="instant")
        return (await ask(asking, max_tokens=100)).headers

    headers = run_virtual(main()).result
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-tokens"] == "1000"
    assert headers["x-ratelimit-remaining-tokens"] == "898"


def test_the_sdks_retries_obey_the_limit_to_the_millisecond():
    """Four requests at once, three a minute: the last is answered 20 s later, as retry-after-ms
    says, with no jitter."""

    async def main() -> None:
        asking = client(max_retries=2, requests_per_minute=3, preset="instant")
        await asyncio.gather(*(ask(asking) for _ in range(4)))

    assert run_virtual(main()).elapsed_s == 20.0


def test_a_full_queue_is_refused_with_503(tmp_path: Any):
    """One slot, no queue: with the time of the next change; and the longest context."""
    preset = tmp_path / "small.yaml"
    figure = "{value: %s, basis: chosen, source: test}"
    zero = figure % 0
    preset.write_text(
        f"about: test\nprefill_base_ms: {figure % 1000}\nprefill_per_token_ms: {zero}\n"
        f"itl_base_ms: {zero}\nitl_per_active_ms: {zero}\n"
        f"jitter_sigma: {zero}\nslots: {figure % 1}\nqueue: {zero}\n"
        f"context_tokens: {figure % 100}\n"
    )

    async def main() -> list[Any]:
        asking = client(preset=str(preset))
        both = await asyncio.gather(*(ask(asking) for _ in range(2)), return_exceptions=True)
        too_long = ask(asking, messages=[{"role": "user", "content": "word " * 200}])
        return [*both, *await asyncio.gather(too_long, return_exceptions=True)]

    _, full, too_long = run_virtual(main()).result
    assert full.status_code == 503
    assert full.response.headers["retry-after-ms"] == "1000"
    assert (too_long.status_code, too_long.code) == (400, "context_length_exceeded")
