"""Seats for calls in flight, whose number a limiter changes as it learns.

First come, first seated. Fewer seats send nobody away: who sits is served, and nobody follows.
A seat that was refused stays empty for as long as the endpoint asked to wait; whoever sat down
there at once would be refused as well.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agentlab import lab
from agentlab.errors import ConfigError
from agentlab.resilience.limiters import Limiter, Sample
from agentlab.resilience.verdict import judge


class Seat:
    """One call's place."""

    def __init__(self, number: int, in_flight: int):
        self._number, self._in_flight = number, in_flight
        self._sent_s = lab.now_s()

    def sent(self) -> None:
        """The call goes out now; the time before was not the endpoint's."""
        self._sent_s = lab.now_s()

    def sample(self, *, refused: bool) -> Sample:
        """What the limiter is to learn from the call, which ended."""
        now_s = lab.now_s()
        return Sample(self._number, now_s, now_s - self._sent_s, self._in_flight, refused)


class Seats:
    """As many as the limiter says. One event loop, one object.

    A call that is cancelled, or fails for a reason that says nothing about load, teaches the
    limiter nothing.

    Raises:
        ConfigError: If what is given is no limiter.

    Example:
        seats = Seats(Adaptive())
        async with seats.taken():
            answer = await lab.ask("Name three rivers.")
    """

    def __init__(self, limiter: Limiter):
        if isinstance(limiter, type):
            raise ConfigError(f"limit is the class {limiter.__name__}; make one of it: add ()")
        if not (hasattr(limiter, "limit") and callable(getattr(limiter, "update", None))):
            raise ConfigError(
                f"limit must be a limiter, which has a limit and an update(sample); got "
                f"{limiter!r}; give Adaptive(), or Guard(at_once=...) for a number that stays"
            )
        self.limiter = limiter
        self.in_flight = 0
        self._resting = 0
        self._numbers = itertools.count()
        self._waiting: deque[asyncio.Future[int]] = deque()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Seat]:
        """Around one call: enter when there is a seat, and let the limiter learn how it ends."""
        in_flight = await self._sit_down()
        seat = Seat(next(self._numbers), in_flight)
        try:
            yield seat
        except Exception as error:
            verdict = judge(error)
            if verdict.overload:
                self.limiter.update(seat.sample(refused=True))
                self._rest(verdict.wait_s)
            raise
        else:
            self.limiter.update(seat.sample(refused=False))
        finally:
            self.in_flight -= 1
            self._call_next()

    async def _sit_down(self) -> int:
        """Wait for a seat; returns how many are taken then, with this one."""
        if not self._waiting and self._free():
            self.in_flight += 1
            return self.in_flight
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(turn)
            else:  # called and cancelled in the same instant: the seat goes to the next one
                self.in_flight -= 1
                self._call_next()
            raise

    def _free(self) -> bool:
        return self.in_flight + self._resting < self.limiter.limit

    def _call_next(self) -> None:
        while self._waiting and self._free():
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(self.in_flight)

    def _rest(self, wait_s: float | None) -> None:
        if wait_s:
            self._resting += 1
            real_s = wait_s / lab.model_seconds_a_second()
            asyncio.get_running_loop().call_later(real_s, self._stand_by)

    def _stand_by(self) -> None:
        self._resting -= 1
        self._call_next()
