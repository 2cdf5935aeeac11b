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
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from agentlab._support.fields import Count, NotNegative, checked
from agentlab._support.system import write_whole
from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError

_PRIOR = 0.5  # the mean reward that an untried arm is believed to have, worth one reward
_NOISE = 0.4  # a reward's standard deviation: a right answer, worth 1, four times in five


class Policy(Protocol):
    """Chooses an arm for a kind of task, and is told the reward."""

    def choose(self, kind: str) -> str: ...

    def learn(self, kind: str, arm: str, reward: float) -> None: ...


class Belief(msgspec.Struct, forbid_unknown_fields=True):
    """One arm, for one kind: the number of rewards and their sum, both discounted."""

    rewards: NotNegative = 0.0
    total: float = 0.0


class Kind(msgspec.Struct, forbid_unknown_fields=True):
    """One kind: how often an arm was chosen, and a belief about each arm."""

    chosen: Count
    beliefs: dict[str, Belief]


class State(msgspec.Struct, forbid_unknown_fields=True):
    """All that was learned, as it stands in the file."""

    version: Literal[2]
    arms: list[str]
    discount: float
    seed: int
    kinds: dict[str, Kind] = {}


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
        self._use(State(2, list(arms), discount, seed))

    @classmethod
    def load(cls, path: str | Path, *, arms: Sequence[str]) -> Bandit:
        """Go on where `save` left off; ConfigError if the file is damaged, or about other arms."""
        bandit = cls.__new__(cls)
        try:
            bandit._use(msgspec.json.decode(Path(path).read_bytes(), type=State))
            if bandit._state.arms != list(arms):
                raise ConfigError(f"it chooses from {', '.join(bandit._state.arms)}")
        except (OSError, msgspec.DecodeError, ConfigError) as error:
            cure = "restore it, or remove it to start again"
            raise ConfigError(f"bandit {str(path)!r}: {error}; {cure}") from None
        return bandit

    def save(self, path: str | Path) -> None:
        """Write down all that was learned, whole or not at all."""
        content = msgspec.json.format(msgspec.json.encode(self._state)) + b"\n"
        write_whole(Path(path), content)

    def choose(self, kind: str) -> str:
        known = self._kind(kind)
        chance = seeded_random.generator(self._state.seed, b"", known.chosen, f"choose {kind}")
        known.chosen += 1
        drawn = {
            arm: chance.gauss(_mean(belief), _NOISE / sqrt(1 + belief.rewards))
            for arm, belief in known.beliefs.items()
        }
        return max(drawn, key=drawn.__getitem__)

    def learn(self, kind: str, arm: str, reward: float) -> None:
        """Take a finite reward into account, and let all older ones of its kind fade."""
        if arm not in self._state.arms:
            raise ConfigError(f"no arm {arm!r}; choose one of {', '.join(self._state.arms)}")
        if not isfinite(reward):
            raise ConfigError(f"a reward must be a finite number, got {reward}")
        beliefs = self._kind(kind).beliefs
        for belief in beliefs.values():
            belief.rewards *= self._state.discount
            belief.total *= self._state.discount
        beliefs[arm].rewards += 1
        beliefs[arm].total += reward

    def means(self, kind: str) -> dict[str, float]:
        """Return arm -> the mean reward that it is believed to have for this kind."""
        known = self._state.kinds.get(kind)  # asking about a kind is not learning of it
        beliefs = known.beliefs if known else dict.fromkeys(self._state.arms, Belief())
        return {arm: _mean(belief) for arm, belief in beliefs.items()}

    def _use(self, state: State) -> None:
        if not state.arms or len(set(state.arms)) < len(state.arms):
            raise ConfigError(f"arms must be one or more, each once; got {state.arms}")
        checked("discount", state.discount, above=True, most=1)
        if any(list(kind.beliefs) != state.arms for kind in state.kinds.values()):
            raise ConfigError("some beliefs are about other arms")
        self._state = state

    def _kind(self, name: str) -> Kind:
        new = Kind(0, {arm: Belief() for arm in self._state.arms})
        return self._state.kinds.setdefault(name, new)


def _mean(belief: Belief) -> float:
    return (_PRIOR + belief.total) / (1 + belief.rewards)
