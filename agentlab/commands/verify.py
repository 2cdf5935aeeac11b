"""`agentlab verify`: does a result come out again?"""

import argparse
from pathlib import Path

from agentlab.bench.verify import FAIL, verify
from agentlab.errors import ConfigError

DESCRIPTION = (
    "Check results against their proofs. Derive virtual rows again, to the byte, and measure real "
    "cases again: the time of each as a share of the sequential one's, or of the first."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="NAME.json, of agentlab bench")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")


def run(options: argparse.Namespace) -> int:
    """Print a line for each case; return 1 if one fails, or a file cannot be read."""
    failed = False
    for file in map(Path, options.files):
        print(file)
        try:
            for finding in verify(file, rounds=options.rounds):
                print(finding, flush=True)
                failed |= finding.verdict == FAIL
        except ConfigError as error:
            print(f"{FAIL:4}  {error}")
            failed = True
    return int(failed)
