"""Random workflows in an experiment: near the critical path, and equal under faults."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from agentlab import engines, lab
from agentlab.bench import experiment, measure, report, results
from agentlab.bench.experiment import Experiment, Workload
from agentlab.endpoint.middleware import fault_plan
from agentlab.settings import DATA
from agentlab.workflow import Step, Workflow, as_ready, random_workflow

FAULTS = str(DATA / "faults" / "every-kind.yaml")
STORED = DATA / "results"


def measured(folder: Path, many: int, ways: list[Any], **changed: Any) -> results.Results:
    asked = Experiment(
        about="x", workloads=[Workload(random=many)], engines=ways, warmups=0, **changed
    )
    return measure.run(asked, folder / "random.json")


def by_engine(some: results.Results) -> dict[str, list[results.Measurement]]:
    return {case.engine: some.of(case) for case in some.measured}


def test_makespan_is_the_critical_path_on_200_graphs():
    """As a workflow and as plain functions: 1.00 of it. In supersteps the graphs take more."""
    stored = results.load(STORED / "graphs.json")
    assert results.unequal(stored.measurements) == []
    runs = by_engine(stored)
    worst = {name: max(m.elapsed_s / m.bound_s for m in some) for name, some in runs.items()}
    assert {len(some) for some in runs.values()} == {200}
    assert worst["asyncio"] == worst["functions"] == 1.0
    assert worst["sequential"] > worst["langgraph-graph"] > 1.05


@pytest.mark.parametrize("name", ["graphs", "portable"])
def test_the_reference_comes_out_again(fresh_lab, tmp_path, name):
    """The first workflows on every engine, to the last digit."""
    stored = results.load(STORED / f"{name}.json")
    how = stored.experiment
    again = measured(
        tmp_path, 12, how.engines, strategies=how.strategies, settings=how.settings
    ).measurements
    expected = [m for m in stored.measurements if m.repeat < 12]
    facts = [(m.case.engine, m.workflow, m.elapsed_s, m.requests, m.answers) for m in expected]
    assert [(m.case.engine, m.workflow, m.elapsed_s, m.requests, m.answers) for m in again] == facts


def test_a_hundred_under_faults_give_what_they_give_without():
    """The same bytes as without faults; each kind was met, and each fault cost one request."""
    faulty = by_engine(results.load(STORED / "portable.json"))
    whole = by_engine(results.load(STORED / "graphs.json"))["sequential"][:100]
    for runs in faulty.values():
        assert [m.answers for m in runs] == [m.answers for m in whole]
        assert {kind for m in runs for kind in m.faults or ()} == {
            fault.kind for fault in fault_plan.load(FAULTS)
        }
        for m in runs:
            assert m.requests == m.steps + sum((m.faults or {}).values())


@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_on_the_real_clock_too(fresh_lab, tmp_path):
    """A native Flow gives the same bytes under the same faults; test_engine_dask has Dask."""
    settings = {"time_scale": 20, "faults": FAULTS, "upstream": None}
    shape: dict[str, Any] = {"clock": "real", "presets": ["instant"], "strategies": ["timeout"]}
    runs = measured(tmp_path, 4, ["crewai"], settings=settings, **shape).measurements
    whole = by_engine(results.load(STORED / "graphs.json"))["sequential"][:4]
    assert [(m.answers, m.error) for m in runs] == [(m.answers, None) for m in whole]
    assert sum(m.requests for m in runs) > sum(m.steps for m in runs)


def test_another_answer_is_seen(fresh_lab, tmp_path, monkeypatch):
    """An engine that changes one answer is not equal: the comparison compares."""

    async def careless(needs, call):
        found = await as_ready(needs, call)
        return found | {"s0": found["s0"] + " "}

    monkeypatch.setattr(engines, "as_ready", careless)
    some = measured(tmp_path, 3, ["sequential", "asyncio"])
    problems = results.unequal(some.measurements)
    assert len(problems) == 3
    assert problems[0] == "asyncio, workflow 0: its answers are not those of sequential"
    assert "| asyncio | 0 of 3 |" in report.table(some)


def test_an_endpoint_that_only_fails_gives_no_result(fresh_lab, tmp_path):
    """Each run is a measurement with an error, on every engine."""
    settings = {"faults": [{"kind": "error", "status": 400, "probability": 1}]}
    ways = ["asyncio", "functions", "langgraph-graph"]
    some = measured(tmp_path, 1, ways, settings=settings)
    assert all("'s0'" in (m.error or "") for m in some.measurements)
    assert some.measured == []


def test_functions_name_what_the_prompts_name():
    """A step's placeholders become its function's parameters."""
    workflow = Workflow([Step("c", "{b} {a} {b}"), Step("b", "{a}"), Step("a", "Hello")])
    functions = measure.as_functions(workflow, lab.ask)
    signatures = {f.__name__: list(inspect.signature(f).parameters) for f in functions}
    assert signatures == {"a": [], "b": ["a"], "c": ["b", "a"]}


def test_the_table_adds_up(fresh_lab, tmp_path):
    """Steps and requests of all workflows, and the speedup over the sequential run of each."""
    some = measured(tmp_path, 3, ["sequential", "asyncio"])
    steps = sum(len(random_workflow(seed).steps) for seed in range(3))
    last = report.table(some).splitlines()[-1]
    assert last.startswith(f"| asyncio | 3 of 3 | {steps} | {steps} | 1.000 | 1.000 | ")
    first, second = by_engine(some).values()
    each = [one.elapsed_s / other.elapsed_s for one, other in zip(first, second, strict=True)]
    assert last.endswith(f"| {sum(each) / 3:.3f} |")
    assert some.missing == 0


def test_the_bill_counts_every_workflow(fresh_lab):
    """Each as often as it is run; the warm-up is the first one."""
    asked = Experiment(
        about="x", workloads=[Workload(random=3)], engines=["asyncio"], clock="real", repeats=2
    )
    steps = [len(random_workflow(seed).steps) for seed in range(3)]
    assert measure.cost(asked).requests == 2 * sum(steps) + steps[0]


def test_resumed_in_the_middle_it_is_the_same_file(fresh_lab, tmp_path):
    """Half of the measurements are taken out of the file, and made again."""
    whole = measured(tmp_path, 3, ["asyncio"])
    file = tmp_path / "random.json"
    before = file.read_bytes()
    del whole.measurements[1:]
    results.write(file, whole)
    measure.run(whole.experiment, file, resume=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["graphs", "portable"])
def test_they_come_with_the_course(name):
    """As ordinary experiments."""
    assert experiment.load(name).workloads[0].random
