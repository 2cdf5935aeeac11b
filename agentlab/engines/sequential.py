"""One step after the other: the baseline that every other engine's results must equal."""

from __future__ import annotations

from collections.abc import Mapping

from agentlab.engines.asking import Ask, Watch, answer
from agentlab.workflow import Workflow


async def run(
    workflow: Workflow,
    inputs: Mapping[str, str] | None = None,
    *,
    ask: Ask | None = None,
    progress: bool = False,
) -> dict[str, str]:
    """Run the steps in the workflow's order; see `engines.run`. It takes the workflow's work."""
    values = workflow.given(inputs)
    watch = Watch(workflow, ask=ask, progress=progress)
    with watch.reported():
        for step in workflow.steps:
            values[step.name] = await answer(step, values, watch.ask)
    return watch.results
