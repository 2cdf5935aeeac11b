"""Each step as soon as its inputs are there, as tasks of one event loop."""

from __future__ import annotations

from agentlab.engines.asking import Ask, answer
from agentlab.workflow import Workflow, as_ready


async def run(workflow: Workflow, values: dict[str, str], *, ask: Ask) -> dict[str, str]:
    """Run every step as early as it can; see `engines.run`. It takes the workflow's span."""

    async def call(name: str, given: dict[str, str]) -> str:
        return await answer(workflow.step(name), values | given, ask)

    return await as_ready(workflow.needs, call)
