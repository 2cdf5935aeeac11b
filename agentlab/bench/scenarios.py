"""Endpoints on which limiters are tuned, and others on which they are judged.

The two share the presets, and nothing else. The seeds of `JUDGING` and of the experiment `tuning`
are drawn again whenever a limiter's constants were chosen on `TUNING`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec

from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
from agentlab.settings import Capacity


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop: agents that ask one question after the other, more than can be served.

    Attributes:
        capacity: How many slots there are, and from when, instead of the preset's.
        requests_per_minute: The rate limit; None takes the preset's, 0 lifts it.
        tokens: The shortest and the longest answer; all lengths between are equally likely.
    """

    name: str
    preset: str
    agents: int
    run_s: float
    capacity: tuple[Capacity, ...] = ()
    requests_per_minute: int | None = None
    tokens: tuple[int, int] = (60, 140)
    seed: int = 1

    @property
    def physics(self) -> Physics:
        """The preset's, with these slots."""
        physics = presets.load(self.preset).physics
        return msgspec.structs.replace(physics, capacity=self.capacity)

    @property
    def rate_limit(self) -> int | None:
        """Requests a minute; None if there is no limit."""
        if self.requests_per_minute is not None:
            return self.requests_per_minute or None
        figure = presets.load(self.preset).requests_per_minute
        return figure.value if figure else None


def _scenarios(
    slots: tuple[int, ...], demand: int, change_at: float, **drawn: Any
) -> list[Scenario]:
    """Return presets that take time, a rate limit, and slots that stay, halve or double.

    `demand` is agents per slot; slots change at the share `change_at` of the run.
    """

    def scenario(name: str, preset: str, agents: int, run_s: float, **more: Any) -> Scenario:
        more |= drawn
        return Scenario(name=name, preset=preset, agents=demand * agents, run_s=run_s, **more)

    some = slots[len(slots) // 2]
    found = [
        scenario("course", "course", 25, 2000),
        scenario("hosted-small", "hosted-small", 10, 900),
        scenario("laptop-ollama", "laptop-ollama", 2, 3000),
        scenario("nim-8b", "nim-8b", 60, 200),
        scenario("nim-70b-2gpu", "nim-70b-2gpu", 30, 1500),
        scenario("vllm-1gpu", "vllm-1gpu", 90, 250),
        scenario("rate limit", "vllm-1gpu", some, 600, requests_per_minute=15 * some),
    ]
    # On the figures of a server, whose answers differ in length only, and of a hosted model, with
    # a jitter of its own; the rate limit of the latter is lifted.
    kinds = (("", "vllm-1gpu", 300), (", jitter", "hosted-small", 900))
    changes = ((", halved", 0.5), (", doubled", 2))
    for n, (kind, preset, run_s) in product(slots, kinds):
        steady = Capacity(from_s=0, slots=n)
        lifted = {"capacity": (steady,), "requests_per_minute": 0}
        found.append(scenario(f"{n} slots{kind}", preset, n, run_s, **lifted))
        for change, times in changes:
            then = Capacity(from_s=change_at * run_s, slots=int(n * times))
            lifted["capacity"] = (steady, then)
            most = max(n, then.slots)
            found.append(scenario(f"{n} slots{change}{kind}", preset, most, run_s, **lifted))
    return found


TUNING = _scenarios((6, 24, 48), 5, 0.4, seed=11, tokens=(50, 150))
JUDGING = _scenarios((4, 16, 64), 4, 0.5, seed=2004, tokens=(60, 140))
