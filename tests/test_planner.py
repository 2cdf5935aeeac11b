"""A model's plan, read: what it runs to, in which time, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError
from agentlab.learning import parallel, planner


async def search(topic, top=3):
    await asyncio.sleep(10)
    return f"{top} of {topic}"


def join(*texts, between=" + "):
    return between.join(map(str, texts))


def count(items):
    return len(items)


TOOLS = {"search": search, "join": join, "count": count}

PLAN = """
```
$1 = search("tides, north")
$2 = search('the "Adria"', top=-1)
$3 = join($1, $2, between=" | ")
$4 = join("about $3 (all of it)")
$5 = count([$1, $2, 7])
```
"""


def ran(plan):
    """What the plan runs to, and how long it takes in seconds."""
    run = run_virtual(parallel.run(planner.read(plan, TOOLS)))
    return run.result, run.elapsed_s


def test_a_plan_runs_along_its_mentions():
    """Two searches of 10 s at once; what they found goes in as it is, into a text, into a list."""
    results, seconds = ran(PLAN)
    assert seconds == 10
    assert results == {
        "s1": "3 of tides, north",
        "s2": '-1 of the "Adria"',
        "s3": '3 of tides, north | -1 of the "Adria"',
        "s4": 'about 3 of tides, north | -1 of the "Adria" (all of it)',
        "s5": 3,
    }


def test_the_plan_has_work_and_span():
    """Its graph is one like any other."""
    seconds = dict.fromkeys("s1 s2 s3 s4 s5".split(), 1)
    plan = parallel.graph(planner.read(PLAN, TOOLS)).plan(seconds)
    assert (plan.work_s, plan.span_s) == (5, 3)


def test_lines_may_come_in_any_order():
    """A line may use what a later one gives."""
    assert ran('$1 = join($2)\n$2 = join("x")')[0] == {"s2": "x", "s1": "x"}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ("First I search.", "'First I search.': it is no call of a tool"),
        ("$1 = 3", "it is no call of a tool"),
        ("$1 = search(", r"was never closed; correct"),
        ("$1 = find('x')", "'find' is no tool; there are 'search', 'join', 'count'"),
        ("$1 = search.now('x')", "it is no call of a tool"),
        ("$1 = search()", "missing a required argument: 'topic'"),
        ("$1 = search('x', best=1)", "unexpected keyword argument 'best'"),
        ("$1 = search(tides)", "it is given what is no text, number, list"),
        ("$1 = search(open('/etc/passwd'))", "what is no text"),
        ("$1 = join(*[1])", "what is no text"),
        ("$1 = join(__import__('os').name)", "what is no text"),
        ("$1 = join(s1)", "what is no text"),
    ],
)
def test_what_is_no_plan_is_refused_before_anything_runs(plan, says):
    """The message quotes the line; names and calls inside of arguments are never evaluated."""
    with pytest.raises(ConfigError, match=f"plan: in .*{says}"):
        planner.read(plan, TOOLS)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ("$1 = join($2)\n$2 = join($1)", "wait for each other forever: s1 -> s2 -> s1"),
        ("$1 = join($1)", "forever: s1 -> s1"),
        ("$1 = join('costs $9')", "'s1' needs 's9', which is no function and no input"),
        ("$1 = join('x')\n$1 = join('y')", "'s1' is given twice"),
    ],
)
def test_what_is_no_graph_is_refused_by_the_run(plan, says):
    """The plan's graph is checked as that of any functions is."""
    with pytest.raises(ConfigError, match=says):
        ran(plan)


QUESTION = """\
Plan how to answer the question with these tools, one call a line, and write nothing else:

$1 = research("a topic")
$2 = compare($1, "a text")
$3 = report($1, $2)

Question: Where is tidal power worth more, in Brittany or in Wales?"""


def test_the_lessons_plan_is_one(fresh_lab):
    """The local model cannot plan: its answer to the exercise's question was written by a person.

    It is read and run like any other: five calls, three of them at once, three in the longest row.
    """

    async def research(topic):
        return await lab.ask(f"What is known about {topic}?", agent="research", max_tokens=41)

    async def compare(one, other):
        return await lab.ask(f"Compare {one} and {other}", agent="compare", max_tokens=41)

    async def report(*given):
        return await lab.ask(f"Make one report of {given}", agent="report", max_tokens=41)

    tools = {"research": research, "compare": compare, "report": report}
    plan, _ = lab.simulate(lab.ask(QUESTION, agent="planner"))
    functions = planner.read(plan, tools)
    results, t = lab.simulate(parallel.run(functions))
    baseline, one_by_one = lab.simulate(parallel.run_sequential(functions))
    assert (t.requests, t.peak, t.makespan_s, one_by_one.makespan_s) == (5, 3, 15, 25)
    assert results == baseline
