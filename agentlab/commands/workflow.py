"""`agentlab workflow check`: is a file right?"""

import argparse

from agentlab.errors import ConfigError
from agentlab.workflow import Workflow, listed

DESCRIPTION = "Name what is wrong in workflow files, by line, column and field."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("check",))
    parser.add_argument("files", nargs="+", metavar="FILE", help="a name, or a .yaml file")


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
            inputs = listed(workflow.inputs)
            print(f"{file}: right; steps: {len(workflow.steps)}, inputs: {inputs}")
    return wrong
