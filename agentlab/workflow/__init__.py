"""A workflow is its prompts: the steps that a prompt names are its needs.

parallel    plain functions that run side by side, along their parameters
_workflow   Workflow: its graph, its bounds, its files by name; random workflows
_step       one step: a name, a prompt, the names in its braces
_graph      what any graph of names has: order, levels, plan, longest path
_run        runs a graph's nodes in order or as soon as their needs are there
_file       workflows as YAML files, and the JSON Schema of them
"""

from agentlab.workflow._graph import listed
from agentlab.workflow._run import Run, as_ready, begin, in_order
from agentlab.workflow._workflow import Step, Workflow, names, random_workflow

__all__ = [
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
