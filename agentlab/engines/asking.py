"""How every engine asks a step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from agentlab.workflow import Step

Ask = Callable[..., Awaitable[str]]
"""What answers a step: `lab.ask`, or anything that is called like it."""


async def answer(step: Step, values: Mapping[str, str], ask: Ask) -> str:
    """Ask a step's question, with the `values` filled in."""
    return await ask(
        step.asked(values),
        agent=step.name,
        system=step.system,
        max_tokens=step.max_tokens,
        temperature=step.temperature,
    )
