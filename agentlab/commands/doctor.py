"""`agentlab doctor`: is everything there?"""

from __future__ import annotations

import argparse

from agentlab import doctor

DESCRIPTION = (
    "Check Python, packages, settings, disk, ports, proxy, kernel and endpoint. With a key set, "
    "the real model is asked for one token, which costs a fraction of a cent."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--offline", action="store_true", help="do not ask the real model")


def run(options: argparse.Namespace) -> int:
    """Report; returns 1 if anything fails."""
    return doctor.report(offline=options.offline)
