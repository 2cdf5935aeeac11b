"""Whether runs of a real model did the same work, although it words each answer differently.

Words are not compared. What is compared is how long answers are, in tokens, and why they ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

TOLERANCE = 0.10
"""Up to this share, tokens per answer and finish reasons may differ between equal work."""


class Said(NamedTuple):
    """What an endpoint said of one answer; 0 tokens where it counts none.

    Attributes:
        limit_tokens: The most tokens that were asked for; None without a limit.
    """

    finish_reason: str | None
    tokens: int
    limit_tokens: int | None


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a real model said of all answers of one run.

    Attributes:
        finish_reasons: Reason -> how many answers ended with it.
        tokens: How many the answers have, as the endpoint counts them.
        counted: For how many answers it counted any.
        over_limit: Limit -> the most tokens that came instead, where more came than it allows.
    """

    finish_reasons: dict[str, int]
    tokens: int
    counted: int
    over_limit: dict[int, int]

    @property
    def number(self) -> int:
        """How many answers there are."""
        return sum(self.finish_reasons.values())


def summed(said: Iterable[Said]) -> Answers:
    """The answers of one run, taken together.

    Example:
        >>> summed([Said("length", 11, 11), Said("stop", 14, 11)])
        Answers(finish_reasons={'length': 1, 'stop': 1}, tokens=25, counted=2, over_limit={11: 14})
    """
    reasons: Counter[str] = Counter()
    over: dict[int, int] = {}
    tokens = counted = 0
    for reason, came, limit in said:
        reasons[reason or "none"] += 1
        tokens += came
        counted += came > 0
        if limit is not None and came > limit:
            over[limit] = max(came, over.get(limit, 0))
    return Answers(
        finish_reasons=dict(sorted(reasons.items())),
        tokens=tokens,
        counted=counted,
        over_limit=over,
    )


class Deviation(NamedTuple):
    """How far a case is from the one that it is compared with.

    Attributes:
        tokens: The difference of tokens per answer, as a share of the reference's; None where one
            of the two has no count.
        reasons: The share of answers that would have to end for another reason.
        says: What is beyond the tolerance, with both figures; empty where nothing is.
    """

    tokens: float | None
    reasons: float
    says: list[str]


def deviation(runs: Sequence[Answers], reference: Sequence[Answers], called: str) -> Deviation:
    """How far the runs of a case are from those of the reference, which is `called` so.

    Tokens per answer are the median over the runs; finish reasons are counted over all of them.

    Example:
        >>> ten, twelve = ([summed([Said("stop", n, None)])] for n in (10, 12))
        >>> deviation(twelve, ten, "sequential").says
        ["12.0 tokens per answer, +20.0% of sequential's 10.0"]
    """
    says = []
    mine, its = _tokens_per_answer(runs), _tokens_per_answer(reference)
    tokens = None if mine is None or its is None else mine / its - 1
    if tokens is not None and abs(tokens) > TOLERANCE:
        says.append(f"{mine:.1f} tokens per answer, {tokens:+.1%} of {called}'s {its:.1f}")
    shares, expected = _shares(runs), _shares(reference)
    apart = {r: shares.get(r, 0.0) - expected.get(r, 0.0) for r in shares | expected}
    reasons = sum(map(abs, apart.values())) / 2
    if reasons > TOLERANCE:
        says.append(
            f"answers ended with {_listed(shares)}, those of {called} with {_listed(expected)}"
        )
    return Deviation(tokens, reasons, says)


def _tokens_per_answer(runs: Sequence[Answers]) -> float | None:
    each = [run.tokens / run.counted for run in runs if run.counted]
    return median(each) if each else None


def _shares(runs: Sequence[Answers]) -> dict[str, float]:
    reasons: Counter[str] = Counter()
    for run in runs:
        reasons.update(run.finish_reasons)
    return {reason: number / reasons.total() for reason, number in reasons.items()}


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{reason} {share:.0%}" for reason, share in sorted(shares.items())) or "none"
