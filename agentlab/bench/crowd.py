"""Agents past this machine: any number of them on an endpoint's physics, with no client at all.

What is simulated is the time that the endpoint takes. That the client takes none is assumed, and
so are equal prompts and answers. The rest is the local model's own arithmetic.
"""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import NamedTuple

from agentlab.endpoint.batch import Batch, Job
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
        """Answers a second."""
        return self.agents / self.makespan_s


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
    draw = Random(seed)
    batch = Batch(physics)

    def job() -> Job:
        return Job(prompt_tokens, output_tokens, physics.jitter(draw), physics.jitter(draw))

    waiting = (job() for _ in range(agents))
    work_s = longest_s = 0.0
    changed = [j for new in islice(waiting, at_once) for j in batch.submit(new, 0.0)]
    while True:
        ended = [j for j in changed if j.end_s is not None and j.started_s is not None]
        for j in ended:
            work_s += j.end_s - j.started_s  # type: ignore[operator]
            longest_s = max(longest_s, j.end_s - j.arrived_s)  # type: ignore[operator]
        changed = [j for new in islice(waiting, len(ended)) for j in batch.submit(new, batch.now_s)]
        if not changed and not batch.active:
            return Crowd(agents, batch.now_s, round(work_s, 6), round(longest_s, 9))
        if not any(j.end_s is not None for j in changed):
            changed = batch.advance(batch.next_event_s())
