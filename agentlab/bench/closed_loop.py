"""Agents that ask one question after the other, on an endpoint's physics and without a client.

The batch is the local model's own, so a million agents meet what one of them would.
"""

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from agentlab._support.fields import checked
from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics


def serve(jobs: Iterable[Job], physics: Physics, *, clients: int) -> Iterator[Job]:
    """Yield each job once it is answered: so many clients send one after the other.

    Those beyond the endpoint's slots wait; its queue is taken to be endless.
    """
    batch, waiting, in_flight, changed = Batch(physics), iter(jobs), set[Job](), list[Job]()
    while True:
        for job in changed:
            if job.end_s is not None and job in in_flight:  # who began just now is told of twice
                in_flight.remove(job)
                yield job
        job_to_send = next(waiting, None) if len(in_flight) < clients else None
        if job_to_send is not None:
            in_flight.add(job_to_send)
            changed = batch.submit(job_to_send, batch.now_s)
        elif in_flight:
            changed = batch.advance(batch.next_event_s())
        else:
            return


class Crowd(NamedTuple):
    """What became of a crowd, in model seconds: all of it, all answers together, the longest."""

    agents: int
    makespan_s: float
    work_s: float
    longest_s: float

    @property
    def throughput(self) -> float:
        """Answers per second; infinite where an answer takes no time."""
        return self.agents / self.makespan_s if self.makespan_s else float("inf")


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

    Example:
        >>> course = Physics(prefill_base_s=1.0, itl_base_s=0.1)
        >>> crowd(course, 1000, max_concurrency=100).makespan_s
        20.0
    """
    checked("agents", agents, least=1, whole=True)
    checked("max_concurrency", max_concurrency, least=1, whole=True)
    checked("output_tokens", output_tokens, least=1, whole=True)
    draw = Random(seed)
    jitters = (physics.jitter(draw) for _ in range(2 * agents))
    jobs = (Job(prompt_tokens, output_tokens, *two) for two in zip(jitters, jitters, strict=True))
    end_s = work_s = longest_s = 0.0
    for job in serve(jobs, physics, clients=max_concurrency):
        end_s = job.end_s or 0.0
        took_s = end_s - job.arrived_s
        work_s += took_s
        longest_s = max(longest_s, took_s)
    return Crowd(agents, end_s, round(work_s, 6), round(longest_s, 9))
