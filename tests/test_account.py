"""Where the time went: by hand for each cause, and without remainder for any run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlab import engines, lab
from agentlab.bench import measure, results
from agentlab.bench.account import Account, account, accounts, page
from agentlab.bench.requests import Request
from agentlab.commands.main import main
from agentlab.engines.langgraph import graph
from agentlab.errors import ConfigError, StepError
from agentlab.settings import DATA
from agentlab.trace import Trace
from agentlab.workflow import Step, Workflow, random_workflow

FAULTS = str(DATA / "faults" / "every-kind.yaml")
S = 1_000_000_000  # nanoseconds in a second


def request(call: str, *times_s: float | None, **more: Any) -> Request:
    """A row that is asked, sent, arrives, starts, has its first token, ends and returns then.

    A single pair is when it is asked and when it returns, and all between is decode.
    """
    if len(times_s) == 2:
        asked_s, end_s = times_s
        times_s = (*[asked_s] * 5, end_s, end_s)
    names = "asked_s sent_s arrived_s started_s first_token_s end_s returned_s".split()
    usual = {"run": 0, "attempt": 1, "due_s": 0.0, "status": 200}
    return Request(call=call, **(usual | dict(zip(names, times_s, strict=True)) | more))


def parts(a: Account) -> dict[str, float]:
    """The causes that took time, in seconds."""
    return {cause: ns / S for cause, ns in a.parts.items() if ns}


def is_whole(a: Account) -> bool:
    """The parts are the distance to the bound, and the chain is the run, to the nanosecond."""
    lies_end_to_end = [one.to_ns for one in a.chain[:-1]] == [one.from_ns for one in a.chain[1:]]
    reach = (a.chain[0].from_ns, a.chain[-1].to_ns) if a.chain else (0, 0)
    none_is_negative = min(a.parts.values()) >= 0
    return (
        sum(a.parts.values()) == a.elapsed_ns - a.bound_ns
        and reach == (0, a.elapsed_ns)
        and lies_end_to_end
        and none_is_negative
    )


# One call, which takes 4 s of reading and answering, and one thing that holds it up.
HELD_UP = {
    "client": request("a", 3, 3, 3, 3, 4, 7, 7),
    "limit": request("a", 0, 3, 3, 3, 4, 7, 7),
    "network": request("a", 0, 0, 2, 2, 3, 6, 7),
    "queue": request("a", 0, 0, 0, 3, 4, 7, 7),
    "late": request("a", 0, 0, 0, 0, 1, 4, 7, late_ms=300),
    "tail": request("a", 0, 0, 0, 0, 1, 4, 4),
    "arrivals": request("a", 3, 3, 3, 3, 4, 7, 7, due_s=3.0),
}


@pytest.mark.parametrize("cause", HELD_UP)
def test_what_holds_one_call_up(cause):
    """Whatever takes 3 s of the 7 has a part of 3 s, and nothing else has any."""
    a = account([HELD_UP[cause]], {"a": ()}, 7, 4, time_scale=10)
    assert parts(a) == {cause: 3}
    assert is_whole(a)


def test_a_bound_that_no_call_explains_is_left_to_the_answers():
    """It is below what the calls took, and nobody says in which of them."""
    assert parts(account([request("a", 0, 4)], {"a": ()}, 4, 3)) == {"decode": 1}


def test_failed_attempts_and_back_off_are_retries():
    """2 s until the failure and 1 s of back-off, wherever in its attempt the time went."""
    failed = request("a", 0, 0, 1, 2, None, None, 2, status=500)
    again = request("a", 0, 3, 3, 3, 4, 7, 7, attempt=2)
    a = account([failed, again], {"a": ()}, 7, 4)
    assert parts(a) == {"retries": 3}
    assert is_whole(a)


def test_an_answer_that_was_asked_for_again_is_a_failed_attempt():
    """One that was cut at its limit has the status 200, too."""
    cut = request("a", 0, 3, finish_reason="length")
    a = account([cut, request("a", 3, 7, attempt=2)], {"a": ()}, 7, 4)
    assert parts(a) == {"retries": 3}


def test_an_answer_that_came_too_slowly_is_a_failed_attempt():
    """The endpoint answered in full, and the client had not waited for it."""
    stalled = request("a", 0, 3, fault="stall")
    a = account([stalled, request("a", 3, 7, attempt=2)], {"a": ()}, 7, 4)
    assert parts(a) == {"retries": 3}


def test_a_hedge_that_won_began_late():
    """The first attempt is still on its way when the second returns; that was sent after 3 s."""
    first = request("a", 0, 0, 0, 0, None, None, 7, status=499)
    hedge = request("a", 0, 3, 3, 3, 4, 7, 7, attempt=2)
    assert parts(account([first, hedge], {"a": ()}, 7, 4)) == {"retries": 3}


def test_between_two_answers_to_an_agent_are_its_tools():
    """It was answered for 2 s, did something for 3, and was answered for 2 again."""
    rows = [request("a", 0, 2, finish_reason="tool_calls"), request("a", 5, 7, attempt=2)]
    a = account(rows, {"a": ()}, 7, 4)
    assert parts(a) == {"tools": 3}
    assert is_whole(a)


def test_a_user_thinks_before_the_next_turn():
    """The second call of a session is due 3 s after the first has returned."""
    second = request("b", 5, 7, due_s=5.0)
    a = account([request("a", 0, 2), second], {"a": (), "b": ("a",)}, 7, 4)
    assert parts(a) == {"arrivals": 3}
    assert is_whole(a)


def test_a_superstep_waits_for_its_slowest():
    """C needs B, which takes 2 s, and begins when A has ended after 10."""
    rows = [request("a", 0, 10), request("b", 0, 2), request("c", 10, 19)]
    a = account(rows, {"a": (), "b": (), "c": ("b",)}, 19, 11)
    assert parts(a) == {"barrier": 8}
    assert [(s.call, s.from_ns / S, s.to_ns / S) for s in a.chain] == [
        ("b", 0, 2),
        ("c", 2, 10),
        ("c", 10, 19),
    ]


def test_a_barrier_is_one_for_all_of_the_next_superstep():
    """C and D need B, and waited for A, of whose 10 s 3 were its trip. A rate limit then held D up
    until C had ended, but for C it had not waited."""
    rows = [request("a", 0, 0, 3, 3, 3, 10, 10), request("b", 0, 2), request("c", 10, 17)]
    rows += [request("d", 10, *[30] * 4, 32, 32)]
    a = account(rows, {"a": (), "b": (), "c": ("b",), "d": ("b",)}, 32, 9)
    assert parts(a) == {"network": 3, "limit": 15, "barrier": 5}


def test_what_returned_only_later_was_not_waited_for():
    """B was asked at 1, before A, which it needs, had returned; so it was not A that held it up."""
    a = account([request("a", 0, 5), request("b", 1, 7)], {"a": (), "b": ("a",)}, 7, 6)
    assert parts(a) == {"client": 1}
    assert is_whole(a)


def test_what_follows_a_barrier_is_the_client():
    """The superstep has ended at 10, and the next begins at 11."""
    rows = [request("a", 0, 10), request("b", 0, 2), request("c", 11, 20)]
    a = account(rows, {"a": (), "b": (), "c": ("b",)}, 20, 11)
    assert parts(a) == {"barrier": 8, "client": 1}


def test_a_slow_client_is_no_barrier():
    """B could be asked at 2 and was asked at 4, while A was still in flight."""
    rows = [request("a", 0, 10), request("b", 0, 2), request("c", 4, 13)]
    a = account(rows, {"a": (), "b": (), "c": ("b",)}, 13, 11)
    assert parts(a) == {"client": 2}


def test_one_after_the_other_waits_for_the_one_before():
    """Three calls of 2 s whose answers travel for 1 s: nobody needs the others."""
    rows = [request(str(n), *[3.0 * n] * 5, 3.0 * n + 2, 3.0 * n + 3) for n in range(3)]
    a = account(rows, {"0": (), "1": (), "2": ()}, 9, 2)
    assert parts(a) == {"network": 3, "barrier": 4}
    assert is_whole(a)


def test_a_limit_that_leaves_a_slot_empty():
    """Three calls of 2 s in two slots: 6 / 2 = 3 s of work each, and it took 4."""
    rows = [request("a", 0, 2), request("b", 0, 2), request("c", 0, *[2] * 4, 4, 4)]
    a = account(rows, {"a": (), "b": (), "c": ()}, 4, 3, max_concurrency=2)
    assert parts(a) == {"limit": 1}
    assert [(s.call, s.cause) for s in a.chain] == [("c", "limit"), ("c", "decode")]


def test_a_limit_that_holds_up_the_longest_chain():
    """The two that are no part of the span of 9 s had the slots for the first 3."""
    rows = [request("y1", 0, 3), request("y2", 0, 3)]
    rows += [request("x1", 0, *[3] * 4, 6, 6), request("x2", 6, 9), request("x3", 9, 12)]
    needs = {"y1": (), "y2": (), "x1": (), "x2": ("x1",), "x3": ("x2",)}
    assert parts(account(rows, needs, 12, 9, max_concurrency=2)) == {"limit": 3}


def test_what_holds_up_others_in_the_slots_counts_for_all():
    """In one slot the three trips of 1 s add up, and waiting for the slot is the bound's own."""
    rows = [request(str(n), 0, *[3.0 * n] * 4, 3.0 * n + 2, 3.0 * n + 3) for n in range(3)]
    a = account(rows, {"0": (), "1": (), "2": ()}, 9, 6, max_concurrency=1)
    assert parts(a) == {"network": 3}
    assert is_whole(a)


