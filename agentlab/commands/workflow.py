"""`agentlab workflow check`: is a file right?"""

import argparse

from agentlab.errors import ConfigError
from agentlab.workflow import Workflow, listed


def run(options: argparse.Namespace) -> int:
    """Check each file; return 1 if one is wrong."""
    wrong = 0
    for file in options.files:
        try:
            workflow = Workflow.load(file)
        except ConfigError as error:
            print(error)
            wrong = 1
        else:
            print(f"{file}: right; steps: {len(workflow.steps)}, inputs: {listed(workflow.inputs)}")
    return wrong
