"""The numbers on the projector: who has how many requests in flight, and what became of others.

Names and counts, never words: no prompt and no answer comes here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from agentlab.endpoint.contract.record import HUNG_UP, Span

_WINDOW_S = 60.0  # throughput is that of the last model minute
_MOST_AGENTS = 6
_MOST_LETTERS = 24
_SHOWN = ("answered", "refused", "errors", "tokens")
_NOTHING = Counter[str]()

Count = tuple[str, int, int]
"""An agent, how many of its requests are being answered, and how many wait."""


class Board:
    """Counts what a class does.

    Example:
        >>> board = Board()
        >>> span = Span(request_id="1", agent="writer", learner="Ada", arrived_s=0.0)
        >>> board.begin(span)
        >>> board.numbers(now_s=1.0)["learners"][0]["agents"]
        [('writer', 1, 0)]
    """

    def __init__(self) -> None:
        self._open: dict[str, Span] = {}
        self._forgotten: set[str] = set()  # of those
        self.clear()

    def clear(self) -> None:
        """Set all counts to zero; what is in flight stays."""
        self._counts: dict[str, Counter[str]] = {}
        self._ended_s: deque[float] = deque()  # answers of the window
        self._strangers = 0

    def forget(self, learner: str) -> None:
        """Drop the counts of `learner`; what they have in flight is shown, but not counted."""
        self._counts.pop(learner, None)
        self._forgotten |= {id for id, span in self._open.items() if span.learner == learner}

    def begin(self, span: Span) -> None:
        self._open[span.request_id] = span
        self._counts.setdefault(span.learner or "", Counter())

    def end(self, span: Span) -> None:
        self._open.pop(span.request_id, None)
        if span.learner is None:
            self._strangers += 1
            return
        if span.request_id in self._forgotten:
            self._forgotten.remove(span.request_id)
            return
        counts = self._counts.setdefault(span.learner, Counter())
        outcomes = {429: "refused", HUNG_UP: "gone"}
        counts["answered" if span.ok else outcomes.get(span.status or 0, "errors")] += 1
        if span.ok and span.end_s is not None:
            counts["tokens"] += span.completion_tokens
            self._ended_s.append(span.end_s)

    def numbers(
        self,
        now_s: float,
        waiting: Mapping[tuple[str, str], int] | None = None,
        *,
        names: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return what the page shows as of `now_s`, in model seconds.

        Requests that are "refused" met a rate limit (429); of those that are "gone" the client
        hung up; "strangers" came without a learner's name. `waiting` says how many of an agent's
        requests wait for a slot; `names` are shown although they have not asked yet.
        """
        waiting = waiting or {}
        while self._ended_s and self._ended_s[0] <= now_s - _WINDOW_S:
            self._ended_s.popleft()
        agents = self._agents(waiting)
        others = (self._counts.keys() | agents.keys()) - set(names)
        total = sum(self._counts.values(), Counter[str]())
        over_s = min(_WINDOW_S, now_s) or 1.0
        return {
            "now_s": round(now_s, 1),
            "in_flight": len(self._open),
            "waiting": sum(waiting.values()),
            "answers_per_minute": round(60 * len(self._ended_s) / over_s, 1),
            **{what: total[what] for what in ("answered", "refused", "errors", "gone")},
            "strangers": self._strangers,
            "learners": [
                {"learner": name, "agents": agents.get(name, [])}
                | {what: self._counts.get(name, _NOTHING)[what] for what in _SHOWN}
                for name in [*names, *sorted(others, key=str.casefold)]
            ],
        }

    def _agents(self, waiting: Mapping[tuple[str, str], int]) -> dict[str, list[Count]]:
        counted = Counter((span.learner or "", span.agent) for span in self._open.values())
        of: dict[str, list[Count]] = {}
        for (learner, agent), in_flight in sorted(counted.items()):  # so that no block jumps
            queued = min(waiting.get((learner, agent), 0), in_flight)
            shown = agent if len(agent) <= _MOST_LETTERS else agent[: _MOST_LETTERS - 1] + "…"
            of.setdefault(learner, []).append((shown, in_flight - queued, queued))
        return {learner: _some(counts) for learner, counts in of.items()}


def _some(counts: list[Count]) -> list[Count]:
    """Add up the last of many, so that a lane can be read."""
    if len(counts) <= _MOST_AGENTS:
        return counts
    some, rest = counts[: _MOST_AGENTS - 1], counts[_MOST_AGENTS - 1 :]
    return [*some, ("others", sum(c[1] for c in rest), sum(c[2] for c in rest))]
