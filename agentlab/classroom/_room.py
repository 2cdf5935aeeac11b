"""What stands behind a classroom's door, and changes while the class runs.

There is one model for all, and in front of it a gate for each learner, with limits, faults and
counts of their own: so a lesson that says "the writer's third call is reset" holds for everybody,
whatever the neighbours do. A change applies to later requests; what is in flight keeps the model
and the gate that it came to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

import msgspec

from agentlab.classroom._board import Board
from agentlab.classroom._fair import FairQueue, Shares
from agentlab.endpoint import presets
from agentlab.endpoint.contract.asgi import (
    Model,
    Receive,
    Scope,
    Send,
    read_body,
    unless_gone,
)
from agentlab.endpoint.contract.record import Span
from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.middleware.fault_plan import Fault, FaultPlan
from agentlab.endpoint.middleware.gate import Gate
from agentlab.endpoint.middleware.recording import Recording, Replay
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.server.app import limits_of, real_model
from agentlab.endpoint.server.local_model import LocalModel
from agentlab.errors import ConfigError
from agentlab.settings import Settings

_WINDOW_S = 5.0
"""Throughput is taken over this many seconds of a watch, and over a model minute at least."""

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Controls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the teacher may change while the class runs.

    The time scale is not among them: the clients' time-outs and waits are counted by it.

    `preset` is None where no local model answers. The first two limits are the whole class's: None
    takes the preset's, 0 lifts it. `faults` come beside the preset's own. While `paused`, new
    requests wait at the door, and what is in flight goes on.
    """

    preset: str | None = "course"
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    learner_requests_per_minute: _Count = 0
    learner_tokens_per_minute: _Count = 0
    faults: list[Fault] = []
    paused: bool = False

    def changed(self, changes: Any) -> Controls:
        """Return a copy with `changes`, some of the fields as they came from outside, checked."""
        if not isinstance(changes, dict):
            raise ConfigError(f"settings are an object of names and values; got {changes!r}")
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        try:
            chosen = msgspec.convert(fields | changes, Controls)
        except msgspec.ValidationError as error:
            names = ", ".join(self.__struct_fields__)
            raise ConfigError(f"{error}; the settings are {names}") from None
        planned = fault_plan.load(changes.get("faults", self.faults))
        chosen = msgspec.structs.replace(chosen, faults=planned)
        # A file of the teacher's own may stay, but none is read because somebody names it here.
        preset, known = chosen.preset, presets.names()
        if preset != self.preset and self.preset is None:
            raise ConfigError(f"no local model answers here, so preset {preset!r} cannot be chosen")
        if preset != self.preset and preset not in known:
            raise ConfigError(f"no preset {preset!r}; choose one of {', '.join(known)}")
        return chosen


class Room:
    """A model for a class; `settings` say how it begins, `change` what becomes of it."""

    def __init__(self, settings: Settings):
        self._settings = settings
        local = settings.replay is None and not settings.real
        self.controls = Controls(
            preset=settings.preset if local else None,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            faults=fault_plan.load(settings.faults),
        )
        self._model: Model | None = None
        if settings.replay is not None:
            self._model = self._recorded(Replay(settings.replay, time_scale=settings.time_scale))
        elif settings.real:
            self._model = self._recorded(real_model(settings))
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
            await read_body(scope, receive)
            await unless_gone(receive, self._reopened((span.learner or "", span.agent)))
        await self._front(span.learner or "")(scope, receive, send, span)

    def change(self, controls: Controls) -> None:
        """Apply new controls to requests that arrive from now on, if the preset can be read."""
        before = self.controls
        if controls.preset is not None:
            presets.load(controls.preset)
        self.controls = controls
        if controls.preset != before.preset:
            self._model = None  # the next request makes the new one
        if msgspec.structs.replace(controls, paused=before.paused) != before:
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

    def numbers(self, names: list[str]) -> dict[str, Any]:
        """Return what the projector shows; of `names` even those who have not asked yet."""
        self._queues = [queue for queue in self._queues if queue or queue is self._queues[-1]]
        waiting = sum((queue.waiting for queue in self._queues), Counter(self._held))
        arrived = [at_s for queue in self._queues if (at_s := queue.oldest_s) is not None]
        return self.board.numbers(
            self.now_s(), waiting, oldest_s=min(arrived, default=None), names=names
        )

    @property
    def preset(self) -> presets.Preset | None:
        """The local model's preset; None where another model answers."""
        return None if self.controls.preset is None else presets.load(self.controls.preset)

    def _running(self) -> Model:
        if self._model is None:
            preset = self.preset
            assert preset is not None
            physics = preset.physics

            def slot_time(job: Job) -> float:  # what a job counts for: a slot's time, alone
                return max(physics.service_s(job.prompt_tokens, job.output_tokens), 1e-9)

            if self._epoch is None:  # only now there is a loop whose clock can be read
                self._epoch = asyncio.get_running_loop().time()
            queue, scale, epoch = FairQueue(slot_time), self.time_scale, self._epoch
            self._queues.append(queue)
            self._model = self._recorded(
                LocalModel(preset, self._settings, time_scale=scale, queue=queue, epoch=epoch)
            )
        return self._model

    def _recorded(self, model: Model) -> Model:
        path = self._settings.record
        return model if path is None else Recording(model, path)

    def _arrange(self) -> None:
        """Make new gates for all, with new limits and new faults."""
        chosen, preset = self.controls, self.preset
        requests, tokens = limits_of(preset, chosen.requests_per_minute, chosen.tokens_per_minute)
        self._shares = Shares(
            {"requests": requests, "tokens": tokens},
            {
                "requests": chosen.learner_requests_per_minute,
                "tokens": chosen.learner_tokens_per_minute,
            },
        )
        self._plan = [*chosen.faults, *(preset.faults if preset else [])]
        self._gates: dict[str, Model] = {}

    def _front(self, learner: str) -> Model:
        """Return what stands before the model for a learner who asks."""
        if not (self._shares or self._plan):
            return self._running()
        limits = self._shares.of(learner, self.now_s())
        if learner not in self._gates:
            plan = FaultPlan(self._plan, self._settings.seed)
            self._gates[learner] = Gate(self._running(), limits, plan)
        return self._gates[learner]

    async def _reopened(self, who: tuple[str, str]) -> None:
        self._held[who] += 1
        try:
            await self._open.wait()
        finally:
            self._held[who] -= 1
