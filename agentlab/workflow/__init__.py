"""A workflow is its prompts: the steps that a prompt names are its needs.

_workflow   steps, and the workflow that they make: by name from files, with a schema, or random
_graph      what any graph of names has: order, plan, longest path
_run        runs a graph's nodes in order or as soon as their needs are there
"""

from agentlab.workflow._graph import Graph, listed
from agentlab.workflow._run import Run, as_ready, begin, in_order
from agentlab.workflow._workflow import Step, Workflow, names, random_workflow

__all__ = ["Graph", "Run", "Step", "Workflow"]
__all__ += ["as_ready", "begin", "in_order", "listed", "names", "random_workflow"]
