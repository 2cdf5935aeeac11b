"""TODO."""

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
