"""A workflow is its prompts: the `{placeholders}` in them are its graph.

A step needs the steps whose names stand in braces in its prompt, and nothing else declares that.
From the graph and the time of each step follow the bounds that no schedule can beat.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated

import msgspec
import yaml

from agentlab.errors import ConfigError
from agentlab.graph import Graph, Plan, listed
from agentlab.settings import DATA

_WORKFLOWS = DATA / "workflows"

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question to a model, asked by an agent of the step's name.

    Attributes:
        name: What other steps call its answer by; a Python identifier, in any language.
        prompt: What is asked. `{other}` is replaced by the answer of the step, or the input, of
            that name; `{{` and `}}` stand for braces.
        system: What the model is told to be.
        max_tokens: The most tokens that the answer may have.
        temperature: 0, unless given, so that runs can be compared; None for the model's own.

    Example:
        >>> Step("summary", "Write one report from {research} and {analysis}.").mentions
        ('research', 'analysis')
    """

    name: Text
    prompt: Text
    system: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = 0.0

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(
                f"step {self.name!r}: a name goes into braces in other prompts, so it must be "
                "one word of letters, digits and underscores"
            )
        _mentions(self)

    @property
    def mentions(self) -> tuple[str, ...]:
        """The names in braces in the prompt, each once, in order."""
        return _mentions(self)

    def asked(self, values: Mapping[str, str]) -> str:
        """The prompt with the `values` in place of the names."""
        return self.prompt.format_map(values)


def _mentions(step: Step) -> tuple[str, ...]:
    names: dict[str, None] = {}
    try:
        for _, name, form, conversion in Formatter().parse(step.prompt):
            if name is None:
                continue
            if form or conversion or not name.isidentifier():
                raise ValueError(f"{{{name}}} is no name of a step or an input")
            names[name] = None
    except ValueError as error:
        raise ConfigError(
            f"step {step.name!r}: {error}; write {{name}} for what is to be filled in, and "
            "{{ or }} for a brace"
        ) from None
    return tuple(names)


class Workflow:
    """Steps, and the graph that their prompts make.

    Args:
        steps: In the order in which a reader should meet them.
        inputs: The names that the user fills in at each run.
        name: What it is called.

    Raises:
        ConfigError: If two steps have one name, a prompt mentions a name that there is not, an
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
        (37, 27, ['analysis', 'summary'], 2)
    """

    def __init__(
        self, steps: Iterable[Step], *, inputs: Sequence[str] = (), name: str = "workflow"
    ):
        self.name = name
        self.inputs = tuple(inputs)
        given = list(steps)
        self._graph = Graph([(step.name, step.mentions) for step in given], inputs=self.inputs)
        named = {step.name: step for step in given}
        self.steps = tuple(named[name] for name in self._graph.needs)

    @classmethod
    def load(cls, name: str) -> Workflow:
        """Read `data/workflows/NAME.yaml`, or a file of your own by its path.

        Raises:
            ConfigError: If there is no such file, or it is wrong, naming the field.

        Example:
            >>> Workflow.load("report").inputs
            ('topic', 'data')
        """
        path = Path(name) if name.endswith((".yaml", ".yml")) else _WORKFLOWS / f"{name}.yaml"
        if not path.is_file():
            raise ConfigError(
                f"no workflow {name!r}; choose one of {', '.join(names())}, or give a .yaml file"
            )
        try:
            file = msgspec.yaml.decode(path.read_bytes(), type=_File)
            return cls(file.steps, inputs=file.inputs, name=path.stem)
        except (msgspec.MsgspecError, yaml.YAMLError, ConfigError) as error:
            raise ConfigError(f"workflow {path}: {error}; correct it there") from None

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Step -> the steps whose answers it needs."""
        return self._graph.needs

    @property
    def ends(self) -> list[str]:
        """The steps whose answers no other step needs: what the workflow is for."""
        return self._graph.ends

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    def given(self, inputs: Mapping[str, str] | None) -> dict[str, str]:
        """The inputs of a run, checked.

        Raises:
            ConfigError: If one is missing, unknown or no text.
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
        """When each step runs if it starts as soon as its inputs are there.

        Args:
            seconds: Step -> how long it takes, as `trace.seconds` has it.

        Raises:
            ConfigError: If the time of a step is missing or negative.
        """
        return self._graph.plan(seconds)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {len(self.steps)} steps, ends with {listed(self.ends)}>"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    about: Text
    steps: Annotated[list[Step], msgspec.Meta(min_length=1)]
    inputs: list[str] = []


def random_workflow(seed: int, most: int = 16) -> Workflow:
    """A workflow of 1 to `most` steps, each of which needs up to three of those before it.

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
    """The workflows that come with the course."""
    return sorted(path.stem for path in _WORKFLOWS.glob("*.yaml"))
