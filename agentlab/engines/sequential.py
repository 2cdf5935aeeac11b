"""One step after the other: the baseline that every other engine's results must equal."""

from __future__ import annotations

from agentlab.engines.asking import Ask, answer
from agentlab.workflow import Workflow, in_order


async def run(workflow: Workflow, values: dict[str, str], *, ask: Ask) -> dict[str, str]:
    """Run the steps in the workflow's order; see `engines.run`. It takes the workflow's work."""

    async def call(name: str, given: dict[str, str]) -> str:
        return await answer(workflow.step(name), values | given, ask)

    return await in_order(workflow.needs, call)
