"""Fair shares: whose turn it is, to the job; how fair a class of thirty is, to the last digit."""

from __future__ import annotations

import heapq
import math

import pytest
from classroom_process import jain
from hypothesis import given
from hypothesis import strategies as st

from agentlab.classroom._fair import FairQueue, Shares
from agentlab.endpoint import presets
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.physics.batch import Batch, Fifo, Job, Queue, QueueFull
from agentlab.endpoint.physics.formulas import Physics

COURSE = {"prefill_base_s": 1.0, "itl_base_s": 0.1}
TWO_S = 11
"""The tokens of an answer that takes 2 s at the course's speed."""


def by_service(physics: Physics) -> FairQueue:
    return FairQueue(lambda job: physics.service_s(job.prompt_tokens, job.output_tokens))


def job(learner: str, tokens: int = TWO_S) -> Job:
    return Job(0, tokens, learner=learner)


def order(queue: Queue) -> str:
    return "".join(queue.popleft().learner for _ in range(len(queue)))


def filled(learners: str) -> FairQueue:
    queue = FairQueue()
    for learner in learners:
        queue.append(job(learner))
    return queue


def test_turns_go_round():
    """A's five requests came first; B and C are served in between all the same."""
    assert order(filled("AAAAABBC")) == "ABCABAAA"


def test_each_learners_own_requests_keep_their_order():
    """Within one learner: first come, first served."""
    queue = FairQueue()
    jobs = [job("A"), job("B"), job("A"), job("A")]
    for each in jobs:
        queue.append(each)
    assert [each for each in (queue.popleft() for _ in jobs) if each.learner == "A"] == [
        jobs[0],
        jobs[2],
        jobs[3],
    ]


def test_long_answers_count_for_more():
    """Fair by service: of answers of 10 s one, of answers of 2 s five, in the same time."""
    physics = Physics(**COURSE)
    queue = by_service(physics)
    for _ in range(10):
        queue.append(job("A", tokens=91))  # 10 s
        queue.append(job("B"))  # 2 s
    first = [queue.popleft().learner for _ in range(12)]
    assert (first.count("A"), first.count("B")) == (2, 10)


def test_nobody_saves_up_turns_by_staying_away():
    """B comes after A was served a hundred times: they alternate; B does not get a hundred."""
    queue = filled("A" * 200)
    for _ in range(100):
        queue.popleft()
    for _ in range(100):
        queue.append(job("B"))
    assert order(queue)[:8] == "BABABABA"


def test_who_comes_back_is_not_served_first_again():
    """A newcomer's first turn comes before the second of one who leaves and returns."""
    queue = filled("AB")
    assert queue.popleft().learner == "A"
    queue.append(job("A"))
    queue.append(job("C"))
    assert order(queue) == "BCA"


def test_a_request_that_leaves_takes_no_turn():
    """Removed from the middle: the others keep their order, and nothing is charged."""
    queue = FairQueue()
    jobs = [job("A"), job("A"), job("B")]
    for each in jobs:
        queue.append(each)
    queue.remove(jobs[0])
    assert (len(queue), order(queue)) == (2, "AB")


@given(st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=60), st.integers(0, 59))
def test_a_newcomer_waits_for_one_of_each_at_most(waiting: list[str], served: int):
    """Whatever waits, and however much of it is served first."""
    queue = filled("".join(waiting))
    for _ in range(min(served, len(waiting))):
        queue.popleft()
    queue.append(job("new"))
    before = order(queue).partition("n")[0]
    assert all(before.count(learner) <= 1 for learner in "ABCDE")


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.booleans()), max_size=200))
def test_whoever_waits_is_never_more_than_a_turn_behind(steps: list[tuple[str, bool]]):
    """Of learners who wait all along, none has been served twice more than another."""
    queue = filled("ABCD" * 200)
    served = dict.fromkeys("ABCD", 0)
    for learner, comes in steps:
        if comes:
            queue.append(job(learner))
        served[queue.popleft().learner] += 1
    assert max(served.values()) - min(served.values()) <= 1


def test_one_learner_alone_has_half_of_the_places():
    """Ten places: A gets five, then B three, C one; room for somebody else is left last."""
    queue = FairQueue()
    got = {"A": 0, "B": 0, "C": 0}
    for learner in got:
        for _ in range(10):
            if queue.admits(job(learner), places=10):
                queue.append(job(learner))
                got[learner] += 1
    assert got == {"A": 5, "B": 3, "C": 1}


def test_a_full_queue_refuses_the_greedy_and_takes_the_newcomer():
    """One slot, four places: A's fourth is refused while B still comes in."""
    batch = Batch(Physics(slots=1, queue=4, **COURSE), FairQueue())
    for _ in range(3):
        batch.submit(job("A"), 0.0)
    with pytest.raises(QueueFull):
        batch.submit(job("A"), 0.0)
    newcomer = job("B")
    batch.submit(newcomer, 0.0)
    batch.advance(100.0)
    assert newcomer.started_s == 2.0


