"""A workflow: steps whose `{placeholders}` are its graph, from a file or drawn at random."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Mapping, Sequence

import yaml

from agentlab._support import yaml_file
from agentlab.errors import ConfigError
from agentlab.settings import DATA
from agentlab.workflow import _steps
from agentlab.workflow._graph import Graph, listed
from agentlab.workflow._steps import Step

_WORKFLOWS = DATA / "workflows"


class Workflow(Graph):
    """Steps, and the graph that their prompts make: a step needs those in braces in its prompt.

    `inputs` are the names that the user fills in at each run; `about` says what it is for.

    Raises:
        ConfigError: If they make no graph (see `Graph`).

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
        super().__init__([(step.name, step.mentions) for step in given], inputs=self.inputs)
        self._by_name = {step.name: step for step in given}
        self.steps = tuple(self._by_name[name] for name in self.needs)

    @classmethod
    def load(cls, name: str) -> Workflow:
        """Read `data/workflows/NAME.yaml`, or a file of your own by its path.

        Raises:
            FileError: If it is wrong, naming every mistake with its line.

        Example:
            >>> Workflow.load("report").inputs
            ('topic', 'data')
        """
        path = yaml_file.found(name, _WORKFLOWS, what="workflow")
        file = _steps.load(path)
        return cls(file.steps, inputs=file.inputs, name=path.stem, about=file.about)

    def to_yaml(self) -> str:
        """Return the text of a file that loads as a workflow that asks the same."""
        steps = [dataclasses.asdict(step) for step in self.steps]
        file = {"about": self.about, "inputs": list(self.inputs), "steps": steps}
        plain = "\x85" not in json.dumps(file, ensure_ascii=False)  # which YAML reads as a line end
        return yaml.safe_dump(file, allow_unicode=plain, sort_keys=False, width=100)

    def step(self, name: str) -> Step:
        """Return the step of that name; a ConfigError names those that there are."""
        if name not in self._by_name:
            known = listed(self.needs)
            raise ConfigError(f"no step {name!r} in workflow {self.name!r}; there are {known}")
        return self._by_name[name]

    def given(self, inputs: Mapping[str, str] | None) -> dict[str, str]:
        """Check the inputs of a run, and return them; missing, unknown or no text is an error."""
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
