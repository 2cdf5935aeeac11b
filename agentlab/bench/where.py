"""The page that says where the time went: one file, which fetches nothing and runs nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from agentlab.bench.account import CAUSES, Account, account
from agentlab.bench.experiment import varied
from agentlab.bench.report import PAGES, seconds
from agentlab.bench.requests import Request
from agentlab.bench.results import Results


def accounts(results: Results, rows: Iterable[Request]) -> dict[str, Account]:
    """Return where the time of each case's first run went, by the name of the case.

    A run whose requests were not kept has none, and neither has one that took less than its bound,
    as happens on the real clock.
    """
    kept: dict[int, list[Request]] = {}
    for row in rows:
        kept.setdefault(row.run, []).append(row)
    asked, axes, found = results.experiment, varied(results.measured), dict[str, Account]()
    time_scale = asked.chosen.time_scale if asked.clock == "real" else 1.0
    for number, m in enumerate(results.measurements):
        name = m.case.named(axes)
        if name in found or number not in kept or m.error or m.bound_s > m.elapsed_s:
            continue
        workflow, _ = asked.by_name[m.case.workload].drawn(m.case.seed, number=m.workflow or 0)
        limits: Any = {"max_concurrency": m.case.max_concurrency, "time_scale": time_scale}
        found[name] = account(kept[number], workflow.needs, m.elapsed_s, m.bound_s, **limits)
    return found


def page(results_name: str, cases: Mapping[str, Account]) -> str:
    """Return a page in HTML for cases by their names; the chain of the one that lost most is open.

    Example:
        >>> page("two < three", {}).splitlines()[-2:]
        ['</body>', '</html>']
    """
    parts = {cause: sum(account.parts[cause] for account in cases.values()) for cause in CAUSES}
    values = {
        "name": results_name,
        "cases": cases,
        "causes": CAUSES,
        "total": {cause: ns for cause, ns in parts.items() if ns},
        "opened": max(cases, key=lambda case: sum(cases[case].parts.values()), default=""),
        "seconds": seconds,
    }
    return PAGES.get_template("where.html").render(values).lstrip()
