"""Agents with tools as workloads: bounds of turns, equal work, the account, and the locked one."""

from __future__ import annotations

import asyncio
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentlab import lab
from agentlab.bench import experiment, measure, results
from agentlab.bench.account import account, accounts
from agentlab.bench.experiment import StubTool
from agentlab.bench.requests import Request
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.settings import DATA
from agentlab.workflow import Workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import agents_v2
import per_turn

ONE = """about: One agent.
steps:
  - name: guide
    prompt: Search 'Busan' and 'Seoul', then check 'Busan' and 'Seoul'.
    tools: [search, check]
"""
TWO = """about: Two agents.
steps:
  - {name: a, prompt: Search 'Busan'., tools: [search]}
  - {name: b, prompt: Search 'Seoul'., tools: [search]}
"""
TEAM = """about: Three helpers, of whom one needs another, and a writer.
steps:
  - {name: a, prompt: Search 'Busan'., tools: [search]}
  - {name: b, prompt: Search 'Seoul'., tools: [search]}
  - {name: c, prompt: "Describe a river. {a}", max_tokens: 41}
  - {name: writer, prompt: "Describe {b} and {c}.", max_tokens: 21}
"""
ALONE = "{workflow: FOLDER/one.yaml, tools: {search: {seconds: 3}, check: {seconds: 2}}}"
TRIP = "{workflow: trip, inputs: {city: Busan}, tools: {weather: {seconds: 3}, "
TRIP += "tides: {seconds: 2, fails: the sea is closed}, search_history: {}}}"
EVERY = "engines: [sequential, asyncio, langgraph, langgraph-graph, functions]\n"

# A change of any of these is a new workload with a new name, agents-v3.
LOCKED = {
    "the experiment": "a7c418ffcae0663f76a1007283d113b629cc2d3da431f087caacbd0c34c12848",
    "the workflow": "20824f9c14c0bdd03189de5391a491350c0b490a3c6d94904e6936389119a419",
    "the result": "52f14f8c2101f7fe38787f0ebfd3619c9ff5b3d657962892f46fd69871d86d7e",
}


def loaded(folder: Path, workload: str, more: str = "") -> experiment.Experiment:
    path = folder / "tools.yaml"
    for name, text in {"one": ONE, "two": TWO, "team": TEAM}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    workload = workload.replace("FOLDER", str(folder))
    path.write_text(f"about: x\nworkloads:\n  - {workload}\n{more}", encoding="utf-8")
    return experiment.load(path)


def measured(folder: Path, workload: str, more: str = "") -> results.Results:
    return measure.run(loaded(folder, workload, more), folder / "out" / "tools.json")


def rows_of(folder: Path, r: results.Results) -> list[Request]:
    return results.read_requests(folder / "out" / "tools.json", len(r.measurements))


def test_a_loop_takes_its_turns_and_the_tools_between(fresh_lab, tmp_path):
    """Three requests, and 3 and 2 s of tools: that is the bound, and what every engine takes."""
    r = measured(tmp_path, ALONE, EVERY)
    requests = [row for row in rows_of(tmp_path, r) if row.run == 0]
    model_s = sum((row.end_s or 0) - (row.arrived_s or 0) for row in requests)
    assert {(m.elapsed_s, m.bound_s) for m in r.measurements} == {(round(model_s + 5, 9),) * 2}
    assert {(m.steps, m.requests, m.answered, m.tools) for m in r.measurements} == {(3, 3, 3, 4)}
    assert results.unequal(r.measurements) == []


def test_the_longest_tool_of_a_turn_counts(fresh_lab, tmp_path):
    """Of several times each call draws one; both of a turn run at the same time."""
    workload = "{workflow: FOLDER/one.yaml, tools: {search: {seconds: [1, 5]}, check: {}}}"
    r = measured(tmp_path, workload, "seeds: [2]\nengines: [asyncio]\n")
    tool = StubTool(seconds=[1.0, 5.0]).function("search", 2)
    took_s = [lab.simulate(timed(tool, topic))[0] for topic in ("Busan", "Seoul")]
    first, second, _ = rows_of(tmp_path, r)
    assert sorted(took_s) == [1.0, 5.0]
    assert (second.sent_s, second.due_s) == ((first.returned_s or 0) + 5.0,) * 2
    assert r.measurements[0].efficiency == 1.0


async def timed(tool: Any, topic: str) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await tool(topic)
    return loop.time() - began_s


