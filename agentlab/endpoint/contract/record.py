"""The endpoint's record of requests, from which a trace is made."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from itertools import islice
from typing import Self

import msgspec

from agentlab.errors import EndpointError

HUNG_UP = 499  # the status if the client went away before the end (nginx's code)
BROKEN_OFF = 0  # the status if the endpoint broke the connection off


class Span(msgspec.Struct, kw_only=True, gc=False):
    """One request, as the endpoint saw it; times are model seconds on the endpoint's clock.

    A request waits in the queue from `arrived_s` to `started_s`, is read (prefill) until
    `first_token_s`, and is answered (decode) until `end_s`. A time that has not come is None, and
    so is the first token's in the plain answer of a real model. Of the prompt, `cached_tokens` were
    known and not read. `status` is an HTTP status, `HUNG_UP` or `BROKEN_OFF`; None in flight.
    `fault` names the planned fault that hit the request, `learner` who sent it to the endpoint of a
    class. `finish_reason` is "length" if an answer was cut at its limit, else "stop". `late_ms` is
    how much later than due the endpoint itself handed over a token, or the end: the most, in
    milliseconds of wall-clock time. A real model says neither.
    """

    request_id: str
    agent: str
    arrived_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    end_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    status: int | None = None
    attempt: int = 1
    fault: str | None = None
    learner: str | None = None
    finish_reason: str | None = None
    late_ms: float | None = None

    @property
    def ok(self) -> bool:
        """True if the model answered in full, even if late or slowly."""
        return self.status == 200 and self.fault in (None, "stall", "drip")

    @property
    def queued_s(self) -> float:
        """The wait for a slot; 0 if the request never got one."""
        return 0.0 if self.started_s is None else round(self.started_s - self.arrived_s, 9)

    @property
    def ttft_s(self) -> float | None:
        """Time to first token, which includes the wait in the queue; None if there was none."""
        return None if self.first_token_s is None else round(self.first_token_s - self.arrived_s, 9)

    @property
    def service_s(self) -> float:
        """The time for which the model was busy with the request, without the wait for a slot."""
        if self.started_s is None or self.end_s is None:
            return 0.0
        return round(self.end_s - self.started_s, 9)

    def shifted(self, by_s: float, time_scale: float = 1) -> Self:
        """Return a copy for a clock whose zero lies `by_s` later, and that is so much faster."""
        names = ("arrived_s", "started_s", "first_token_s", "end_s")
        times_s = {name: at_s for name in names if (at_s := getattr(self, name)) is not None}
        moved = {name: round((at_s - by_s) * time_scale, 9) for name, at_s in times_s.items()}
        return msgspec.structs.replace(self, **moved)


class Recorder:
    """The record, in order of arrival; it keeps the newest `keep` spans.

    Example:
        >>> recorder = Recorder()
        >>> recorder.add(Span(request_id="req_1", agent="writer", arrived_s=0.0))
        >>> recorder.mark(), len(recorder.since(0))
        (1, 1)
    """

    # Its clock: the event loop's, or the machine's if None; what that shows at 0; and its pace.
    loop: AbstractEventLoop | None = None
    zero_s, time_scale = 0.0, 1.0

    def __init__(self, keep: int = 200_000):
        self._spans: deque[Span] = deque(maxlen=keep)
        self._seen = 0

    def add(self, span: Span) -> None:
        """Record a request as it arrives; the span is filled in as things happen to it."""
        self._spans.append(span)
        self._seen += 1

    @property
    def alive(self) -> bool:
        """True while its clock runs, so that more may come."""
        return self.loop is None or not self.loop.is_closed()

    def mark(self) -> int:
        """Return the number of spans so far, a place in the record."""
        return self._seen

    @property
    def oldest(self) -> int:
        """The place of the oldest span that is kept."""
        return self._seen - len(self._spans)

    def since(self, mark: int) -> list[Span]:
        """Return the spans recorded after `mark`; EndpointError if some of them are gone."""
        skip = mark - self.oldest
        if skip < 0:
            raise EndpointError(
                f"{-skip} of {self._seen - mark} requests are no longer recorded (the newest "
                f"{self._spans.maxlen} are kept); trace a shorter run"
            )
        return list(islice(self._spans, skip, None))
