"""The endpoint as a bare ASGI application: what every request meets, whatever model answers it."""

import hmac
import itertools
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any
from urllib.parse import parse_qs, unquote

from agentlab.endpoint import presets
from agentlab.endpoint.contract import asgi
from agentlab.endpoint.contract.asgi import BrokenOff, ClientGone, Model, Receive, Scope, Send
from agentlab.endpoint.contract.openai_json import RequestError, refusal
from agentlab.endpoint.contract.record import BROKEN_OFF, HUNG_UP, Recorder, Span
from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.middleware.fault_plan import FaultPlan
from agentlab.endpoint.middleware.gate import Gate
from agentlab.endpoint.middleware.rate_limits import Limits
from agentlab.endpoint.middleware.server_timing import CLOCK, TIMES, Clock, clock_of, telling
from agentlab.endpoint.physics.batch import Queue
from agentlab.endpoint.presets import Preset
from agentlab.endpoint.server._metrics import Metrics
from agentlab.endpoint.server.local_model import LocalModel
from agentlab.errors import EndpointError
from agentlab.settings import Settings, key_from

OnEnd = Callable[[Span], object]  # is told of every question that was answered, or has failed

_HOST = re.compile(r"(?:https?://)?(\[[\da-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_WATCHED = _HEALTH, _METRICS = "/health", "/metrics"
_REPORTS = dict.fromkeys((*_WATCHED, "/lab/mark", "/lab/spans", CLOCK), ("GET",))
_LONGEST_NAME = 200


class Door:
    """The rules of an endpoint: each method raises 401 or 403 for what may not pass.

    These are of one that one person uses: this machine only, with `lab_key` if any.
    """

    def __init__(self, lab_key: str | None = None):
        self._lab_key, self.classroom = lab_key, False

    def enter(self, scope: Scope) -> None:
        """Let a request in, if no foreign page or name sends it."""
        for name in (b"host", b"origin"):
            value = asgi.header(scope, name)
            if value and hostname(value) not in _LOOPBACK:
                what = f"{name.decode().title()} {value!r} is not this machine"
                raise foreign(what=f"{what}; use http://127.0.0.1.")

    def admit(self, scope: Scope, span: Span) -> None:
        """Let a request through to the model, noting in `span` who sent it."""
        self.visible(scope)  # the same key is good for both

    def visible(self, scope: Scope) -> Callable[[Span], bool]:
        """Return a function that says of a span if the client may see it."""
        shown = asgi.header(scope, b"authorization").removeprefix("Bearer ").encode()
        if self._lab_key is not None and not hmac.compare_digest(shown, self._lab_key.encode()):
            raise refusal("not_the_labs_key")
        return lambda span: True


foreign = partial(refusal, "foreign")  # the answer to a page, or a name, of another origin


@lru_cache(maxsize=64)  # nearly all requests name the same
def hostname(value: str) -> str:
    """Return the host that a Host or an Origin header names; empty if it names none."""
    found = _HOST.fullmatch(value)
    return found[1].strip("[]").casefold() if found else ""


class App:
    """Lets `model` answer what passes `door` (by default this machine), numbered and recorded."""

    def __init__(
        self,
        model: Model,
        *,
        door: Door | None = None,
        on_end: OnEnd | None = None,
        max_body_bytes: int = 8 * asgi.MAX_BODY_BYTES,
    ):
        self.model = model
        self.recorder = Recorder()
        self._metrics = Metrics(self.recorder, model.time_scale)
        self._bodies = asgi.Bodies(max_body_bytes)
        self._door, self._on_end = door or Door(), on_end
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, now_s = f"req_{next(self._numbers):06d}", self.model.now_s()
        agent = _agent(asgi.header(scope, b"x-agent") or "unnamed")
        span = Span(request_id=request_id, agent=agent, arrived_s=now_s)
        if asgi.header(scope, TIMES):
            send = telling(send, span)
        try:
            self._door.enter(scope)
            if origin := asgi.header(scope, b"origin"):
                send = asgi.for_page(scope, origin, send)
            if scope["method"] == "HEAD":  # whose answer loses its body on the way
                scope = scope | {"method": "GET"}
            if scope["method"] == "OPTIONS" and origin:
                await asgi.respond(send, 204, b"", kind=b"text/plain")
            elif scope["path"] in _WATCHED or scope["path"].startswith("/lab/"):
                await self._report(scope, send)
            else:
                await self._answer(scope, receive, send, span)
        except RequestError as error:
            span.status, span.end_s = error.status, span.end_s or self.model.now_s()
            again = asgi.way_out(error, self.model.time_scale)
            headers = [(b"x-request-id", span.request_id.encode()), *again]
            await asgi.respond(send, error.status, error.body, headers)
        except ClientGone:
            if span.status is None:  # else it had all it wanted, and did not wait for the end
                span.status = HUNG_UP
        except BrokenOff:
            span.status = BROKEN_OFF
            scope["extensions"][asgi.RESET]()
        finally:
            if span.end_s is None:  # refused, or gone, before the model began
                span.end_s = self.model.now_s()
            if self._on_end is not None and scope["method"] == "POST":
                self._on_end(span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        self._door.admit(scope, span)
        if retries := asgi.header(scope, b"x-stainless-retry-count"):
            span.attempt = 1 + (asgi.whole_number(retries) or 0)
        if scope["method"] != "POST":
            await self.model(scope, receive, send, span)
            return
        self.recorder.add(span)
        await self._bodies.read(scope, receive, lambda: self.model(scope, receive, send, span))

    async def _report(self, scope: Scope, send: Send) -> None:
        """Tell those who watch the endpoint, not its model, what they may know."""
        visible = None if scope["path"] in (_HEALTH, CLOCK) else self._door.visible(scope)
        path = asgi.routed(scope["path"], scope["method"], _REPORTS)
        if path in _WATCHED:
            text = await self._metrics.text() if path == _METRICS else b""
            await asgi.respond(send, 200, text, kind=b"text/plain; version=0.0.4; charset=utf-8")
            return
        told: dict[str, Callable[[], Any]] = {
            "/lab/mark": lambda: {"mark": self.recorder.mark(), "cpu_s": time.process_time()},
            "/lab/spans": lambda: {"spans": [*filter(visible, self._since(scope))]},
            CLOCK: lambda: Clock(self.model.time_scale, self.model.paid, self._door.classroom),
        }
        await asgi.respond(send, 200, told[path]())

    def _since(self, scope: Scope) -> list[Span]:
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("since", ["0"])[0]
        since, now = asgi.whole_number(asked), self.recorder.mark()
        if since is None or since > now:
            raise refusal("invalid_since", "since", asked=asked[:40], now=now)
        try:
            return self.recorder.since(since)
        except EndpointError as error:
            raise RequestError(410, str(error), param="since", code="not_kept") from None


@lru_cache(maxsize=64)
def _agent(quoted: str) -> str:
    """Return the name that a client gives its agent, as it may be kept and shown."""
    name = unquote(quoted[: 12 * _LONGEST_NAME])[:_LONGEST_NAME]  # a letter may be %F0%9F%90%8C
    printable = name.isprintable()  # as nearly every name is
    return name if printable else "".join(c if c.isprintable() else "\ufffd" for c in name)


def build_app(
    settings: Settings, *, lab_key: str | None = None, on_end: OnEnd | None = None
) -> App:
    """Build the application that `settings` ask for; a file that is wrong is a ConfigError.

    A real model spends money, so who asks it shows `lab_key`.
    """
    preset = None if settings.real else presets.load(settings.preset)
    model = answering(settings, preset)
    plan = [*fault_plan.load(settings.faults), *(preset.faults if preset else [])]
    limits = Limits(*limits_of(preset, settings.requests_per_minute, settings.tokens_per_minute))
    if limits or plan:
        model = Gate(model, limits, FaultPlan(plan, settings.seed))
    door = Door(lab_key if settings.real else None)
    return App(model, door=door, on_end=on_end, max_body_bytes=settings.longest_body_bytes)


def local_app(settings: Settings, *, time_scale: float) -> App:
    """Build the local model that `settings` describe, whatever stands upstream."""
    return build_app(replace(settings, upstream=None, time_scale=time_scale))


def limits_of(
    preset: Preset | None, requests: int | None, tokens: int | None
) -> tuple[int | None, int | None]:
    """Return these limits per minute, or the preset's where they are None; 0 lifts a preset's."""
    own = (preset.requests_per_minute, preset.tokens_per_minute) if preset else (None, None)
    own_requests, own_tokens = (figure.value if figure else None for figure in own)
    return own_requests if requests is None else requests, own_tokens if tokens is None else tokens


def answering(settings: Settings, preset: Preset | None, queue: Queue | None = None) -> Model:
    """Build what answers: a local model where there is a `preset`, or else the one upstream.

    Only here is the upstream's key read, from the environment.
    """
    if preset is not None:
        return LocalModel(preset, settings, queue)
    # aiohttp takes a while to import
    from agentlab.endpoint.server._forward import Forward, account_from

    upstream, clock = settings.upstream, None
    assert upstream is not None
    with suppress(EndpointError):  # what cannot be reached now is taken for a real model
        clock = clock_of(upstream)
    key, account = key_from(learner=clock is not None), {} if clock else account_from()
    return Forward(upstream, key=key, clock=clock, account=account, leave_out=settings.leave_out)
