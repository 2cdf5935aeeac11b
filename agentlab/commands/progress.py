"""`agentlab progress`: which exercises are solved?"""

from __future__ import annotations

import argparse
from pathlib import Path

from agentlab import progress_report

DESCRIPTION = "Read from the saved notebooks which exercises are solved, and what is next."


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("folder", nargs="?", default="notebooks", help="default: notebooks")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(options: argparse.Namespace) -> int:
    """Report; returns 1 if a notebook cannot be read."""
    found = progress_report.report(Path(options.folder))
    print(progress_report.json(found) if options.json else progress_report.text(found))
    return 1 if any(lesson.problem for lesson in found.lessons) else 0
