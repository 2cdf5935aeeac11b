"""A workflow is its prompts: the `{placeholders}` in them are its graph.

A step needs the steps whose names stand in braces in its prompt, and nothing else declares that.
From the graph and the time of each step follow the bounds that no schedule can beat.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agentlab._support import yaml_file
from agentlab._support.atomic import write_whole
from agentlab.errors import ConfigError
from agentlab.settings import DATA
from agentlab.workflow import _file
from agentlab.workflow._graph import Graph, Plan, listed
from agentlab.workflow._step import Step

__all__ = ["Step", "Workflow", "names", "random_workflow"]

_WORKFLOWS = DATA / "workflows"


class Workflow:
    """Steps, and the graph that their prompts make.

    Args:
        steps: In the order in which a reader should meet them.
        inputs: The names that the user fills in at each run.
        about: What it is for, in a sentence; by default its name.

    Two workflows are equal if they ask the same, whatever their names and their order.

    Raises:
        ConfigError: If two steps or inputs have one name, a prompt mentions an unknown name, an
            input is never used, or steps need each other in a circle.

    Example:
        >>> w = Workflow(
        ...     [
        ...         Step("research", "What is known about {topic}?"),
        ...         Step("analysis", "What does {topic} cost?"),
        ...         Step("summary", "Write one report from {research} and {analysis}."),
        ...     ],
        ...     inputs=["topic"],
        ... )
        >>> w.needs["summary"]
        ('research', 'analysis')
        >>> plan = w.plan({"research": 10, "analysis": 15, "summary": 12})
        >>> plan.work_s, plan.span_s, plan.critical_path, plan.peak
        (37, 27.0, ['analysis', 'summary'], 2)
    """

    def __init__(
        self,
        steps: Iterable[Step],
        *,
        inputs: Sequence[str] = (),
        name: str = "workflow",
        about: str | None = None,
    ):
        self.name = name
        self.about = about or name
        self.inputs = tuple(inputs)
        given = list(steps)
        self._graph = Graph([(step.name, step.mentions) for step in given], inputs=self.inputs)
        by_name = {step.name: step for step in given}
        self.steps = tuple(by_name[name] for name in self._graph.needs)

    @classmethod
    def load(cls, name: str) -> Workflow:
        """Read `data/workflows/NAME.yaml`, or a file of your own by its path.

        Raises:
            ConfigError: If there is no such file.
            FileError: If it is wrong, naming every mistake with its line.

        Example:
            >>> Workflow.load("report").inputs
            ('topic', 'data')
        """
        path = yaml_file.found(name, _WORKFLOWS, what="workflow")
        file = _file.load(path)
        return cls(file.steps, inputs=file.inputs, name=path.stem, about=file.about)

    def to_yaml(self) -> str:
        """Return the text of a file that loads as an equal workflow."""
        file = _file.WorkflowFile(self.about, list(self.steps), list(self.inputs))
        return _file.text(file)

    def save(self, path: str | Path) -> None:
        """Write such a file, whole or not at all.

        Raises:
            ConfigError: If the path does not end in .yaml or .yml.
            OSError: If it cannot be written; what was there before is still there.
        """
        file = Path(path)
        if file.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"a workflow's file ends in .yaml; got {str(path)!r}")
        write_whole(file, self.to_yaml().encode())

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Step -> the steps whose answers it needs."""
        return self._graph.needs

    @property
    def ends(self) -> list[str]:
        """The steps whose answers no other step needs: what the workflow is for."""
        return self._graph.ends

    def step(self, name: str) -> Step:
        """Return the step of that name.

        Raises:
            ConfigError: If the workflow does not have it.
        """
        for step in self.steps:
            if step.name == name:
                return step
        known = listed(self.needs)
        raise ConfigError(f"no step {name!r} in workflow {self.name!r}; there are {known}")

    def given(self, inputs: Mapping[str, str] | None) -> dict[str, str]:
        """Check the inputs of a run, and return them.

        Raises:
            ConfigError: If one is missing, unknown or not text.
        """
        given = dict(inputs or {})
        if set(given) != set(self.inputs):
            raise ConfigError(
                f"workflow {self.name!r} takes the inputs {listed(self.inputs)}; "
                f"got {listed(given)}"
            )
        for name, value in given.items():
            if not isinstance(value, str):
                raise ConfigError(f"input {name!r} must be text; got {value!r}")
        return given

    def plan(self, seconds: Mapping[str, float]) -> Plan:
        """Return when each step runs if it starts as soon as its inputs are there.

        Args:
            seconds: Step -> how long it takes, such as `trace.seconds`.

        Raises:
            ConfigError: If the time of a step is missing or negative.
        """
        return self._graph.plan(seconds)

    def __eq__(self, other: object) -> bool:
        # Steps know each other by name, and inputs are filled in by name: no order says anything.
        return (
            isinstance(other, Workflow)
            and set(self.steps) == set(other.steps)
            and set(self.inputs) == set(other.inputs)
        )

    def __hash__(self) -> int:
        return hash(frozenset(self.steps))

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {len(self.steps)} steps, ends with {listed(self.ends)}>"


def random_workflow(seed: int, most: int = 16) -> Workflow:
    """Draw a workflow of 1 to `most` steps, each of which needs up to three of those before it.

    Its answers are cut at 1 to 90 tokens. The same seed makes the same workflow.

    Example:
        >>> random_workflow(1).needs == random_workflow(1).needs
        True
    """
    draw = random.Random(seed)
    steps = []
    for number in range(draw.randint(1, most)):
        needs = draw.sample(range(number), min(number, draw.choice([0, 1, 1, 2, 2, 3])))
        given = " ".join(f"{{s{need}}}" for need in needs)
        prompt = f"Describe step {number} of plan {seed} in ten paragraphs. {given}"
        steps.append(Step(f"s{number}", prompt, max_tokens=draw.randint(1, 90)))
    return Workflow(steps, name=f"random-{seed}")


def names() -> list[str]:
    """Return the names of the workflows that come with the course."""
    return yaml_file.names(_WORKFLOWS)
