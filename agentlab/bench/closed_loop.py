"""Agents that ask one question after the other, on an endpoint's physics and without a client.

The arithmetic is that of `agentlab.endpoint.physics.batch`, which explains it, in one loop that is
four times as fast; the tests hold it against the batch to the last digit.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from random import Random
from typing import Any, NamedTuple, Protocol

from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError


class Request(NamedTuple):
    """A request as the endpoint sees it; `call` is whatever the agents know it by."""

    tokens: int
    prefill_jitter: float = 1.0
    decode_jitter: float = 1.0
    call: Any = None


class Agents(Protocol):
    """Those who ask. They wake at `wakes_s` without an answer; infinity if never."""

    wakes_s: float

    def next_request(self, now_s: float) -> Request | None:
        """Return what is sent now; None if nothing is, until an answer comes or they wake."""

    def answered(self, call: Any, arrived_s: float, now_s: float) -> None:
        """Take an answer."""


def serve(
    agents: Agents, physics: Physics, *, prompt_tokens: int, most: int, until_s: float = math.inf
) -> float:
    """Serve what `agents` send, `most` of whom ask at the same time; return when it ended."""
    prefill_s = [physics.prefill_s(prompt_tokens, active) for active in range(most + 1)]
    itl_s = [physics.itl_s(active) for active in range(most + 1)]
    changes = sorted(physics.capacity, key=lambda change: change.from_s)[::-1]
    slots = math.inf if physics.slots is None else physics.slots
    waiting: deque[tuple[float, Request]] = deque()  # when each arrived; the queue is endless
    prefilling: list[tuple[float, int, float, Request]] = []  # by time of the first token
    decoding: list[tuple[float, int, float, Request]] = []  # by step of the last token
    now_s = time_s = 0.0  # in whole nanoseconds, and as the agents have it
    active = tie = 0
    step, step_at_s, step_s = 0.0, 0.0, itl_s[0]  # the batch's decode clock, since its rate is this
    asking = True  # whether the agents may have something to send
    push, pop = heapq.heappush, heapq.heappop
    next_request, answered = agents.next_request, agents.answered

    while True:
        if waiting and active < slots:
            active += 1
            arrived_s, request = waiting.popleft()
            tie += 1
            first_s = round(now_s + prefill_s[active] * request.prefill_jitter, 9)
            push(prefilling, (first_s, tie, arrived_s, request))
        else:
            event_s = prefilling[0][0] if prefilling else math.inf
            change_s = changes[-1].from_s if changes else math.inf
            ends = False
            if decoding:
                end_s = step_at_s + (decoding[0][0] - step) * step_s
                # Rounding costs as much as the rest: it is left out where it decides nothing.
                if end_s < event_s + 1e-6:
                    end_s = round(end_s, 9)
                    if end_s <= event_s:
                        ends, event_s = True, end_s
            next_s = event_s if event_s < change_s else change_s
            if asking and next_s > time_s:
                sent = next_request(time_s)
                if sent is not None:
                    waiting.append((now_s, sent))
                    continue
                asking = False
            if agents.wakes_s < next_s:
                time_s = agents.wakes_s
                if time_s > until_s:
                    return now_s
                now_s, asking = max(now_s, round(time_s, 9)), True
                continue
            idle = event_s == math.inf and agents.wakes_s == math.inf
            if next_s > until_s or (idle and not (asking or waiting)):
                return now_s
            if next_s > now_s:
                now_s = next_s
            time_s = now_s
            if change_s <= event_s:
                slots = changes.pop().slots
                continue
            if ends:
                _, _, arrived_s, request = pop(decoding)
            else:
                _, _, arrived_s, request = pop(prefilling)
                if request.tokens > 1:
                    tie += 1
                    begun = step + (now_s - step_at_s) / step_s if step_s else step
                    last = begun + (request.tokens - 1) * request.decode_jitter
                    push(decoding, (last, tie, arrived_s, request))
                    continue
            active -= 1
            answered(request.call, arrived_s, now_s)
            asking = True
        if itl_s[active] != step_s:
            step = step + (now_s - step_at_s) / step_s if step_s else step
            step_at_s, step_s = now_s, itl_s[active]


class Crowd(NamedTuple):
    """What became of a crowd, in model seconds: all of it, all answers together, the longest."""

    agents: int
    makespan_s: float
    work_s: float
    longest_s: float

    @property
    def throughput(self) -> float:
        """Answers per second; infinite where an answer takes no time."""
        return self.agents / self.makespan_s if self.makespan_s else math.inf


def crowd(
    physics: Physics,
    agents: int,
    *,
    max_concurrency: int,
    prompt_tokens: int = 16,
    output_tokens: int = 11,
    seed: int = 7,
) -> Crowd:
    """Let each of many agents ask one question, with `max_concurrency` of them in flight.

    Those beyond the endpoint's slots wait; its queue is taken to be endless.

    Example:
        >>> course = Physics(prefill_base_s=1.0, itl_base_s=0.1)
        >>> crowd(course, 1000, max_concurrency=100).makespan_s
        20.0
    """
    if min(agents, max_concurrency, output_tokens) < 1:
        raise ConfigError(
            "needs agents, max_concurrency and output_tokens >= 1; "
            f"got {agents}, {max_concurrency}, {output_tokens}"
        )
    if physics.takes_no_time:
        return Crowd(agents, 0.0, 0.0, 0.0)
    most = min(agents, max_concurrency)
    some = _Crowd(physics, agents, most, output_tokens, seed)
    makespan_s = serve(some, physics, prompt_tokens=prompt_tokens, most=most)
    return Crowd(agents, makespan_s, round(some.work_s, 6), round(some.longest_s, 9))


class _Crowd:
    wakes_s = math.inf

    def __init__(self, physics: Physics, agents: int, max_concurrency: int, tokens: int, seed: int):
        self._ready, self._later = max_concurrency, agents - max_concurrency
        self._request, self._sigma = Request(tokens), physics.jitter_sigma
        self._gauss = Random(seed).gauss
        self.work_s = self.longest_s = 0.0

    def next_request(self, now_s: float) -> Request | None:
        if not self._ready:
            return None
        self._ready -= 1
        if not self._sigma:
            return self._request
        prefill, decode = self._gauss(0.0, self._sigma), self._gauss(0.0, self._sigma)
        return Request(self._request.tokens, math.exp(prefill), math.exp(decode))

    def answered(self, call: Any, arrived_s: float, now_s: float) -> None:
        if self._later:
            self._later -= 1
            self._ready += 1
        took_s = now_s - arrived_s
        self.work_s += took_s
        if took_s > self.longest_s:
            self.longest_s = took_s
