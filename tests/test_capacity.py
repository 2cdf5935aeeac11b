"""An endpoint whose slots change while it runs: who is served when, and how to ask for it."""

from __future__ import annotations

import asyncio

import pytest

from agentlab import lab
from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.errors import ConfigError
from agentlab.settings import Capacity

COURSE = {"prefill_base_s": 1.0, "itl_base_s": 0.1}


def ends(capacity: list[tuple[float, int]], jobs: int) -> list[float | None]:
    """When so many jobs of 2 s end that all come at 0."""
    changes = [Capacity(from_s=from_s, slots=slots) for from_s, slots in capacity]
    batch = Batch(Physics(capacity=changes, **COURSE))
    asked = [Job(0, 11) for _ in range(jobs)]
    for job in asked:
        batch.submit(job, 0.0)
    batch.advance(1e6)
    return [job.end_s for job in asked]


def test_a_halved_endpoint_serves_half_as_many():
    """Four slots until 3 s: four at 2, four at 4 who had begun; then two at a time."""
    assert ends([(0, 4), (3, 2)], 12) == [2.0] * 4 + [4.0] * 4 + [6.0] * 2 + [8.0] * 2


def test_new_slots_are_taken_at_once():
    """One slot until 3 s, then three: the second is on its way, two more begin at 3."""
    assert ends([(0, 1), (3, 3)], 4) == [2.0, 4.0, 5.0, 5.0]


def test_changes_may_be_written_in_any_order():
    """They are a matter of time."""
    assert ends([(3, 3), (0, 1)], 4) == ends([(0, 1), (3, 3)], 4)


def test_a_change_wakes_nobody_while_nobody_waits():
    """So that a program that waits for nothing is found out, and not after the next change."""
    batch = Batch(Physics(capacity=[Capacity(from_s=9, slots=1)], **COURSE))
    assert batch.next_event_s() == float("inf")


def test_the_lab_takes_it(fresh_lab: None):
    """Three calls of 2 s on one slot that becomes two at 3 s: 2, 4, 5, through the whole client."""

    async def main() -> list[float]:
        async def timed(n: int) -> float:
            await lab.ask(f"Name river {n}.", max_tokens=11)
            return lab.now_s()

        return await asyncio.gather(*(timed(n) for n in range(3)))

    with lab.configure(capacity=[{"from_s": 0, "slots": 1}, {"from_s": 3, "slots": 2}]):
        assert lab.simulate(main())[0] == [2, 4, 5]


def test_over_http_too(fresh_lab: None):
    """Four at once on two slots: never three are served, and who waits starts as another ends."""

    async def main() -> None:
        await asyncio.gather(*(lab.ask(f"Name river {n}.", max_tokens=11) for n in range(4)))

    from agentlab.trace import trace

    with lab.configure(capacity=[{"from_s": 0, "slots": 2}], time_scale=4), trace() as t:
        asyncio.run(main())
    served = [(s.started_s or 0, s.end_s) for s in t.spans]
    assert max(sum(a <= start < b for a, b in served) for start, _ in served) == 2
    waited = [s.started_s for s in t.spans if s.started_s != s.arrived_s]
    assert waited and set(waited) <= {end for _, end in served}


@pytest.mark.parametrize(
    "line", [{"from_s": 1}, {"from_s": -1, "slots": 1}, {"from_s": 0, "slots": 0}]
)
def test_a_wrong_line_is_refused(fresh_lab: None, line: dict[str, int]):
    """By its number, its field, and what may stand there."""
    with pytest.raises(ConfigError, match=r"capacity\[0\].*(is missing; add it|should be greater)"):
        lab.configure(capacity=[line])
