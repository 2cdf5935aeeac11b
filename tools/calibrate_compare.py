"""Judge `agentlab bench --against` by simulation: false alarms, and how often it sees a change.

Nothing is measured. Each comparison is drawn: so many rounds, in each of them all cases of A and
all of B, in an order that is drawn, and noise that comes in the order of time. A false alarm is a
comparison of equals in which any case is called faster or slower. Power is how often a case is
called slower that is, by twice the smallest change worth knowing; the other cases are equal.

    .venv/bin/python tools/calibrate_compare.py --comparisons 2000
"""

import argparse
from collections.abc import Callable
from math import log
from random import Random
from typing import Any

import numpy as np

from agentlab.bench import compare
from agentlab.bench.against import ROUNDS
from agentlab.bench.compare import SMALLEST
from agentlab.bench.experiment import counted
from agentlab.bench.report import markdown_table

SPREAD = 0.03  # of a time from measurement to measurement, as a share; its logarithm is normal
MEMORY = 0.6
CASES = (1, 6, 20)

Draw = Any  # numpy's generator
Noise = Callable[[Draw, int, int], Any]
"""Logarithms of so many passes over so many cases: an array in the order of time."""


def even(draw: Draw, passes: int, cases: int) -> Any:
    return draw.normal(0, SPREAD, (passes, cases))


def drifting(share: float) -> Noise:
    """Return even noise on a machine that becomes slower by a share over the whole run."""

    def noise(draw: Draw, passes: int, cases: int) -> Any:
        way = np.linspace(0, log(1 + share), passes * cases).reshape(passes, cases)
        return even(draw, passes, cases) + way

    return noise


def remembering(draw: Draw, passes: int, cases: int) -> Any:
    """Return noise of which each measurement hands 0.6 on to the next: AR(1)."""
    return _remembered(draw, passes * cases).reshape(passes, cases)


def of_the_pass(draw: Draw, passes: int, cases: int) -> Any:
    """Return noise that all cases of a pass share, handed on from pass to pass, and half as even.

    A pass is a process: where its memory lies is drawn once for all that it measures.
    """
    return _remembered(draw, passes)[:, None] + even(draw, passes, cases) / 2


def _remembered(draw: Draw, many: int) -> Any:
    fresh = draw.normal(0, SPREAD * (1 - MEMORY**2) ** 0.5, many)
    state = [draw.normal(0, SPREAD)]
    for one in fresh[1:]:
        state.append(MEMORY * state[-1] + one)
    return np.array(state)


def stepping(draw: Draw, passes: int, cases: int) -> Any:
    """Return even noise on a machine that jumps three times, by some 5% up or down."""
    when = np.linspace(0, 1, passes * cases).reshape(passes, cases)
    noise = even(draw, passes, cases)
    for at, by in zip(draw.uniform(size=3), draw.normal(0, 0.05, 3), strict=True):
        noise += by * (when > at)
    return noise


def spiking(draw: Draw, passes: int, cases: int) -> Any:
    """Return even noise, of which one measurement in twenty takes half as long again."""
    return even(draw, passes, cases) + log(1.5) * (draw.uniform(size=(passes, cases)) < 0.05)


NOISES: dict[str, Noise] = {
    "even": even,
    "drift of 2%": drifting(0.02),
    "drift of 5%": drifting(0.05),
    "AR(1), .6": remembering,
    "AR(1), .6, of passes": of_the_pass,
    "three steps of 5%": stepping,
    "spikes of 50%, 1 in 20": spiking,
}


def comparison(noise: Noise, draw: Draw, *, rounds: int, cases: int, change: float) -> list[int]:
    """Return what is said of each case, 1 for slower and -1 for faster; the first is `change`d."""
    both = np.exp(noise(draw, 2 * rounds, cases)).reshape(rounds, 2, cases)
    first = draw.integers(0, 2, rounds)  # whether B comes first
    which = np.arange(rounds)
    a, b = both[which, first], both[which, 1 - first]
    b[:, 0] *= 1 + change
    said = []
    for case in range(cases):
        found = compare.ratio(a[:, case], b[:, case], lines=cases)
        said.append(int(found.low > 1) - int(found.high < 1))
    return said


def shares(
    noise: Noise, *, rounds: int, cases: int, comparisons: int, seed: int
) -> tuple[float, float]:
    """Return the share of comparisons with a false alarm, and of those that see the change."""
    draw = np.random.default_rng(seed)
    size = {"rounds": rounds, "cases": cases}
    alarms = sum(any(comparison(noise, draw, change=0, **size)) for _ in range(comparisons))
    change = 2 * SMALLEST
    seen = sum(comparison(noise, draw, change=change, **size)[0] == 1 for _ in range(comparisons))
    return alarms / comparisons, seen / comparisons


def main() -> None:
    """Print the table: false alarms and power, for each kind of noise and number of cases."""
    parser = argparse.ArgumentParser(description="Judge comparisons by simulation.")
    parser.add_argument("--comparisons", type=int, default=2000, help="of each kind")
    parser.add_argument("--rounds", type=int, nargs="+", default=[8, ROUNDS, 20])
    parser.add_argument("--seed", type=int, default=Random().randrange(10**6))
    options = parser.parse_args()
    columns = ["noise", "rounds"]
    for cases in CASES:
        columns += [f"{counted(cases, 'case')}: false alarms", "power"]
    rows = []
    for name, noise in NOISES.items():
        for rounds in options.rounds:
            row = [name, str(rounds)]
            for cases in CASES:
                size = {"rounds": rounds, "cases": cases, "comparisons": options.comparisons}
                alarms, power = shares(noise, seed=options.seed, **size)
                row += [f"{alarms:.1%}", f"{power:.0%}"]
            rows.append(row)
    print(f"{options.comparisons} comparisons of each kind, seed {options.seed}; a change of")
    print(f"{2 * SMALLEST:.0%} in one case; {SPREAD:.0%} noise from measurement to measurement.\n")
    print(markdown_table(columns, rows, numbers=columns[1:]))


if __name__ == "__main__":
    main()
