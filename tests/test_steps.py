"""The engine's steps: prompts and context slow down decoding, memory admits, prefixes are kept."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab import lab
from agentlab.endpoint.physics.batch import Batch, Job
from agentlab.endpoint.physics.formulas import Physics
from agentlab.endpoint.physics.prefixes import BLOCK_TOKENS, Prefixes, blocks

Arrivals = list[tuple[float, Job]]


def serve(physics: Physics, arrivals: Arrivals) -> list[Job]:
    """Send each job when it is due, let everything end, and return the jobs."""
    batch = Batch(physics)
    for at_s, job in arrivals:
        batch.submit(job, at_s)
    while (event_s := batch.next_event_s()) < math.inf:
        batch.advance(event_s)
    return [job for _, job in arrivals]


def test_a_prompt_is_read_in_one_step():
    """Alone, 100 prompt tokens and 3 of an answer: .5 + (.1 + 100 * .01), then two steps of .1."""
    physics = Physics(
        prefill_base_s=0.5, prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=100
    )
    (job,) = serve(physics, [(0.0, Job(100, 3))])
    assert (job.first_token_s, job.end_s) == (1.6, 1.8)
    assert physics.service_s(100, 3) == 1.8


def test_a_long_prompt_takes_as_many_steps_as_it_fills():
    """250 tokens at 100 a step: 2.5 steps of .1 s, and .01 s for each token."""
    physics = Physics(prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=100)
    (job,) = serve(physics, [(0.0, Job(250, 1))])
    assert job.end_s == 2.75


def test_prompts_of_one_instant_are_read_together_while_a_step_has_room():
    """40 + 40 fit into a step of 100, the third waits for the next: .9 s, then .5 s more."""
    physics = Physics(prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=100)
    jobs = serve(physics, [(0.0, Job(40, 1)) for _ in range(3)])
    assert [job.first_token_s for job in jobs] == [0.9, 0.9, 1.4]


def test_reading_holds_up_those_who_decode():
    """Ten steps of .1 s; a prompt of 100 tokens comes after two and adds a second to the next."""
    physics = Physics(prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=100)
    first, second = Job(0, 11), Job(100, 1)
    serve(physics, [(0.0, first), (0.3, second)])
    assert (first.first_token_s, second.first_token_s, first.end_s) == (0.1, 1.4, 2.1)


def test_a_step_that_reads_takes_longer_for_all():
    """As before, without a time per token; the step that reads adds half a second, once."""
    physics = Physics(reading_base_s=0.5, itl_base_s=0.1, batched_tokens=100)
    first, second, third = Job(0, 11), Job(40, 1), Job(40, 1)
    serve(physics, [(0.0, first), (1.0, second), (1.0, third)])
    assert (first.first_token_s, first.end_s) == (0.6, 2.1)
    assert second.first_token_s == third.first_token_s == 1.6


def test_a_server_hands_on_so_many_tokens_a_second():
    """Steps of .1 s; four that decode take .05 s each to hand on, so .2 s a step, and two .1 s."""
    physics = Physics(itl_base_s=0.1, streaming_per_token_s=0.05, batched_tokens=100)
    jobs = serve(physics, [(0.0, Job(0, n)) for n in (11, 11, 21, 21)])
    assert [job.end_s for job in jobs] == [2.2, 2.2, 3.2, 3.2]
    assert (physics.itl_s(1), physics.itl_s(4)) == (0.1, 0.2)


def test_context_outgrows_what_is_handed_on_in_the_middle_of_an_answer():
    """.001 s a token held, .05 s to hand one on: from 10 tokens to 50 the latter, then the context.

    The time from there on is the integral of the context, as without the limit.
    """
    grows = Physics(itl_base_s=1e-9, itl_per_context_token_s=0.001, batched_tokens=100)
    limited = msgspec.structs.replace(grows, streaming_per_token_s=0.05)
    (late,) = serve(grows, [(0.0, Job(50, 51))])
    (job,) = serve(limited, [(0.0, Job(10, 91))])
    assert job.first_token_s == 0.05
    took_s = late.end_s - late.first_token_s
    assert job.end_s - job.first_token_s == pytest.approx(40 * 0.05 + took_s, abs=1e-6)


def test_context_lengthens_a_step():
    """A step takes .001 s a token held: from 10 to 19 tokens, nine steps take .13 s or so."""
    physics = Physics(itl_base_s=1e-9, itl_per_context_token_s=0.001, batched_tokens=100)
    (job,) = serve(physics, [(0.0, Job(10, 10))])
    assert job.end_s == pytest.approx(sum(0.001 * (10 + n) for n in range(9)), abs=0.006)


def test_memory_lets_in_whom_it_can_hold_to_the_end():
    """100 tokens hold two of 50; the third begins when one ends, though slots are free."""
    physics = Physics(itl_base_s=0.1, batched_tokens=1000, kv_tokens=100)
    jobs = serve(physics, [(0.0, Job(30, 20)) for _ in range(3)])
    assert [job.started_s for job in jobs] == [0.0, 0.0, 2.0]


def test_who_is_larger_than_the_memory_is_served_alone():
    """It waits for nobody for ever."""
    physics = Physics(itl_base_s=0.1, batched_tokens=1000, kv_tokens=10)
    jobs = serve(physics, [(0.0, Job(30, 20)), (0.0, Job(1, 1))])
    assert [job.started_s for job in jobs] == [0.0, 2.0]


def test_where_memory_is_outgrown_the_newest_is_read_again():
    """Two of 40 tokens fit by their prompts; at 100 held, the newer gives way, and ends later."""
    physics = Physics(
        prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=1000, kv_tokens=100, preempts=True
    )
    older, newer = serve(physics, [(0.0, Job(40, 31)), (0.0, Job(40, 31))])
    assert (older.preemptions, newer.preemptions) == (0, 1)
    # Ten steps together, then twenty alone; what the newer had is read again: 50 tokens.
    assert older.end_s == pytest.approx(0.9 + 3.0)
    assert newer.end_s == pytest.approx(older.end_s + 0.1 + 0.5 + 2.0)
    assert newer.first_token_s == older.first_token_s


def test_words_that_were_there_stay_while_a_request_is_put_back():
    """A stream never takes back a token, and knows of no time for the next one."""
    physics = Physics(
        prefill_per_token_s=0.01, itl_base_s=0.1, batched_tokens=1000, kv_tokens=100, preempts=True
    )
    batch, jobs = Batch(physics), [Job(40, 31), Job(40, 31)]
    for job in jobs:
        batch.submit(job, 0.0)
    batch.advance(0.0)
    seen = []
    for tick in range(80):
        batch.advance(tick / 10)
        seen.append(batch.tokens_of(jobs[1]))
    assert seen == sorted(seen) and seen[-1] == 31
    batch = Batch(physics)
    for job in (again := [Job(40, 31), Job(40, 31)]):
        batch.submit(job, 0.0)
    batch.advance(0.0)
    batch.advance(2.5)
    assert (again[1].preemptions, batch.token_s(again[1], 20)) == (1, math.inf)


CACHING = Physics(
    prefill_per_token_s=0.01,
    itl_base_s=0.1,
    batched_tokens=1000,
    kv_tokens=1000,
    prefix_caching=True,
)


def test_the_same_beginning_is_read_once():
    """The second prompt of 64 tokens shares 48 with the first, and pays for 16."""
    shared, own = (1, 2, 3), (4,)
    first, second = Job(64, 1, blocks=(*shared, 5)), Job(64, 1, blocks=shared + own)
    serve(CACHING, [(0.0, first), (2.0, second)])
    assert (first.cached_tokens, second.cached_tokens) == (0, 48)
    assert (first.end_s, second.end_s) == (0.74, 2.26)


def test_a_prompt_that_is_known_whole_reads_its_last_block():
    """Its first token has to come from somewhere."""
    first, second = Job(32, 1, blocks=(1, 2)), Job(32, 1, blocks=(1, 2))
    serve(CACHING, [(0.0, first), (2.0, second)])
    assert second.cached_tokens == 16


def test_who_comes_before_the_first_was_read_pays_again():
    """Three of one system prompt at one instant find nothing; one that comes later does."""
    jobs = [Job(64, 1, blocks=(1, 2, 3, n)) for n in (4, 5, 6, 7)]
    serve(CACHING, [(0.0, job) for job in jobs[:3]] + [(3.0, jobs[3])])
    assert [job.cached_tokens for job in jobs] == [0, 0, 0, 48]


def test_what_was_used_longest_ago_makes_room():
    """A memory of 80 tokens forgets the first prompt when a third comes."""
    physics = Physics(
        prefill_per_token_s=0.01,
        itl_base_s=0.1,
        batched_tokens=1000,
        kv_tokens=80,
        prefix_caching=True,
    )
    asked = [(0.0, 1), (2.0, 2), (4.0, 3), (6.0, 3), (8.0, 1)]
    jobs = [(at_s, Job(33, 1, blocks=(10 * n, 10 * n + 1))) for at_s, n in asked]
    assert [job.cached_tokens for job in serve(physics, jobs)] == [0, 0, 0, 32, 0]


def test_a_prompts_blocks_begin_alike_where_its_texts_do():
    """A conversation that goes on has the blocks of its past; another name has others."""
    system = "You are a careful writer. " * 12
    past = blocks([system, "Name three rivers."])
    assert blocks([system, "Name three rivers.", "Rhine, Nile, Han. " * 8])[: len(past)] == past
    assert not set(blocks(["X" + system])) & set(past)


def test_shared_blocks_are_held_once():
    """Two users of three blocks save three."""
    prefixes = Prefixes()
    prefixes.use((1, 2, 3))
    prefixes.use((1, 2, 3))
    assert prefixes.saved_tokens == 3 * BLOCK_TOKENS
    prefixes.leave((1, 2, 3))
    assert (prefixes.saved_tokens, prefixes.match((1, 2, 9))) == (0, (2, 2))


physics_drawn = st.builds(
    Physics,
    prefill_base_s=st.sampled_from([0.0, 0.05]),
    prefill_per_token_s=st.floats(0, 0.003),
    itl_base_s=st.floats(0.005, 0.1),
    itl_per_active_s=st.floats(0, 0.01),
    itl_per_context_token_s=st.floats(0, 0.0001),
    batched_tokens=st.sampled_from([None, 64, 512]),
    kv_tokens=st.sampled_from([None, 400, 2000]),
    preempts=st.booleans(),
    prefix_caching=st.booleans(),
    slots=st.sampled_from([None, 1, 4]),
)
load = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.integers(1, 300),
        st.integers(1, 200),
        st.floats(0.5, 2),
        st.integers(0, 3),
        st.one_of(st.none(), st.floats(0, 30)),  # when its client hangs up
    ),
    min_size=1,
    max_size=25,
)


@given(physics_drawn, load)
def test_whatever_comes_everybody_is_served_in_order_and_nothing_is_left(
    physics: Physics, load: list[tuple[float, int, int, float, int, float | None]]
):
    """Times are in order, tokens never go back, and an idle engine holds no memory."""
    batch, jobs, gone = Batch(physics), [], []
    for at_s, prompt, answer, jitter, kind, hangs_up in sorted(load, key=lambda each: each[0]):
        known = tuple(kind * 100 + n for n in range(prompt // BLOCK_TOKENS))
        job = Job(prompt, answer, 1.0, jitter, blocks=known if physics.prefix_caching else ())
        batch.submit(job, at_s)
        jobs.append(job)
        if hangs_up is not None:
            gone.append((at_s + hangs_up, job))
    last_s, tokens = batch.now_s, [0] * len(jobs)
    for _ in range(20_000):
        event_s = batch.next_event_s()
        due = [job for at_s, job in gone if at_s <= event_s and job.end_s is None]
        if due:
            batch.cancel(due[0], max(last_s, min(at for at, job in gone if job is due[0])))
        elif event_s == math.inf:
            break
        else:
            batch.advance(event_s)
        assert batch.now_s >= last_s
        last_s = batch.now_s
        now = [batch.tokens_of(job) for job in jobs]
        assert all(a <= b for a, b in zip(tokens, now, strict=True))
        tokens = now
    assert all(job.end_s is not None for job in jobs)
    for job in jobs:
        if job.first_token_s is not None and job.first_token_s <= job.end_s:
            assert job.arrived_s <= job.started_s <= job.first_token_s <= job.end_s
    assert batch.active == 0
    assert batch._reserved_tokens == pytest.approx(0, abs=1e-6)
    assert batch._prefixes.saved_tokens == 0


def by_single_steps(physics: Physics, arrivals: Arrivals) -> list[float]:
    """An oracle without a decode clock: one whole step after the other, as an engine makes them."""
    waiting = sorted((at_s, n) for n, (at_s, _) in enumerate(arrivals))
    made, unread, ends = {}, [], {}
    now_s = 0.0
    while len(ends) < len(arrivals):
        while waiting and waiting[0][0] <= now_s + 1e-9:
            unread.append(waiting.pop(0)[1])
        if not made and not unread:
            now_s = waiting[0][0]
            continue
        read = 0
        reading = []
        while unread and (not reading or read + arrivals[unread[0]][1].prompt_tokens <= 10_000):
            read += arrivals[unread[0]][1].prompt_tokens
            reading.append(unread.pop(0))
        context = sum(arrivals[n][1].prompt_tokens + tokens for n, tokens in made.items())
        step_s = physics.itl_s(len(made) + len(reading), context)
        now_s += step_s + physics.prefill_per_token_s * read
        for n in list(made):
            made[n] += 1
        made |= dict.fromkeys(reading, 1)
        for n, tokens in list(made.items()):
            if tokens >= arrivals[n][1].output_tokens:
                ends[n] = now_s
                del made[n]
    return [ends[n] for n in range(len(arrivals))]


def test_it_agrees_with_an_engine_that_makes_one_step_after_the_other():
    """200 requests at random: each ends within two steps, or 2%, of the oracle's time."""
    physics = Physics(
        prefill_per_token_s=0.0001,
        itl_base_s=0.02,
        itl_per_active_s=0.0005,
        itl_per_context_token_s=1e-6,
        batched_tokens=10_000,
    )
    draw, at_s, arrivals = random.Random(3), 0.0, []
    for _ in range(200):
        at_s += draw.expovariate(2.0)
        arrivals.append((at_s, Job(draw.randint(10, 400), draw.randint(2, 200))))
    jobs = serve(physics, arrivals)
    for job, end_s in zip(jobs, by_single_steps(physics, arrivals), strict=True):
        assert job.end_s == pytest.approx(end_s, abs=0.1, rel=0.02)


