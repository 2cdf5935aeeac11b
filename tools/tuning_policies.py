"""Judge policies that choose a pattern for each task, against an oracle; quality is SIMULATED."""

from collections import defaultdict
from collections.abc import Sequence
from math import log, sqrt
from typing import Any, NamedTuple

from agentlab.errors import ConfigError
from agentlab.learning import Bandit
from agentlab.learning.regret import ARMS, BLOCK, Curve, Run, Scenario, World, follow


class Static(NamedTuple):
    arm: str

    def choose(self, kind: str) -> str:
        return self.arm

    def learn(self, kind: str, arm: str, reward: float) -> None:
        return


class NoContext(Bandit):
    """A bandit that takes all tasks for one kind."""

    def choose(self, kind: str) -> str:
        return super().choose("any")

    def learn(self, kind: str, arm: str, reward: float) -> None:
        super().learn("any", arm, reward)


class Ucb1:
    """For each kind the arm whose mean reward may be the largest, by an upper confidence bound.

    After P. Auer, N. Cesa-Bianchi and P. Fischer, Machine Learning 47 (2002).
    """

    def __init__(self, arms: Sequence[str]):
        self._seen: defaultdict[str, dict[str, list[float]]]
        self._seen = defaultdict(lambda: {arm: [] for arm in arms})

    def choose(self, kind: str) -> str:
        seen = self._seen[kind]
        if untried := [arm for arm in seen if not seen[arm]]:
            return untried[0]
        n = sum(map(len, seen.values()))
        bound = {arm: sum(r) / len(r) + sqrt(2 * log(n) / len(r)) for arm, r in seen.items()}
        return max(bound, key=bound.__getitem__)

    def learn(self, kind: str, arm: str, reward: float) -> None:
        self._seen[kind][arm].append(reward)


def best_static(world: World) -> str:
    """The pattern that earns the most if it is used for all tasks."""
    return max(ARMS, key=lambda arm: sum(means[arm] for means in world.means))


def against_oracle(
    name: str, *, runs: int = 2000, seeds: Sequence[int] = range(1, 6), shift_at: int | None = None
) -> Scenario:
    """Follow all policies through the worlds of these seeds; `shift_at` is at a block's end."""
    check_shift(runs, shift_at)
    followed: dict[str, list[tuple[World, list[Run]]]] = {}
    for seed in seeds:
        world = World(runs, seed=seed, shift_at=shift_at)
        policies: dict[str, Any] = {
            "Thompson": Bandit(ARMS, seed=seed),
            "Thompson, forgets nothing": Bandit(ARMS, discount=1.0, seed=seed),
            "UCB1": Ucb1(ARMS),
            "Thompson, no context": NoContext(ARMS, seed=seed),
            "best static": Static(best_static(world)),
        }
        for policy, chooser in policies.items():
            followed.setdefault(policy, []).append((world, follow(chooser, world)))
    curves = {policy: _curve(of_seeds) for policy, of_seeds in followed.items()}
    return Scenario(name, runs, list(seeds), shift_at, curves)


def _curve(followed: Sequence[tuple[World, list[Run]]]) -> Curve:
    shares = [world.share(runs) for world, runs in followed]
    starts = range(0, len(followed[0][1]), BLOCK)
    blocks = [slice(start, start + BLOCK) for start in starts]
    curve = [_mean([world.share(runs, block) for world, runs in followed]) for block in blocks]
    return Curve(_mean(shares), round(min(shares), 4), round(max(shares), 4), curve)


def _mean(numbers: Sequence[float]) -> float:
    return round(sum(numbers) / len(numbers), 4)


def check_shift(runs: int, shift_at: int | None) -> None:
    """Refuse a shift that no curve shows: of which a point would be of both sides."""
    if shift_at is not None and not (0 <= shift_at < runs and shift_at % BLOCK == 0):
        must = f"shift_at must be a multiple of {BLOCK} below runs ({runs})"
        raise ConfigError(f"{must}; got {shift_at}")


def recovery(curve: Sequence[float], shift_at: int, *, share: float = 0.9) -> int | None:
    """Return after how many runs the share is back, to stay until the end; None if it never is.

    Example:
        >>> recovery([0.9, 0.95, 0.4, 0.8, 0.92, 0.93], shift_at=200)
        200
    """
    check_shift(BLOCK * len(curve), shift_at)
    after = list(curve[shift_at // BLOCK :])
    low = [place for place, point in enumerate(after, 1) if point < share]
    blocks = low[-1] if low else 0
    return None if blocks == len(after) else blocks * BLOCK
