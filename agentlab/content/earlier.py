"""Journals of an earlier version, which took any answer for one, half of it too.

Whole answers are adopted: nothing that was paid for is asked again because this version words its
questions in another way. Topics whose answers were cut off or empty are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from math import inf
from operator import attrgetter
from pathlib import Path

from agentlab.content.journal import Earlier, Journal
from agentlab.content.publish import POLICY, Article, digest
from agentlab.running import log
from agentlab.workflow import Step, Workflow

LIMITS_THEN = frozenset({60, 200, 220, 240, 250})
"""The limits that both workflows had, in tokens: an answer of exactly so many was cut off."""

Question = Callable[[Step, Mapping[str, str]], str]
"""The digest of a step's question, with the answers that it mentions filled in."""


def adopt(
    journal: Journal, workflows: Mapping[str, Workflow], question: Question, out: Path | None
) -> None:
    """Adopt what an earlier version recorded; tell of topics that are not done after all.

    Each of these is quarantined, with the reason, so that it can be tried again like any other.
    """
    answers: list[tuple[Earlier, str | None]] = []
    flawed = []
    rows = sorted(journal.earlier(), key=attrgetter("job"))
    for job, of_job in groupby(rows, key=attrgetter("job")):
        kind, _, topic = job.partition(": ")
        steps = workflows[kind].steps if kind in workflows else ()
        recorded = list(of_job)
        flaws = _flaws(recorded, {step.name: step.max_tokens for step in steps})
        answers += _adopted(recorded, flaws, steps, topic, question)
        if journal.status(job)[0] != "done":
            continue
        pages = _pages(topic, kind, {row.step: row.answer for row in recorded}, out)
        if not flaws:
            journal.note(job, "done", pages=pages)
            continue
        flawed.append(topic)
        said = ", ".join(f"{step} {flaw}" for step, flaw in flaws.items())
        where = f"; see {' and '.join(pages)}" if pages else ""
        error = f"an earlier version took for whole what is not: {said}{where}"
        journal.note(job, "quarantined", error=error, pages=pages)
    journal.adopt(answers)
    if flawed:
        log.warning(
            "quarantined, because an earlier version called them done with answers that are cut "
            "off or empty: %s",
            "; ".join(flawed),
        )


def _flaws(rows: Iterable[Earlier], limits: Mapping[str, int | None]) -> dict[str, str]:
    flaws = {}
    for row in rows:
        if not row.answer.strip():
            flaws[row.step] = "has no text"
        elif row.answer_tokens in LIMITS_THEN or row.answer_tokens >= (limits.get(row.step) or inf):
            flaws[row.step] = f"was cut off at {row.answer_tokens} tokens"
    return flaws


def _adopted(
    rows: Iterable[Earlier],
    flaws: Mapping[str, str],
    steps: Iterable[Step],
    topic: str,
    question: Question,
) -> list[tuple[Earlier, str | None]]:
    """Each row with the digest of the question that it answers today.

    A row keeps its digest where that cannot be told: it is an answer to what nobody asks any more.
    """
    digests: dict[str, str] = {}
    values = {"topic": topic}
    for step in steps:
        of_step = [row for row in rows if row.step == step.name]
        if len(of_step) == 1 and step.name not in flaws and set(step.mentions) <= set(values):
            digests[step.name] = question(step, values)
            values[step.name] = of_step[0].answer
    return [(row, None if row.step in flaws else digests.get(row.step, row.asked)) for row in rows]


def _pages(title: str, kind: str, answers: Mapping[str, str], out: Path | None) -> dict[str, str]:
    """The pages that are there, and the digests of what was published in them."""
    if out is None or not {"editor", "publisher"} <= set(answers):
        return {}
    article = Article.of(title, kind, answers)
    published = article.files(article.name)
    there = {name: (out / name).read_bytes() for name in published if (out / name).is_file()}
    # What was published then had no policy yet; anything else was edited since.
    return {
        name: digest(
            was if was == published[name].replace(POLICY.encode(), b"") else published[name]
        )
        for name, was in there.items()
    }
