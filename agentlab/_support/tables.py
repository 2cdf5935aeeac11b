"""Markdown tables, and the percentiles that stand in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    columns: Sequence[str], rows: Iterable[Iterable[object]], *, numbers: Collection[str] = ()
) -> str:
    """Return a Markdown table; the columns named in `numbers` are aligned to the right.

    Example:
        >>> print(markdown_table(["engine", "steps"], [["asyncio", 3]], numbers=["steps"]))
        | engine | steps |
        | --- | ---: |
        | asyncio | 3 |
    """
    rule = ["---:" if column in numbers else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, rule, *rows))


def percentile(values: Iterable[float], percent: int) -> float:
    """Return the smallest value that `percent` of the values, one at least, do not exceed.

    Example:
        >>> percentile([3.0, 1.0, 2.0, 4.0], 50)
        2.0
    """
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
