"""A contextual bandit: which arm to pull for which kind of task, learned from the rewards.

Discounted Thompson sampling. For each kind and arm there is a belief about the mean reward, a
normal distribution; a choice draws one number from each and takes the arm with the largest. So an
arm is tried as often as it may still be the best. Rewards count for less the older they are, so
that what has changed is noticed.

Source: D. Russo et al., "A tutorial on Thompson sampling", Foundations and Trends in Machine
Learning 11 (2018); discounting is V. Raj and S. Kalyani, "Taming non-stationary bandits: a Bayesian
approach" (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agentlab._support.atomic import write_whole
from agentlab._support.fields import Count, NotNegative
from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError


class Belief(msgspec.Struct, forbid_unknown_fields=True):
    """One arm, for one kind: how many rewards there were, and their sum, both discounted."""

    rewards: NotNegative = 0.0
    total: float = 0.0


class Kind(msgspec.Struct, forbid_unknown_fields=True):
    """One kind: how often an arm was chosen, and a belief about each arm."""

    chosen: Count
    beliefs: dict[str, Belief]


class State(msgspec.Struct, forbid_unknown_fields=True):
    """All that was learned, as it stands in the file."""

    version: Literal[1]
    arms: list[str]
    discount: Annotated[float, msgspec.Meta(gt=0, le=1)]
    noise: Annotated[float, msgspec.Meta(gt=0)]
    prior: float
    seed: int
    kinds: dict[str, Kind] = {}


class Bandit:
    """Chooses an arm for a kind of task, and learns from the reward.

    Choices are reproducible: they follow from the seed and from what was learned before. A choice
    may be made before the reward of the last one is there.

    Args:
        arms: The choices, in the order in which ties are broken.
        discount: What a reward is worth after each later one of its kind: at .99 the last hundred
            decide. 1 forgets nothing, and then a change is noticed late.
        noise: The standard deviation of a reward around its mean: .4 where a right answer, worth 1,
            comes four times in five; .5 is the most there can be.
        prior: The mean reward that an untried arm is believed to have, worth one reward.

    Raises:
        ConfigError: If there are no arms, two of one name, or a number is out of its range.

    Example:
        >>> bandit = Bandit(["single", "vote"])
        >>> for _ in range(50):
        ...     arm = bandit.choose("counting")
        ...     bandit.learn("counting", arm, reward=1.0 if arm == "vote" else 0.0)
        >>> bandit.best("counting")
        'vote'
    """

    def __init__(
        self,
        arms: Sequence[str],
        *,
        discount: float = 0.99,
        noise: float = 0.4,
        prior: float = 0.5,
        seed: int = 7,
    ):
        self._use(State(1, list(arms), discount, noise, prior, seed))

    @classmethod
    def load(cls, path: str | Path, *, arms: Sequence[str] | None = None) -> Bandit:
        """Go on where `save` left off; it then chooses as if there had been no break.

        Args:
            arms: Those that are expected to be in the file; None takes what is there.

        Raises:
            ConfigError: If the file cannot be read, is damaged, or is about other arms.
        """
        path = Path(path)
        bandit = cls.__new__(cls)
        try:
            bandit._use(msgspec.json.decode(path.read_bytes(), type=State))
        except (OSError, msgspec.DecodeError, ConfigError) as error:
            raise ConfigError(
                f"bandit {str(path)!r}: {error}; restore it, or remove it to start again"
            ) from None
        if arms is not None and list(arms) != bandit.arms:
            raise ConfigError(
                f"bandit {str(path)!r} chooses from {', '.join(bandit.arms)}, not from "
                f"{', '.join(arms)}; remove it to start again"
            )
        return bandit

    def save(self, path: str | Path) -> None:
        """Write down all that was learned, whole or not at all."""
        content = msgspec.json.format(msgspec.json.encode(self._state)) + b"\n"
        write_whole(Path(path), content)

    @property
    def arms(self) -> list[str]:
        """What there is to choose from."""
        return list(self._state.arms)

    def choose(self, kind: str) -> str:
        """Return an arm for the next task of this kind."""
        known = self._kind(kind)
        chance = seeded_random.generator(self._state.seed, b"", known.chosen, f"choose {kind}")
        known.chosen += 1
        drawn = {
            arm: chance.gauss(self._mean(belief), self._deviation(belief))
            for arm, belief in known.beliefs.items()
        }
        return max(drawn, key=drawn.__getitem__)

    def learn(self, kind: str, arm: str, reward: float) -> None:
        """Take a reward into account, and let all older ones of its kind fade.

        Raises:
            ConfigError: If there is no such arm, or the reward is no finite number.
        """
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
        beliefs = known.beliefs if known else dict.fromkeys(self.arms, Belief())
        return {arm: self._mean(belief) for arm, belief in beliefs.items()}

    def best(self, kind: str) -> str:
        """Return the arm with the largest of these means."""
        means = self.means(kind)
        return max(means, key=means.__getitem__)

    def _use(self, state: State) -> None:
        if not state.arms or len(set(state.arms)) < len(state.arms):
            raise ConfigError(f"arms must be one or more, each once; got {state.arms}")
        if not (0 < state.discount <= 1 and 0 < state.noise < float("inf")):
            raise ConfigError(
                f"needs 0 < discount <= 1 and noise > 0; got {state.discount} and {state.noise}"
            )
        if not isfinite(state.prior):
            raise ConfigError(f"prior must be a finite number, got {state.prior}")
        for name, kind in state.kinds.items():
            if list(kind.beliefs) != state.arms:
                raise ConfigError(f"kind {name!r} has beliefs about {', '.join(kind.beliefs)}")
        self._state = state

    def _kind(self, name: str) -> Kind:
        if name not in self._state.kinds:
            self._state.kinds[name] = Kind(0, {arm: Belief() for arm in self._state.arms})
        return self._state.kinds[name]

    # A normal prior worth one reward, and rewards of known noise: their average is the posterior.

    def _mean(self, belief: Belief) -> float:
        return (self._state.prior + belief.total) / (1 + belief.rewards)

    def _deviation(self, belief: Belief) -> float:
        return self._state.noise / sqrt(1 + belief.rewards)

    def __repr__(self) -> str:
        learned = {kind: self.best(kind) for kind in self._state.kinds}
        return f"<Bandit over {', '.join(self.arms)}: best so far {learned or 'unknown'}>"
