"""Model seconds on both clocks: virtual time's, and this machine's at the lab's scale."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType

import pytest

from agentlab.clock import run_virtual
from agentlab.lab import _model_time


def test_in_virtual_time_a_model_second_is_the_clocks(fresh_lab: ModuleType):
    """Whatever scale is chosen: 3 s of sleep are 3 s on both."""

    async def main() -> float:
        await _model_time.sleep(3)
        return _model_time.now_s()

    with fresh_lab.configure(time_scale=50):
        run = run_virtual(main())
    assert (run.result, run.elapsed_s) == (3.0, 3.0)


def test_in_real_time_model_seconds_pass_at_the_labs_scale(fresh_lab: ModuleType):
    """At 100 to 1, 20 model seconds are a fifth of a second here, and 20 by the model's time."""

    async def main() -> float:
        began_s = _model_time.now_s()
        await _model_time.sleep(20)
        return _model_time.now_s() - began_s

    with fresh_lab.configure(time_scale=100):
        started = time.monotonic()
        passed_s = asyncio.run(main())
        took_s = time.monotonic() - started
    assert took_s >= 0.199
    assert 19.9 <= passed_s <= 100 * took_s


def test_a_timeout_is_in_model_seconds():
    """It strikes at its time; None never strikes."""

    async def main(limit_s: float | None) -> None:
        async with _model_time.timeout(limit_s):
            await asyncio.sleep(5)

    assert run_virtual(main(None)).elapsed_s == 5.0
    with pytest.raises(TimeoutError):
        run_virtual(main(4.9))


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after-ms": "250", "retry-after": "1"}, 5.0),
        ({"retry-after": "2"}, 40.0),
        ({"retry-after": "Wed, 21 Oct 2020 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "-5", "retry-after": "2"}, 40.0),
        ({"retry-after": "0"}, 0.0),
        ({}, None),
    ],
    ids=lambda value: str(value),
)
def test_an_endpoint_asks_to_wait_by_the_clients_clock(
    fresh_lab: ModuleType, headers: dict[str, str], wait_s: float | None
):
    """At 20 to 1, a quarter of a second here is 5 model seconds; milliseconds win."""
    with fresh_lab.configure(time_scale=20):
        assert _model_time.retry_after_s(headers) == wait_s