SYSTEM = "You are a careful writer in the house style of a small museum. " * 20


def test_a_shared_system_prompt_is_counted_as_cached(fresh_lab: None):
    """The first of a fan-out reads all of it; those that come later find its blocks of 16."""

    async def main() -> None:
        for name in ("Rhine", "Nile"):
            await lab.ask(f"Describe the {name}.", system=SYSTEM, max_tokens=5)

    with lab.configure(preset="vllm-1gpu"):
        _, t = lab.simulate(main())
    first, second = (span.cached_tokens for span in t.spans)
    assert first == 0 and second % 16 == 0
    assert 0.9 * t.spans[1].prompt_tokens < second < t.spans[1].prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_says_what_was_cached(fresh_lab: None, stream: bool):
    """As OpenAI does, in whole answers and at the end of streams; 0 where nothing is kept."""

    async def main() -> list[int]:
        model = lab.chat_model(max_tokens=5)
        found = []
        for name in ("Rhine", "Nile"):
            asked = [("system", SYSTEM), ("user", f"Describe the {name}.")]
            if stream:
                chunks = [chunk async for chunk in model.astream(asked)]
                usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata][-1]
            else:
                usage = (await model.ainvoke(asked)).usage_metadata
            found.append(usage["input_token_details"]["cache_read"])
        return found

    with lab.configure(preset="vllm-1gpu"):
        found, t = lab.simulate(main())
    assert found == [span.cached_tokens for span in t.spans] and found[1] > 0
    assert lab.simulate(main())[0] == [0, 0]  # the course's preset


