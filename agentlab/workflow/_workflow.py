"""Steps, and the workflow that their prompts make; from a file, or drawn at random.

A file is read with the line of whatever is wrong. Editors complete one that begins with
`# yaml-language-server: $schema=schema.json`.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from string import Formatter
from typing import Annotated, Any, Self

from pydantic import Field

from agentlab._support import DATA, yaml_file
from agentlab._support.fields import AtLeastOne, Text, model
from agentlab.errors import ConfigError
from agentlab.workflow._graph import Graph, flaws, listed

_WORKFLOWS = DATA / "workflows"

# What editors are told of names and braces; it says no more than `isidentifier` and `names_in`.
_WORD = r"[\p{XID_Start}_][\p{XID_Continue}]*"
_NAME = Field(json_schema_extra={"pattern": f"^{_WORD}$"})
_PROMPT = Field(json_schema_extra={"pattern": r"^(?:[^{}]|\{\{|\}\}|\{" + _WORD + r":?\})*$"})
_UNIQUE = Field(json_schema_extra={"uniqueItems": True})
_TOOL = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")


@model
class Step:
    """One question to a model, asked by an agent of the step's name.

    Attributes:
        name: What other steps call its answer: a Python identifier, in any language.
        prompt: What is asked. {name} is replaced by the answer of the step, or by the input, of
            that name; {{ and }} stand for braces.
        system: What the model is told to be; sent as it stands, without meaning for braces.
        max_tokens: The most tokens that the answer may have; null sets no limit.
        temperature: 0 by default, so that runs can be compared; null is the model's own.
        tools: The functions that the model may call, by the names under which the run gives them.
        max_turns: The most questions with tools; an agent that calls still more fails.
    """

    name: Annotated[Text, _NAME]
    prompt: Annotated[Text, _PROMPT]
    system: str | None = None
    max_tokens: AtLeastOne | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = 0.0
    tools: tuple[Annotated[str, _TOOL], ...] = ()
    max_turns: AtLeastOne = 10

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            must = "it must be one word of letters, digits and underscores"
            why = "a name goes into braces in other prompts"
            raise ConfigError(f"step {self.name!r}: {why}, so {must}", field="name")
        try:
            names_in(self.prompt)
        except ValueError as error:
            cure = "write {name} for what is to be filled in, and {{ or }} for a brace"
            raise ConfigError(f"step {self.name!r}: {error}; {cure}", field="prompt") from None

    @property
    def mentions(self) -> tuple[str, ...]:
        """The names in braces in the prompt, each once, in order."""
        return names_in(self.prompt)

    def asked(self, values: Mapping[str, str]) -> str:
        """Return the prompt with the `values` instead of the names."""
        return self.prompt.format_map(values)


def names_in(prompt: str) -> tuple[str, ...]:
    """Return the names in braces, each once; anything else there is a ValueError."""
    fields = [found for _, *found in Formatter().parse(prompt) if found[0] is not None]
    for name, form, conversion in fields:
        if form or conversion or not name or not name.isidentifier():
            raise ValueError(f"{{{name}}} is not the name of a step or an input")
    return tuple(dict.fromkeys(str(name) for name, *_ in fields))


@model
class WorkflowFile:
    """A workflow of language-model calls.

    The names in braces in the prompts are its graph: a step needs the steps that its prompt names.

    Attributes:
        about: What the workflow is for, in a sentence.
        steps: The questions, in the order in which a reader should meet them. What may run at the
            same time follows from the names in their prompts.
        inputs: The names that the user fills in at each run. Each stands in braces in a prompt.
    """

    about: Text
    steps: Annotated[list[Step], Field(min_length=1)]
    inputs: Annotated[list[Annotated[str, _NAME]], _UNIQUE] = field(default_factory=list)


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
    def load(cls, name: str) -> Self:
        """Read `data/workflows/NAME.yaml`, or a file of your own by its path.

        Raises:
            FileError: If it is wrong, naming every wrong field with its line, or else every wrong
                name, or a circle.

        Example:
            >>> Workflow.load("report").inputs
            ('topic', 'data')
        """
        path = yaml_file.found(name, _WORKFLOWS, what="workflow")
        located = yaml_file.LocatedFile(path, what="workflow")
        file = located.decode(WorkflowFile)
        if found := flaws([(step.name, step.mentions) for step in file.steps], file.inputs):
            raise located.error(located.problem(*flaw) for flaw in found)
        return cls(file.steps, inputs=file.inputs, name=path.stem, about=file.about)

    def step(self, name: str) -> Step:
        """Return the step of that name; a ConfigError names those that there are."""
        if name not in self._by_name:
            known = listed(self.needs)
            raise ConfigError(f"no step {name!r} in workflow {self.name!r}; there are {known}")
        return self._by_name[name]

    def given(self, inputs: Mapping[str, str] | None) -> dict[str, str]:
        """Check the inputs of a run, and return them; missing, unknown or no text is an error."""
        given: Any = {} if inputs is None else inputs
        texts = isinstance(given, Mapping) and all(isinstance(v, str) for v in given.values())
        if not texts or set(given) != set(self.inputs):
            takes = f"workflow {self.name!r} takes the inputs {listed(self.inputs)}, each a text"
            raise ConfigError(f"{takes}; got {given!r:.200}")
        return dict(given)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}: {len(self.steps)} steps, ends with {listed(self.ends)}>"


def random_workflow(seed: int, most: int = 16) -> Workflow:
    """Draw a workflow of 1 to `most` steps, each of which needs up to three of those before it.

    Its answers are cut at 1 to 90 tokens. The same seed makes the same workflow.
    """
    draw = random.Random(seed)
    steps = []
    for number in range(draw.randint(1, most)):
        needs = draw.sample(range(number), min(number, draw.choice([0, 1, 1, 2, 2, 3])))
        given = " ".join(f"{{s{need}}}" for need in needs)
        prompt = f"Describe step {number} of plan {seed} in ten paragraphs. {given}"
        steps.append(Step(f"s{number}", prompt, max_tokens=draw.randint(1, 90)))
    return Workflow(steps, name=f"random-{seed}")


names = partial(yaml_file.names, _WORKFLOWS)  # of those that come with the course
