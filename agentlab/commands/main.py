"""The command line: find the command that is asked for, and import no other.

So `agentlab doctor` starts where packages are missing, and says which.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from agentlab.errors import AgentLabError

COMMANDS = {
    "serve": "serve the endpoint, for one or for a class, until Ctrl-C",
    "bench": "measure an experiment, or compare two results",
    "fit": "fit a preset to an endpoint's own measurements",
    "write": "write about many topics, and lose nothing",
    "workflow": "check workflow files",
    "doctor": "is everything there? OK or FAIL, with the cure",
    "progress": "which exercises are solved in your saved notebooks",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` asks for; return the exit code, 2 for an error of the user's."""
    given = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="agentlab", description="Run AI agents in parallel.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does)
        if given[:1] == [name]:
            module = importlib.import_module(f"agentlab.commands.{name}")
            command.description = module.DESCRIPTION
            module.arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(given)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 and SIGPIPE, as shells have it
    except AgentLabError as error:
        print(f"agentlab: {error}", file=sys.stderr)
        return 2
