"""How a case asks where the endpoint may refuse: once, stubbornly, with back-off, at a pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

from agentlab import lab
from agentlab.bench.opponents import AIMD, Gradient2, Vegas
from agentlab.engines.asking import Ask
from agentlab.errors import ModelError
from agentlab.resilience import Guard, RateLimit, Retry, classify
from agentlab.resilience.limiters import Adaptive, Limiter

Strategy = Literal[
    "once", "insist", "retry", "timeout", "pace", "adaptive", "aimd", "gradient2", "vegas"
]
LIMITERS: dict[str, Callable[..., Limiter]] = {
    "adaptive": Adaptive,
    "aimd": AIMD,
    "gradient2": Gradient2,
    "vegas": Vegas,
}
"""The strategies that find out how many requests in flight are best."""

_MOST = 1000  # in flight, for a strategy that finds out how many, where the case sets no limit
_ATTEMPTS = 1000  # requests are counted here, and giving up would save some
_ATTEMPT_S = 60.0  # only answers that stall or drip take a fifth of it


def asking(
    strategy: Strategy,
    *,
    max_concurrency: int | None,
    requests_per_minute: int | None,
    send: Ask = lab.ask,
) -> Ask:
    """Return the ask function for one run; to be called inside the event loop.

    Args:
        strategy: `once` asks once; `insist` asks again after each second, whatever the endpoint
            says; `retry` backs off and obeys the endpoint, and so do all others. `timeout` gives
            an attempt 60 s; `pace` keeps the rate limit; `LIMITERS` find out how many requests in
            flight are best.
        max_concurrency: The most requests in flight; None is no limit.
        requests_per_minute: What `pace` keeps; None learns it from the first answers.
        send: Sends each request.
    """
    if strategy not in ("once", "insist"):
        limiter = LIMITERS.get(strategy)
        guard = Guard(
            retry=Retry(attempts=_ATTEMPTS),  # its own for each run: it draws the same jitter again
            deadline_s=None,
            attempt_timeout_s=_ATTEMPT_S if strategy == "timeout" else None,
            max_concurrency=None if limiter else max_concurrency,
            limit=limiter(most=max_concurrency or _MOST) if limiter else None,
            rate_limit=RateLimit(requests_per_minute=requests_per_minute)
            if strategy == "pace"
            else None,
        )
        return guard.around(send)
    slots = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()

    async def once(prompt: str, **options: Any) -> str:
        async with slots:
            return await send(prompt, **options)

    async def insist(prompt: str, **options: Any) -> str:
        while True:
            try:
                return await once(prompt, **options)
            except ModelError as error:
                if not classify(error).retry:
                    raise
            await lab.sleep(1)

    return once if strategy == "once" else insist
