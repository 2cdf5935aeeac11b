"""When agents arrive: an open loop, in which nobody waits for the answers of others."""

import dataclasses
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
from msgspec import UNSET, UnsetType
from pydantic import Field

from agentlab._support import DATA
from agentlab._support.fields import AtLeastOne, Text, model
from agentlab.bench.published import Arrival, published
from agentlab.errors import ConfigError

PerSecond = Annotated[float, Field(ge=1e-6, le=1e6)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]


@model
class Rate:
    """So many arrivals per second."""

    per_s: PerSecond


@model
class Bursts:
    """`size` arrivals at the same time, every `every_s` seconds."""

    size: AtLeastOne
    every_s: Seconds


@model
class Ramp:
    """A rate that grows or falls evenly over `over_s` seconds, and then stays as it is."""

    from_per_s: PerSecond
    to_per_s: PerSecond
    over_s: Seconds

    def at_s(self, numbers: Any) -> Any:
        """Return when so many have arrived: their number is the area under the rate."""
        during = (self.from_per_s + self.to_per_s) / 2 * self.over_s
        slope, within = (self.to_per_s - self.from_per_s) / self.over_s, np.minimum(numbers, during)
        grown = 2 * within / (self.from_per_s + np.sqrt(self.from_per_s**2 + 2 * slope * within))
        return grown + (numbers - within) / self.to_per_s


@model
class Arrivals:
    """How agents arrive: one of these. The first comes at 0, but for `poisson`.

    Attributes:
        constant: At equal distances.
        poisson: Independent of each other: the gaps are exponential.
        trace: As in a published trace, with its lengths: a file, or its name in `data/traces`.
    """

    constant: Rate | UnsetType = UNSET
    poisson: Rate | UnsetType = UNSET
    bursts: Bursts | UnsetType = UNSET
    ramp: Ramp | UnsetType = UNSET
    trace: Text | UnsetType = UNSET

    def __post_init__(self) -> None:
        if len(self._given) != 1:
            raise ValueError("give one of constant, poisson, bursts, ramp and trace")

    @property
    def _given(self) -> dict[str, Any]:
        return {name: one for name, one in dataclasses.asdict(self).items() if one is not UNSET}

    def __str__(self) -> str:
        ((name, given),) = self._given.items()
        if self.trace:
            return f"{name} {Path(self.trace).stem}"
        return f"{name} {', '.join(f'{field} {value:g}' for field, value in given.items())}"

    @property
    def per_s(self) -> float | None:
        """The rate, where it is one number."""
        rate = self.constant or self.poisson
        return rate.per_s if rate else None

    def at_s(self, agents: int, seed: int) -> list[float]:
        """Return when each agent arrives, in order. The same seed gives the same times.

        Example:
            >>> Arrivals(ramp=Ramp(from_per_s=1, to_per_s=3, over_s=4)).at_s(12, seed=7)[-4:]
            [4.0, 4.333333333, 4.666666667, 5.0]
        """
        n = np.arange(agents)
        if self.poisson:
            draw, rate = Random(f"arrivals {seed}"), self.poisson.per_s
            times_s = np.cumsum([draw.expovariate(rate) for _ in n])
        elif self.bursts:
            times_s = n // self.bursts.size * self.bursts.every_s
        else:
            times_s = self.ramp.at_s(n) if self.ramp else n / (self.per_s or 1)
        return [round(at_s, 9) for at_s in times_s.tolist()]


def replayed(trace: str, most: int) -> list[Arrival]:
    """Return the first requests of a published trace; those without an answer are left out.

    Raises:
        ConfigError: If a row is wrong, or none has a prompt and an answer.
    """
    path = Path(trace) if Path(trace).exists() else DATA / "traces" / trace
    requests = [one for one in published(path, most=most) if one.output_tokens]
    if not requests:
        lacks = f"none of its first {most:,} requests has a prompt and an answer"
        raise ConfigError(f"trace {trace!r}: {lacks}; give one that has")
    return requests
