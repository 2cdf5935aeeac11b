"""Agents past this machine: any number of them on an endpoint's physics, with no client at all.

What is simulated is the time that the endpoint takes. That the client takes none is assumed, and
so are equal prompts and answers. The rest is the arithmetic of `agentlab.endpoint.batch`, which
explains it, in one loop without an object for each agent: four times as fast, and the tests hold it
against the batch to the last digit.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from math import exp
from random import Random
from typing import NamedTuple

from agentlab.endpoint.physics import Physics
from agentlab.errors import ConfigError


class Crowd(NamedTuple):
    """What became of them; times are model seconds."""

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
    at_once: int,
    prompt_tokens: int = 16,
    output_tokens: int = 11,
    seed: int = 7,
) -> Crowd:
    """So many agents with one question each, `at_once` of them in flight.

    Memory is bounded by `at_once`: an agent is made when there is room for it.

    Raises:
        ConfigError: If a number is less than 1, or more are to be in flight than may come in.

    Example:
        >>> course = Physics(prefill_base_s=1.0, itl_base_s=0.1)
        >>> crowd(course, 1000, at_once=100).makespan_s
        20.0
    """
    if min(agents, at_once, output_tokens) < 1:
        raise ConfigError(
            f"needs agents, at_once and output_tokens >= 1; got {agents}, {at_once}, "
            f"{output_tokens}"
        )
    if physics.slots is not None and physics.queue is not None:
        most = physics.slots + physics.queue
        if at_once > most:
            raise ConfigError(f"the endpoint refuses more than {most} at once; got {at_once}")
    if physics.takes_no_time:
        return Crowd(agents, 0.0, 0.0, 0.0)
    gauss, sigma = Random(seed).gauss, physics.jitter_sigma
    most = min(agents, at_once)
    prefill_s = [physics.prefill_s(prompt_tokens, active) for active in range(most + 1)]
    itl_s = [physics.itl_s(active) for active in range(most + 1)]
    changes = sorted(physics.capacity, key=lambda change: change.from_s)[::-1]
    slots = math.inf if physics.slots is None else physics.slots
    waiting: deque[float] = deque()  # when each arrived
    prefilling: list[tuple[float, int, float, float, float]] = []  # by time of the first token
    decoding: list[tuple[float, int, float, float]] = []  # by step of the last token
    now_s = work_s = longest_s = 0.0
    active = tie = 0
    step, step_at_s, step_s = 0.0, 0.0, itl_s[0]  # the batch's decode clock, since its rate is this
    free, left = most, agents

    while active or waiting or left:
        if waiting and active < slots:
            active += 1
            length_s, factor = prefill_s[active], 1.0
            if sigma:
                length_s *= exp(gauss(0.0, sigma))
                factor = exp(gauss(0.0, sigma))
            tie += 1
            first_s = round(now_s + length_s, 9)
            heappush(prefilling, (first_s, tie, waiting.popleft(), now_s, factor))
        else:
            event_s = prefilling[0][0] if prefilling else math.inf
            change_s = changes[-1].from_s if changes else math.inf
            ends = False
            if decoding:
                end_s = step_at_s + (decoding[0][0] - step) * step_s
                # Rounding costs as much as the rest: it is left out where it decides nothing.
                if end_s < event_s + 1e-6:
                    end_s = round(end_s, 9)
                    ends = end_s <= event_s
                    event_s = min(event_s, end_s)
            if free and left and min(event_s, change_s) > now_s:
                free, left = free - 1, left - 1
                waiting.append(now_s)
                continue
            now_s = max(now_s, min(event_s, change_s))
            if change_s <= event_s:
                slots = changes.pop().slots
                continue
            if ends:
                _, _, arrived_s, started_s = heappop(decoding)
            else:
                _, _, arrived_s, started_s, factor = heappop(prefilling)
                if output_tokens > 1:
                    tie += 1
                    begun = step + (now_s - step_at_s) / step_s if step_s else step
                    last = begun + (output_tokens - 1) * factor
                    heappush(decoding, (last, tie, arrived_s, started_s))
                    continue
            active, free = active - 1, free + 1
            work_s += now_s - started_s
            longest_s = max(longest_s, now_s - arrived_s)
        if itl_s[active] != step_s:
            step = step + (now_s - step_at_s) / step_s if step_s else step
            step_at_s, step_s = now_s, itl_s[active]
    return Crowd(agents, now_s, round(work_s, 6), round(longest_s, 9))
