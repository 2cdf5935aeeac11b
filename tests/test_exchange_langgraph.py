"""Graphs of LangGraph's as workflows, and workflows as scripts of LangGraph's own."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from agentlab import engines, lab, workflow
from agentlab.clock import run_virtual
from agentlab.convert import langgraph, script
from agentlab.engines.langgraph import AskStep, State, dataflow, graph
from agentlab.errors import ConfigError
from agentlab.trace import trace
from agentlab.workflow import Step, Workflow, random_workflow

NOTES = Step("notes", "What is known about {topic}?")
COSTS = Step("costs", "What does {topic} cost?", max_tokens=11)
REPORT = Step("report", "Sum up {notes} and {costs}.", system="You are terse.")


def drawn(*steps, edges):
    """A graph of these steps, built by hand."""
    built = StateGraph(State)
    for step in steps:
        built.add_node(step.name, AskStep(step))
    for start, end in edges:
        built.add_edge(start, end)
    return built


def joined():
    """Two that need nothing, and one that needs both."""
    return drawn(
        *(NOTES, COSTS, REPORT),
        edges=[(START, "notes"), (START, "costs"), (["notes", "costs"], "report")],
    )


@pytest.mark.parametrize("seed", range(20))
def test_random_workflows_come_back(seed):
    """Exported as a graph, and read again, a workflow is what it was."""
    w = random_workflow(seed)
    again = langgraph.load(graph(w))
    assert (again.steps, again.needs) == (w.steps, w.needs)


@pytest.mark.parametrize("name", workflow.names())
def test_the_courses_workflows_come_back(name):
    """With their inputs, limits and braces."""
    w = Workflow.load(name)
    again = langgraph.load(graph(w), name=name)
    assert (again.name, again.steps, set(again.inputs)) == (name, w.steps, set(w.inputs))


def test_a_graph_built_by_hand_is_read(fresh_lab):
    """Its nodes are `AskStep`s; run by an engine it gives what LangGraph gives."""
    read = langgraph.load(joined(), name="mine")
    assert (read.steps, read.inputs) == ((NOTES, COSTS, REPORT), ("topic",))
    given = {"topic": "tides"}
    state = run_virtual(joined().compile().ainvoke({"inputs": given})).result
    assert run_virtual(engines.run(read, given)).result == state["results"]


def by_a_function():
    built = joined()
    built.add_node("mine", lambda state: {"results": {}})
    return built


def conditional():
    built = joined()
    built.add_conditional_edges("report", lambda state: END)
    return built


def with_options(**options):
    built = StateGraph(State)
    built.add_node("notes", AskStep(NOTES), **options)
    return built.add_edge(START, "notes")


def separate_edges():
    edges = [(START, "notes"), (START, "costs"), ("notes", "report"), ("costs", "report")]
    return drawn(NOTES, COSTS, REPORT, edges=edges)


def a_subgraph():
    built = StateGraph(State)
    return built.add_node("inner", joined().compile()).add_edge(START, "inner")


def another_name():
    built = StateGraph(State)
    return built.add_node("other", AskStep(NOTES)).add_edge(START, "other")


@pytest.mark.parametrize(
    ("built", "says"),
    [
        (by_a_function, "node 'mine' is no AskStep of that name"),
        (a_subgraph, "node 'inner' is no AskStep of that name"),
        (conditional, r"decides where to go behind 'report' \(conditional edges\)"),
        (lambda: with_options(retry_policy=RetryPolicy()), "node 'notes' has retry_policy"),
        (lambda: with_options(timeout=3), "node 'notes' has timeout"),
        (lambda: with_options(defer=True), "node 'notes' has defer"),
        (lambda: with_options(destinations=("notes",)), "node 'notes' has ends"),
        (
            separate_edges,
            r"edges lead to 'report' from 'costs'; 'notes', and .*: add_edge\(\['notes', 'costs'\]",
        ),
        (
            lambda: drawn(NOTES, COSTS, edges=[(START, "notes"), ("notes", "costs")]),
            "edges lead to 'costs' from 'notes', and its prompt names none",
        ),
        (
            lambda: drawn(
                *(NOTES, COSTS, REPORT),
                edges=[(START, "notes"), (START, "costs"), ("notes", "report")],
            ),
            "edges lead to 'report' from 'notes', and its prompt names 'notes', 'costs'",
        ),
        (lambda: drawn(NOTES, edges=[]), "edges lead to 'notes' from nowhere"),
        (another_name, "node 'other' is no AskStep of that name"),
        (
            lambda: joined().compile(interrupt_before=["report"]),
            "only a StateGraph that is not compiled",
        ),
        (
            lambda: dataflow(random_workflow(1)),
            "only a StateGraph that is not compiled is read; got .*Pregel",
        ),
    ],
)
def test_what_no_workflow_says_is_refused(built, says):
    """The error names what was met; nothing is read wrongly."""
    with pytest.raises(ConfigError, match=says):
        langgraph.load(built())


# Scripts

AWKWARD = Workflow(
    [
        Step("연구", 'Say "why" of {주제},\nin C:\\new\\lines and {{braces}}.', max_tokens=20),
        Step("class", 'Name a river,\nand quote it: "', max_tokens=20, temperature=None),
        Step(
            "inputs", 'Join {연구} and """{class}""".\n', system="You are\n'terse'.", max_tokens=20
        ),
    ],
    inputs=["주제"],
    name="awkward\nimport nothing",
    about="Text that is hard to quote.\n'''\"\"\"",
)


def test_a_script_answers_as_the_engines_do(fresh_lab, tmp_path):
    """Without Agent Lab: equal answers, one request a step, two at once where the graph lets."""
    expected = run_virtual(engines.run(AWKWARD, {"주제": "tides"})).result
    written = script.langgraph(AWKWARD)
    assert "agentlab" not in written
    (tmp_path / "script.py").write_text(written, encoding="utf-8")
    lab.configure(time_scale=1)  # so slow that the second is sent before the first is answered
    known = {"OPENAI_BASE_URL": lab.base_url(), "OPENAI_API_KEY": lab.api_key()}
    with trace() as t:
        run = subprocess.run(
            [sys.executable, "script.py", "주제=tides"],
            env=os.environ | known,
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
        )
    assert run.returncode == 0, run.stderr.decode()
    assert json.loads(run.stdout) == expected
    assert list(json.loads(run.stdout)) == ["연구", "class", "inputs"]
    assert (t.requests, t.peak) == (3, 2)


def test_a_script_says_how_it_is_used(monkeypatch):
    """Missing or unknown inputs end it with the usage, before anything is asked."""
    namespace = {"__name__": "script"}
    exec(script.langgraph(AWKWARD), namespace)
    monkeypatch.setattr(sys, "argv", ["report.py", "topic=tides"])
    with pytest.raises(SystemExit, match=r"usage: python report\.py 주제=\.\.\."):
        namespace["main"]()


@settings(max_examples=30, deadline=None)
@given(prompt=st.text(min_size=1), system=st.text() | st.none(), temperature=st.floats(0, 2))
@example(prompt='a\n"', system='"""\n', temperature=1e-05)
@example(prompt="\\\n", system="\n\r\n", temperature=0.0)
def test_texts_are_read_as_they_were(prompt, system, temperature):
    """Whatever they hold."""
    escaped = prompt.replace("{", "{{").replace("}", "}}")
    step = Step("a", escaped, system=system, temperature=temperature)
    for node in ast.parse(script.langgraph(Workflow([step]))).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "STEPS":
            assert ast.literal_eval(node.value) == {
                "a": {k: v for k, v in vars(step).items() if k != "name"}
            }
            return
    raise AssertionError("no steps in the script")
