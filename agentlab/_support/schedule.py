"""A schedule: which events of an instant are late, and by how many turns of the event loop."""

import heapq
from asyncio import Handle
from collections.abc import Collection, Mapping
from random import Random

from agentlab._support.fields import checked

_SHARES = (0.05, 0.2, 0.5, 0.9)  # of the events that are late: a run with few, a run with many
_MOST_TURNS = (1, 3, 10, 40)  # an answer takes some ten turns from the endpoint to who asked


class PowerCut(BaseException):
    """The process is gone at this turn: nothing of it runs any more, no `finally` either."""


class Schedule:
    """Draws, from a seed, which events are late, or makes those late that are given, or none.

    Events are timers, answers of the local model, threads' results, and a task's own `sleep(0)`.
    asyncio fixes the order of two events only if one causes the other, so each may be late; what
    one event causes keeps its order, as asyncio's `call_soon` promises. A late event still comes
    within its instant: no time passes until then.

    Attributes:
        late: Event -> the turns by which it is late; events count from 0.
        events: How many events there have been.
        turn: How many turns there have been; at turn `cut` the power is cut.
    """

    def __init__(self, seed: int | None = None, *, late: Mapping[int, int] | None = None):
        checked("a schedule's seed", seed, whole=True, optional=True)
        self._draw = None if seed is None else Random(seed)
        self._share = self._draw.choice(_SHARES) if self._draw else 0.0
        self._most_turns = self._draw.choice(_MOST_TURNS) if self._draw else 0
        self.late = dict(late or {})
        self.cut: int | None = None
        self.events = self.turn = 0
        self.held: list[tuple[int, int, Handle]] = []

    def delays(self, handle: Handle) -> bool:
        """Take the next event; return whether it is late, and so is held here."""
        number, turns = self.events, self.late.get(self.events, 0)
        self.events += 1
        if self._draw and self._draw.random() < self._share:
            turns = self.late[number] = self._draw.randint(1, self._most_turns)
        if turns:
            heapq.heappush(self.held, (self.turn + turns, number, handle))
        return turns > 0

    def next_turn(self, ready: Collection[Handle]) -> list[Handle]:
        """Begin a turn; return the held events that come in it. If none is `ready`, some do."""
        self.turn += 1
        if self.turn == self.cut:
            raise PowerCut
        until = self.turn if ready or not self.held else max(self.turn, self.held[0][0])
        come = []
        while self.held and self.held[0][0] <= until:
            come.append(heapq.heappop(self.held)[2])
        return come
