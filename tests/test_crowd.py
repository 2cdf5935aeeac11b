"""Agents without a client take as long as those with one, where the client takes no time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest

from agentlab import lab
from agentlab.bench.closed_loop import Crowd, crowd
from agentlab.endpoint import presets
from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.resilience import amap
from agentlab.settings import Capacity

STEADY = [name for name in presets.names() if not presets.load(name).physics.jitter_sigma]


@pytest.mark.parametrize("preset", STEADY)
@pytest.mark.parametrize("max_concurrency", [1, 7, 100])
def test_it_takes_as_long_as_real_calls_do(fresh_lab, preset, max_concurrency):
    """300 questions through the whole client in virtual time, against 300 plain agents."""
    physics = presets.load(preset).physics

    async def ask(number: int) -> str:
        return await lab.ask(f"Describe river {100 + number}.", max_tokens=20)

    async def everybody() -> None:
        async for _ in amap(ask, range(300), max_concurrency=max_concurrency):
            pass

    with lab.configure(preset=preset):
        _, t = lab.simulate(everybody())
    (prompt_tokens,) = {span.prompt_tokens for span in t.spans}
    simulated = crowd(
        physics, 300, max_concurrency=max_concurrency, prompt_tokens=prompt_tokens, output_tokens=20
    )
    assert simulated.makespan_s == pytest.approx(t.makespan_s, rel=0.02)


def by_the_endpoint(
    physics: Physics,
    agents: int,
    *,
    max_concurrency: int,
    prompt_tokens: int = 16,
    output_tokens: int = 11,
    seed: int = 7,
) -> Crowd:
    """The same crowd, each agent a job of the local model's own batch."""
    draw, batch = Random(seed), Batch(physics)
    jobs: list[Job] = []

    def ask() -> Iterator[Job]:
        for _ in range(agents):
            jitters = physics.jitter(draw), physics.jitter(draw)
            jobs.append(Job(prompt_tokens, output_tokens, *jitters))
            yield jobs[-1]

    waiting = ask()
    changed = [j for new in islice(waiting, max_concurrency) for j in batch.submit(new, 0.0)]
    while True:
        ended = len({j for j in changed if j.end_s is not None})
        changed = [j for new in islice(waiting, ended) for j in batch.submit(new, batch.now_s)]
        if not changed and not batch.active:
            ends_s = [job.end_s for job in jobs if job.end_s is not None]
            took_s = [end_s - job.arrived_s for end_s, job in zip(ends_s, jobs, strict=True)]
            return Crowd(agents, max(ends_s), round(sum(took_s), 6), round(max(took_s), 9))
        if not any(j.end_s is not None for j in changed):
            changed = batch.advance(batch.next_event_s())


@pytest.mark.parametrize("preset", presets.names())
@pytest.mark.parametrize("max_concurrency", [1, 16, 300])
def test_it_is_the_endpoints_own_arithmetic(preset: str, max_concurrency: int):
    """Every preset, jitter and queues too: equal to the last digit."""
    physics = presets.load(preset).physics
    for agents, prompt_tokens, output_tokens in [(1, 0, 1), (700, 16, 11), (350, 20, 100)]:
        sizes: dict[str, Any] = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}
        simulated = crowd(physics, agents, max_concurrency=max_concurrency, seed=agents, **sizes)
        assert simulated == by_the_endpoint(
            physics, agents, max_concurrency=max_concurrency, seed=agents, **sizes
        )


def test_it_is_so_for_other_physics_too():
    """200 drawn at random: parts that take no time, few slots, slots that come and go."""
    draw = Random(4)
    for _ in range(200):
        physics = Physics(
            prefill_base_s=draw.choice([0.25, 1.0, draw.random()]),
            prefill_per_token_s=draw.choice([0, 0.01]),
            batched_tokens=draw.choice([None, None, 50]),
            itl_per_context_token_s=draw.choice([0, 0.0001]),
            kv_tokens=draw.choice([None, 500]),
            itl_base_s=draw.choice([0, 0.1, draw.random()]),
            itl_per_active_s=draw.choice([0, 0.001, draw.random()]),
            slots=draw.choice([None, 1, 2, 10]),
            jitter_sigma=draw.choice([0, 0.05, 0.6]),
            capacity=[
                Capacity(from_s=draw.choice([0, 1, 10, draw.random()]), slots=draw.randint(1, 20))
                for _ in range(draw.randint(0, 3))
            ],
        )
        sizes: dict[str, Any] = {
            "max_concurrency": draw.randint(1, 50),
            "prompt_tokens": draw.randint(0, 20),
            "output_tokens": draw.choice([1, 2, 50]),
        }
        assert crowd(physics, 100, **sizes) == by_the_endpoint(physics, 100, **sizes), physics


def test_memory_does_not_grow_with_agents():
    """A hundred thousand agents hold no more than a thousand do."""
    physics = presets.load("course").physics

    def peak(agents: int) -> int:
        tracemalloc.start()
        crowd(physics, agents, max_concurrency=100)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < 2 * peak(1_000)


def test_numbers_are_checked():
    """No agents, no crowd."""
    with pytest.raises(ConfigError, match="agents"):
        crowd(presets.load("course").physics, 0, max_concurrency=1)
