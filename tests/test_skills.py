"""The simulated quality: as often right as it says, and exact expectations of each pattern."""

from __future__ import annotations

import asyncio
from math import prod
from typing import Any

import msgspec
import pytest

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.errors import ConfigError
from agentlab.learning import ARMS, SimulatedSkill, mean_rewards
from agentlab.learning._simulated_skill import SHIFTED, SKILLS, Skill
from agentlab.learning.patterns import PATTERNS, with_proposals
from agentlab.learning.regret import PRICE
from agentlab.learning.tasks import KINDS, Task, draw
from agentlab.trace import trace


async def expected(model: SimulatedSkill, task: Task, pattern: str) -> tuple[float, float]:
    """Return how often a pattern is right about a task, and its calls: on average, exactly."""
    right = mean_calls = 0.0
    courses: list[list[int]] = [[]]  # which of the possible answers each request gets, so far
    course: list[int]
    shares: list[float]

    async def ask(prompt: str, **_: Any) -> str:
        possible = model.answers(task, prompt)
        if len(shares) == len(course):  # from here on always the first; the others are noted
            courses.extend([*course, other] for other in range(1, len(possible)))
            course.append(0)
        share, answer = possible[course[len(shares)]]
        shares.append(share)
        return f"Answer: {answer}"

    while courses:
        course, shares = courses.pop(), []
        is_right = task.right(await PATTERNS[pattern](ask, task))
        right += prod(shares) * is_right
        mean_calls += prod(shares) * len(shares)
    return round(right, 9), round(mean_calls, 9)


def rights(pattern, task_of, model, many):
    """Which of many tasks a pattern gets right."""

    async def all_of_them():
        tasks = [task_of(number) for number in range(many)]
        return [task.right(await PATTERNS[pattern](model.on(task), task)) for task in tasks]

    return run_virtual(all_of_them()).result


def comes_to(pattern, skill, kind="counting"):
    """The pattern's expectation under a skill."""
    return asyncio.run(expected(SimulatedSkill({kind: skill}), draw(kind, 0), pattern))


def test_expectations_that_can_be_worked_out_by_hand():
    """p; 3p²(1-p) + p³ where all mistakes are one; p of a part, cubed; and the calls of each."""
    skill = Skill(whole=0.6, part=0.9, recognises=1.0, alike=1.0)
    assert comes_to("single", skill) == (0.6, 1)
    assert comes_to("vote of 3", skill) == (pytest.approx(3 * 0.36 * 0.4 + 0.216), 3)
    assert comes_to("map-reduce", skill) == (pytest.approx(0.9**3), 3)


def test_a_debate_worked_out_by_hand():
    """Both err alike: wrong, with 2 calls. One is right: 4 calls, and r² + 2r(1-r)r are right."""
    p, r = 0.6, 0.7
    right, calls = comes_to("debate", Skill(whole=p, part=0.9, recognises=r, alike=1.0))
    differ = 2 * p * (1 - p)
    judged = 2 * r * (1 - r)  # of those that differ, and still do after the second round
    assert right == pytest.approx(p * p + differ * (r * r + judged * r))
    assert calls == pytest.approx(2 + differ * (2 + judged))


def test_voting_does_not_help_against_a_common_mistake():
    """Below one half, voters who err alike make it worse; who err each their own way, better."""
    alike = comes_to("vote of 5", Skill(whole=0.45, part=0.9, recognises=1.0, alike=1.0))
    apart = comes_to("vote of 5", Skill(whole=0.45, part=0.9, recognises=1.0, alike=0.0))
    assert alike[0] < 0.45 < apart[0]


@pytest.mark.parametrize("pattern", ["single", "vote of 3", "map-reduce", "debate"])
@pytest.mark.parametrize("kind", KINDS)
def test_expectation_is_the_same_for_every_task_of_a_kind(kind, pattern):
    """So that a kind has one best pattern, whichever tasks come."""
    model = SimulatedSkill()
    first, *others = (asyncio.run(expected(model, draw(kind, n), pattern)) for n in (0, 1, 2))
    assert others == [first, first]


