"""SIMULATED quality: how often a model is right, made up for lessons, on top of real calls.

The local model cannot calculate. `SimulatedSkill` asks it all the same, so that time, tokens and
trace are real, and replaces the words by a right or a wrong answer.
"""

from bisect import bisect
from itertools import accumulate
from typing import Annotated, Any

import msgspec

from agentlab._support import DATA
from agentlab.endpoint.contract import seeded_random
from agentlab.engines import Ask
from agentlab.errors import ConfigError
from agentlab.learning.patterns import proposals
from agentlab.learning.tasks import Task

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Skill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How good the simulated model is at one kind of task, as `data/skills.yaml` explains it."""

    whole: Share
    part: Share
    recognises: Share
    alike: Share


_FILE = msgspec.yaml.decode((DATA / "skills.yaml").read_bytes())
SKILLS, SHIFTED = (msgspec.convert(_FILE[n], dict[str, Skill]) for n in ("skills", "shifted"))


class SimulatedSkill:
    """A model whose answers are right as often as `skills` says; the answers are SIMULATED.

    They depend on seed, task and agent. `ask`, such as `lab.ask`, is asked for time and tokens.
    """

    def __init__(self, skills: dict[str, Skill] = SKILLS, *, ask: Ask | None = None, seed: int = 7):
        self._skills, self._ask, self._seed = skills, ask, seed

    def on(self, task: Task) -> Ask:
        """Return the `ask` with which a pattern works on this task."""

        async def ask(prompt: str, *, agent: str = "agent", **options: Any) -> str:
            if self._ask is not None:
                await self._ask(prompt, agent=agent, **options)
            at = seeded_random.uniform(self._seed, task.kind.encode(), task.number, agent)
            possible = self.answers(task, prompt)
            *totals, _ = accumulate(probability for probability, _ in possible)
            return f"Answer: {possible[bisect(totals, at)][1]}"

        return ask

    def answers(self, task: Task, prompt: str) -> list[tuple[float, str]]:
        """Return the possible answers to a prompt, each with its probability.

        Of proposals that contain the right answer it recognises that one, or takes the first wrong
        one; others change nothing.
        """
        asked = [q for q in (task.whole, *task.parts) if prompt.startswith(q.prompt)]
        if not asked:
            what = f"{prompt[:60]!r} asks nothing of this {task.kind}"
            raise ConfigError(f"{what}; use the task's prompts")
        skill, question, shown = self._skills[task.kind], asked[0], proposals(prompt)
        if question.answer in shown:
            wrong = next((one for one in shown if one != question.answer), question.answer)
            found = [(skill.recognises, question.answer), (1 - skill.recognises, wrong)]
        else:
            right = skill.whole if question is task.whole else skill.part
            common, *rare = question.mistakes
            each = (1 - right) * (1 - skill.alike) / len(rare)
            found = [(right, question.answer), ((1 - right) * skill.alike, common)]
            found += [(each, mistake) for mistake in rare]
        return [(probability, answer) for probability, answer in found if probability > 0]


def mean_rewards(shifted: bool = False) -> dict[str, dict[str, float]]:
    """Return kind -> pattern -> what it earns on average, exactly."""
    return dict(_FILE["earns_shifted" if shifted else "earns"])
