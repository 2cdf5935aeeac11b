"""Random graphs along their true edges: the makespan is the critical path."""

from __future__ import annotations

import inspect
import math

from agentlab.tuning import dags
from agentlab.workflow import Step, Workflow


def test_makespan_is_the_critical_path_on_200_graphs(fresh_lab):
    """As a Workflow and as plain functions, with the real client: at most 1.05 of it; it is 1.00.

    The answers equal the sequential run's, to the byte. In supersteps the same graphs take more.
    """
    summary = dags.summary([dags.measure(seed) for seed in range(200)])
    assert (summary.graphs, summary.all_equal, summary.worst_ratio) == (200, True, 1.0)
    assert summary.mean_supersteps_ratio > 1.05
    assert summary.mean_speedup > 1.5


def test_langchains_client_reaches_it_too(fresh_lab):
    """`ChatOpenAI` in place of `lab.ask`: the same answers, the same times."""
    for seed in (2, 5, 13):
        assert dags.measure(seed, dags.ask_chat_model) == dags.measure(seed)


def test_a_program_that_waits_too_much_is_seen(fresh_lab, monkeypatch):
    """The figure can fail: with the sequential run in the parallel one's place it is above 1.05."""
    monkeypatch.setattr(dags.parallel, "run", dags.parallel.run_sequential)
    assert max(dags.measure(seed).ratio for seed in range(5)) > 1.05


def test_a_wrong_answer_is_seen(fresh_lab):
    """An answer that changes from run to run makes the runs unequal."""
    calls = iter(range(1000))

    async def ask(prompt, **options):
        await fresh_lab.ask(prompt, **options)
        return str(next(calls))

    assert not dags.measure(3, ask).equal


def test_functions_name_what_the_prompts_name():
    """A step's placeholders become its function's parameters."""
    workflow = Workflow([Step("c", "{b} {a} {b}"), Step("b", "{a}"), Step("a", "Hello")])
    functions = dags.as_functions(workflow)
    signatures = {f.__name__: list(inspect.signature(f).parameters) for f in functions}
    assert signatures == {"a": [], "b": ["a"], "c": ["b", "a"]}


def test_a_model_that_takes_no_time_has_no_ratio(fresh_lab):
    """On the preset `instant` there is nothing to divide by, and that is no error."""
    with fresh_lab.configure(preset="instant"):
        one = dags.measure(3)
    assert one.equal
    assert math.isnan(one.ratio)
