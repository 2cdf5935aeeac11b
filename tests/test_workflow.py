"""The graph that prompts make, and the bounds that follow from it."""

from __future__ import annotations

import random

import pytest

from agentlab import workflow
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, random_workflow


def diamond():
    return Workflow(
        [
            Step("start", "Begin with {topic}."),
            Step("left", "Go left from {start}."),
            Step("right", "Go right from {start}."),
            Step("end", "Join {left} and {right}, mind {topic}."),
        ],
        inputs=["topic"],
    )


def longest_chain_s(w, seconds):
    """By trying every chain: slow, and plainly right."""

    def until(name):
        return seconds[name] + max((until(need) for need in w.needs[name]), default=0)

    return max(until(step.name) for step in w.steps)


def test_placeholders_are_the_graph():
    """A step needs the steps that its prompt names; inputs are no steps."""
    assert diamond().needs == {
        "start": (),
        "left": ("start",),
        "right": ("start",),
        "end": ("left", "right"),
    }
    assert diamond().ends == ["end"]


def test_steps_may_be_given_in_any_order():
    """The workflow's order puts each step after those it needs, and else keeps what was given."""
    w = Workflow([Step("c", "{b}"), Step("d", "four"), Step("b", "{a}"), Step("a", "one")])
    assert [step.name for step in w.steps] == ["d", "a", "b", "c"]
    w = Workflow([Step("a", "one"), Step("b", "{a}"), Step("c", "three")])
    assert [step.name for step in w.steps] == ["a", "b", "c"]


def test_prompt_is_filled_in_once():
    """Values stand where their names stood; braces in a value are text, doubled ones a brace."""
    step = Step("json", 'Shape {notes} like {{"a": 1}}, and {notes} again.')
    assert step.mentions == ("notes",)
    assert step.asked({"notes": "{x}"}) == 'Shape {x} like {"a": 1}, and {x} again.'


def test_names_in_any_language():
    """A Korean name works as a step and as a placeholder."""
    w = Workflow([Step("연구", "{주제} 조사"), Step("요약", "{연구} 요약")], inputs=["주제"])
    assert w.needs["요약"] == ("연구",)


@pytest.mark.parametrize(
    ("steps", "inputs", "says"),
    [
        ([Step("a", "{b}"), Step("b", "{a}")], [], "wait for each other forever: a -> b -> a"),
        ([Step("a", "{a}")], [], "forever: a -> a"),
        ([Step("a", "one"), Step("a", "two")], [], "'a' is given twice; give each step"),
        ([Step("a", "{topic}")], [], "needs 'topic', which is no step and no input"),
        ([Step("a", "one")], ["topic"], "no step uses the input 'topic'"),
        ([Step("a", "{a}")], ["a"], "'a' is given twice"),
    ],
    ids=["circle", "itself", "twice", "unknown", "unused", "both"],
)
def test_wrong_graph_is_refused(steps, inputs, says):
    """What cannot run is refused before it runs, and the message names the steps."""
    with pytest.raises(ConfigError, match=says):
        Workflow(steps, inputs=inputs)


@pytest.mark.parametrize("prompt", ["{", "}", "{}", "{0}", "{a.b}", "{a!r}", "{a:>3}", "{a b}"])
def test_wrong_placeholder_is_refused(prompt):
    """Only a plain name goes into braces."""
    with pytest.raises(ConfigError, match=r"step 'x': .*for a brace"):
        Step("x", prompt)


def test_wrong_name_is_refused():
    """A name that cannot stand in braces is refused."""
    with pytest.raises(ConfigError, match="step 'two words'"):
        Step("two words", "Say hello.")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (None, r"takes the inputs 'topic', each a text; got \{\}"),
        ({"topic": "x", "more": "y"}, "got {'topic': 'x', 'more': 'y'}"),
        ({"topic": 3}, "each a text; got {'topic': 3}"),
        ("tides", "each a text; got 'tides'"),
    ],
)
def test_wrong_inputs_are_refused(inputs, says):
    """A run needs all of the inputs, no others, and text."""
    with pytest.raises(ConfigError, match=says):
        diamond().given(inputs)


def test_plan_of_a_diamond():
    """Start 2, left 3, right 7, end 1: work 13, span 10 along the right, two at once."""
    plan = diamond().plan({"start": 2, "left": 3, "right": 7, "end": 1})
    assert (plan.work_s, plan.span_s, plan.peak) == (13, 10, 2)
    assert plan.critical_path == ["start", "right", "end"]
    assert plan.start_s == {"start": 0, "left": 2, "right": 2, "end": 9}
    assert [plan.bound_s(max_concurrency) for max_concurrency in (None, 1, 2)] == [10, 13, 10]


def test_supersteps_wait_for_their_slowest():
    """Two chains, 1 + 5 and 5 + 1: span 6, but 10 in supersteps."""
    w = Workflow([Step("a", "1"), Step("b", "{a}"), Step("c", "5"), Step("d", "{c}")])
    plan = w.plan({"a": 1, "b": 5, "c": 5, "d": 1})
    assert (plan.span_s, plan.supersteps_s) == (6, 10)


def test_plan_needs_each_time():
    """A missing, or a negative, time is refused."""
    with pytest.raises(ConfigError, match="'left' takes None seconds"):
        diamond().plan({"start": 1})
    with pytest.raises(ConfigError, match="'start' takes -1 seconds"):
        diamond().plan({"start": -1})


@pytest.mark.parametrize("seed", range(50))
def test_span_is_the_longest_chain(seed):
    """On random graphs the span is that of the longest chain, found by trying them all."""
    w, draw = random_workflow(seed), random.Random(seed)
    seconds = {step.name: draw.randint(0, 9) for step in w.steps}
    plan = w.plan(seconds)
    assert plan.span_s == longest_chain_s(w, seconds)
    assert sum(seconds[name] for name in plan.critical_path) == plan.span_s
    assert plan.span_s <= plan.supersteps_s <= plan.work_s


@pytest.mark.parametrize("name", workflow.names())
def test_the_courses_workflows_load(name):
    """Each file in data/workflows is a workflow that ends in one step, or in one per session."""
    w = Workflow.load(name)
    assert w.name == name
    assert len(w.ends) == (20 if name == "agents-v2" else 1)


def test_unknown_name_lists_those_there_are():
    """A misspelt name gets the list to choose from."""
    with pytest.raises(ConfigError, match=r"no workflow 'raport'; choose one of .*report"):
        Workflow.load("raport")


def test_a_step_is_found_by_its_name():
    """As it was given."""
    assert diamond().step("left").prompt == "Go left from {start}."