def test_a_newcomer_does_not_stand_behind_a_thousand():
    """One slot, 1,000 requests of 2 s: who comes at 3 s starts at 4 s, else at 2,000."""
    started = {}
    for queue in (FairQueue(), Fifo()):
        batch = Batch(Physics(slots=1, **COURSE), queue)
        for _ in range(1000):
            batch.submit(job("greedy"), 0.0)
        newcomer = job("new")
        batch.submit(newcomer, 3.0)
        batch.advance(3000.0)
        started[type(queue)] = newcomer.started_s
    assert started == {FairQueue: 4.0, Fifo: 2000.0}


def served_s(queue: Queue, greed: dict[str, int], slots: int, until_s: float) -> dict[str, float]:
    """Learner -> seconds of a slot by `until_s`, each keeping `greed` requests in flight."""
    physics = Physics(slots=slots, **COURSE)
    batch, got = Batch(physics, queue), dict.fromkeys(greed, 0.0)
    for learner, max_concurrency in greed.items():
        for _ in range(max_concurrency):
            batch.submit(job(learner), 0.0)
    while (next_s := batch.next_event_s()) < until_s:
        for done in batch.advance(next_s):
            if done.end_s is not None:
                got[done.learner] += 2.0
                batch.submit(job(done.learner), next_s)
    return got


THIRTY = {f"learner-{number:02}": number + 1 for number in range(30)}
"""Thirty learners; each keeps one more request in flight than the one before, up to 30."""


def test_thirty_learners_of_unequal_greed_get_equal_shares():
    """Six slots, 1,200 s: 120 answers for each, give or take one; in a plain queue 8 to 210."""
    fair = served_s(FairQueue(), THIRTY, slots=6, until_s=1200.1)
    plain = served_s(Fifo(), THIRTY, slots=6, until_s=1200.1)
    assert sum(fair.values()) == sum(plain.values()) == 7200.0
    assert {got / 2 for got in fair.values()} <= {119, 120, 121}
    assert round(jain(fair.values()), 4) == 1.0
    assert (min(plain.values()) / 2, max(plain.values()) / 2) == (8, 210)
    assert round(jain(plain.values()), 2) == 0.78


def test_who_wants_less_than_a_share_gets_all_of_it():
    """Six slots: 29 learners with one request each, and one with 1,000: the shares are equal."""
    greed = dict.fromkeys(THIRTY, 1) | {"greedy": 1000}
    got = served_s(FairQueue(), greed, slots=6, until_s=620.1)
    assert max(got.values()) - min(got.values()) <= 2.0


def beside_a_loop(queue: Queue, requests: int) -> dict[str, list[float]]:
    """Learner -> how long each question waited for a slot of the class's preset, in 60 s.

    29 learners ask for 2 s, one question after the other, beside the loop of one, which sends a
    hundred requests of 4 s a second, as a notebook does at ten times real speed.
    """
    batch = Batch(presets.load("class").physics, queue)
    due = [(number / 100, "loop") for number in range(requests)]
    due += [(5 + number / 10, f"learner-{number:02}") for number in range(29)]
    heapq.heapify(due)
    waits: dict[str, list[float]] = {learner: [] for _, learner in due}
    while (now_s := min(due[0][0] if due else math.inf, batch.next_event_s())) < 60:
        if due and due[0][0] <= now_s:
            _, learner = heapq.heappop(due)
            changed = batch.submit(job(learner, tokens=31 if learner == "loop" else TWO_S), now_s)
        else:
            changed = batch.advance(now_s)
        for each in changed:
            if each.end_s is not None and each.started_s is not None:
                waits[each.learner].append(each.started_s - each.arrived_s)
                if each.learner != "loop":  # who reads the answer asks again a little later
                    heapq.heappush(due, (now_s + 0.02, each.learner))
    return {learner: waited for learner, waited in waits.items() if learner != "loop"}


def test_a_runaway_loop_in_a_class_costs_others_one_of_its_answers_at_most():
    """5,000 requests of 4 s: nobody waits over 4 s for a slot, and all get 7 of 8 of their answers.

    In a plain queue nobody gets more than two of some 26.
    """
    physics = presets.load("class").physics
    alone = beside_a_loop(by_service(physics), requests=0)
    fair = beside_a_loop(by_service(physics), requests=5000)
    plain = beside_a_loop(Fifo(), requests=5000)
    assert max(map(max, alone.values())) == 0.0
    assert 0 < max(map(max, fair.values())) <= 4.0
    shares = [len(fair[who]) / len(alone[who]) for who in alone]
    assert min(shares) >= 7 / 8
    assert max(len(each) for each in plain.values()) <= 2


