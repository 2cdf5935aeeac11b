"""The command line: find the command that is asked for, and import no other.

So `agentlab doctor` starts where packages are missing, and says which. What commands there are, and
what they take, is in commands.toml; a name may have two words. A `tool` is a file of tools/, which
travels beside the course's data.
"""

import argparse
import importlib
import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from agentlab._support.system import extras
from agentlab.errors import AgentLabError

COMMANDS = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))
_TYPES = {"int": int, "float": float, "file to append to": argparse.FileType("ab", 0)}
_TOOLS = [str(folder / "tools") for folder in Path(__file__).parents[1:3]]  # of a wheel, a checkout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` asks for; return the exit code, 2 for an error of the user's."""
    for name in ("stdin", "stdout", "stderr"):  # service managers may close them
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+", encoding="utf-8"))
    given = sys.argv[1:] if argv is None else list(argv)
    two = " ".join(given[:2])
    options = _parser().parse_args([two, *given[2:]] if two in COMMANDS else given)
    options.given = given
    try:
        if tool := COMMANDS[options.command].get("tool"):
            sys.path[:0] = _TOOLS
        with extras("course"):
            name = tool or f"agentlab.commands.{options.command.split()[0]}"
            program = importlib.import_module(name)
        code = int(program.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 and SIGPIPE, as shells have it
    except KeyboardInterrupt:
        return 130  # 128 and SIGINT, as shells have it
    except (AgentLabError, OSError) as error:  # such as a disk that is full
        print(f"agentlab: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentlab", description="Run AI agents in parallel.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about["help"], description=about["description"])
        for option, how in about["options"].items():
            if "type" in how:
                how = {**how, "type": _TYPES[how["type"]]}
            command.add_argument(option, **how)
    return parser
