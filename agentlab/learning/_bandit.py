"""A contextual bandit.

Discounted Thompson sampling: for each kind of task and each arm there is a belief about the mean
reward, a normal distribution; a choice draws a number from each, and the largest wins. Rewards
count for less the older they are, so that a change is noticed.

Source: D. Russo et al., "A tutorial on Thompson sampling", Foundations and Trends in Machine
Learning 11 (2018); discounting is V. Raj and S. Kalyani, "Taming non-stationary bandits: a Bayesian
approach" (2017).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import isfinite, sqrt

from agentlab._support.fields import checked
from agentlab.endpoint.contract import seeded_random
from agentlab.errors import ConfigError

_PRIOR = 0.5  # the mean reward that an untried arm is believed to have, worth one reward
_NOISE = 0.4  # a reward's standard deviation: a right answer, worth 1, four times in five


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
        self._chosen = Counter[str]()  # how often, by kind
        # Of each arm, by kind, the number of rewards and their sum, both discounted.
        nothing = dict.fromkeys(arms, (0.0, 0.0))
        self._seen = defaultdict[str, dict[str, tuple[float, float]]](nothing.copy)

    def choose(self, kind: str) -> str:
        chance = seeded_random.generator(self._seed, b"", self._chosen[kind], f"choose {kind}")
        self._chosen[kind] += 1
        drawn = {
            arm: chance.gauss((_PRIOR + total) / (1 + many), _NOISE / sqrt(1 + many))
            for arm, (many, total) in self._seen[kind].items()
        }
        return max(drawn, key=drawn.__getitem__)

    def learn(self, kind: str, arm: str, reward: float) -> None:
        """Take a finite reward into account, and let all older ones of its kind fade."""
        if arm not in self._arms:
            raise ConfigError(f"no arm {arm!r}; choose one of {', '.join(self._arms)}")
        if not isfinite(reward):
            raise ConfigError(f"a reward must be a finite number, got {reward}")
        seen, kept = self._seen[kind], self._discount
        seen |= {each: (many * kept, total * kept) for each, (many, total) in seen.items()}
        many, total = seen[arm]
        seen[arm] = many + 1, total + reward
