"""A graph of `AskStep` nodes as a workflow."""

from typing import Any

from langgraph.graph import START, StateGraph

from agentlab.engines.langgraph import AskStep
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, listed


def load(graph: StateGraph[Any], *, name: str = "workflow") -> Workflow:
    """Read a graph whose nodes are `AskStep`s, exported or built by hand.

    Its edges must be its needs: one to each node, from the steps that the node's prompt names.

    Raises:
        ConfigError: If a node is anything else, because nobody can read a prompt out of a function;
            or if the graph decides, repeats or waits by other rules than needs.
    """
    if not isinstance(graph, StateGraph):
        raise ConfigError(f"only a StateGraph that is not compiled is read; got {type(graph)}")
    if decides := [node for node, branches in graph.branches.items() if branches]:
        chooses = f"the graph decides where to go behind {listed(decides)} (conditional edges)"
        raise ConfigError(f"{chooses}; a workflow asks all steps, so keep that in LangGraph")
    steps = [_step(node, spec) for node, spec in graph.nodes.items()]
    names = {step.name for step in steps}
    inputs = dict.fromkeys(name for step in steps for name in step.mentions if name not in names)
    read = Workflow(steps, inputs=list(inputs), name=name)
    edges = graph.waiting_edges | {((start,), end) for start, end in graph.edges}
    for node, needs in read.needs.items():
        before = [set(starts) for starts, end in edges if end == node]
        if before != [set(needs or [START])]:
            met = "; ".join(sorted(listed(sorted(starts)) for starts in before)) or "nowhere"
            raise ConfigError(
                f"edges lead to {node!r} from {met}, and its prompt names {listed(needs)}; a step "
                f"waits for what it names: add_edge({list(needs) or 'START'}, {node!r}) alone"
            )
    return read


def _step(node: str, spec: Any) -> Step:
    ask = getattr(spec.runnable, "afunc", None)
    if type(ask) is not AskStep or ask.step.name != node:  # a subclass may do anything
        make = f"make it AskStep(Step({node!r}, prompt)) of agentlab.engines.langgraph"
        raise ConfigError(f"node {node!r} is no AskStep of that name; {make}")
    for what in ("retry_policy", "cache_policy", "timeout", "ends", "defer", "error_handler_node"):
        if getattr(spec, what, None):
            cure = "give the engine a guard as its `ask` instead"
            raise ConfigError(f"node {node!r} has {what}, which no workflow has; {cure}")
    return ask.step
