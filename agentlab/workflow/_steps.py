"""Steps, and files of them, which are read with the line of whatever is wrong.

Editors complete a file that begins with `# yaml-language-server: $schema=schema.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from agentlab._support.fields import AtLeastOne, Text, model
from agentlab._support.yaml_file import LocatedFile
from agentlab.errors import ConfigError
from agentlab.workflow._graph import flaws

# What editors are told of names and braces; it says no more than `isidentifier` and `names_in`.
_NAME = Field(json_schema_extra={"pattern": r"^[\p{XID_Start}_][\p{XID_Continue}]*$"})
_PROMPT = Field(
    json_schema_extra={
        "pattern": r"^(?:[^{}]|\{\{|\}\}|\{[\p{XID_Start}_][\p{XID_Continue}]*:?\})*$"
    }
)
_UNIQUE = Field(json_schema_extra={"uniqueItems": True})


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
    """

    name: Annotated[Text, _NAME]
    prompt: Annotated[Text, _PROMPT]
    system: str | None = None
    max_tokens: AtLeastOne | None = None
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = 0.0

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(
                f"step {self.name!r}: a name goes into braces in other prompts, so it must be "
                "one word of letters, digits and underscores",
                field="name",
            )
        try:
            names_in(self.prompt)
        except ValueError as error:
            raise ConfigError(
                f"step {self.name!r}: {error}; write {{name}} for what is to be filled in, and "
                "{{ or }} for a brace",
                field="prompt",
            ) from None

    @property
    def mentions(self) -> tuple[str, ...]:
        """The names in braces in the prompt, each once, in order.

        Example:
            >>> Step("summary", "Write one report from {research} and {analysis}.").mentions
            ('research', 'analysis')
        """
        return names_in(self.prompt)

    def asked(self, values: Mapping[str, str]) -> str:
        """Return the prompt with the `values` instead of the names."""
        return self.prompt.format_map(values)


def names_in(prompt: str) -> tuple[str, ...]:
    """Return the names in braces, each once; anything else there is a ValueError."""
    names: dict[str, None] = {}
    for _, name, form, conversion in Formatter().parse(prompt):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is not the name of a step or an input")
        names[name] = None
    return tuple(names)


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
    inputs: Annotated[list[Annotated[str, _NAME]], _UNIQUE] = dataclasses.field(
        default_factory=list
    )


def schema() -> dict[str, Any]:
    """Return what `schema.json` holds, made from the models and their docstrings."""
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": "urn:agentlab:workflow"}
    return head | TypeAdapter(WorkflowFile).json_schema()


def load(path: Path) -> WorkflowFile:
    """Read and check a file.

    Raises:
        FileError: If it is wrong, naming every wrong field; or else every wrong name; or else a
            circle.
    """
    located = LocatedFile(path, what="workflow")
    file = located.decode(WorkflowFile)
    found = flaws([(step.name, step.mentions) for step in file.steps], file.inputs)
    if found:
        raise located.error(located.problem(f.where, f.says, mention=f.mention) for f in found)
    return file
