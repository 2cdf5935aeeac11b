"""What a contextual bandit is measured against: other ways to choose a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Protocol

from agentlab.learning._bandit import Bandit


class Policy(Protocol):
    """Chooses an arm for a kind of task, and is told the reward."""

    def choose(self, kind: str) -> str: ...

    def learn(self, kind: str, arm: str, reward: float) -> None: ...


class Static:
    """Always the same arm."""

    def __init__(self, arm: str):
        self._arm = arm

    def choose(self, kind: str) -> str:
        return self._arm

    def learn(self, kind: str, arm: str, reward: float) -> None:
        return


class NoContext:
    """A bandit that takes all tasks for one kind."""

    def __init__(self, bandit: Bandit):
        self._bandit = bandit

    def choose(self, kind: str) -> str:
        return self._bandit.choose("any")

    def learn(self, kind: str, arm: str, reward: float) -> None:
        self._bandit.learn("any", arm, reward)


class Ucb1:
    """For each kind the arm whose mean reward may be the largest, by an upper confidence bound.

    Nothing is drawn: each arm once, and then the one with the largest mean + sqrt(2 ln n / its
    rewards), n being all rewards of the kind. It forgets nothing.

    Source: P. Auer, N. Cesa-Bianchi and P. Fischer, "Finite-time analysis of the multiarmed bandit
    problem", Machine Learning 47 (2002).
    """

    def __init__(self, arms: Sequence[str]):
        self._arms = list(arms)
        self._seen: dict[str, dict[str, list[float]]] = {}

    def choose(self, kind: str) -> str:
        seen = self._of(kind)
        if untried := [arm for arm in self._arms if not seen[arm]]:
            return untried[0]
        n = sum(map(len, seen.values()))
        return max(
            self._arms,
            key=lambda arm: sum(seen[arm]) / len(seen[arm]) + sqrt(2 * log(n) / len(seen[arm])),
        )

    def learn(self, kind: str, arm: str, reward: float) -> None:
        self._of(kind)[arm].append(reward)

    def _of(self, kind: str) -> dict[str, list[float]]:
        return self._seen.setdefault(kind, {arm: [] for arm in self._arms})
