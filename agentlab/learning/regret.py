"""What a policy earns, as a share of what an oracle would; how often it is right is SIMULATED.

A run's reward is 1 for a right answer, less a price per call. `live` learns from the endpoint's own
record; `World` and `follow` do it without a client: same tasks, answers and calls.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

import msgspec

from agentlab._support.fields import checked
from agentlab.clock import run_virtual
from agentlab.engines import Ask
from agentlab.learning import tasks
from agentlab.learning._bandit import Policy
from agentlab.learning._simulated_skill import MEANS, SHIFTED, SKILLS, SimulatedSkill
from agentlab.learning.patterns import PATTERNS
from agentlab.learning.tasks import Task
from agentlab.trace import trace

PRICE = 0.03  # what a call costs, where a right answer is worth 1; chosen for the lesson
BLOCK = 100  # over how many runs a point of a curve is taken
ARMS = list(PATTERNS)


class Run(NamedTuple):
    """One task, as the checker judged it, and the requests that the endpoint saw."""

    kind: str
    arm: str
    right: bool
    calls: int
    reward: float


async def live(policy: Policy, some_tasks: Iterable[Task], on: Callable[[Task], Ask]) -> list[Run]:
    """Let a policy choose the pattern of each task, run it, and let it learn from the outcome.

    A trace around each task counts its calls, so nothing else may ask meanwhile. `on` says who
    answers a task; where a real model does, `lambda task: lab.ask`.
    """
    runs = []
    for task in some_tasks:
        arm = policy.choose(task.kind)
        with trace() as t:
            right = task.right(await PATTERNS[arm](on(task), task))
        reward = round(right - PRICE * t.requests, 9)
        policy.learn(task.kind, arm, reward)
        runs.append(Run(task.kind, arm, right, t.requests, reward))
    return runs


class World:
    """Tasks, and what each pattern would earn on each: equal for every policy.

    From the task `shift_at` on the skills are `SHIFTED`. For each task `rewards` has what each
    pattern earns, as drawn, `means` what it earns on average, and `oracle` the most of that.
    """

    def __init__(self, runs: int = 2000, *, seed: int = 7, shift_at: int | None = None):
        checked("runs", runs, least=1, whole=True)
        checked("shift_at", shift_at, most=runs - 1, whole=True, optional=True)
        self.tasks = tasks.sequence(runs, seed)
        late = range(runs if shift_at is None else shift_at, runs)
        self.rewards = [_earned(runs, seed, n in late)[n] for n in range(runs)]
        self.means = [mean_rewards(n in late)[task.kind] for n, task in enumerate(self.tasks)]
        self.oracle = [max(means.values()) for means in self.means]


class Learned(NamedTuple):
    """What a policy chose in a world, and what it earned there."""

    arms: list[str]
    means: list[float]
    rewards: list[float]
    oracle: list[float]

    @property
    def share(self) -> float:
        """What its choices earn on average, as a share of the oracle's."""
        return sum(self.means) / sum(self.oracle)


def follow(policy: Policy, world: World) -> Learned:
    """Let a policy choose and learn through all of a world's tasks."""
    learned = Learned([], [], [], world.oracle)
    for task, means, earned in zip(world.tasks, world.means, world.rewards, strict=True):
        arm = policy.choose(task.kind)
        policy.learn(task.kind, arm, earned[arm])
        learned.arms.append(arm)
        learned.means.append(means[arm])
        learned.rewards.append(earned[arm])
    return learned


class Curve(msgspec.Struct, frozen=True):
    """One policy's share of what the oracle earns, over several seeds; `curve` has it by block."""

    share: float
    least_share: float
    most_share: float
    curve: list[float]


class Scenario(msgspec.Struct, frozen=True):
    """Several policies on the same tasks. The quality of answers is SIMULATED."""

    name: str
    runs: int
    seeds: list[int]
    shift_at: int | None
    policies: dict[str, Curve]


def mean_rewards(shifted: bool = False) -> dict[str, dict[str, float]]:
    """Return kind -> pattern -> what it earns on average, exactly."""
    return MEANS[shifted]


@cache
def _earned(runs: int, seed: int, shifted: bool) -> list[dict[str, float]]:
    """Return pattern -> reward for each task; nobody is asked for time."""
    asked: list[str] = []

    async def count(prompt: str, **options: object) -> str:
        asked.append(prompt)
        return ""

    model = SimulatedSkill(SHIFTED if shifted else SKILLS, ask=count, seed=seed)

    async def earned(task: Task, arm: str) -> float:
        asked.clear()
        right = task.right(await PATTERNS[arm](model.on(task), task))
        return round(right - PRICE * len(asked), 9)

    async def all_of_them() -> list[dict[str, float]]:
        some = tasks.sequence(runs, seed)
        return [{arm: await earned(task, arm) for arm in ARMS} for task in some]

    return run_virtual(all_of_them()).result
