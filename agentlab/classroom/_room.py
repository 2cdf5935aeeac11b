"""What stands behind a classroom's door, what changes while the class runs, and what it shows.

There is one model for all, and in front of it a gate for each learner, with limits, faults and
counts of their own: so "the writer's third call is reset" holds for everybody. A change applies to
later requests; what is in flight keeps the gate that it came to.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

from pydantic import StrictBool

from agentlab._support.fields import Count, model
from agentlab.classroom._fair import FairQueue, Shares
from agentlab.endpoint import presets
from agentlab.endpoint.contract.asgi import Model, Receive, Scope, Send, unless_gone
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import HUNG_UP, Span
from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.middleware.fault_plan import Fault, FaultPlan
from agentlab.endpoint.middleware.gate import Gate
from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.server.app import answering, limits_of
from agentlab.settings import Settings


@model
class Controls:
    """What the teacher may change while the class runs.

    Not model and time scale: the clients' time-outs and waits are counted by them. The first two
    limits are the whole class's: None takes the preset's, 0 lifts it. `faults` come beside the
    preset's own. While `paused`, new requests wait at the door.
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    learner_requests_per_minute: Count = 0
    faults: list[Fault] = field(default_factory=list)
    paused: StrictBool = False


_MOST_EXERCISES = 100  # that are kept of a learner; the course has some fifty


class Room:
    """A model for a class; `settings` say how it begins, `change` what becomes of it."""

    def __init__(self, settings: Settings):
        self._seed = settings.seed
        self.preset = None if settings.real else presets.load(settings.preset)
        service_s = (self.preset.physics if self.preset else Physics()).service_s
        self._queue = FairQueue(lambda j: max(service_s(j.prompt_tokens, j.output_tokens), 1e-9))
        self._model: Model = answering(settings, self.preset, self._queue)
        self.time_scale, self.paid = self._model.time_scale, self._model.paid
        self.now_s = self._model.now_s
        self.board = Board()
        self.exercises: dict[str, dict[str, tuple[int, bool]]] = {}
        self._open = asyncio.Event()
        self._open.set()
        limits = settings.requests_per_minute, settings.tokens_per_minute
        self.controls = Controls(*limits, faults=fault_plan.load(settings.faults))
        self._arrange()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        if scope["method"] != "POST":
            await self._model(scope, receive, send, span)
            return
        self.board.begin(span)
        if not self._open.is_set():
            await unless_gone(receive, self._open.wait())
        learner = span.learner or ""
        limits = self._shares.of(learner, self.now_s())
        if learner not in self._gates:
            self._gates[learner] = Gate(self._model, limits, FaultPlan(self._plan, self._seed))
        await self._gates[learner](scope, receive, send, span)

    def change(self, changes: dict[str, Any]) -> None:
        """Apply some of `Controls`, as they came from outside, to requests from now on."""
        before, controls = self.controls, replace(self.controls, **changes)
        fault_plan.load(controls.faults)  # which may be too many together
        self.controls = controls
        (self._open.clear if controls.paused else self._open.set)()
        if replace(controls, paused=before.paused) != before:
            self._arrange()  # not after a pause, which fills no bucket again

    def tried(self, learner: str, exercise: str, *, solved: bool) -> None:
        """Count a try at an exercise, such as `02b.1`, up to the first that solves it."""
        if not re.fullmatch(r"[0-9]{2}[a-z]?\.[1-9]", exercise):
            raise RequestError(404, "There is no such exercise.", code="no_such_exercise")
        mine = self.exercises.setdefault(learner, {})
        tries, done = mine.get(exercise, (0, False))
        if not done and (tries or len(mine) < _MOST_EXERCISES):
            mine[exercise] = tries + 1, solved

    def forget(self, learner: str) -> None:
        """Drop what is counted and kept of a learner."""
        self.exercises.pop(learner, None)
        self.board.forget(learner)
        self._queue.forget(learner)
        self._shares.forget(learner)
        self._gates.pop(learner, None)

    def _arrange(self) -> None:
        """Make new gates for all, with new limits and new faults."""
        chosen, preset = self.controls, self.preset
        requests, tokens = limits_of(preset, chosen.requests_per_minute, chosen.tokens_per_minute)
        for_all = {"requests": requests, "tokens": tokens}
        self._shares = Shares(for_all, {"requests": chosen.learner_requests_per_minute})
        self._plan = [*chosen.faults, *(preset.faults if preset else [])]
        self._gates: dict[str, Model] = {}


_WINDOW_S = 60.0  # throughput is that of the last model minute
_SHOWN = ("answered", "refused", "errors", "tokens")


class Board:
    """Counts what a class does: names and counts, never words."""

    def __init__(self) -> None:
        self._open: dict[str, Span] = {}
        self.clear()

    def clear(self) -> None:
        """Set all counts to zero; what is in flight stays."""
        self._counts = {span.learner or "": Counter[str]() for span in self._open.values()}
        self._ended_s: deque[float] = deque()  # answers of the window
        self._strangers = 0

    def forget(self, learner: str) -> None:
        """Drop the counts of `learner`; what they have in flight is shown, but not counted."""
        self._counts.pop(learner, None)

    def begin(self, span: Span) -> None:
        self._open[span.request_id] = span
        self._counts.setdefault(span.learner or "", Counter())

    def end(self, span: Span) -> None:
        self._open.pop(span.request_id, None)
        if span.learner is None:
            self._strangers += 1
            return
        if (counts := self._counts.get(span.learner)) is None:
            return  # they have left
        outcomes = {429: "refused", HUNG_UP: "gone"}
        counts["answered" if span.ok else outcomes.get(span.status or 0, "errors")] += 1
        if span.ok and span.end_s is not None:
            counts["tokens"] += span.completion_tokens
            self._ended_s.append(span.end_s)

    def numbers(self, now_s: float, names: Sequence[str]) -> dict[str, Any]:
        """Return what the page shows as of `now_s`, in model seconds.

        "refused" met a rate limit (429), "gone" hung up, "strangers" came without a learner's
        name; those in `names` are shown although they have not asked yet.
        """
        while self._ended_s and self._ended_s[0] <= now_s - _WINDOW_S:
            self._ended_s.popleft()
        open_spans = self._open.values()
        open_now = Counter((s.learner or "", s.agent, s.started_s is None) for s in open_spans)
        agents = defaultdict[str, list[tuple[str, int, int]]](list)  # how many run, how many wait
        for who, agent in sorted({key[:2] for key in open_now}):  # so that no block jumps
            agents[who].append((agent, open_now[who, agent, False], open_now[who, agent, True]))
        others = (self._counts.keys() | agents.keys()) - set(names)
        total = sum(self._counts.values(), Counter[str]())
        over_s = min(_WINDOW_S, now_s) or 1.0
        return {
            "now_s": round(now_s, 1),
            "in_flight": len(self._open),
            "waiting": sum(span.started_s is None for span in open_spans),
            "answers_per_minute": round(60 * len(self._ended_s) / over_s, 1),
            **{what: total[what] for what in ("answered", "refused", "errors", "gone")},
            "strangers": self._strangers,
            "learners": [
                {"learner": name, "agents": agents[name]}
                | {what: (self._counts.get(name) or Counter())[what] for what in _SHOWN}
                for name in [*names, *sorted(others, key=str.casefold)]
            ],
        }
