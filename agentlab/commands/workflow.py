"""`agentlab workflow`: is a file right, and what is it in a framework's words?"""

import argparse

from agentlab.convert import script
from agentlab.errors import ConfigError
from agentlab.workflow import Workflow, listed

DESCRIPTION = "Name what is wrong, by line and column; or export a script that needs no Agent Lab."


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("verb", choices=("check", "export"))
    add("files", nargs="+", metavar="FILE", help="a name, or a .yaml file")
    what = "what export writes: LangGraph (default), or a Flow of CrewAI"
    add("--to", choices=("langgraph", "flow"), default="langgraph", help=what)


def run(options: argparse.Namespace) -> int:
    """Check or export; return 1 if a file is wrong."""
    if options.verb == "export":
        if len(options.files) > 1:
            raise ConfigError("export takes one file at a time")
        write = script.langgraph if options.to == "langgraph" else script.crewai
        print(write(Workflow.load(options.files[0])), end="")
        return 0
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