def test_slots_are_taken_in_the_order_of_sending():
    """A had to wait for B, which came later and was first; B's trip of 1 s held A up."""
    rows = [request("a", 0, *[3] * 4, 5, 5), request("b", 1, 1, 2, 2, 2, 3, 3, due_s=1.0)]
    a = account(rows, {"a": (), "b": ()}, 5, 3, max_concurrency=1)
    assert parts(a) == {"network": 1, "limit": 1}


def test_what_passes_beside_a_longer_chain_costs_nothing():
    """E's queue of 3 s made the run 2 s longer than A and D are together."""
    rows = [request("a", 0, 10), request("b", 0, 5), request("d", 10, 11)]
    rows += [request("e", 5, 5, 5, 8, 8, 13, 13)]
    needs = {"a": (), "b": (), "d": ("a",), "e": ("b",)}
    a = account(rows, needs, 13, 11)
    assert parts(a) == {"queue": 2}
    assert is_whole(a)


def test_of_two_that_hide_each_other_the_last_taken_out_has_the_part():
    """Without the one's trip alone, or the other's queue alone, the run ends no earlier."""
    rows = [request("a", 0, 0, 3, 3, 3, 7, 7), request("b", 0, 0, 0, 3, 3, 7, 7)]
    assert parts(account(rows, {"a": (), "b": ()}, 7, 4)) == {"queue": 3}


