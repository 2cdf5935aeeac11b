"""A workflow is its prompts: the `{placeholders}` in them are its graph.

A step needs the steps whose names stand in braces in its prompt, and nothing else declares that.
From the graph and the time of each step follow the bounds that no schedule can beat.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import msgspec
import yaml

from agentlab.errors import ConfigError
from agentlab.settings import DATA
from agentlab.trace import most_at_once

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
        self.steps = _in_order(list(steps), self.inputs)

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

    @cached_property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """Step -> the steps whose answers it needs."""
        return {
            step.name: tuple(name for name in step.mentions if name not in self.inputs)
            for step in self.steps
        }

    @cached_property
    def ends(self) -> list[str]:
        """The steps whose answers no other step needs: what the workflow is for."""
        needed = {name for names in self.needs.values() for name in names}
        return [name for name in self.needs if name not in needed]

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
                f"workflow {self.name!r} takes the inputs {_listed(self.inputs)}; "
                f"got {_listed(given)}"
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
        for step in self.steps:
            if seconds.get(step.name, -1.0) < 0:
                raise ConfigError(
                    f"step {step.name!r} takes {seconds.get(step.name)!r} seconds; "
                    "give each step's time, 0 or more"
                )
        return Plan(self, {step.name: seconds[step.name] for step in self.steps})

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {len(self.steps)} steps, ends with {_listed(self.ends)}>"


class Plan:
    """A workflow's schedule without limits, and the bounds that follow from it.

    Attributes:
        seconds: Step -> how long it takes.
        start_s: Step -> when it starts at the earliest: when the last of its inputs is there.
        end_s: Step -> when it ends then.

    Source: work, span and their law are those of R. D. Blumofe and C. E. Leiserson,
    "Scheduling multithreaded computations by work stealing", J. ACM 46 (1999); the bound for a
    limited number of workers is R. L. Graham's (1966).
    """

    def __init__(self, workflow: Workflow, seconds: dict[str, float]):
        self.seconds = seconds
        self.start_s: dict[str, float] = {}
        self.end_s: dict[str, float] = {}
        self._waited_for: dict[str, str | None] = {}
        self._superstep: dict[str, int] = {}
        for name, needs in workflow.needs.items():
            last = max(needs, key=self.end_s.__getitem__, default=None)
            self._waited_for[name] = last
            self.start_s[name] = 0.0 if last is None else self.end_s[last]
            self.end_s[name] = round(self.start_s[name] + seconds[name], 9)
            self._superstep[name] = 1 + max((self._superstep[n] for n in needs), default=0)

    @property
    def work_s(self) -> float:
        """The time of all steps, one after the other."""
        return round(sum(self.seconds.values()), 9)

    @property
    def span_s(self) -> float:
        """The time of the longest chain of steps that need each other: the floor."""
        return max(self.end_s.values(), default=0.0)

    @property
    def critical_path(self) -> list[str]:
        """That chain, from first to last."""
        path: list[str] = []
        name = max(self.end_s, key=self.end_s.__getitem__, default=None)
        while name is not None:
            path.insert(0, name)
            name = self._waited_for[name]
        return path

    @property
    def peak(self) -> int:
        """The most steps that run at once."""
        return most_at_once((self.start_s[name], self.end_s[name]) for name in self.seconds)

    @property
    def supersteps_s(self) -> float:
        """The makespan if the steps run in supersteps, each as long as the longest step in it.

        A step's superstep is one later than the latest of the steps that it needs.
        """
        longest: dict[int, float] = {}
        for name, superstep in self._superstep.items():
            longest[superstep] = max(longest.get(superstep, 0.0), self.seconds[name])
        return round(sum(longest.values()), 9)

    def bound_s(self, at_once: int | None = None) -> float:
        """What no schedule with at most so many steps at once can beat.

        Example:
            >>> w = Workflow([Step(name, "Say hello.") for name in ["a", "b", "c"]])
            >>> w.plan({"a": 10, "b": 15, "c": 12}).bound_s(at_once=2)
            18.5
        """
        if at_once is None:
            return self.span_s
        if at_once < 1:
            raise ConfigError(f"at_once must be 1 or more, got {at_once}; None is no limit")
        return max(self.work_s / at_once, self.span_s)


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


def _in_order(steps: list[Step], inputs: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps so that each comes after those that it needs, else in the order given."""
    named: dict[str, Step] = {}
    for step in steps:
        if step.name in named:
            raise ConfigError(f"two steps are called {step.name!r}; give each a name of its own")
        if step.name in inputs:
            raise ConfigError(f"{step.name!r} is a step and an input; rename one of them")
        named[step.name] = step
    for step in steps:
        for name in step.mentions:
            if name not in named and name not in inputs:
                raise ConfigError(
                    f"step {step.name!r} needs {name!r}, which is no step and no input; there are "
                    f"{_listed([*named, *inputs])}"
                )
    used = {name for step in steps for name in step.mentions}
    if unused := [name for name in inputs if name not in used]:
        raise ConfigError(f"no prompt uses the input {_listed(unused)}; take it out, or use it")
    return tuple(named[name] for name in _sorted(named, inputs))


def _sorted(named: Mapping[str, Step], inputs: Sequence[str]) -> list[str]:
    sorter: TopologicalSorter[Any] = TopologicalSorter()
    for name, step in named.items():
        sorter.add(name, *(need for need in step.mentions if need not in inputs))
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"these steps wait for each other for ever: {circle}; take one name out of a prompt"
        ) from None
    given = list(named)
    place = {name: number for number, name in enumerate(given)}
    ready = [place[name] for name in sorter.get_ready()]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = given[heappop(ready)]
        order.append(name)
        sorter.done(name)
        for freed in sorter.get_ready():
            heappush(ready, place[freed])
    return order


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
