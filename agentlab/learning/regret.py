"""What a policy earns, as a share of what an oracle would; how often it is right is SIMULATED.

A run's reward is 1 for a right answer, less a price per call. `live` learns from real calls;
`World` and `follow` do the same without a client: same tasks, answers and calls.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from agentlab._support.fields import checked
from agentlab.clock import run_virtual
from agentlab.engines import Ask
from agentlab.learning import tasks
from agentlab.learning._simulated_skill import SHIFTED, SKILLS, SimulatedSkill, mean_rewards
from agentlab.learning.patterns import PATTERNS
from agentlab.learning.tasks import Task

PRICE = 0.03  # what a call costs, where a right answer is worth 1; chosen for the lesson
BLOCK = 100  # over how many runs a point of a curve is taken
ARMS = list(PATTERNS)


class Run(NamedTuple):
    """One task, as the checker judged it, and the calls that it took."""

    kind: str
    arm: str
    right: bool
    calls: int
    reward: float


async def live(policy: Any, some_tasks: Iterable[Task], on: Callable[[Task], Ask]) -> list[Run]:
    """Let a policy choose the pattern of each task, run it, and let it learn from the outcome.

    A policy has `choose(kind)` and `learn(kind, arm, reward)`, as `Bandit` has.
    `on` says who answers a task; where a real model does, `lambda task: lab.ask`.
    """
    runs, asked = [], list[str]()

    def counted(ask: Ask, prompt: str, **options: Any) -> Awaitable[str]:
        asked.append(prompt)
        return ask(prompt, **options)

    for task in some_tasks:
        asked.clear()
        arm = policy.choose(task.kind)
        right = task.right(await PATTERNS[arm](partial(counted, on(task)), task))
        reward = round(right - PRICE * len(asked), 9)
        policy.learn(task.kind, arm, reward)
        runs.append(Run(task.kind, arm, right, len(asked), reward))
    return runs


class World:
    """Tasks, and what each pattern would earn on each: equal for every policy.

    From the task `shift_at` on the skills are `SHIFTED`. For each task `rewards` has its answerer,
    and so what patterns earn, `means` what each earns on average, and `oracle` the most of that.
    """

    def __init__(self, runs: int = 2000, *, seed: int = 7, shift_at: int | None = None):
        checked("runs", runs, least=1, whole=True)
        checked("shift_at", shift_at, most=runs - 1, whole=True, optional=True)
        self.tasks = tasks.sequence(runs, seed)
        late = range(runs if shift_at is None else shift_at, runs)
        models = [SimulatedSkill(skills, seed=seed) for skills in (SKILLS, SHIFTED)]
        self.rewards = [models[task.number in late].on(task) for task in self.tasks]
        self.means = [mean_rewards(task.number in late)[task.kind] for task in self.tasks]
        self.oracle = [max(means.values()) for means in self.means]

    def share(self, runs: Iterable[Run], some: slice = slice(None)) -> float:
        """Return what the arms of all or some runs earn on average, as a share of the oracle's."""
        earned = [means[run.arm] for run, means in zip(runs, self.means, strict=True)]
        return sum(earned[some]) / sum(self.oracle[some])


def follow(policy: Any, world: World) -> list[Run]:
    """Let a policy choose and learn through all of a world's tasks; return what it did."""
    return run_virtual(live(policy, world.tasks, lambda task: world.rewards[task.number])).result


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