def test_helpers_fan_out_and_join(fresh_lab, tmp_path):
    """Together they reach the span, which has the tools, and in turn they take the work."""
    team = "{workflow: FOLDER/team.yaml, tools: {search: {seconds: 2}}}"
    r = measured(tmp_path, team, EVERY)
    in_turn, *others = r.measurements
    rows = [row for row in rows_of(tmp_path, r) if row.run == 0]
    model_s = sum((row.end_s or 0) - (row.arrived_s or 0) for row in rows)
    beside_s = sum((row.end_s or 0) - (row.arrived_s or 0) for row in rows if row.call == "b")
    assert in_turn.elapsed_s == round(model_s + 4, 9)
    assert {(m.elapsed_s, m.bound_s) for m in others if m.case.engine != "langgraph-graph"} == {
        (round(model_s - beside_s + 2, 9),) * 2
    }
    assert {(m.requests, m.tools) for m in r.measurements} == {(6, 2)}
    assert results.unequal(r.measurements) == []


def test_a_workflow_s_tools_are_given_and_may_fail(fresh_lab, tmp_path):
    """The failure is told to the model, and ends nothing; each engine asks the same."""
    r = measured(tmp_path, TRIP, EVERY)
    assert results.unequal(r.measurements) == []
    assert [m.efficiency for m in r.measurements[1:]] == [1.0] * 4
    workload = r.experiment.workloads[0]
    with pytest.raises(RuntimeError, match="the sea is closed"):
        lab.simulate((workload.functions(7) or {})["tides"]("Busan"))


def test_no_tool_holds_a_slot(fresh_lab, tmp_path):
    """Two agents and one slot: one is answered while the other's tool runs."""
    two = "{workflow: FOLDER/two.yaml, tools: {search: {seconds: 1}}}"
    (m,) = measured(tmp_path, two, "engines: [asyncio]\nmax_concurrency: [1]\n").measurements
    rows = rows_of(tmp_path, results.load(tmp_path / "out" / "tools.json"))
    model_s = round(sum((row.end_s or 0) - (row.arrived_s or 0) for row in rows), 9)
    assert m.peak == 1
    assert m.elapsed_s == m.bound_s == model_s


def test_the_account_has_tools_in_the_bound(fresh_lab, tmp_path):
    """They are stretches of the chain, and what one after the other loses is the barrier."""
    r = measured(tmp_path, "{workflow: FOLDER/two.yaml, tools: {search: {seconds: 2}}}", EVERY)
    found = accounts(r, rows_of(tmp_path, r))
    for case in found.values():
        assert sum(case.parts.values()) == case.elapsed_ns - case.bound_ns
        assert sum(s.to_ns - s.from_ns for s in case.chain if s.cause == "tools") >= 2 * 10**9
    assert {cause for cause, ns in found["sequential"].parts.items() if ns} == {"barrier"}
    assert not any(any(case.parts.values()) for name, case in found.items() if name != "sequential")


def test_what_comes_after_noted_tools_is_the_client_s():
    """2 s, a tool of 3 s, and 1 s until it is asked again: 1 s is lost, and not to the tool."""
    usual: dict[str, Any] = {"run": 0, "call": "a", "status": 200}
    names = "due_s asked_s sent_s arrived_s started_s first_token_s end_s returned_s".split()
    rows = [
        Request(attempt=n, **usual, **dict(zip(names, times_s, strict=True)))
        for n, times_s in enumerate([(0, 0, 0, 0, 0, 1, 2, 2), (5, 6, 6, 6, 6, 7, 8, 8)], 1)
    ]
    found = account(rows, {"a": ()}, elapsed_s=8, bound_s=7)
    assert {cause: ns for cause, ns in found.parts.items() if ns} == {"client": 10**9}


def test_tools_that_take_no_time_have_rows_of_their_own(fresh_lab, tmp_path):
    """A request that arrives as the one before returns is the next turn's."""
    r = measured(
        tmp_path,
        "{workflow: FOLDER/one.yaml, tools: {search: {}, check: {}}}",
        "engines: [asyncio]\n",
    )
    rows = rows_of(tmp_path, r)
    assert [row.attempt for row in rows] == [1, 2, 3]
    assert all(row.arrived_s == row.sent_s for row in rows)


def test_a_caller_waits_for_all_turns(fresh_lab, tmp_path):
    """The response of an agent counts from its first question to its last answer."""
    (m,) = measured(tmp_path, ALONE, "engines: [asyncio]\n").measurements
    assert m.figure("response_p99_s") == m.elapsed_s


