"""Agents that ask one question after the other, on an endpoint's physics and without a client.

The batch is the local model's own, so a million agents meet what one of them would.
"""

import math
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple, Protocol

from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError


class Agents(Protocol):
    """Those who ask. They wake at `wakes_s` without an answer; infinity if never."""

    wakes_s: float

    def next_request(self, now_s: float) -> Job | None:
        """Return what is sent now; None if nothing is, until an answer comes or they wake."""

    def answered(self, job: Any, now_s: float) -> None:
        """Take the answer to a job of theirs."""


def serve(agents: Agents, physics: Physics, *, until_s: float = math.inf) -> float:
    """Serve what `agents` send, with an endless queue; return when the last of it happened."""
    batch, in_flight, changed = Batch(physics), set[Job](), list[Job]()
    now_s, asking = 0.0, True  # whether the agents may have something to send
    while True:
        for job in changed:
            if job.end_s is not None and job in in_flight:  # who began just now is told of twice
                in_flight.remove(job)
                agents.answered(job, job.end_s)
                asking = True
        if asking and (sent := agents.next_request(now_s)) is not None:
            in_flight.add(sent)
            changed = batch.submit(sent, now_s)
            continue
        event_s, wakes_s = batch.next_event_s(), agents.wakes_s
        next_s, asking = min(event_s, wakes_s), wakes_s < event_s
        if next_s > until_s or next_s == math.inf:
            return batch.now_s
        now_s = next_s
        changed = batch.advance(now_s)


class Clients:
    """So many clients, each of whom sends a job after the other; and what their answers took."""

    wakes_s = math.inf

    def __init__(self, clients: int, jobs: Iterator[Job]):
        self._free, self._jobs = clients, jobs
        self.work_s = self.longest_s = 0.0

    def next_request(self, now_s: float) -> Job | None:
        job = next(self._jobs, None) if self._free else None
        self._free -= job is not None
        return job

    def answered(self, job: Job, now_s: float) -> None:
        self._free += 1
        took_s = now_s - job.arrived_s
        self.work_s += took_s
        self.longest_s = max(self.longest_s, took_s)


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
    draw = Random(seed)

    def jitter() -> float:
        return physics.jitter(draw) if physics.jitter_sigma else 1.0

    jobs = (Job(prompt_tokens, output_tokens, jitter(), jitter()) for _ in range(agents))
    some = Clients(max_concurrency, jobs)
    makespan_s = serve(some, physics)
    return Crowd(agents, makespan_s, round(some.work_s, 6), round(some.longest_s, 9))
