"""`agentlab progress`: which exercises are solved?"""

from __future__ import annotations

import argparse
from pathlib import Path

from agentlab import progress_report
from agentlab.settings import DATA

DESCRIPTION = "Read from the saved notebooks which exercises are solved, and what is next."


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument(
        "folder", nargs="?", type=Path, help="default: notebooks, here or where the course lies"
    )
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(options: argparse.Namespace) -> int:
    """Report; returns 1 if a notebook cannot be read."""
    here, course = Path("notebooks"), DATA.parent / "notebooks"
    found = progress_report.report(options.folder or (here if here.is_dir() else course))
    print(progress_report.json(found) if options.json else progress_report.text(found))
    return 1 if any(lesson.problem for lesson in found.lessons) else 0
