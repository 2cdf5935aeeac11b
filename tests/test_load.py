"""Open loops: agents that arrive in their own time, and what they feel; exact in virtual time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from awkward import Upstream
from matplotlib.figure import Figure
from msgspec import UNSET

from agentlab import lab
from agentlab.bench import experiment, measure, plots, report, results
from agentlab.bench.arrivals import Arrivals, Bursts, Ramp, Rate
from agentlab.bench.experiment import Workload
from agentlab.bench.requests import Request
from agentlab.bench.results import Measurement, Results
from agentlab.bench.summary import Price, Slo, Window, summarized
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow


def run(folder: Path, text: str, **options: Any) -> Results:
    path = folder / "load.yaml"
    path.write_text("about: x\n" + text, encoding="utf-8")
    return measure.run(experiment.load(path), folder / "load.json", **options)


def rows(folder: Path, made: Results) -> list[Request]:
    return results.read_requests(folder / "load.json", len(made.measurements))


def p99_s(made: Results, name: str) -> float | None:
    return made.measurements[0].figure(f"{name}_p99_s")


@pytest.mark.parametrize("engine", ["sequential", "asyncio", "langgraph"])
def test_a_queue_of_one_slot_by_hand(fresh_lab, tmp_path, engine):
    """D/D/1: an arrival each second, 2 s of service: the n-th waits n s, and responds in n + 2."""
    text = "workloads: [{agents: 5, arrivals: {constant: {per_s: 1}}}]\nmax_concurrency: [1]\n"
    made = run(tmp_path, text + f"engines: [{engine}]\n")
    by_hand = [(n, 2 * n, 2 * n + 2) for n in range(5)]
    assert [(r.due_s, r.sent_s, r.returned_s) for r in rows(tmp_path, made)] == by_hand
    assert (p99_s(made, "response"), p99_s(made, "service")) == (6.0, 2.0)
    (m,) = made.measurements
    assert (m.elapsed_s, m.bound_s, m.peak) == (10.0, 10.0, 1)


def test_the_mean_wait_is_the_formula_s(fresh_lab, tmp_path):
    """M/D/1 at half the capacity: each wait is Lindley's, their mean is half a service time.

    Lindley (1952): the next one waits for what is left when it comes. Pollaczek and Khinchin: the
    mean is load * service / (2 * (1 - load)) = 0.5 * 2 / (2 * 0.5) = 1 s, here within 10%; the
    standard error of 4,000 arrivals, which depend on each other, is some 7%.
    """
    text = "workloads: [{agents: 4000, arrivals: {poisson: {per_s: 0.25}}}]\n"
    made = run(tmp_path, text + "max_concurrency: [1]\nengines: [asyncio]\n")
    due_s = [r.due_s for r in rows(tmp_path, made)]
    waits_s = [r.sent_s - r.due_s for r in rows(tmp_path, made)]
    lindley_s = [0.0]
    for before_s, now_s in pairwise(due_s):
        lindley_s.append(max(0.0, lindley_s[-1] + 2 - (now_s - before_s)))
    assert waits_s == pytest.approx(lindley_s, abs=1e-6)
    assert mean(waits_s) == pytest.approx(1.0, rel=0.1)


def test_an_endpoint_that_stalls_is_felt_by_those_who_wait(fresh_lab, tmp_path):
    """Coordinated omission: one call of 200 stalls for 30 s, and 60 others wait for it.

    The p99 of service times does not know; that of response times is the third longest wait.
    """
    text = "workloads: [{agents: 200, arrivals: {constant: {per_s: 0.4}}}]\nmax_concurrency: [1]\n"
    fault = "{kind: stall, agent: agent_50, probability: 1, stall_s: 30}"
    made = run(tmp_path, text + f"engines: [asyncio]\nsettings: {{faults: [{fault}]}}\n")
    assert p99_s(made, "service") == 2.0
    assert p99_s(made, "response") == pytest.approx(31.0)


def test_no_call_begins_before_it_is_due(fresh_lab, tmp_path):
    """Nor is the bound above what was taken, whatever arrives when, on whichever engine."""
    kinds = [
        "poisson: {per_s: 2}", "bursts: {size: 3, every_s: 2}",
        "ramp: {from_per_s: 3, to_per_s: 1, over_s: 5}", "trace: burstgpt.csv",
    ]  # fmt: skip
    workloads = ", ".join(f"{{agents: 12, arrivals: {{{kind}}}}}" for kind in kinds)
    text = f"workloads: [{workloads}]\nmax_concurrency: [null, 2]\n"
    made = run(tmp_path, text + "engines: [sequential, asyncio, langgraph]\n")
    assert results.unequal(made.measurements) == []
    assert all(m.bound_s <= m.elapsed_s for m in made.measurements)
    assert all(m.peak <= (m.case.max_concurrency or 12) for m in made.measurements)
    kept = rows(tmp_path, made)
    assert all(row.due_s <= row.asked_s <= row.sent_s for row in kept)
    unlimited = {n for n, m in enumerate(made.measurements) if m.case.max_concurrency is None}
    free = [r for r in kept if r.run in unlimited]
    asyncio_s = [r.due_s for r in free if made.measurements[r.run].case.engine == "asyncio"]
    others_s = [r.due_s for r in free if made.measurements[r.run].case.engine == "langgraph"]
    assert sorted(asyncio_s) == sorted(others_s)


def test_when_agents_arrive():
    """At equal distances, in bursts, and along a rate that falls; the area under it is a number."""
    assert Arrivals(constant=Rate(per_s=4)).at_s(4, seed=1) == [0, 0.25, 0.5, 0.75]
    assert Arrivals(bursts=Bursts(size=2, every_s=3)).at_s(5, seed=1) == [0, 0, 3, 3, 6]
    falls = Arrivals(ramp=Ramp(from_per_s=3, to_per_s=1, over_s=2)).at_s(7, seed=1)
    assert falls == pytest.approx([0, 0.354249, 0.763932, 1.267949, 2, 3, 4], abs=1e-6)
    # By its rate: 3 t - t^2 / 2 arrivals after t seconds.
    assert [3 * t - t * t / 2 for t in falls[:5]] == pytest.approx([0, 1, 2, 3, 4])


def test_arrivals_at_random_are_of_the_seed():
    """The same seed draws the same gaps, another one others; their mean is that of the rate."""
    poisson = Arrivals(poisson=Rate(per_s=5))
    first = poisson.at_s(10_000, seed=1)
    assert first == poisson.at_s(10_000, seed=1) == sorted(first)
    assert first != poisson.at_s(10_000, seed=2)
    assert first[-1] == pytest.approx(2000, rel=0.03)  # its standard error is 1%


def test_a_published_trace_is_replayed(fresh_lab, tmp_path):
    """Due when it says, with as many tokens as it says, in prompts and in answers."""
    workload = Workload(agents=5, arrivals=Arrivals(trace="azure.csv"))
    made = run(
        tmp_path, "workloads: [{agents: 5, arrivals: {trace: azure.csv}}]\nengines: [asyncio]\n"
    )
    kept = rows(tmp_path, made)
    asked = [(one.at_s, one.prompt_tokens, one.output_tokens) for one in workload.sessions(7)]
    assert [(r.due_s, r.prompt_tokens, r.completion_tokens) for r in kept] == asked


def test_a_session_is_a_chain_of_turns(fresh_lab, tmp_path):
    """Each turn comes so long after the answer before, and has in its prompt what was said."""
    text = "workloads: [{agents: 2, turns: 3, think_s: 5, arrivals: {constant: {per_s: 1}}}]\n"
    made = run(tmp_path, text + "engines: [asyncio]\n")
    second = [r for r in rows(tmp_path, made) if r.call.startswith("agent_1")]
    assert [(r.due_s, r.returned_s) for r in second] == [(1, 3), (8, 10), (15, 17)]
    first, *later = [r.prompt_tokens for r in second]
    assert later[0] > first + 11
    assert later[1] > later[0] + 11
    assert made.measurements[0].bound_s == made.measurements[0].elapsed_s == 17.0


def test_lengths_are_drawn_once_for_all_engines(fresh_lab, tmp_path):
    """The endpoint counts the tokens that were asked for, and both engines ask for the same."""
    text = "workloads: [{agents: 9, prompt_tokens: [20, 64, 500], tokens: [3, 30]}]\n"
    made = run(tmp_path, text + "engines: [asyncio, langgraph]\n")
    assert results.unequal(made.measurements) == []
    kept = [(r.call, r.prompt_tokens, r.completion_tokens) for r in rows(tmp_path, made)]
    assert sorted(kept[:9]) == sorted(kept[9:])
    assert {prompt for _, prompt, _ in kept} == {20, 64, 500}
    assert {answer for _, _, answer in kept} == {3, 30}


@pytest.mark.parametrize("seed", range(20))
def test_with_one_slot_the_bound_is_exact(seed):
    """First come, first served, leaves no gap that another order would fill: one machine, r_j."""
    arrivals = Arrivals(poisson=Rate(per_s=0.5)).at_s(12, seed)
    seconds = {f"s{n}": 0.5 + (n * 7 + seed) % 5 for n in range(12)}
    workflow = Workflow([Step(name, "x") for name in seconds])
    now_s = 0.0
    for name, at_s in zip(seconds, arrivals, strict=True):
        now_s = max(now_s, at_s) + seconds[name]
    plan = workflow.plan(seconds, dict(zip(seconds, arrivals, strict=True)))
    assert plan.bound_s(1) == pytest.approx(now_s, abs=1e-8)
    assert plan.span_s <= plan.bound_s(3) <= plan.bound_s(2) <= plan.bound_s(1)
    assert workflow.plan(seconds).bound_s(1) == sum(seconds.values())


def request(call: str, due_s: float, **changed: Any) -> Request:
    times = {"asked_s": due_s, "sent_s": due_s + 1, "arrived_s": due_s + 2, "started_s": due_s + 3}
    ends = {"first_token_s": due_s + 5, "end_s": due_s + 9, "returned_s": due_s + 10}
    told = {"status": 200, "prompt_tokens": 100, "cached_tokens": 40, "completion_tokens": 5}
    return Request(
        run=0, call=call, attempt=1, **({"due_s": due_s} | times | ends | told | changed)
    )


def test_what_a_caller_feels():
    """Response, service, queue, first token, and the gaps between tokens."""
    felt = summarized([request("a", 3.0)])
    names = "response", "service", "queue", "ttft", "itl"
    assert [felt[f"{name}_p50_s"] for name in names] == [10, 7, 1, 4, 1]


def test_percentiles_are_by_nearest_rank():
    """Of 200 response times 1, 2, ... 200: the 100th, 180th, 190th and 198th."""
    some = [request(f"c{n}", 0.0, returned_s=float(n)) for n in range(1, 201)]
    felt = summarized(some)
    assert [felt[f"response_p{p}_s"] for p in (50, 90, 95, 99)] == [100, 180, 190, 198]


def test_goodput_counts_what_kept_all_limits():
    """A call that failed, one that came late, and one with a slow first token do not count."""
    some = [
        request("good", 0.0),
        request("late", 0.0, returned_s=11.0),
        request("slow", 0.0, first_token_s=5.5),
        request("failed", 0.0, status=503),
    ]
    s = summarized(some, Slo(ttft_s=4, response_s=10.5))
    assert (s["calls"], s["answered"], s["within"]) == (4, 3, 0.25)
    assert (s["goodput"], s["throughput"]) == (round(1 / 11, 9), round(3 / 11, 9))


def test_a_call_is_judged_by_its_last_request():
    """The one that was refused is no answer; its response time counts from when it was due."""
    refused = request("a", 0.0, status=503, returned_s=2.0)
    again = request("a", 0.0, sent_s=20.0, arrived_s=20.0, end_s=25.0, returned_s=25.0)
    s = summarized([refused, again], Slo(response_s=30))
    assert (s["calls"], s["answered"], s["within"], s["response_p50_s"]) == (1, 1, 1.0, 25.0)


def test_only_the_window_counts():
    """Calls due in it, its beginning included; throughput is from there to the last answer."""
    s = summarized([request(f"c{n}", float(n)) for n in range(6)], UNSET, Window(from_s=1, to_s=4))
    assert (s["calls"], s["throughput"]) == (3, round(3 / (13 - 1), 9))


def test_what_a_run_cost():
    """Cached tokens have their own price; a million of each for 4, 1 and 8 dollars."""
    price = Price(prompt=4, cached=1, answer=8)
    assert price.of([request("a", 0.0)] * 1000) == pytest.approx((60 * 4 + 40 + 5 * 8) / 1000)
    assert Price(prompt=4, answer=8).of([request("a", 0.0)]) == 0.00044
    some = [request("a", 9.0, status=503), request("a", 9.0), request("b", 0.0, status=503)]
    s = summarized(some, UNSET, Window(from_s=5), Price(prompt=4, answer=8))
    assert (s["calls"], s["dollars_per_task"], s["dollars_per_success"]) == (1, 0.00066, 0.00132)


def test_the_most_that_keep_the_slo_are_said(fresh_lab, tmp_path):
    """Two slots of 2 s bear one arrival per second, and not two: there the queue grows."""
    rates = ", ".join(
        f"{{agents: 40, arrivals: {{constant: {{per_s: {r}}}}}}}" for r in (0.5, 1, 2)
    )
    text = f"workloads: [{rates}]\nmax_concurrency: [2]\nengines: [asyncio]\n"
    made = run(tmp_path, text + "slo: {response_s: 3, share: 0.9}\nprice: {prompt: 1, answer: 2}\n")
    assert report.readings(made) == [
        "asyncio: 1 per s are the most with 0.9 of calls within response 3 s"
    ]
    table = report.felt(made).splitlines()
    assert table[0].endswith(
        "| answers per s | goodput per s | within SLO | $ per task | $ per success |"
    )
    # 40 calls over 41 s: the last is due at 39 s. 14 tokens of prompt and 11 of answer each.
    assert table[3].endswith("| 0.976 | 0.976 | 100.0% | 0.000036 | 0.000036 |")
    # Calls 2k and 2k + 1 respond in k + 2 s: four in time. The last is there at 38 + 0.5 + 2 s.
    assert table[4].endswith("| 0.988 | 0.0988 | 10.0% | 0.000036 | 0.000036 |")


def test_an_open_loop_has_its_pictures(fresh_lab, tmp_path, capsys):
    """A table of what callers felt, the requests, and how soon which share was answered."""
    path = tmp_path / "load.yaml"
    text = (
        "about: x\nworkloads: [{agents: 30, arrivals: {poisson: {per_s: 1}}}]\nengines: [asyncio]\n"
    )
    path.write_text(text + "max_concurrency: [1, 2]\nslo: {response_s: 20}\n", encoding="utf-8")
    assert main(["bench", str(path), "--out", str(tmp_path)]) == 0
    assert "| calls |" in capsys.readouterr().out
    names = {p.name for p in tmp_path.glob("load.*")}
    assert names >= {"load.requests.csv.gz", "load.responses.png", "load.png", "load.md"}
    made = results.load(tmp_path / "load.json")
    figure = plots.responses(made, rows(tmp_path, made))
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    assert [line.get_label() for line in axis.lines] == [
        "max_concurrency 1", "max_concurrency 2", "the SLO",
    ]  # fmt: skip
    assert max(axis.lines[0].get_xdata()) == max(
        r.returned_s - r.due_s for r in rows(tmp_path, made) if r.run == 0 and r.returned_s
    )


def test_a_window_without_calls_is_said(fresh_lab, tmp_path):
    """Nothing was due in it: no times, and no share of nothing."""
    text = "workloads: [{agents: 3, arrivals: {constant: {per_s: 1}}}]\nengines: [asyncio]\n"
    made = run(tmp_path, text + "window: {from_s: 100}\nslo: {response_s: 1}\n")
    assert report.felt(made).splitlines()[2] == "| asyncio | 0 | 0 |"
    (axis,) = plots.responses(made, rows(tmp_path, made)).axes
    assert axis.get_title(loc="left") == "No call inside the window was answered"
    assert "no call was due in the window from 100 s on\n" in report.markdown(made)


def test_no_call_is_no_time_to_first_token_missed(fresh_lab, tmp_path):
    """What is said of an SLO is said of calls; where only some runs had one, those are meant."""
    text = "workloads:\n" + "".join(
        f"- {{agents: 5, arrivals: {{constant: {{per_s: {rate}}}}}}}\n" for rate in (1, 2, 5)
    )
    text += "engines: [asyncio]\nslo: {ttft_s: 1}\nwindow: {from_s: %g, to_s: 50}\n"
    none, some = (report.markdown(run(tmp_path, text % from_s)) for from_s in (40, 3))
    assert "no call was due in the window from 40 s to 50 s\n" in none
    assert "first token" not in none and "few enough" not in none
    assert "no call was due in the window from 3 s to 50 s, in 2 of 3 runs\n" in some
    assert "TTFT" in some


def test_requests_are_a_frame(fresh_lab, tmp_path):
    """Each with its case beside it, so that pandas can group them."""
    text = "workloads: [{agents: 4, arrivals: {constant: {per_s: 1}}}]\nmax_concurrency: [1, 2]\n"
    run(tmp_path, text + "engines: [asyncio]\n")
    frame = results.frame(tmp_path / "load.json")
    response_s = (frame.returned_s - frame.due_s).groupby(frame.max_concurrency).max()
    assert response_s.to_dict() == {1: 5.0, 2: 2.0}


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        ("{agents: 2, arrivals: {}}", "give one of constant, poisson"),
        ("{agents: 2, arrivals: {constant: {per_s: 1}, trace: azure.csv}}", "give one of constant"),
        ("{agents: 2, arrivals: {poisson: {per_s: 0}}}", "per_s: .*got 0"),
        ("{agents: 2, arrivals: {poisson: {per_s: .nan}}}", "per_s: .*got nan"),
        ("{agents: 2, arrivals: {poisson: {rate: 1}}}", "rate"),
        ("{agents: 2, arrivals: {bursts: {size: 1.5, every_s: 1}}}", "size"),
        ("{agents: 2, arrivals: {trace: nothing.csv}}", "nothing.csv"),
        ("{agents: 1, arrivals: {trace: FAILED}}", "none of its first 1 requests has a prompt"),
        ("{agents: 2, arrivals: {trace: FAILED}}", "Response tokens: .*1000000"),
        ("{agents: 2, turns: 0}", "turns"),
        ("{agents: 2, think_s: -1}", "think_s"),
        ("{agents: 2, tokens: []}", "tokens"),
        ("{workflow: report, turns: 2}", "for agents"),
        ("{random: 2, arrivals: {constant: {per_s: 1}}}", "for agents"),
        ("{agents: 2, prompt_tokens: 9, arrivals: {trace: azure.csv}}", "has the length"),
    ],
)
def test_arrivals_that_cannot_be_are_refused(tmp_path, workload, says):
    """With the file and the line, before anything is measured."""
    failed = tmp_path / "failed.csv"
    failed.write_text("Timestamp,Model,Request tokens,Response tokens\n1,x,5,0\n2,x,5,2000000\n")
    with pytest.raises(ConfigError, match=says) as refused:
        run(tmp_path, f"workloads: [{workload}]\n".replace("FAILED", str(failed)))
    assert "load.yaml" in str(refused.value)
    assert not (tmp_path / "load.json").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("slo: {}", "give ttft_s, itl_s or response_s"),
        ("slo: {response_s: 1, share: 2}", "share"),
        ("window: {from_s: -1}", "from_s"),
        ("window: {from_s: 60, to_s: 10}", "to_s must be more than from_s, 60; got 10"),
        ("window: {from_s: 1, to_s: 1}", ":[0-9]+:9: window: to_s must be more than from_s"),
        ("price: {prompt: 1}", "answer"),
        ("engines: [crowd]\nmax_concurrency: [1]", "takes no settings, arrivals"),
    ],
)
def test_terms_that_cannot_be_are_refused(tmp_path, more, says):
    """An SLO without a limit, a share above 1, a price of prompts alone."""
    text = "workloads: [{agents: 2, arrivals: {constant: {per_s: 1}}}]\n"
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, f"{text}{more}\n")


def test_on_the_real_clock_the_same_file_runs(fresh_lab, tmp_path):
    """Equal work to virtual time, each call after it was due, and no bound above what was taken."""
    text = "workloads: [{agents: 20, arrivals: {poisson: {per_s: 4}}}]\nmax_concurrency: [3]\n"
    text += "engines: [asyncio, langgraph]\n"
    real = run(tmp_path, text + "clock: real\nwarmups: 0\nsettings: {time_scale: 20}\n")
    kept = rows(tmp_path, real)
    virtual = run(tmp_path, text)
    assert [m.answers for m in real.measurements] == [m.answers for m in virtual.measurements]
    assert [r.due_s for r in kept] == [r.due_s for r in rows(tmp_path, virtual)]
    assert all(r.due_s <= r.asked_s <= r.sent_s for r in kept)
    assert all(m.bound_s <= m.elapsed_s and m.peak <= 3 for m in real.measurements)


def test_through_the_forwarder_no_peak_and_no_bound_is_wrong(fresh_lab, tmp_path, monkeypatch):
    """One at a time is one in flight, two are two, and no bound is beaten, on a real endpoint."""
    text = "workloads: [{agents: 12, tokens: 9}]\nmax_concurrency: [null, 2]\nclock: real\n"
    with Upstream() as upstream:
        monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
        monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
        lab.stop()
        text += "engines: [sequential, asyncio]\nrepeats: 3\nslo: {ttft_s: 1}\n"
        made = run(tmp_path, text)
    told = "the endpoint told no time to first token: the SLO's TTFT and ITL count as kept"
    assert told in report.markdown(made)
    assert len(made.measurements) == 12
    for m in made.measurements:
        most = 1 if m.case.engine == "sequential" else m.case.max_concurrency or 12
        assert (m.error, m.peak <= most, m.bound_s <= m.elapsed_s) == (None, True, True)


def test_what_a_client_has_given_up_is_in_flight_no_more(fresh_lab, tmp_path):
    """The endpoint may notice it late; two attempts are still the most that there are."""
    text = "workloads: [{agents: 6}]\nmax_concurrency: [2]\nengines: [asyncio]\nclock: real\n"
    fault = "{kind: stall, calls: [1, 2, 3], stall_s: 500}"
    text += f"strategies: [timeout]\nsettings: {{time_scale: 50, faults: [{fault}]}}\n"
    made = run(tmp_path, text + "warmups: 0\n")
    (m,) = made.measurements
    given_up = [row for row in rows(tmp_path, made) if row.status == 499]
    assert m.error is None
    assert len(given_up) >= 3
    assert m.peak <= 2


def test_what_was_stored_before_is_read(tmp_path: Path):
    """Results without summaries have a table, a service time, and no column of response times."""
    stored = json.loads((experiment.DATA / "results" / "scaling.json").read_bytes())
    for one in stored["measurements"]:
        del one["felt"], one["late"], one["endpoint_busy"], one["endpoint_cpu_ms"]
    older = tmp_path / "older.json"
    older.write_text(json.dumps(stored), encoding="utf-8")
    kept = results.load(older)
    assert "| service p95 (s) |" in report.markdown(kept)
    assert "response" not in report.markdown(kept)
    assert report.felt(kept) == ""
    assert all(isinstance(m, Measurement) for m in kept.measurements)