@pytest.mark.parametrize("pattern", ARMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shifted", [False, True])
def test_the_stored_means_are_the_expectations(kind, pattern, shifted):
    """What data/skills.yaml says a pattern earns follows from the skills, to the ninth digit."""
    model = SimulatedSkill(SHIFTED if shifted else SKILLS)
    right, calls = asyncio.run(expected(model, draw(kind, 0), pattern))
    assert mean_rewards(shifted)[kind][pattern] == round(right - PRICE * calls, 9)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", ["reversing", "chain"])
def test_runs_come_out_as_expected(kind, pattern):
    """The oracle of the exact expectation: 1,000 runs are right as often, within 4 deviations."""
    model = SimulatedSkill()
    right = asyncio.run(expected(model, draw(kind, 0), pattern))[0]
    found = sum(rights(pattern, lambda number: draw(kind, number), model, 1000)) / 1000
    assert abs(found - right) <= 4 * (right * (1 - right) / 1000) ** 0.5


def test_probabilities_add_up_to_one():
    """Whatever a prompt shows, something is answered, and nothing with a negative chance."""
    model, task = SimulatedSkill(), draw("sorting", 0)
    right, wrong = task.whole.answer, task.whole.mistakes[0]
    prompts = [task.whole.prompt, task.parts[1].prompt]
    prompts += [
        with_proposals(task.whole.prompt, [a, b]) for a in (right, wrong) for b in (right, "")
    ]
    for prompt in prompts:
        answers = model.answers(task, prompt)
        assert sum(probability for probability, _ in answers) == pytest.approx(1)
        assert all(probability > 0 for probability, _ in answers)


def test_who_sees_the_right_answer_recognises_it_or_takes_the_wrong_one():
    """The critic's choice is between what it sees."""
    task = draw("chain", 0)
    wrong = task.whole.mistakes[1]
    prompt = with_proposals(task.whole.prompt, [wrong, task.whole.answer])
    assert SimulatedSkill().answers(task, prompt) == [
        (0.95, task.whole.answer),
        (pytest.approx(0.05), wrong),
    ]


def test_a_real_call_is_behind_each_simulated_answer(fresh_lab):
    """The endpoint sees every request and takes its time; only the words are replaced."""
    task = draw("counting", 4)
    with trace() as t:
        real = run_virtual(PATTERNS["vote of 3"](SimulatedSkill(ask=lab.ask).on(task), task)).result
    assert real == run_virtual(PATTERNS["vote of 3"](SimulatedSkill().on(task), task)).result
    assert (t.requests, t.peak) == (3, 3)
    assert min(span.completion_tokens for span in t.spans) > 10


def test_right_and_wrong_depend_on_task_and_agent_alone():
    """Asked in another order, the same answers come; with another seed, others."""
    agents = [f"voter {number}" for number in range(8)]

    async def answers(order, seed):
        model = SimulatedSkill(seed=seed)
        tasks = [draw("reversing", number) for number in range(8)]
        return {
            (task.number, agent): await model.on(task)(task.whole.prompt, agent=agent)
            for task in order(tasks)
            for agent in order(agents)
        }

    forwards = asyncio.run(answers(list, 7))
    assert asyncio.run(answers(lambda items: items[::-1], 7)) == forwards
    assert asyncio.run(answers(list, 8)) != forwards
    assert len(set(forwards.values())) > 8


def test_what_it_cannot_simulate_is_refused():
    """A prompt that is none of the task's."""
    task = draw("counting", 0)
    with pytest.raises(ConfigError, match="'Hello' asks nothing of this counting"):
        asyncio.run(SimulatedSkill().on(task)("Hello"))


def test_skills_say_so_where_they_are_read():
    """Nobody takes a simulated quality for a measured one: the module's first word says it."""
    from agentlab.learning import _simulated_skill, regret

    assert _simulated_skill.__doc__.startswith("SIMULATED")
    assert "SIMULATED" in SimulatedSkill.__doc__
    assert "SIMULATED" in regret.__doc__
    assert "SIMULATED" in regret.Scenario.__doc__


def test_a_skill_is_a_share():
    """Decoded from data, a number outside of 0 to 1 is refused."""
    with pytest.raises(msgspec.ValidationError, match=r"<= 1\.0"):
        msgspec.convert({"whole": 1.5, "part": 1, "recognises": 1, "alike": 0}, Skill)
