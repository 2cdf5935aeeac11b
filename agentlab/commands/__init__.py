"""The commands of `agentlab`, a file each; `main` finds the one that is asked for.

Each of the others has `DESCRIPTION`, `arguments(parser)`, and `run(options)`, which returns the
exit code.
"""

import argparse


def leave_out_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--leave-out`, of the commands that ask a real model."""
    never = "parameters that the real model is never sent, such as temperature,seed"
    parser.add_argument("--leave-out", metavar="NAMES", help=never)
