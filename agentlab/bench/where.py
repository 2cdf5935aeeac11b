"""The page that says where the time went: one file, which fetches nothing and runs nothing."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from agentlab.bench.account import CAUSES, Account
from agentlab.bench.report import seconds


def page(results_name: str, cases: Mapping[str, Account]) -> str:
    """Return a page in HTML for cases by their names; the chain of the one that lost most is open.

    Example:
        >>> page("two < three", {}).splitlines()[-2:]
        ['</body>', '</html>']
    """
    files = FileSystemLoader(Path(__file__).with_name("page"))
    made = Environment(loader=files, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    parts = {cause: sum(account.parts[cause] for account in cases.values()) for cause in CAUSES}
    return (
        made.get_template("where.html")
        .render(
            name=results_name,
            cases=cases,
            causes=CAUSES,
            total={cause: ns for cause, ns in parts.items() if ns},
            opened=max(cases, key=lambda case: sum(cases[case].parts.values()), default=""),
            seconds=seconds,
        )
        .lstrip()
    )
