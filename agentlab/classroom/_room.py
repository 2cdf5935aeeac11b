"""What stands behind a classroom's door, and changes while the class runs.

There is one model for all, and in front of it a gate for each learner, with limits, faults and
counts of their own: so "the writer's third call is reset" holds for everybody. A change applies to
later requests; what is in flight keeps the gate that it came to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

import msgspec

from agentlab.classroom._board import Board
from agentlab.classroom._fair import FairQueue, Shares
from agentlab.endpoint import presets
from agentlab.endpoint.contract.asgi import Model, Receive, Scope, Send, read_body, unless_gone
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

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Controls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the teacher may change while the class runs.

    Not model and time scale: the clients' time-outs and waits are counted by them. The first two
    limits are the whole class's: None takes the preset's, 0 lifts it. `faults` come beside the
    preset's own. While `paused`, new requests wait at the door.
    """

    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    learner_requests_per_minute: _Count = 0
    learner_tokens_per_minute: _Count = 0
    faults: list[Fault] = []
    paused: bool = False

    def changed(self, changes: dict[str, Any]) -> Controls:
        """Return a copy with `changes`, some of the fields as they came from outside, checked."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        try:
            chosen = msgspec.convert(fields | changes, Controls)
        except msgspec.ValidationError as error:
            names = ", ".join(self.__struct_fields__)
            raise ConfigError(f"{error}; the settings are {names}") from None
        return msgspec.structs.replace(chosen, faults=fault_plan.load(chosen.faults))


class Room:
    """A model for a class; `settings` say how it begins, `change` what becomes of it."""

    def __init__(self, settings: Settings):
        self._seed = settings.seed
        self._queue = FairQueue()
        self.preset: presets.Preset | None = None  # where another model answers
        if settings.replay is not None:
            self._model: Model = Replay(settings.replay, time_scale=settings.time_scale)
        elif settings.real:
            self._model = real_model(settings)
        else:
            self.preset = presets.load(settings.preset)
            self._queue = FairQueue(self._slot_time_s)
            self._model = LocalModel(self.preset, settings, self._queue)
        if settings.record is not None:
            self._model = Recording(self._model, settings.record)
        self.time_scale, self.paid = self._model.time_scale, self._model.paid
        self.now_s = self._model.now_s
        self.board = Board()
        self._held: Counter[tuple[str, str]] = Counter()
        self._open = asyncio.Event()
        self._open.set()
        self.controls = Controls(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            faults=fault_plan.load(settings.faults),
        )
        self._arrange()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        if scope["method"] != "POST":
            await self._model(scope, receive, send, span)
            return
        self.board.begin(span)
        if not self._open.is_set():
            await read_body(scope, receive)
            await unless_gone(receive, self._reopened((span.learner or "", span.agent)))
        await self._front(span.learner or "")(scope, receive, send, span)

    def change(self, controls: Controls) -> None:
        """Apply new controls to requests that arrive from now on."""
        before, self.controls = self.controls, controls
        if controls.paused:
            self._open.clear()
        else:
            self._open.set()
        if msgspec.structs.replace(controls, paused=before.paused) != before:
            self._arrange()  # not after a pause, which fills no bucket again

    def forget(self, learner: str) -> None:
        """Drop what is counted and kept of a learner."""
        self.board.forget(learner)
        self._queue.forget(learner)
        self._shares.forget(learner)
        self._gates.pop(learner, None)

    def numbers(self, names: list[str]) -> dict[str, Any]:
        """Return what the projector shows."""
        return self.board.numbers(self.now_s(), self._queue.waiting + self._held, names=names)

    def _slot_time_s(self, job: Job) -> float:
        assert self.preset is not None
        return max(self.preset.physics.service_s(job.prompt_tokens, job.output_tokens), 1e-9)

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
            return self._model
        limits = self._shares.of(learner, self.now_s())
        if learner not in self._gates:
            plan = FaultPlan(self._plan, self._seed)
            self._gates[learner] = Gate(self._model, limits, plan)
        return self._gates[learner]

    async def _reopened(self, who: tuple[str, str]) -> None:
        self._held[who] += 1
        try:
            await self._open.wait()
        finally:
            self._held[who] -= 1
