"""A contextual bandit.

Discounted Thompson sampling: for each kind of task and each arm there is a belief about the mean
reward, a normal distribution; a choice draws a number from each, and the largest wins. Rewards
count for less the older they are, so that a change is noticed.

Source: D. Russo et al., "A tutorial on Thompson sampling", Foundations and Trends in Machine
Learning 11 (2018); discounting is V. Raj and S. Kalyani, "Taming non-stationary bandits: a Bayesian
approach" (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Protocol

from agentlab._support.fields import checked
from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError

_PRIOR = 0.5  # the mean reward that an untried arm is believed to have, worth one reward
_NOISE = 0.4  # a reward's standard deviation: a right answer, worth 1, four times in five


class Policy(Protocol):
    """Chooses an arm for a kind of task, and is told the reward."""

    def choose(self, kind: str) -> str: ...

    def learn(self, kind: str, arm: str, reward: float) -> None: ...


@dataclass
class Belief:
    """One arm, for one kind: the number of rewards and their sum, both discounted."""

    rewards: float = 0.0
    total: float = 0.0


@dataclass
class Kind:
    """One kind: a belief about each arm, and how often one was chosen."""

    beliefs: dict[str, Belief]
    chosen: int = 0


class Bandit:
    """Chooses an arm for a kind of task, and learns from the reward.

    A choice may be made before the reward of the last one is there. `discount` is what a reward is
    worth after each later one of its kind: at .99 the last hundred decide; 1 forgets nothing.

    Example:
        >>> bandit = Bandit(["single", "vote"])
        >>> for _ in range(50):
        ...     arm = bandit.choose("counting")
        ...     bandit.learn("counting", arm, reward=1.0 if arm == "vote" else 0.0)
        >>> bandit.choose("counting")
        'vote'
    """

    def __init__(self, arms: Sequence[str], *, discount: float = 0.99, seed: int = 7):
        if not arms or len(set(arms)) < len(arms):
            raise ConfigError(f"arms must be one or more, each once; got {arms}")
        checked("discount", discount, above=True, most=1)
        self._arms, self._discount, self._seed = list(arms), discount, seed
        self._kinds: dict[str, Kind] = {}

    def choose(self, kind: str) -> str:
        known = self._kind(kind)
        chance = seeded_random.generator(self._seed, b"", known.chosen, f"choose {kind}")
        known.chosen += 1
        drawn = {
            arm: chance.gauss(_mean(belief), _NOISE / sqrt(1 + belief.rewards))
            for arm, belief in known.beliefs.items()
        }
        return max(drawn, key=drawn.__getitem__)

    def learn(self, kind: str, arm: str, reward: float) -> None:
        """Take a finite reward into account, and let all older ones of its kind fade."""
        if arm not in self._arms:
            raise ConfigError(f"no arm {arm!r}; choose one of {', '.join(self._arms)}")
        if not isfinite(reward):
            raise ConfigError(f"a reward must be a finite number, got {reward}")
        beliefs = self._kind(kind).beliefs
        for belief in beliefs.values():
            belief.rewards *= self._discount
            belief.total *= self._discount
        beliefs[arm].rewards += 1
        beliefs[arm].total += reward

    def means(self, kind: str) -> dict[str, float]:
        """Return arm -> the mean reward that it is believed to have for this kind."""
        known = self._kinds.get(kind)  # asking about a kind is not learning of it
        beliefs = known.beliefs if known else dict.fromkeys(self._arms, Belief())
        return {arm: _mean(belief) for arm, belief in beliefs.items()}

    def _kind(self, name: str) -> Kind:
        return self._kinds.setdefault(name, Kind({arm: Belief() for arm in self._arms}))


def _mean(belief: Belief) -> float:
    return (_PRIOR + belief.total) / (1 + belief.rewards)
