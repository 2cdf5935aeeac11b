"""Each step as soon as its inputs are there, as tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agentlab.engines.asking import Ask, Watch, answer
from agentlab.workflow import Step, Workflow


async def run(
    workflow: Workflow,
    inputs: Mapping[str, str] | None = None,
    *,
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Run every step as early as it can; see `engines.run`. It takes the workflow's span.

    A step that fails cancels those in flight, and those that were yet to come never start.
    """
    values = workflow.given(inputs)
    watch = Watch(workflow, ask=ask, progress=progress)
    tasks: dict[str, asyncio.Task[None]] = {}

    async def when_ready(step: Step) -> None:
        for need in workflow.needs[step.name]:
            await tasks[need]
        values[step.name] = await answer(step, values, watch.ask)

    with watch.reported():
        async with asyncio.TaskGroup() as group:
            for step in workflow.steps:  # each after those that it needs
                tasks[step.name] = group.create_task(when_ready(step), name=step.name)
    return watch.results
