"""A graph of `AskStep` nodes as a workflow, and a workflow as a script of LangGraph's own."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agentlab.convert import _script
from agentlab.engines.langgraph import AskStep
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, listed


def load(graph: StateGraph[Any] | CompiledStateGraph[Any], *, name: str = "workflow") -> Workflow:
    """Read a graph whose nodes are `AskStep`s, exported or built by hand, compiled or not.

    An edge must be a need: the prompt behind it names the step before it. A need without an edge
    of its own is one too, if other edges lead there.

    Args:
        name: What the workflow is called.

    Raises:
        ConfigError: If a node is anything else, because nobody can read a prompt out of a function;
            or if the graph decides, repeats, waits or interrupts by other rules than needs.

    Example:
        from agentlab.engines.langgraph import AskStep, State

        graph = StateGraph(State)
        graph.add_node("notes", AskStep(Step("notes", "What is known about {topic}?")))
        graph.add_node("report", AskStep(Step("report", "Sum up {notes}.")))
        graph.add_edge(START, "notes")
        graph.add_edge("notes", "report")
        load(graph).needs  # {'notes': (), 'report': ('notes',)}
    """
    if not isinstance(graph, StateGraph | CompiledStateGraph):
        raise ConfigError(
            f"load reads a StateGraph, compiled or not; got {type(graph).__name__}. The functional "
            "API's programs have no graph that could be read"
        )
    if isinstance(graph, CompiledStateGraph):
        if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
            raise ConfigError(
                "the graph was compiled with interrupts, which no workflow has; compile it without"
            )
        graph = graph.builder
    steps = [_step(node, spec) for node, spec in graph.nodes.items()]
    if decides := [node for node, branches in graph.branches.items() if branches]:
        raise ConfigError(
            f"the graph decides where to go behind {listed(decides)} (conditional edges); a "
            "workflow asks all of its steps, so keep the decision in LangGraph"
        )
    names = {step.name for step in steps}
    _check_edges(steps, names, _before(graph))
    inputs = dict.fromkeys(name for step in steps for name in step.mentions if name not in names)
    return Workflow(steps, inputs=list(inputs), name=name)


def _step(node: str, spec: Any) -> Step:
    ask = getattr(spec.runnable, "afunc", None)
    if type(ask) is not AskStep:  # a subclass may do anything
        met = getattr(spec.runnable, "func", None) or ask or spec.runnable
        raise ConfigError(
            f"node {node!r} is {getattr(met, '__name__', type(met).__name__)}, in which no prompt "
            "can be read; make it AskStep(Step(name, prompt)) of agentlab.engines.langgraph"
        )
    if ask.step.name != node:
        raise ConfigError(f"node {node!r} asks step {ask.step.name!r}; give both the same name")
    for what in ("retry_policy", "cache_policy", "timeout", "ends", "defer", "error_handler_node"):
        if getattr(spec, what, None):
            raise ConfigError(
                f"node {node!r} has {what}, which a workflow does not know; take it off, and give "
                "the engine a guard as its `ask`"
            )
    return ask.step


def _before(graph: StateGraph[Any]) -> dict[str, set[str]]:
    """Return node -> the nodes with an edge to it; several edges may run it more than once."""
    before: dict[str, set[str]] = {node: set() for node in graph.nodes}
    arrivals: dict[str, int] = dict.fromkeys(graph.nodes, 0)
    for starts, end in graph.waiting_edges | {((start,), end) for start, end in graph.edges}:
        if end != END:
            before[end] |= set(starts) - {START}
            arrivals[end] += 1
    for node, count in arrivals.items():
        if count != 1:
            whence = listed(sorted(before[node])) if before[node] else "START"
            raise ConfigError(
                f"node {node!r} has {count} edges to it, from {whence}; with exactly one, such as "
                "add_edge([a, b], node), it runs once, when all of them have"
            )
    return before


def _check_edges(steps: list[Step], names: set[str], before: dict[str, set[str]]) -> None:
    for step in steps:
        needs = names.intersection(step.mentions)
        if idle := sorted(before[step.name] - needs):
            raise ConfigError(
                f"an edge leads from {listed(idle)} to {step.name!r}, whose prompt does not name "
                "it; a workflow's steps wait for what their prompts name, and for nothing else"
            )
        upstream: set[str] = set()
        waiting = [step.name]
        while waiting:
            further = before[waiting.pop()] - upstream
            upstream |= further
            waiting += further
        if missing := sorted(needs - upstream):
            raise ConfigError(
                f"{step.name!r} names {listed(missing)}, which no edge puts before it; add the edge"
            )


def script(workflow: Workflow) -> str:
    """Write the workflow as a Python script that needs only LangGraph and `langchain-openai`.

    It asks the same questions and joins by the same edges; it retries as the client does, twice.

    Example:
        Path("report.py").write_text(script(Workflow.load("report")), encoding="utf-8")
    """
    edges = []
    for step in workflow.steps:
        needs = list(workflow.needs[step.name])
        start = "START" if not needs else repr(needs) if len(needs) > 1 else repr(needs[0])
        edges.append(f"    drawn.add_edge({start}, {step.name!r})")
    edges += [f"    drawn.add_edge({end!r}, END)" for end in workflow.ends]
    packages = "langgraph langchain-openai"
    return _script.script(workflow, "langgraph", needs=packages, edges="\n".join(edges))