@pytest.mark.parametrize("preempts", [True, False])
@pytest.mark.parametrize(
    ("other", "known"),
    [((16, 970), 0), ((976, 1), 16), ((500, 200), 288), ((16, 500), 464)],
)
def test_a_memory_that_was_full_has_forgotten_the_idle_blocks(
    preempts: bool, other: tuple[int, int], known: int
):
    """Whether a prompt or an answer has filled it, and whether room was reserved or not."""
    physics = Physics(
        itl_base_s=0.01,
        prefill_per_token_s=1e-4,
        batched_tokens=2048,
        kv_tokens=1000,
        preempts=preempts,
        prefix_caching=True,
    )
    batch, blocks = Batch(physics), tuple(range(30))
    first, again = Job(480, 1, blocks=blocks), Job(480, 1, blocks=blocks)
    for number, job in enumerate([first, Job(*other), again]):
        batch.submit(job, 1000.0 * number)
        batch.advance(1000.0 * number + 999)
    assert again.cached_tokens == known


@pytest.mark.parametrize("prompt", [64, 65, 80, 48])
def test_shared_blocks_never_let_more_in_than_fits(prompt: int):
    """A prompt that ends with a block, of which one token is read again, and others."""
    physics = Physics(
        itl_base_s=0.02, prefill_per_token_s=1e-3, batched_tokens=64, prefix_caching=True,
        kv_tokens=110,
    )  # fmt: skip
    batch, blocks = Batch(physics), tuple(range(prompt // 16))
    for answer in (5, 20, 30, 25):
        batch.submit(Job(prompt, answer, blocks=blocks), batch.now_s + 0.1)
        assert batch._used_tokens() <= 110
    while (event_s := batch.next_event_s()) < math.inf:
        batch.advance(event_s)
        assert batch._used_tokens() <= 110
