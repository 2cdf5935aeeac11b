"""How near to its critical path a program runs by itself: random graphs, written in two ways.

Each graph is run as a Workflow and as plain functions, against the real client in virtual time.
The bound is the span of the times that the endpoint saw in the sequential run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import Parameter, Signature
from typing import Any, NamedTuple

from agentlab import engines, lab, parallel
from agentlab.engines.asking import Ask, answer
from agentlab.workflow import Step, Workflow, random_workflow


class Measured(NamedTuple):
    """One graph: its bounds, what each way took, and whether all answers were the same."""

    seed: int
    steps: int
    work_s: float
    span_s: float
    supersteps_s: float
    workflow_s: float
    functions_s: float
    equal: bool

    @property
    def ratio(self) -> float:
        """The slower way's makespan, as a multiple of the critical path.

        Not a number where the model takes no time.
        """
        return _times(max(self.workflow_s, self.functions_s), self.span_s)


class Summary(NamedTuple):
    """Many graphs: the worst of each figure, and the mean where it says so."""

    graphs: int
    all_equal: bool
    worst_ratio: float
    mean_supersteps_ratio: float
    worst_supersteps_ratio: float
    mean_speedup: float


def measure(seed: int, ask: Ask | None = None) -> Measured:
    """Run `random_workflow(seed)` sequentially and in parallel, as a Workflow and as functions.

    Args:
        ask: Who answers; `lab.ask`, unless given. `ask_chat_model` is LangChain's client.

    Example:
        >>> one = measure(3)
        >>> one.ratio, one.equal
        (1.0, True)
    """
    ask = ask or lab.ask
    workflow = random_workflow(seed)
    functions = as_functions(workflow, ask)
    expected, one_by_one = lab.simulate(engines.run(workflow, engine="sequential", ask=ask))
    baseline, _ = lab.simulate(parallel.run_sequential(functions))
    by_workflow, t_workflow = lab.simulate(engines.run(workflow, ask=ask))
    by_functions, t_functions = lab.simulate(parallel.run(functions))
    plan = workflow.plan(one_by_one.seconds)
    return Measured(
        seed,
        len(workflow.steps),
        plan.work_s,
        plan.span_s,
        plan.supersteps_s,
        t_workflow.makespan_s,
        t_functions.makespan_s,
        expected == baseline == by_workflow == by_functions,
    )


def summary(measured: Sequence[Measured]) -> Summary:
    """What they say together.

    Example:
        >>> summary([measure(seed) for seed in range(3)]).worst_ratio
        1.0
    """
    supersteps = [_times(one.supersteps_s, one.span_s) for one in measured]
    speedups = [_times(one.work_s, one.functions_s) for one in measured]
    return Summary(
        graphs=len(measured),
        all_equal=all(one.equal for one in measured),
        worst_ratio=max(one.ratio for one in measured),
        mean_supersteps_ratio=round(sum(supersteps) / len(supersteps), 3),
        worst_supersteps_ratio=round(max(supersteps), 3),
        mean_speedup=round(sum(speedups) / len(speedups), 3),
    )


def as_functions(workflow: Workflow, ask: Ask | None = None) -> list[parallel.Function]:
    """The same graph as plain functions: each asks what its step asks.

    Example:
        >>> [f.__name__ for f in as_functions(Workflow([Step("b", "{a}"), Step("a", "Hello")]))]
        ['a', 'b']
    """
    return [_function(step, ask or lab.ask) for step in workflow.steps]


async def ask_chat_model(
    prompt: str, *, agent: str = "agent", system: str | None = None, **options: Any
) -> str:
    """`lab.ask` by way of LangChain's own `ChatOpenAI`."""
    messages = [*([("system", system)] if system else []), ("human", prompt)]
    return (await lab.chat_model(agent=agent, **options).ainvoke(messages)).text


def _function(step: Step, ask: Ask) -> parallel.Function:
    async def function(**values: str) -> str:
        return await answer(step, values, ask)

    function.__name__ = step.name
    # What a reader would write by hand as `async def s3(s1, s2)`.
    given: Iterable[Parameter] = [Parameter(n, Parameter.KEYWORD_ONLY) for n in step.mentions]
    function.__signature__ = Signature(list(given))  # type: ignore[attr-defined]
    return function


def _times(this_s: float, that_s: float) -> float:
    return this_s / that_s if that_s else float("nan")