def test_other_turns_are_no_equal_work(fresh_lab, tmp_path):
    """Neither are other numbers of calls of tools."""
    first, second = measured(tmp_path, ALONE, "engines: [asyncio, langgraph]\n").measurements
    other = msgspec.structs.replace(second, steps=4, requests=4, answered=4, tools=5)
    says = "langgraph: 4 turns and 5 calls of tools, for 3 and 4 of asyncio"
    assert results.unequal([first, other]) == [says]


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        (
            "{workflow: trip, inputs: {city: Busan}, tools: {weather: {}, search: {}}}",
            "workloads[0]: 'trip' calls the tools 'search_history', 'tides', 'weather'; give just",
        ),
        (
            "{workflow: trip, inputs: {city: Busan}}",
            "workloads[0]: 'trip' calls the tools 'search_history', 'tides', 'weather'; give just",
        ),
        ("{agents: 1, tools: {look: {}}}", "workloads[0]: tools are for a workflow, whose steps"),
        ("{random: 1, tools: {look: {}}}", "workloads[0]: tools are for a workflow, whose steps"),
        (
            "{workflow: FOLDER/two.yaml, tools: {search: {seconds: -1}}}",
            "workloads[0].tools.search.seconds: should be greater than or equal to 0; got -1",
        ),
        ("{workflow: FOLDER/two.yaml, tools: {search: {second: 1}}}", "did you mean `seconds`?"),
    ],
)
def test_wrong_tools_are_refused_with_the_place(tmp_path, workload, says):
    """File, line and field, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, workload)
    assert says in str(caught.value)
    assert "tools.yaml:3:" in str(caught.value)


def test_the_bill_counts_turns(fresh_lab, tmp_path):
    """One request for each turn of each run, with the prompts that grow, to the token."""
    text = "clock: real\nwarmups: 0\nengines: [asyncio]\npresets: [instant]\n"
    chosen = loaded(tmp_path, ALONE, text)
    bill = measure.cost(chosen)
    (m,) = measure.run(chosen, tmp_path / "out" / "tools.json").measurements
    assert bill.requests == m.requests == 3
    assert bill.prompt_tokens + bill.answer_tokens == m.tokens


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_on_the_real_clock_every_engine_asks_the_same(fresh_lab, tmp_path):
    """Requests, tools and answers are equal, and none is faster than its turns and tools."""
    text = "clock: real\nwarmups: 0\nengines: [sequential, asyncio, langgraph, crewai]\n"
    r = measured(tmp_path, TRIP, text + "settings: {time_scale: 100}\n")
    assert results.unequal(r.measurements) == []
    assert all(m.elapsed_s >= m.bound_s > 0 for m in r.measurements)


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def test_agents_v2_is_locked():
    """Neither what is asked nor what came of it changes without a new name."""
    kept = results.load(DATA / "results" / "agents-v2.json")
    found = {
        "the experiment": digest((DATA / "experiments" / "agents-v2.yaml").read_bytes()),
        "the workflow": digest((DATA / "workflows" / "agents-v2.yaml").read_bytes()),
        "the result": digest(msgspec.json.encode(kept.measurements)),
    }
    assert found == LOCKED, "call it agents-v3: results of one name are of the same work"


def test_agents_v2_is_what_it_says():
    """Twenty sessions with one to eight helpers, one beginning, and the tool that wrote them."""
    w = Workflow.load("agents-v2")
    assert (len(w.ends), len({step.system for step in w.steps})) == (20, 1)
    assert {len(w.needs[end]) for end in w.ends} == set(range(1, 9))
    text = (DATA / "workflows" / "agents-v2.yaml").read_text(encoding="utf-8")
    assert text.splitlines() == "\n".join(agents_v2.lines(20, 8, 1)).splitlines()


def test_agents_v2_comes_out_again(fresh_lab, tmp_path):
    """Its sessions, shared beginnings and fan-out, to the byte, by `agentlab verify`."""
    assert main(["verify", str(DATA / "results" / "agents-v2.json")]) == 0


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_what_a_turn_costs_is_measured_on_equal_work(fresh_lab):
    """Each way sends as many requests as it has turns; a line of the table for each."""
    lab.configure(preset="instant")
    times, requests = asyncio.run(per_turn.measure([1, 3], rounds=2))
    assert requests == {way: [1, 3] for way in per_turn.WAYS}
    assert all(len(each) == 2 for its in times.values() for each in its.values())
    assert per_turn.table(times).count("\n") == 1 + len(per_turn.WAYS)
