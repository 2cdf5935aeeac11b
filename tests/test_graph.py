"""Names that need each other: what workflows and functions share. See test_workflow, too."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlab.errors import ConfigError
from agentlab.workflow._graph import Graph


def test_each_comes_after_what_it_needs():
    """In whatever order a graph is given, it is sorted; what is free keeps the order given."""
    graph = Graph([("c", ["b", "x"]), ("d", []), ("b", ["a"]), ("a", ["x"])], inputs=["x"])
    assert graph.needs == {"d": (), "a": (), "b": ("a",), "c": ("b",)}
    assert list(graph.needs) == ["d", "a", "b", "c"]
    assert graph.ends == ["d", "c"]


@pytest.mark.parametrize(
    ("mentions", "inputs", "says"),
    [
        ([("a", ["b"]), ("b", ["a"])], [], "functions wait .*: a -> b -> a; take one out"),
        ([("a", []), ("a", [])], [], "'a' is given twice; give each function"),
        ([("a", ["z"])], [], "function 'a' needs 'z', which is no function and no input"),
        ([("a", [])], ["x", "y"], "no function uses the input 'x'; take it out"),
        ([("a", ["a"])], ["a"], "'a' is given twice"),
    ],
    ids=["circle", "twice", "unknown", "unused", "both"],
)
def test_messages_speak_of_what_the_nodes_are(mentions, inputs, says):
    """The word for a node is the caller's."""
    with pytest.raises(ConfigError, match=says):
        Graph(mentions, inputs=inputs, node="function")


def test_a_missing_time_is_named():
    """A plan needs the time of each node."""
    with pytest.raises(ConfigError, match="function 'b' takes None seconds; give each function's"):
        Graph([("a", []), ("b", [])], node="function").plan({"a": 1})


@given(seed=st.integers(0, 10_000), max_concurrency=st.integers(1, 4))
def test_a_greedy_schedule_keeps_grahams_bound(seed: int, max_concurrency: int):
    """The oracle: any list schedule takes at least `bound_s`, at most work / workers + span.

    So `bound_s` is no more than a real schedule reaches, and no less than half of it.
    """
    draw = random.Random(seed)
    names = [f"n{number}" for number in range(draw.randint(1, 9))]
    mentions = [
        (name, draw.sample(names[:number], draw.randint(0, min(number, 3))))
        for number, name in enumerate(names)
    ]
    graph = Graph(mentions)
    seconds = {name: draw.randint(0, 9) for name in names}
    plan = graph.plan(seconds)
    makespan = list_schedule(graph.needs, seconds, max_concurrency)
    assert plan.bound_s(max_concurrency) <= makespan <= plan.work_s / max_concurrency + plan.span_s


def list_schedule(needs, seconds, max_concurrency):
    """Whoever is ready is begun as soon as there is a place."""
    now, left, ended, running = 0, list(needs), set(), {}
    while left or running:
        ready = [name for name in left if ended.issuperset(needs[name])]
        for name in ready[: max_concurrency - len(running)]:
            running[name] = now + seconds[name]
            left.remove(name)
        now = min(running.values())
        done = {name for name, end in running.items() if end == now}
        ended |= done
        running = {name: end for name, end in running.items() if name not in done}
    return now
