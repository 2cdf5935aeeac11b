"""A hundred random workflows on an endpoint that fails, by every engine: the same bytes."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from agentlab import engines, lab
from agentlab.clock import run_virtual
from agentlab.endpoint import faults
from agentlab.engines import asyncio as as_soon_as_ready
from agentlab.errors import ConfigError, StepError
from agentlab.trace import trace
from agentlab.tuning import portable
from agentlab.workflow import random_workflow


@pytest.mark.parametrize("engine", portable.VIRTUAL)
def test_a_hundred_in_virtual_time(fresh_lab, engine):
    """All equal what the sequential engine gives without faults; each kind of fault was met."""
    tally = portable.tally(engine)
    assert (tally.workflows, tally.equal) == (100, 100)
    assert tally.steps == sum(len(random_workflow(seed).steps) for seed in range(100))
    assert set(tally.faults) == {fault.kind for fault in faults.load(portable.FAULTS)}
    # Whatever befell a request, another one was sent; a fault costs one request, not a workflow.
    assert tally.requests == tally.steps + sum(tally.faults.values())


@pytest.mark.parametrize("engine", portable.REAL)
@pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own
def test_a_hundred_on_the_real_clock(fresh_lab, engine):
    """A native Flow, and other processes, give the same bytes under the same faults."""
    tally = portable.tally(engine)
    assert (tally.workflows, tally.equal) == (100, 100)
    assert tally.requests >= tally.steps + sum(tally.faults.values()) > tally.steps


def test_faults_do_not_depend_on_the_engine(fresh_lab):
    """A fault is drawn by what is asked, so all engines meet the same ones, however they order."""
    tallies = [portable.tally(engine, range(10)) for engine in portable.VIRTUAL]
    facts = {msgspec.json.encode(msgspec.structs.replace(tally, engine="")) for tally in tallies}
    assert len(facts) == 1


def test_the_same_on_every_run(fresh_lab):
    """To the byte."""
    first, second = (msgspec.json.encode(portable.tally("asyncio", range(10))) for _ in range(2))
    assert first == second


def test_what_is_expected_is_what_nobody_guards(fresh_lab):
    """The oracle has no guard and meets no fault: one request a step."""
    with trace() as t:
        results = run_virtual(engines.run(random_workflow(5), engine="sequential")).result
    assert portable._expected(5) == msgspec.json.encode(results)
    assert t.requests == len(random_workflow(5).steps)


def test_another_answer_is_counted(fresh_lab, monkeypatch):
    """An engine that changes one answer is not equal: the comparison compares."""
    run = as_soon_as_ready.run

    async def careless(workflow, inputs=None, **options):
        results = await run(workflow, inputs, **options)
        return results | {"s0": results["s0"] + " "}

    monkeypatch.setattr(as_soon_as_ready, "run", careless)
    assert portable.tally("asyncio", range(5)).equal == 0


def test_another_order_is_counted(fresh_lab, monkeypatch):
    """Bytes are compared, so the order of the steps counts, too."""
    run = as_soon_as_ready.run

    async def careless(workflow, inputs=None, **options):
        return dict(reversed((await run(workflow, inputs, **options)).items()))

    monkeypatch.setattr(as_soon_as_ready, "run", careless)
    one_step = sum(len(random_workflow(seed).steps) == 1 for seed in range(20))
    assert portable.tally("asyncio", range(20)).equal == one_step


def test_an_endpoint_that_only_fails_is_no_tally(fresh_lab):
    """What a guard cannot cure is raised, and names the step."""
    plan = [{"kind": "error", "status": 500, "probability": 1}]
    with pytest.raises(StepError, match="'s0'"):
        portable.tally("asyncio", range(1), faults=plan)


def test_settings_are_as_before(fresh_lab):
    """Whatever the lab was told, the tally asks the local model, and leaves the lab alone."""
    with lab.configure(preset="laptop-ollama", seed=11, time_scale=20):
        before = lab.where()
        portable.tally("asyncio", range(2))
        assert lab.where() == before


def test_unknown_engine_is_refused():
    """With those that there are."""
    with pytest.raises(ConfigError, match="no engine 'langgraf'; choose one of sequential"):
        portable.tally("langgraf")


def test_table_adds_up():
    """A row an engine; the kinds are added up."""
    faults = Counter(reset=2, html=1)
    table = portable.markdown([portable.Tally("asyncio", 3, 2, 1000, 1234, dict(faults))])
    assert table.splitlines()[-1] == "| asyncio | 2 of 3 | 1,000 | 1,234 | 3 |"


def test_in_a_running_loop_the_way_out_is_said():
    """The engines on the real clock start a loop of their own; the message says how to call it."""

    async def inside():
        portable.tally("crewai", range(1))

    with pytest.raises(ConfigError, match=r"await asyncio\.to_thread\(portable\.tally, \.\.\.\)"):
        asyncio.run(inside())
