"""A workflow is its prompts: the steps that a prompt names are its needs."""

from agentlab.workflow._graph import Graph, listed
from agentlab.workflow._run import Run, as_ready, begin, in_order
from agentlab.workflow._tools import Tool, Tools, with_tools
from agentlab.workflow._workflow import Step, Workflow, names, random_workflow

__all__ = ["Graph", "Run", "Step", "Tool", "Tools", "Workflow"]
__all__ += ["as_ready", "begin", "in_order", "listed", "names", "random_workflow", "with_tools"]
