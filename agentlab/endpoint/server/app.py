"""The endpoint as an ASGI application: what every request meets, whatever model answers it.

It is written on bare ASGI because its one hot route must carry a thousand requests at the same time
on one core. The same application runs under uvicorn in real time, and inside an event loop in
virtual time.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from itertools import islice
from urllib.parse import parse_qs, unquote

import msgspec

from agentlab.endpoint import presets
from agentlab.endpoint.contract.asgi import (
    MAX_BODY_BYTES,
    RESET,
    Bodies,
    BrokenOff,
    ClientGone,
    Model,
    Receive,
    Scope,
    Send,
    header,
    respond,
    unknown_route,
    when_again,
    whole_number,
)
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.contract.record import BROKEN_OFF, HUNG_UP, Recorder, Span
from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.middleware.fault_plan import FaultPlan
from agentlab.endpoint.middleware.gate import Gate
from agentlab.endpoint.middleware.rate_limits import Limits
from agentlab.endpoint.middleware.recording import Recording, Replay
from agentlab.endpoint.middleware.server_timing import CLOCK, TIMES, clock_of, telling
from agentlab.endpoint.server.access import Door, OwnDoor
from agentlab.endpoint.server.local_model import LocalModel
from agentlab.errors import EndpointError
from agentlab.settings import Settings, account_from, key_from

OnEnd = Callable[[Span], object]
"""What is told of every question that has been answered, or has failed."""

_LONGEST_NAME = 200
_LONGEST_QUOTED = 12 * _LONGEST_NAME  # a letter of four bytes takes %F0%9F%90%8C
_SPANS_PER_TURN = 5000  # are put into words before the event loop turns


class App:
    """Guards the door, numbers and records the requests, and lets `model` answer them.

    Without a `door` only this machine may come in, and needs no key.
    """

    def __init__(
        self,
        model: Model,
        *,
        door: Door | None = None,
        on_end: OnEnd | None = None,
        max_body_bytes: int = 8 * MAX_BODY_BYTES,
    ):
        self.model = model
        self.recorder = Recorder()
        self._bodies = Bodies(max_body_bytes)
        self._door, self._on_end = door or OwnDoor(), on_end
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = Span(
            request_id=f"req_{next(self._numbers):06d}",
            agent=_agent(scope),
            arrived_s=self.model.now_s(),
        )
        if header(scope, TIMES):
            send = telling(send, span)
        try:
            self._door.enter(scope)
            if scope["path"].startswith("/lab/"):
                await self._lab(scope, send)
            else:
                await self._answer(scope, receive, send, span)
        except RequestError as error:
            span.status, span.end_s = error.status, span.end_s or self.model.now_s()
            again = when_again(error, self.model.time_scale)
            headers = [(b"x-request-id", span.request_id.encode()), *again]
            await respond(send, error.status, error.body, headers)
        except ClientGone:
            if span.status is None:  # else it had all it wanted, and did not wait for the end
                span.status = HUNG_UP
        except BrokenOff:
            span.status = BROKEN_OFF
            scope["extensions"][RESET]()
        finally:
            if span.end_s is None:  # refused, or gone, before the model began
                span.end_s = self.model.now_s()
            if self._on_end is not None and scope["method"] == "POST":
                self._on_end(span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        self._door.admit(scope, span)
        span.attempt = 1 + (whole_number(header(scope, b"x-stainless-retry-count")) or 0)
        if scope["method"] != "POST":
            await self.model(scope, receive, send, span)
            return
        self.recorder.add(span)
        body = await self._bodies.read(scope, receive)
        try:
            await self.model(scope, receive, send, span)
        finally:
            self._bodies.release(body)

    async def _lab(self, scope: Scope, send: Send) -> None:
        """Answer another lab, which asks for the clock without a key, or read the record."""
        path, model = scope["path"], self.model
        if path == CLOCK:
            await respond(send, 200, {"time_scale": model.time_scale, "paid": model.paid})
            return
        visible = self._door.visible(scope)
        if path == "/lab/mark":
            mark = {"mark": self.recorder.mark(), "cpu_s": time.process_time()}
            await respond(send, 200, mark)
        elif path == "/lab/spans":
            await self._spans(scope, visible, send)
        else:
            raise unknown_route(scope, ["/lab/mark", "/lab/spans", CLOCK])

    async def _spans(self, scope: Scope, visible: Callable[[Span], bool], send: Send) -> None:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("since", ["0"])[0]
        since, now = whole_number(asked), self.recorder.mark()
        if since is None or since > now:
            what = f"{asked[:40]!r}; give a whole number, at most {now}, the mark of now."
            raise RequestError(400, f"Invalid 'since': {what}", param="since")
        try:
            spans = filter(visible, self.recorder.since(since))
        except EndpointError as error:
            raise RequestError(410, str(error), param="since", code="not_kept") from None
        data = []
        while few := list(islice(spans, _SPANS_PER_TURN)):
            data.append(msgspec.json.encode(few)[1:-1])
            if len(few) == _SPANS_PER_TURN:
                await asyncio.sleep(0)
        await respond(send, 200, b'{"spans":[' + b",".join(data) + b"]}")


def _agent(scope: Scope) -> str:
    """Return the name that the client gives its agent, as it may be kept and shown."""
    name = unquote(header(scope, b"x-agent")[:_LONGEST_QUOTED])[:_LONGEST_NAME] or "unnamed"
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def build_app(settings: Settings, *, lab_key: str, on_end: OnEnd | None = None) -> App:
    """Build the application that `settings` ask for: the local model, or one that forwards.

    A preset, a fault plan or a recording that is missing or wrong raises a ConfigError.
    """
    if not settings.real:
        return local_app(settings, time_scale=settings.time_scale, on_end=on_end)
    return _app(settings, real_model(settings), OwnDoor(lab_key), on_end)


def local_app(settings: Settings, *, time_scale: float, on_end: OnEnd | None = None) -> App:
    """Build the local model that `settings` describe, at a time scale of its own."""
    preset = presets.load(settings.preset)
    model: Model
    if settings.replay is not None:
        model = Replay(settings.replay, time_scale=time_scale)
    else:
        model = LocalModel(preset, settings, time_scale=time_scale)
    return _app(settings, model, None, on_end, preset)


def _app(
    settings: Settings,
    model: Model,
    door: Door | None,
    on_end: OnEnd | None,
    preset: presets.Preset | None = None,
) -> App:
    """Put a recorder and a gate before the model, where there is anything for them to do."""
    plan = [*fault_plan.load(settings.faults), *(preset.faults if preset else [])]
    limits = Limits(*limits_of(preset, settings.requests_per_minute, settings.tokens_per_minute))
    if settings.record is not None:
        model = Recording(model, settings.record)
    if limits or plan:
        model = Gate(model, limits, FaultPlan(plan, settings.seed))
    return App(model, door=door, on_end=on_end, max_body_bytes=settings.longest_body_bytes)


def limits_of(
    preset: presets.Preset | None, requests: int | None, tokens: int | None
) -> tuple[int | None, int | None]:
    """Return these limits per minute, or the preset's where they are None; 0 lifts a preset's."""
    if requests is None and preset and preset.requests_per_minute:
        requests = preset.requests_per_minute.value
    if tokens is None and preset and preset.tokens_per_minute:
        tokens = preset.tokens_per_minute.value
    return requests, tokens


def real_model(settings: Settings) -> Model:
    """Build the model at `settings.upstream`. Only here is its key read, from the environment.

    Raises:
        ConfigError: If the key can be none.
    """
    from agentlab.endpoint.server._forward import Forward  # aiohttp takes a while to import

    upstream, leave_out = settings.upstream, settings.leave_out
    assert upstream is not None
    try:
        clock = clock_of(upstream)
    except EndpointError:  # what cannot be reached now is taken for a real model
        clock = None
    key = key_from(learner=clock is not None)
    if clock is None:
        return Forward(upstream, key=key, account=account_from(), leave_out=leave_out)
    return Forward(
        upstream, key=key, time_scale=clock.time_scale, paid=clock.paid, leave_out=leave_out
    )
