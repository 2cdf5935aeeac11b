"""Agents without a client take as long as those with one, where the client takes no time."""

from __future__ import annotations

import tracemalloc

import pytest

from agentlab import lab
from agentlab.bench.crowd import crowd
from agentlab.endpoint import presets
from agentlab.endpoint.physics import Physics
from agentlab.errors import ConfigError
from agentlab.resilience.stream import stream

STEADY = [name for name in presets.names() if not presets.load(name).physics.jitter_sigma]


@pytest.mark.parametrize("preset", STEADY)
@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_it_takes_as_long_as_real_calls_do(fresh_lab, preset, at_once):
    """300 questions through the whole client in virtual time, against 300 plain agents."""
    physics = presets.load(preset).physics

    async def ask(number: int) -> str:
        return await lab.ask(f"Describe river {100 + number}.", max_tokens=20)

    async def everybody() -> None:
        async for _ in stream(ask, range(300), at_once=at_once):
            pass

    with lab.configure(preset=preset):
        _, t = lab.simulate(everybody())
    (prompt_tokens,) = {span.prompt_tokens for span in t.spans}
    simulated = crowd(physics, 300, at_once=at_once, prompt_tokens=prompt_tokens, output_tokens=20)
    assert simulated.makespan_s == pytest.approx(t.makespan_s, rel=0.02)
    assert simulated.work_s == pytest.approx(t.work_s, rel=0.02)


def test_memory_does_not_grow_with_agents():
    """A hundred thousand agents hold no more than a thousand do."""
    physics = presets.load("course").physics

    def peak(agents: int) -> int:
        tracemalloc.start()
        crowd(physics, agents, at_once=100)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < 2 * peak(1_000)


def test_more_than_the_endpoint_takes_is_refused():
    """Slots and queue together are what may be in flight."""
    physics = Physics(itl_base_s=0.1, slots=2, queue=3)
    with pytest.raises(ConfigError, match="refuses more than"):
        crowd(physics, 10, at_once=6)


def test_numbers_are_checked():
    """No agents, no crowd."""
    with pytest.raises(ConfigError, match="agents"):
        crowd(presets.load("course").physics, 0, at_once=1)