def test_an_idle_share_is_not_lost():
    """Alone, the greedy one has every slot: 4 slots, 100 s, 200 answers of 2 s."""
    got = served_s(FairQueue(), {"greedy": 1000}, slots=4, until_s=100.1)
    assert got == {"greedy": 400.0}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 200)), min_size=2, max_size=6))
def test_the_theorem_of_start_time_fair_queueing_holds(kinds: list[tuple[int, int]]):
    """Of two who wait all along, neither gets more than a longest job of each ahead of the other.

    Goyal, Vin and Cheng's theorem 1, for one server. Each learner's jobs take turns between a
    short length and a long one.
    """
    physics = Physics(**COURSE)
    queue = by_service(physics)
    longest, got = {}, dict.fromkeys(map(str, range(len(kinds))), 0.0)
    for name, (short, long) in zip(got, kinds, strict=True):
        longest[name] = max(physics.service_s(0, tokens) for tokens in (short, long))
        for number in range(200):
            queue.append(job(name, tokens=(short, long)[number % 2]))
    for _ in range(200):
        done = queue.popleft()
        got[done.learner] += physics.service_s(0, done.output_tokens)
        for a in got:
            for b in got:
                assert abs(got[a] - got[b]) <= longest[a] + longest[b] + 1e-6


def knock(shares: Shares, learner: str, now_s: float) -> bool:
    try:
        shares.of(learner, now_s).admit(1, now_s, "m")
    except RequestError as error:
        assert error.status == 429
        return False
    return True


def test_a_limit_of_the_class_is_divided_among_those_who_ask():
    """600 a minute for the class: alone 600, with thirty askers 20 for each of them."""
    shares = Shares({"requests": 600, "tokens": None}, {})
    assert sum(knock(shares, "early", 0.0) for _ in range(700)) == 600
    fresh = Shares({"requests": 600}, {})
    for name in THIRTY:
        fresh.of(name, 0.0)
    assert {name: sum(knock(fresh, name, 0.0) for _ in range(50)) for name in THIRTY} == (
        dict.fromkeys(THIRTY, 20)
    )


def test_who_knocks_most_often_gets_no_more_of_a_rate_limit():
    """60 a minute, ten minutes: A knocks 20 times a second, B once: 300 each of the last 600."""
    shares, got, now_s = Shares({"requests": 60}, {}), {"A": 0, "B": 0}, 0.0
    for tick in range(20 * 60 * 12):
        now_s = tick / 20
        for learner in ["A", "B"] if tick % 20 == 0 else ["A"]:
            taken = knock(shares, learner, now_s)
            got[learner] += taken and now_s >= 120
    assert abs(got["A"] - 300) <= 3 and abs(got["B"] - 300) <= 3


def test_a_share_grows_back_when_the_others_stop():
    """A minute after B's last request A's share is the whole again."""
    shares = Shares({"requests": 60}, {})
    shares.of("A", 0.0), shares.of("B", 0.0)
    assert shares.share("requests") == 30
    shares.of("A", 60.0)
    assert shares.share("requests") == 60


def test_a_learners_own_limit_holds_beside_the_classs():
    """10 a minute for each: the eleventh is told that its share is used up."""
    shares = Shares({"requests": 600}, {"requests": 10})
    for _ in range(10):
        assert knock(shares, "A", 0.0)
    with pytest.raises(RequestError, match=r"\(RPM\), your share: Limit 10, .* again in 6s"):
        shares.of("A", 0.0).admit(1, 0.0, "m")
    assert knock(shares, "B", 0.0)


def test_a_refused_request_takes_nothing_of_the_classs():
    """A's hundred refusals leave B's tokens alone."""
    shares = Shares({"requests": 4}, {"requests": 2})
    taken = [knock(shares, "A", 0.0) for _ in range(100)]
    assert (sum(taken), [knock(shares, "B", 0.0) for _ in range(3)]) == (2, [True, True, False])


def test_the_headers_tell_the_nearest_limit():
    """A's own share of 30 is nearer than what the class has left."""
    shares = Shares({"requests": 60}, {})
    shares.of("B", 0.0)
    headers = dict(shares.of("A", 0.0).headers(0.0, 1.0))
    assert headers[b"x-ratelimit-limit-requests"] == b"30"
    assert len([name for name in headers if b"remaining" in name]) == 1


def test_shares_of_tokens_too():
    """9,000 tokens a minute among three: 3,000 each, and the next is refused."""
    shares = Shares({"tokens": 9000}, {})
    for name in "ABC":
        shares.of(name, 0.0)
    shares.of("A", 0.0).admit(3000, 0.0, "m")
    with pytest.raises(RequestError, match=r"tokens per min \(TPM\), your share"):
        shares.of("A", 0.0).admit(1, 0.0, "m")
