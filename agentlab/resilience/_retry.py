"""How often a call is repeated, how long between, and how often all calls together.

Back-off with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from agentlab import lab
from agentlab._support.asyncio_tools import Attempt
from agentlab._support.fields import checked
from agentlab.resilience._classify import classify

T = TypeVar("T")


class RetryBudget:
    """Bounds the retries of all calls together to a share of the calls.

    Each call pays `share` into the budget, each retry takes 1 out of it, and without funds there
    is no retry; `reserve` is how many there are at first, and at most. After
    https://finagle.github.io/blog/2016/02/08/retry-budgets/

    Example:
        >>> budget = RetryBudget(share=0.2, reserve=1)
        >>> budget.take(), budget.take()
        (True, False)
    """

    def __init__(self, share: float = 0.2, reserve: float = 10):
        checked("share", share)
        checked("reserve", reserve)
        self._share = share
        self._most = self._funds = max(float(reserve), share)

    def pay_in(self) -> None:
        """Pay for a call that begins."""
        self._funds = min(self._most, self._funds + self._share)

    def take(self) -> bool:
        """Take a retry out, and return whether there were funds for it."""
        if self._funds < 1 - 1e-9:  # sums of tenths fall short by a rounding error
            return False
        self._funds -= 1
        return True


@dataclass
class Retry:
    """How often to repeat a call, and how long to wait between.

    Attributes:
        attempts: The most requests for one call, the first included.
        first_s: The longest wait before the second attempt; it doubles with each one.
        most_s: The longest wait that back-off makes. What the endpoint asks for is always obeyed.
        window_s: What a rate limit refuses is repeated for at least so long, whatever `attempts`
            says, because most limits count by the minute, and a refusal costs nothing.
    """

    attempts: int = 5
    first_s: float = 1.0
    most_s: float = 60.0
    window_s: float = 60.0
    budget: RetryBudget | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checked("attempts", self.attempts, least=1, whole=True)
        for name in ("first_s", "most_s", "window_s"):
            checked(name, getattr(self, name))
        checked("seed", self.seed, least=-math.inf, whole=True)
        self._random = Random(int(self.seed))

    async def __call__(
        self, call: Attempt[T], *, sleep: Callable[[float], Awaitable[None]] = lab.sleep
    ) -> T:
        """Return the call's result, or raise its last error; `sleep` waits between attempts."""
        if self.budget is not None:
            self.budget.pay_in()
        began_s, attempt = lab.now_s(), 1
        while True:
            try:
                return await call()
            except Exception as error:
                verdict = classify(error)
                outlast = verdict.limited and lab.now_s() - began_s < self.window_s
                if not (verdict.retry and (attempt < self.attempts or outlast)):
                    raise
                if self.budget is not None and not self.budget.take():
                    raise
            await sleep(self.wait_s(attempt, verdict.wait_s))
            attempt += 1

    def wait_s(self, attempts: int, asked_s: float | None = None) -> float:
        """Return the model seconds until the next attempt: what the endpoint asks, and back-off."""
        doubled = 2.0 ** min(attempts - 1, 99)  # more than any time, and still a float
        # On top, because all that were refused together are asked to come back together.
        return (asked_s or 0.0) + self._random.uniform(0, min(self.most_s, self.first_s * doubled))
