"""The page that says where the time went: one file, which fetches nothing and runs nothing."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from agentlab.bench.account import CAUSES, Account, Segment
from agentlab.bench.report import seconds

_FOLDER = Path(__file__).with_name("page")
_MOST = 30  # calls of a chain that are drawn


def said(parts: Mapping[str, int], whose: str, most: int = 3) -> list[str]:
    """Return the biggest `parts` of an account in a sentence each; `whose` names what took so long.

    Example:
        >>> said({"queue": 1_000_000_000, "barrier": 3_000_000_000, "tail": 0}, "the run", 1)
        ['barrier: 75% of what the run took beyond its bound; calls that were ready waited for others that they do not need']
    """
    beyond_ns = sum(parts.values())
    biggest = sorted((c for c in parts if parts[c]), key=lambda c: -parts[c])[:most]
    took = f"of what {whose} took beyond its bound"
    return [f"{c}: {parts[c] / beyond_ns:.0%} {took}; {CAUSES[c]['says']}" for c in biggest]


def page(results_name: str, cases: Mapping[str, Account]) -> str:
    """Return a page for cases by their names; the chain of the one that lost most is open."""
    total = {cause: sum(account.parts[cause] for account in cases.values()) for cause in CAUSES}
    loader = FileSystemLoader(_FOLDER)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("where.html").render(
        name=results_name,
        cases=cases,
        causes=CAUSES,
        met=[cause for cause in CAUSES if total[cause]],
        biggest=said(total, "the run" if len(cases) == 1 else "the cases"),
        elapsed_ns=sum(account.elapsed_ns for account in cases.values()),
        beyond_ns=sum(total.values()),
        opened=max(cases, key=lambda case: sum(cases[case].parts.values()), default=""),
        lanes=_lanes,
        seconds=seconds,
    )


def _lanes(account: Account) -> tuple[list[tuple[str, list[Segment]]], int]:
    """Return the calls of the chain that took longest, in order, and how many others there are."""
    calls = [(call, list(own)) for call, own in groupby(account.chain, lambda s: s.call)]
    longest = sorted(calls, key=lambda c: c[1][0].from_ns - c[1][-1].to_ns)[:_MOST]
    return [call for call in calls if call in longest], max(len(calls) - _MOST, 0)
