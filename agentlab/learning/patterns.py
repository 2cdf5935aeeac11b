"""Four ways to have a question answered, each a coroutine over an `ask`; calls overlap.

Source: voting is X. Wang et al., "Self-consistency improves chain of thought reasoning in language
models" (2023); debate is Y. Du et al., "Improving factuality and reasoning in language models
through multiagent debate" (2023), here with a judge, and ended early where all agree.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from agentlab._support.asyncio_tools import raise_if_cancelled_elsewhere
from agentlab.engines import Ask
from agentlab.errors import ConfigError
from agentlab.learning.tasks import Task, said

_PROPOSED = "Answers that were proposed:"


async def single(ask: Ask, prompt: str) -> str:
    return await _said(ask(prompt, agent="solver"))


async def vote(ask: Ask, prompt: str, *, voters: int = 3) -> str:
    """Return the answer that most voters give; of a tie the first one. All are asked together."""
    answers = await _each(ask, [prompt] * voters, "voter")
    return Counter(answers).most_common(1)[0][0]  # counts keep the order of the first answers


async def map_reduce(ask: Ask, prompts: Sequence[str], join: Callable[[Sequence[str]], str]) -> str:
    """Return what `join` makes of the answers to all `prompts`, which are asked together."""
    return join(await _each(ask, prompts, "part"))


async def debate(ask: Ask, prompt: str, *, debaters: int = 2) -> str:
    """Return what debaters agree on, immediately or after they saw all answers; else a judge's."""
    answers = await _each(ask, [prompt] * debaters, "debater")
    if len(set(answers)) > 1:
        answers = await _each(ask, [with_proposals(prompt, answers)] * debaters, "critic")
    if len(set(answers)) > 1:
        return await _said(ask(with_proposals(prompt, answers), agent="judge"))
    return answers[0]


def with_proposals(prompt: str, answers: Sequence[str]) -> str:
    """Return the question for an agent that sees what others answered."""
    shown = "\n".join(f"- {answer}" for answer in answers)
    return f"{prompt}\n\nThey differ, so check each before you answer. {_PROPOSED}\n{shown}"


def proposals(prompt: str) -> list[str]:
    _, _, shown = prompt.partition(f"{_PROPOSED}\n")
    return [line.removeprefix("- ") for line in shown.splitlines()]


async def _each(ask: Ask, prompts: Sequence[str], role: str) -> list[str]:
    """Ask all prompts at the same time; if one fails the others are cancelled."""
    if not prompts:
        raise ConfigError(f"a pattern needs 1 {role} or more, got 0")
    try:
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(_said(ask(prompt, agent=f"{role} {number}")))
                for number, prompt in enumerate(prompts, 1)
            ]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # one question, so one error
    return [task.result() for task in asked]


async def _said(asked: Awaitable[str]) -> str:
    """Return the answer in a reply; a call that ends as cancelled by itself is an error."""
    return said(await raise_if_cancelled_elsewhere(asked))


PATTERNS: dict[str, Callable[[Ask, Task], Awaitable[str]]] = {
    "single": lambda ask, task: single(ask, task.whole.prompt),
    "vote of 3": lambda ask, task: vote(ask, task.whole.prompt, voters=3),
    "vote of 5": lambda ask, task: vote(ask, task.whole.prompt, voters=5),
    "map-reduce": lambda ask, task: map_reduce(ask, [p.prompt for p in task.parts], task.join),
    "debate": lambda ask, task: debate(ask, task.whole.prompt),
}
"""The patterns that can be chosen for a task, by name."""
