"""A workflow is its prompts: the steps that a prompt names are its needs.

_workflow   Workflow: steps as a graph, by name from files; random workflows
_steps      one step: a name, a prompt, the names in its braces; files of steps, and their schema
_graph      what any graph of names has: order, plan, longest path
_run        runs a graph's nodes in order or as soon as their needs are there
"""

from agentlab.workflow._graph import Graph, listed
from agentlab.workflow._run import Run, as_ready, begin, in_order
from agentlab.workflow._steps import Step
from agentlab.workflow._workflow import Workflow, names, random_workflow

__all__ = [
    "Graph",
    "Run",
    "Step",
    "Workflow",
    "as_ready",
    "begin",
    "in_order",
    "listed",
    "names",
    "random_workflow",
]