def test_clocks_that_disagree_leave_no_remainder():
    """The endpoint's clock is 1 s late, so an answer seems to arrive before its end."""
    row = request("a", 0, 0, 0, 1, 2, 6, 5)
    a = account([row, request("b", 5, 6)], {"a": (), "b": ("a",)}, 6, 5)
    assert parts(a) == {"queue": 1}
    assert is_whole(a)


def test_a_run_without_requests_is_its_tail():
    """Nothing was asked in its 3 s."""
    assert parts(account([], {}, 3, 0)) == {"tail": 3}


@pytest.mark.parametrize(
    ("rows", "elapsed_s", "bound_s", "words"),
    [
        ([], 3, 4, "the bound, 4 s"),
        ([], 3, -1, "the bound, -1 s"),
        ([], float("nan"), 1, "nan s"),
        ([request("a", 0, float("nan"))], 3, 1, "no number"),
        ([request("a", 0, float("inf"))], 3, 1, "no number"),
        ([request("a", 0, 1), request("a", 0, 1, run=1)], 3, 1, "several runs"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(rows, elapsed_s, bound_s, words):
    """With what is wrong in the message."""
    with pytest.raises(ConfigError, match=words):
        account(rows, {"a": ()}, elapsed_s, bound_s)


def test_a_bound_of_rounded_times_may_be_a_hair_above():
    """2.1 / 3 is more than 0.7 in its last binary digit."""
    assert account([request("a", 0, 0.7)], {"a": ()}, 0.7, 2.1 / 3).parts["decode"] == 0


class Watched:
    """Rows of a run in virtual time: the client's side from around the guard and inside of it."""

    def __init__(self) -> None:
        self.asked: dict[str, float] = {}
        self.sent: list[dict[str, Any]] = []

    def around(self, ask: engines.Ask) -> engines.Ask:
        async def asked(prompt: str, *, agent: str, **options: Any) -> str:
            self.asked[agent] = lab.now_s()
            return await ask(prompt, agent=agent, **options)

        return asked

    async def send(self, prompt: str, *, agent: str, **options: Any) -> str:
        made = {"call": agent, "sent_s": lab.now_s()}
        self.sent.append(made)
        try:
            return await lab.ask(prompt, agent=agent, **options)
        finally:
            made["returned_s"] = lab.now_s()

    def rows(self, t: Trace, needs: Mapping[str, Sequence[str]]) -> list[Request]:
        """The n-th span of an agent is its n-th attempt; the trace's 0 is its first arrival."""
        attempts: dict[str, int] = {}
        ended = {made["call"]: made["returned_s"] for made in self.sent}
        rows = []
        for made in self.sent:
            call = made["call"]
            attempts[call] = attempts.get(call, 0) + 1
            spans = [span for span in t.spans if span.agent == call]
            span = spans[attempts[call] - 1].shifted(-self.sent[0]["sent_s"])
            seen = {
                f: getattr(span, f) for f in ("arrived_s", "started_s", "first_token_s", "end_s")
            }
            due_s = max((ended[need] for need in needs[call]), default=0.0)
            told = {"attempt": attempts[call], "due_s": due_s, "asked_s": self.asked[call]}
            told |= {"status": span.status, "fault": span.fault, "run": 0}
            rows.append(Request(**(made | seen | told)))
        return rows


def run(
    workflow: Workflow,
    engine: str = "asyncio",
    *,
    strategy: Any = "once",
    max_concurrency: int | None = None,
    limit: int | None = None,
) -> Account:
    """Run a workflow in virtual time, and account for it as the benchmark bounds it."""
    watched = Watched()

    async def program() -> tuple[Any, float]:
        ask = watched.around(
            measure.asking(
                strategy,
                max_concurrency=max_concurrency,
                requests_per_minute=limit,
                send=watched.send,
            )
        )
        if engine == "supersteps":
            await graph(workflow, ask=ask).compile().ainvoke({"inputs": {}, "results": {}})
        else:
            await engines.run(workflow, {}, engine=engine, ask=ask)
        return None, lab.now_s()

    outcome, t = lab.simulate(program(), catch=StepError)
    assert not isinstance(outcome, StepError), outcome
    served = {span.agent: span.service_s for span in t.spans if span.ok}
    bound_s = workflow.plan(served).bound_s(max_concurrency)
    rows = watched.rows(t, workflow.needs)
    return account(rows, workflow.needs, outcome[1], bound_s, max_concurrency=max_concurrency)


def agents(count: int, tokens: int = 11) -> Workflow:
    return Workflow(
        [Step(f"a{n}", f"Describe river {n}.", max_tokens=tokens) for n in range(count)], name="x"
    )


def test_an_engine_that_reaches_the_bound_has_nothing_to_explain(fresh_lab):
    """The parallel engines take the span of a random workflow."""
    for engine in ("asyncio", "langgraph", "openai-agents", "pydantic-ai"):
        a = run(random_workflow(3), engine)
        assert parts(a) == {}
        assert is_whole(a)


@pytest.mark.parametrize("engine", ["sequential", "supersteps"])
def test_what_an_engine_takes_more_is_its_barrier(fresh_lab, engine):
    """The whole distance to the span."""
    a = run(random_workflow(3), engine)
    assert parts(a) == {"barrier": (a.elapsed_ns - a.bound_ns) / S} != {}
    assert is_whole(a)


def test_a_queue_at_the_endpoint(fresh_lab):
    """Ten agents of 2 s in four slots take three rounds; the bound knows nothing of slots."""
    lab.configure(capacity=[{"from_s": 0, "slots": 4}])
    a = run(agents(10))
    assert (a.elapsed_ns, a.bound_ns, parts(a)) == (6 * S, 2 * S, {"queue": 4})
    assert is_whole(a)


def test_a_limit_on_what_is_in_flight(fresh_lab):
    """Ten agents of 2 s, four at the same time: their work over four is 5 s."""
    a = run(agents(10), max_concurrency=4)
    assert (a.elapsed_ns, a.bound_ns, parts(a)) == (6 * S, 5 * S, {"limit": 1})
    assert is_whole(a)


def test_a_rate_limit(fresh_lab):
    """Sixty in a minute and one a second after that: the last of seventy is sent at 10 s."""
    lab.configure(requests_per_minute=60)
    a = run(agents(70), strategy="pace", limit=60)
    assert (a.elapsed_ns, parts(a)) == (12 * S, {"limit": 10})
    assert is_whole(a)


def test_retries(fresh_lab):
    """What the failed attempts and the back-off took, and no more, beyond the 2 s of an answer."""
    lab.configure(faults=[{"kind": "error", "status": 503, "calls": [1, 2]}])
    a = run(agents(1), strategy="retry")
    assert parts(a) == {"retries": a.elapsed_ns / S - 2} != {"retries": 0}
    assert is_whole(a)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    engine=st.sampled_from(["sequential", "asyncio", "langgraph", "supersteps"]),
    max_concurrency=st.sampled_from([None, 1, 2, 3, 5]),
    per_minute=st.sampled_from([None, 3, 30]),
    slots=st.sampled_from([1, 3, 100]),
    faulty=st.booleans(),
)
def test_no_run_leaves_a_remainder(seed, engine, max_concurrency, per_minute, slots, faulty):
    """Random workflows on any engine, under limits and in queues; a quarter of requests fails."""
    with lab.configure(
        capacity=[{"from_s": 0, "slots": slots}],
        requests_per_minute=per_minute,
        faults=FAULTS if faulty else [],
    ):
        a = run(
            random_workflow(seed, 10),
            engine,
            strategy="pace" if per_minute else "retry",
            max_concurrency=max_concurrency,
            limit=per_minute,
        )
    assert is_whole(a)
    assert a.parts["prefill"] == a.parts["decode"] == a.parts["client"] == 0


CURED: dict[str, dict[str, Any]] = {
    "retries": {"faults": [{"kind": "error", "status": 503, "probability": 0.3}]},
    "queue": {"capacity": [{"from_s": 0, "slots": 2}]},
}


@pytest.mark.parametrize("engine", ["sequential", "asyncio", "supersteps"])
@pytest.mark.parametrize("cause", CURED)
def test_a_part_is_what_a_cure_saves(fresh_lab, cause, engine):
    """The same workflow on an endpoint without the faults, or with slots for all, ends so much
    earlier, and what it still takes beyond its bound is the engine's."""
    met = 0
    for seed in range(12):
        workflow = random_workflow(seed, 12)
        with lab.configure(**CURED[cause]):
            ill = run(workflow, engine, strategy="retry")
        well = run(workflow, engine, strategy="retry")
        assert ill.parts[cause] == ill.elapsed_ns - well.elapsed_ns
        assert ill.parts == well.parts | {cause: ill.parts[cause]}
        met += ill.parts[cause] > 0
    assert met > 3 or (cause, engine) == ("queue", "sequential")  # which has no queue


times = st.lists(st.integers(0, 20).map(float) | st.none(), min_size=7, max_size=7)


@given(
    drawn=st.lists(st.tuples(st.sampled_from("abc"), times, st.integers(1, 3)), max_size=8),
    ends=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    max_concurrency=st.sampled_from([None, 1, 2]),
)
def test_whatever_the_rows_say_there_is_no_remainder(drawn, ends, max_concurrency):
    """Times that contradict each other, or the graph, are cut to size."""
    rows = [
        request(call, *[at or 0.0 for at in at_s[:2]], *at_s[2:], attempt=attempt)
        for call, at_s, attempt in drawn
    ]
    needs = {"a": (), "b": ("a",), "c": ("a", "b")}
    assert is_whole(account(rows, needs, max(ends), min(ends), max_concurrency=max_concurrency))


def shown(cases: dict[str, Account]) -> list[str]:
    """What a page says, without its style sheet: a line or a cell each."""
    _, _, body = page("river < lake", cases).partition("<body>")
    words = unescape(re.sub("<[^>]*>", "\n", body)).replace("\xa0", " ")
    return [line.strip() for line in words.splitlines() if line.strip()]


def two_cases(call: str = "c") -> dict[str, Account]:
    rows = [request("a", 0, 10), request("b", 0, 2), request(call, 11, 20)]
    worst = account(rows, {"a": (), "b": (), call: ("b",)}, 20, 11)
    return {"quick": account([HELD_UP["queue"]], {"a": ()}, 7, 4), "slow": worst}


def test_the_page_begins_with_the_biggest_causes():
    """The barrier's 8 s, the queue's 3 and the client's 1, of 12; and says what they are."""
    lines = shown(two_cases())
    says = [line for line in lines if "of what the runs took beyond their bounds" in line]
    shares = [line.split(" of what")[0] for line in says]
    assert shares == ["barrier: 67%", "queue: 25%", "client: 8%"]
    assert says[1].endswith("; requests waited at the endpoint for a slot.")
    assert lines.index(says[2]) < lines.index("Each case: its bound, and what it took beyond it")


def test_the_page_has_a_table():
    """Each case with elapsed, bound, the share of it, and the causes that there were."""
    lines = shown(two_cases())
    table = lines[lines.index("case") : lines.index("What the causes are")]
    assert [table[at : at + 7] for at in (0, 7, 14)] == [
        ["case", "elapsed", "bound", "of the bound", "client", "queue", "barrier"],
        ["quick", "7.00 s", "4.00 s", "0.571", "-", "3.00 s", "-"],
        ["slow", "20.00 s", "11.00 s", "0.550", "1.00 s", "-", "8.00 s"],
    ]


def test_bars_are_whole_and_the_chain_of_the_worst_is_open():
    """Bound and causes fill a bar; the segments of the chain lie end to end."""
    text = page("x", two_cases())
    bars, chains = text.split('id="chains"')
    widths = [re.findall(r"width: ([\d.]+)%", bar) for bar in bars.split('class="bar"')[1:]]
    assert [sum(map(float, each)) for each in widths] == pytest.approx([100, 100], abs=1e-3)
    opened = chains[chains.index("open>") :].split("</details>")[0]
    assert opened.index("slow: 20.00") < opened.index("left")
    places = [
        [float(at) for at in pair] for pair in re.findall(r"left: (.*?)%; width: (.*?)%", opened)
    ]
    assert [sum(pair) for pair in places] == pytest.approx([at for at, _ in places[1:]] + [100])


def test_the_benchmark_writes_the_page(fresh_lab, tmp_path):
    """Of three agents of 2 s in turn: 4 of 6 s were the barrier; at the same time, nothing."""
    path = tmp_path / "three.yaml"
    path.write_text("about: x\nworkloads: [{agents: 3}]\n", encoding="utf-8")
    assert main(["bench", str(path), "--out", str(tmp_path)]) == 0
    rows = results.read_requests(tmp_path / "three.json", 2)
    found = accounts(results.load(tmp_path / "three.json"), rows)
    assert {name: parts(a) for name, a in found.items()} == {
        "sequential": {"barrier": 4},
        "asyncio": {},
    }
    assert (tmp_path / "three.html").read_text(encoding="utf-8") == page("three", found)


def test_one_run_that_took_its_bound_has_nothing_to_explain():
    """And the page says so."""
    whole = account([request("a", 0, 4)], {"a": ()}, 4, 4)
    assert "Every case took what its bound is, so there is nothing to explain." in shown(
        {"x": whole}
    )


def test_the_page_fetches_nothing_and_runs_nothing():
    """It can be mailed, and opened without a network; its own policy forbids the rest."""
    text = page("x", two_cases())
    assert "default-src 'none'" in text
    for word in ("http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link"):
        assert word not in text


@pytest.mark.parametrize(
    "name", ['<b>"x"</b>', "<script>alert(1)</script>", "{{ 7 * 7 }}", "a' onx='"]
)
def test_names_are_shown_as_they_are(name):
    """Whatever a call, a case or the results are called: no name becomes markup."""
    plain, named = (
        page("n", two_cases("n") | {"n": two_cases()["quick"]}),
        page(name, two_cases(name) | {name: two_cases()["quick"]}),
    )
    assert re.sub("[^<>]", "", named) == re.sub("[^<>]", "", plain)
    assert named.count('"') == plain.count('"')
    assert shown({name: two_cases()["slow"]}).count(name) == 2
