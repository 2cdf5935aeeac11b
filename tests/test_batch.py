"""The batch: slots, queue and shared decode, to the nanosecond, with no clock at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.endpoint.physics.batch import Batch, Job, QueueFull
from agentlab.endpoint.physics.formulas import Physics

COURSE = {"prefill_base_s": 1.0, "itl_base_s": 0.1}


def run(physics: Physics, arrivals: list[tuple[float, Job]]) -> list[Job]:
    """Submit each job at its time, let everything finish, and return the jobs."""
    batch = Batch(physics)
    for at_s, job in arrivals:
        batch.submit(job, at_s)
    batch.advance(1e6)
    return [job for _, job in arrivals]


def test_an_answer_of_91_tokens_takes_ten_seconds():
    """The first token after 1 s, ninety more at ten a second."""
    (job,) = run(Physics(**COURSE), [(0.0, Job(20, 91))])
    assert (job.started_s, job.first_token_s, job.end_s) == (0.0, 1.0, 10.0)


def test_agents_do_not_slow_each_other_without_a_load_term():
    """10, 15 and 12 s at once end at 10, 15 and 12 s."""
    jobs = run(Physics(**COURSE), [(0.0, Job(0, tokens)) for tokens in (91, 141, 111)])
    assert [job.end_s for job in jobs] == [10.0, 15.0, 12.0]


def test_two_slots_make_two_waves():
    """Four jobs of 2 s on two slots start at 0, 0, 2, 2 and end at 4."""
    jobs = run(Physics(slots=2, **COURSE), [(0.0, Job(0, 11)) for _ in range(4)])
    assert [job.started_s for job in jobs] == [0.0, 0.0, 2.0, 2.0]
    assert [job.end_s for job in jobs] == [2.0, 2.0, 4.0, 4.0]


def test_the_queue_is_first_come_first_served():
    """A short job that came later does not overtake."""
    jobs = run(Physics(slots=1, **COURSE), [(0.0, Job(0, 91)), (1.0, Job(0, 91)), (2.0, Job(0, 1))])
    assert [job.started_s for job in jobs] == [0.0, 10.0, 20.0]


def test_a_full_queue_refuses_and_loses_nobody():
    """One slot and one place: the third is refused, the first two are served."""
    batch = Batch(Physics(slots=1, queue=1, **COURSE))
    first, second = Job(0, 11), Job(0, 11)
    batch.submit(first, 0.0)
    batch.submit(second, 0.0)
    with pytest.raises(QueueFull):
        batch.submit(Job(0, 11), 0.0)
    batch.advance(10.0)
    assert (first.end_s, second.end_s) == (2.0, 4.0)


def test_a_prompt_is_read_in_its_own_time_beside_others():
    """Prefill is a + b * prompt tokens, whoever else is read, where no batch reads them."""
    physics = Physics(prefill_base_s=1.0, prefill_per_token_s=0.01)
    first, second = run(physics, [(0.0, Job(100, 1)), (0.0, Job(50, 1))])
    assert (first.end_s, second.end_s) == (2.0, 1.5)


def test_a_newcomer_slows_down_those_who_are_decoding():
    """itl = n seconds: 5 tokens alone, then 5 shared (2 s each); the newcomer ends alone."""
    jobs = run(Physics(itl_per_active_s=1.0), [(0.0, Job(0, 11)), (5.0, Job(0, 11))])
    assert [job.end_s for job in jobs] == [15.0, 20.0]


def test_a_late_caller_changes_no_time():
    """What was due at 2 s happens at 2 s, though the clock is first read at 100 s."""
    batch = Batch(Physics(slots=1, **COURSE))
    first, second = Job(0, 11), Job(0, 11)
    batch.submit(first, 0.0)
    batch.submit(second, 0.5)
    assert batch.advance(100.0) == [first, second, second]
    assert (first.end_s, second.started_s, second.end_s) == (2.0, 2.0, 4.0)


def test_time_does_not_run_backwards():
    """A reading before the last one counts as the last one."""
    batch = Batch(Physics(**COURSE))
    batch.advance(5.0)
    job = Job(0, 1)
    batch.submit(job, 3.0)
    assert (job.arrived_s, job.end_s, batch.next_event_s()) == (5.0, None, 6.0)


def test_cancelling_frees_the_slot_for_the_next():
    """The job that waited starts at the very moment."""
    batch = Batch(Physics(slots=1, **COURSE))
    first, second = Job(0, 91), Job(0, 11)
    batch.submit(first, 0.0)
    batch.submit(second, 0.0)
    assert batch.cancel(first, 3.0) == [first, second]
    batch.advance(10.0)
    assert (first.end_s, second.started_s, second.end_s) == (3.0, 3.0, 5.0)


def test_cancelling_one_that_waits_leaves_the_rest_alone():
    """It never starts; the next in the queue does, on time."""
    batch = Batch(Physics(slots=1, **COURSE))
    jobs = [Job(0, 11), Job(0, 11), Job(0, 11)]
    for job in jobs:
        batch.submit(job, 0.0)
    batch.cancel(jobs[1], 1.0)
    batch.advance(10.0)
    assert (jobs[1].started_s, jobs[2].started_s, batch.active) == (None, 2.0, 0)


def test_cancelling_twice_or_too_late_does_nothing():
    """A finished job keeps its end."""
    batch = Batch(Physics(**COURSE))
    job = Job(0, 11)
    batch.submit(job, 0.0)
    batch.cancel(job, 7.0)
    batch.cancel(job, 8.0)
    assert (job.end_s, batch.active) == (2.0, 0)


def test_a_model_that_takes_no_time_ends_at_its_arrival():
    """With every figure zero, first token and end are the arrival."""
    (job,) = run(Physics(), [(3.0, Job(50, 200))])
    assert (job.first_token_s, job.end_s) == (3.0, 3.0)


def test_tokens_come_one_by_one():
    """None before the first is due, one more each 0.1 s, no more than there are."""
    batch = Batch(Physics(**COURSE))
    job = Job(0, 4)
    batch.submit(job, 0.0)
    counts = []
    for now_s in (0.9, 1.0, 1.1, 1.15, 1.2, 1.3, 9.0):
        batch.advance(now_s)
        counts.append(batch.tokens_of(job))
    assert counts == [0, 1, 2, 2, 3, 4, 4]


def test_a_token_is_announced_for_the_time_at_which_it_is_there():
    """`token_s` and `tokens_of` agree, for every token of an answer."""
    batch = Batch(Physics(itl_base_s=0.013, itl_per_active_s=0.001))
    job = Job(0, 50)
    batch.submit(job, 0.0)
    batch.advance(0.0)
    for token in range(2, 51):
        due_s = batch.token_s(job, token)
        batch.advance(due_s)
        assert batch.tokens_of(job) == token


loads = st.lists(
    st.tuples(
        st.floats(0, 50, allow_nan=False),
        st.integers(0, 500),
        st.integers(0, 200),
        st.floats(0.5, 2),
    ),
    min_size=1,
    max_size=30,
)
shapes = st.builds(
    Physics,
    prefill_base_s=st.floats(0, 2),
    prefill_per_token_s=st.floats(0, 0.01),
    itl_base_s=st.floats(0.001, 0.2),
    itl_per_active_s=st.floats(0, 0.05),
    slots=st.one_of(st.none(), st.integers(1, 5)),
)


@given(shapes, loads)
def test_any_load_obeys_the_bounds(physics: Physics, load: list[tuple[float, int, int, float]]):
    """No job beats the model alone; no more than the slots are busy; work fits in the makespan."""
    jobs = run(physics, [(at_s, Job(p, o, 1.0, jitter)) for at_s, p, o, jitter in sorted(load)])
    for job in jobs:
        alone_s = physics.prefill_s(job.prompt_tokens)
        alone_s += max(job.output_tokens - 1, 0) * physics.itl_s(1) * job.decode_jitter
        assert job.end_s - job.started_s >= alone_s - 1e-6
        assert job.arrived_s <= job.started_s <= job.first_token_s <= job.end_s
    if physics.slots:
        busy_s = sum(job.end_s - job.started_s for job in jobs)
        makespan_s = max(job.end_s for job in jobs) - min(job.started_s for job in jobs)
        assert busy_s <= physics.slots * makespan_s + 1e-6


def simulate(physics: Physics, arrivals: list[tuple[float, Job]], step_s: float) -> list[float]:
    """An oracle that knows no decode clock: it adds up token fractions in small steps of time."""
    state = [{"job": job, "at": at_s, "first": None, "left": None} for at_s, job in arrivals]
    ends: dict[int, float] = {}
    now_s = 0.0
    while len(ends) < len(state):
        active = [s for i, s in enumerate(state) if s["at"] <= now_s + 1e-9 and i not in ends]
        for s in active:
            if s["first"] is None:
                s["first"] = s["at"] + physics.prefill_s(s["job"].prompt_tokens)
                s["left"] = s["job"].output_tokens - 1.0
        rate = step_s / physics.itl_s(len(active)) if active else 0.0
        for s in active:
            if s["first"] <= now_s + 1e-9:
                s["left"] -= rate
        now_s += step_s
        for i, s in enumerate(state):
            if i not in ends and s["left"] is not None and s["left"] <= 1e-9:
                ends[i] = now_s
    return [ends[i] for i in range(len(state))]


def test_shared_decode_agrees_with_a_step_by_step_simulation():
    """Staggered jobs that slow each other end when small time steps say, within a few steps."""
    physics = Physics(prefill_base_s=0.5, itl_base_s=0.05, itl_per_active_s=0.02)
    sizes = [(0.0, 40), (0.7, 20), (1.3, 60), (1.3, 5), (4.0, 30)]
    jobs = run(physics, [(at_s, Job(0, tokens)) for at_s, tokens in sizes])
    oracle = simulate(physics, [(at_s, Job(0, tokens)) for at_s, tokens in sizes], 0.001)
    assert [job.end_s for job in jobs] == pytest.approx(oracle, abs=0.01)


def test_throughput_is_the_slots_over_the_service_time():
    """Little's law at saturation: 16 slots of 0.2 s serve 80 requests a second."""
    physics = Physics(prefill_base_s=0.2, slots=16)
    jobs = run(physics, [(0.0, Job(0, 1)) for _ in range(800)])
    assert max(job.end_s for job in jobs) == 10.0
