"""What every engine shares: how a step is asked, and who watches a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from agentlab import lab
from agentlab._support.asyncio_tools import never_cancelled_from_within
from agentlab.errors import StepError, reason
from agentlab.progress import bar
from agentlab.workflow import Step, Workflow

Ask = Callable[..., Awaitable[str]]
"""Who answers a step. It is called as `lab.ask` is, or is `lab.ask` itself."""


async def answer(step: Step, values: Mapping[str, str], ask: Ask) -> str:
    """Ask a step's question, with the `values` filled in."""
    return await ask(
        step.asked(values),
        agent=step.name,
        system=step.system,
        max_tokens=step.max_tokens,
        temperature=step.temperature,
    )


class Watch:
    """Watches one run of a workflow, whichever engine runs it: engines ask through its `ask`.

    Args:
        ask: Who answers; `lab.ask`, unless given.
        progress: Whether to show a bar that counts the steps.
    """

    def __init__(self, workflow: Workflow, *, ask: Ask | None, progress: bool):
        self._workflow = workflow
        self._ask = ask or lab.ask
        self._answers: dict[str, str] = {}
        self._failed: tuple[str, Exception] | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._bar = bar(total=len(workflow.steps), name=workflow.name) if progress else None

    async def ask(self, prompt: str, *, agent: str, **options: Any) -> str:
        """Ask, and keep the answer under the agent's name, which is the step's."""
        if (task := asyncio.current_task()) is not None:
            self._in_flight.add(task)
        try:
            text = await never_cancelled_from_within(self._ask(prompt, agent=agent, **options))
        except Exception as error:
            self._failed = self._failed or (agent, error)
            raise
        finally:
            self._in_flight -= {task}
        self._answers[agent] = text
        if self._bar is not None:
            self._bar.update()
        return text

    @property
    def results(self) -> dict[str, str]:
        """Step -> answer, of the steps that have ended, in the workflow's order."""
        steps = [step.name for step in self._workflow.steps]
        return {name: self._answers[name] for name in steps if name in self._answers}

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Around the whole run: whatever a framework makes of a step's failure, say which it was.

        What is still in flight then is cancelled; CrewAI would let it run on, and be paid for.

        Raises:
            StepError: If a step failed.
        """
        with self._bar or nullcontext():
            try:
                yield
            except Exception:
                for task in self._in_flight:
                    task.cancel()
                if self._failed is None:
                    raise
                name, error = self._failed
                said = reason(error)
                raise StepError(
                    f"step {name!r} of workflow {self._workflow.name!r} failed "
                    f"({type(said).__name__}: {said}); {len(self.results)} of "
                    f"{len(self._workflow.steps)} answers are in this error's results",
                    step=name,
                    results=self.results,
                ) from error
