"""What stands behind a classroom's door, and changes while the class runs.

There is one model for all, and in front of it a gate for each learner, with limits, faults and
counts of their own: so a lesson that says "the writer's third call is reset" holds for everybody,
whatever the neighbours do. A change holds for what comes after it; what is in flight keeps the
model and the gate that it came to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from agentlab.classroom.board import Board, Numbers
from agentlab.classroom.controls import Controls
from agentlab.classroom.fair import FairQueue
from agentlab.classroom.shares import Shares
from agentlab.endpoint import faults, presets
from agentlab.endpoint.batch import Job
from agentlab.endpoint.faults import FaultPlan
from agentlab.endpoint.gate import Gate
from agentlab.endpoint.http import Again, Model, Receive, Scope, Send, read_body, unless_gone
from agentlab.endpoint.physics import Physics
from agentlab.endpoint.record import Span
from agentlab.endpoint.recording import Recording, Replay
from agentlab.endpoint.serve import local_model, real_model
from agentlab.settings import Settings

_WINDOW_S = 5.0
"""Throughput is taken over so many seconds of a watch, and over a model minute at least."""


class Room:
    """A model for a class; `settings` say how it begins, `change` what becomes of it.

    Raises:
        ConfigError: If the preset, the fault plan or the recording is missing or wrong.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        local = settings.replay is None and not settings.real
        self.controls = Controls(
            preset=settings.preset if local else None,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            faults=faults.load(settings.faults),
        )
        self._model = None if local else self._recorded(_other_model(settings))
        self.time_scale = self._model.time_scale if self._model else settings.time_scale
        self.paid = self._model is not None and self._model.paid
        self.board = Board(window_s=max(60.0, _WINDOW_S * self.time_scale))
        self._epoch: float | None = None
        self._queues: list[FairQueue] = []
        self._held: Counter[tuple[str, str]] = Counter()
        self._open = asyncio.Event()
        self._open.set()
        self._arrange()

    def now_s(self) -> float:
        return self._running().now_s()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        if scope["method"] != "POST":
            await self._running()(scope, receive, send, span)
            return
        self.board.begin(span)
        if not self._open.is_set():
            body = await read_body(scope, receive)
            await unless_gone(receive, self._reopened(span))
            receive = Again(body, receive)
        await self._front(span)(scope, receive, send, span)

    def change(self, controls: Controls) -> None:
        """From now on, these; what is in flight goes on as it came.

        Raises:
            ConfigError: If the preset cannot be read; everything stays as it was.
        """
        before = self.controls
        if controls.preset is not None:
            presets.load(controls.preset)
        self.controls = controls
        if controls.preset != before.preset:
            self._model = None  # the next request makes the new one
        if _without_pause(controls) != _without_pause(before):
            self._arrange()
        if controls.paused:
            self._open.clear()
        else:
            self._open.set()

    def forget(self, learner: str) -> None:
        """Drop what is counted and kept of a learner; what they have in flight goes on."""
        self.board.forget(learner)
        self._shares.forget(learner)
        self._gates.pop(learner, None)

    def numbers(self, names: list[str]) -> Numbers:
        """What the projector shows; of `names` even those who have not asked yet."""
        self._queues = [queue for queue in self._queues if queue or queue is self._queues[-1]]
        waiting = sum((queue.waiting for queue in self._queues), Counter(self._held))
        arrived = [at_s for queue in self._queues if (at_s := queue.oldest_s) is not None]
        return self.board.numbers(
            self.now_s(), waiting, oldest_s=min(arrived, default=None), names=names
        )

    @property
    def physics(self) -> Physics | None:
        """The local model's; None where another answers."""
        preset = self.controls.preset
        return None if preset is None else presets.load(preset).physics

    def _running(self) -> Model:
        if self._model is None:
            self._model = self._recorded(self._local_model())
        return self._model

    def _local_model(self) -> Model:
        assert self.controls.preset is not None
        if self._epoch is None:  # only now there is a loop whose clock can be read
            self._epoch = asyncio.get_running_loop().time()
        preset = presets.load(self.controls.preset)
        queue = FairQueue(_slot_time(preset.physics))
        self._queues.append(queue)
        return local_model(
            preset, self._settings, time_scale=self.time_scale, queue=queue, epoch=self._epoch
        )

    def _recorded(self, model: Model) -> Model:
        path = self._settings.record
        return model if path is None else Recording(model, path)

    def _arrange(self) -> None:
        """New gates for all, with new limits and new faults."""
        chosen = self.controls
        preset = None if chosen.preset is None else presets.load(chosen.preset)
        requests, tokens = chosen.requests_per_minute, chosen.tokens_per_minute
        if preset is not None:
            if requests is None and preset.requests_per_minute:
                requests = preset.requests_per_minute.value
            if tokens is None and preset.tokens_per_minute:
                tokens = preset.tokens_per_minute.value
        self._shares = Shares(
            {"requests": requests, "tokens": tokens},
            {
                "requests": chosen.learner_requests_per_minute,
                "tokens": chosen.learner_tokens_per_minute,
            },
        )
        self._plan = [*chosen.faults, *(preset.faults if preset else [])]
        self._gates: dict[str, Model] = {}

    def _front(self, span: Span) -> Model:
        """What stands before the model for whoever asks."""
        learner = span.learner or ""
        if not (self._shares or self._plan):
            return self._running()
        limits = self._shares.of(learner, self.now_s())
        if learner not in self._gates:
            plan = FaultPlan(self._plan, self._settings.seed)
            self._gates[learner] = Gate(self._running(), limits, plan)
        return self._gates[learner]

    async def _reopened(self, span: Span) -> None:
        who = (span.learner or "", span.agent)
        self._held[who] += 1
        try:
            await self._open.wait()
        finally:
            self._held[who] -= 1


def _other_model(settings: Settings) -> Model:
    if settings.replay is not None:
        return Replay(settings.replay, time_scale=settings.time_scale)
    return real_model(settings)


def _slot_time(physics: Physics) -> Callable[[Job], float]:
    """What a job counts for: how long it would hold a slot alone."""

    def cost(job: Job) -> float:
        return max(physics.service_s(job.prompt_tokens, job.output_tokens), 1e-9)

    return cost


def _without_pause(controls: Controls) -> Controls:
    return msgspec.structs.replace(controls, paused=False)
