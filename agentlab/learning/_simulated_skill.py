"""SIMULATED quality: how often a model is right, made up for lessons, on top of real calls.

The local model cannot calculate. `SimulatedSkill` sends it each request all the same, so that
time, tokens and trace are real, and replaces the words by a right or a wrong answer.
How often it is right depends on the kind of task, on whether all of it is asked or a part, and on
which answers the request shows. With a real model leave it out: tasks and patterns need none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from agentlab.endpoint.contract import seeded_random
from agentlab.engines.asking import Ask
from agentlab.errors import ConfigError
from agentlab.learning.patterns import PATTERNS, proposals
from agentlab.learning.tasks import Question, Task

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Skill(msgspec.Struct, frozen=True):
    """How good the simulated model is at one kind of task. All are chosen, none is measured.

    Attributes:
        whole: How often it is right about the whole task.
        part: How often it is right about one part of it.
        recognises: How often it tells the right answer among proposals.
        alike: Which share of its mistakes is the same one. Voting does not help against those.
    """

    whole: Share
    part: Share
    recognises: Share
    alike: Share


SKILLS: dict[str, Skill] = {
    "arithmetic": Skill(whole=0.98, part=0.97, recognises=0.95, alike=0.5),
    "reversing": Skill(whole=0.70, part=0.80, recognises=0.40, alike=0.1),
    "counting": Skill(whole=0.40, part=0.96, recognises=0.60, alike=0.3),
    "sorting": Skill(whole=0.60, part=0.97, recognises=0.70, alike=0.3),
    "chain": Skill(whole=0.60, part=0.95, recognises=0.95, alike=0.3),
}
"""Made up so that each pattern is the best for some kind, but for voting by three."""

SHIFTED: dict[str, Skill] = SKILLS | {
    "arithmetic": SKILLS["reversing"],
    "reversing": SKILLS["counting"],
    "counting": SKILLS["chain"],
    "chain": SKILLS["arithmetic"],
}
"""The skills of another model, as it were, after an update: four kinds have changed places."""


class SimulatedSkill:
    """A model whose answers are right as often as `skills` says; the answers are SIMULATED.

    Args:
        skills: Kind of task -> skill.
        ask: Who is asked for time and tokens, such as `lab.ask`; None asks nobody.
        seed: A request's draw depends on it, on the task and on the agent, not on order or process.

    Example:
        model = SimulatedSkill(ask=lab.ask)
        await single(model.on(task), task.whole.prompt)
    """

    def __init__(
        self, skills: Mapping[str, Skill] = SKILLS, *, ask: Ask | None = None, seed: int = 7
    ):
        self._skills, self._ask, self._seed = dict(skills), ask, seed

    def on(self, task: Task) -> Ask:
        """Return the `ask` with which a pattern works on this task.

        Raises:
            ConfigError: If there is no skill for its kind.
        """
        if task.kind not in self._skills:
            raise ConfigError(
                f"no skill for {task.kind!r}; there is one for {', '.join(self._skills)}"
            )
        key = task.kind.encode()

        async def ask(prompt: str, *, agent: str = "agent", **options: Any) -> str:
            if self._ask is not None:
                await self._ask(prompt, agent=agent, **options)
            at = seeded_random.uniform(self._seed, key, task.number, agent)
            return f"Answer: {_drawn(self.answers(task, prompt), at)}"

        return ask

    def answers(self, task: Task, prompt: str) -> list[tuple[float, str]]:
        """Return the possible answers to a prompt, each with its probability; these add up to 1.

        If the proposals in the prompt contain the right answer, the model recognises it, or takes
        the first wrong one. Otherwise proposals change nothing.
        """
        skill, question = self._skills[task.kind], _question(task, prompt)
        shown = proposals(prompt)
        if question.answer in shown:
            wrong = next((one for one in shown if one != question.answer), question.answer)
            return _possible([(skill.recognises, question.answer), (1 - skill.recognises, wrong)])
        right = skill.whole if question is task.whole else skill.part
        common, *rare = question.mistakes
        each = (1 - right) * (1 - skill.alike) / len(rare)
        return _possible(
            [
                (right, question.answer),
                ((1 - right) * skill.alike, common),
                *((each, mistake) for mistake in rare),
            ]
        )


class Expected(NamedTuple):
    """What a pattern comes to on average: the share of right answers, and the calls."""

    right: float
    calls: float


async def expected(model: SimulatedSkill, task: Task, pattern: str) -> Expected:
    """Return a pattern's exact expectation on a task, by following every course it can take.

    Example:
        >>> import asyncio
        >>> from agentlab.learning.tasks import draw
        >>> asyncio.run(expected(SimulatedSkill(), draw("arithmetic", 0), "single"))
        Expected(right=0.98, calls=1.0)
    """
    right = calls = 0.0
    courses: list[list[int]] = [[]]  # which of the possible answers each request gets, so far
    while courses:
        course = _Course(model, task, courses.pop())
        answer = await PATTERNS[pattern](course.ask, task)
        right += course.probability * task.right(answer)
        calls += course.probability * course.calls
        courses += course.others
    return Expected(round(right, 9), round(calls, 9))


class _Course:
    """One course of a pattern: the answers chosen, then always the first; the others are noted."""

    def __init__(self, model: SimulatedSkill, task: Task, chosen: list[int]):
        self._model, self._task, self._chosen = model, task, chosen
        self.probability, self.calls = 1.0, 0
        self.others: list[list[int]] = []

    async def ask(self, prompt: str, **_: Any) -> str:
        possible = self._model.answers(self._task, prompt)
        if self.calls == len(self._chosen):
            self.others += [[*self._chosen, other] for other in range(1, len(possible))]
            self._chosen.append(0)
        probability, answer = possible[self._chosen[self.calls]]
        self.calls += 1
        self.probability *= probability
        return f"Answer: {answer}"


def _question(task: Task, prompt: str) -> Question:
    """Return which of the task's questions the prompt holds."""
    for question in (task.whole, *task.parts):
        if prompt.startswith(question.prompt):
            return question
    raise ConfigError(f"{prompt[:60]!r} asks nothing of this {task.kind}; use the task's prompts")


def _possible(answers: list[tuple[float, str]]) -> list[tuple[float, str]]:
    return [(probability, answer) for probability, answer in answers if probability > 0]


def _drawn(answers: list[tuple[float, str]], at: float) -> str:
    for probability, answer in answers:
        at -= probability
        if at < 0:
            return answer
    return answers[-1][1]  # what rounding left over
