"""How often a call is repeated, how long between, and how often all calls together.

tenacity runs the loop; what it does not have is here: a wait that obeys the endpoint, and a
budget. Back-off with full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tenacity import AsyncRetrying, AttemptManager, RetryCallState

from agentlab import lab
from agentlab._support.numbers import checked
from agentlab.errors import ConfigError
from agentlab.resilience.verdict import judge


class RetryBudget:
    """Bounds the retries of all calls together to a share of the calls.

    When an endpoint is down, every call fails, and retries multiply the load that it cannot bear.
    Each call pays `share` into the budget, each retry takes 1 out of it, and without funds there
    is no retry. After https://finagle.github.io/blog/2016/02/08/retry-budgets/

    Args:
        share: Retries a call, over the long run.
        reserve: How many retries there are before anything was paid in, and at most at any time.

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
        """A call begins."""
        self._funds = min(self._most, self._funds + self._share)

    def take(self) -> bool:
        """A retry is wanted; True if there are funds for it, which it takes."""
        # sums of tenths fall short of a whole by a rounding error
        if self._funds < 1 - 1e-9:
            return False
        self._funds -= 1
        return True


class _Attempts(AsyncRetrying):
    """tenacity's loop, for calls that may raise what ends an `async for`, too.

    Without this the loop would end without a result and without an error.
    """

    async def __anext__(self) -> AttemptManager:
        try:
            return await super().__anext__()
        except StopAsyncIteration as error:
            outcome = self._retry_state.outcome
            if outcome is None or outcome.exception() is not error:
                raise
            raise RuntimeError("the attempt raised StopAsyncIteration") from error


@dataclass(frozen=True)
class Retry:
    """How often, and how long between.

    Attributes:
        attempts: The most requests for one call, the first included.
        first_s: The longest wait before the second attempt; it doubles with each one.
        most_s: The longest wait that back-off makes. What the endpoint asks for is always obeyed.
        window_s: What a rate limit refuses is repeated for at least so long, whatever `attempts`
            says, because most limits count by the minute, and to be refused costs nothing.
        budget: Bounds the retries of all calls; None bounds each call only.
        seed: From which the jitter is drawn.
    """

    attempts: int = 5
    first_s: float = 1.0
    most_s: float = 60.0
    window_s: float = 60.0
    budget: RetryBudget | None = None
    seed: int = 0
    _random: Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked("attempts", self.attempts, least=1, whole=True)
        for name in ("first_s", "most_s", "window_s"):
            checked(name, getattr(self, name))
        checked("seed", self.seed, least=-math.inf, whole=True)
        if self.first_s > self.most_s:
            raise ConfigError(
                f"first_s must be at most most_s; got {self.first_s:g} and {self.most_s:g}"
            )
        object.__setattr__(self, "_random", Random(int(self.seed)))

    def attempting(
        self, *, before_wait: Callable[[float, BaseException], None] | None = None
    ) -> AsyncRetrying:
        """tenacity's loop over the attempts of one call.

        Args:
            before_wait: Told of each wait before it begins: its model seconds, and the error.

        Example:
            async for attempt in Retry(attempts=3).attempting():
                with attempt:
                    return await call()
        """
        if self.budget is not None:
            self.budget.pay_in()
        began_s = lab.now_s()

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if before_wait is not None and error is not None and state.next_action is not None:
                before_wait(state.next_action.sleep, error)

        return _Attempts(
            retry=lambda state: self._again(state, lab.now_s() - began_s),
            wait=self.wait_s,
            sleep=lab.sleep,
            before_sleep=tell,
            reraise=True,
        )

    def _again(self, state: RetryCallState, since_s: float) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return False
        verdict = judge(error)
        enough = state.attempt_number >= self.attempts
        if not verdict.retry or (enough and not (verdict.limited and since_s < self.window_s)):
            return False
        return self.budget is None or self.budget.take()

    def wait_s(self, state: RetryCallState) -> float:
        """Until the next attempt: what the endpoint asks for, if it does, and back-off on top."""
        error = state.outcome.exception() if state.outcome else None
        asked_s = judge(error).wait_s if error else None
        doubled = 2.0 ** min(state.attempt_number - 1, 99)  # more than any time, and still a float
        longest_s = min(self.most_s, self.first_s * doubled)
        # All who were refused together are asked to come back together, so the jitter comes on
        # top; it grows with the attempts, because many who come back are refused once more.
        return (asked_s or 0.0) + self._random.uniform(0, longest_s)
