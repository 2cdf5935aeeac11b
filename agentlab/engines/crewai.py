"""A workflow as a native CrewAI Flow: one method per step, which listens to the steps it needs.

A crew cannot run a general graph: its tasks run in a row, and its threads are few.
"""

from typing import Any

from agentlab import lab
from agentlab.engines import Ask, answer
from agentlab.lab import crews
from agentlab.workflow import Step, Workflow


async def run(workflow: Workflow, values: dict[str, str], *, ask: Ask) -> dict[str, str]:
    """Run the `flow`; see `engines.run`. It takes the workflow's span and CrewAI's own time."""
    begun = flow(workflow, ask=ask)()
    await begun.kickoff_async(inputs=values)
    return {step.name: begun.state[step.name] for step in workflow.steps}


def flow(workflow: Workflow, *, ask: Ask | None = None) -> type[crews.Flow[Any]]:
    """Return the workflow as a Flow class that you can look at and kick off with its inputs."""
    methods = {_method(s.name): _asking(workflow, s, ask or lab.ask) for s in workflow.steps}
    return type(workflow.name, (_Quiet,), methods)


class _Quiet(crews.Flow):  # type: ignore[type-arg]  # with one, it warns that it knows no such state
    suppress_flow_events: bool = True  # no panels on the screen


def _asking(workflow: Workflow, step: Step, ask: Ask) -> Any:
    async def method(self: Any) -> str:
        text = await answer(step, self.state, ask)
        self.state[step.name] = text
        return text

    method.__name__ = _method(step.name)
    needs = [_method(need) for need in workflow.needs[step.name]]
    return (crews.listen(crews.and_(*needs)) if needs else crews.start())(method)


def _method(step: str) -> str:
    """Name a step's method: CrewAI takes ASCII alone, and a Flow has a "state" of its own."""
    return f"ask_{step}" if step.isascii() else f"step_{step.encode().hex()}"
