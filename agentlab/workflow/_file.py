"""Workflow files: read with the line of whatever is wrong, and written so that they load equal.

The format is published as a JSON Schema, `data/workflows/schema.json`. A file that begins with

    # yaml-language-server: $schema=schema.json

is completed and checked by editors while it is written.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from agentlab._support.fields import Text, model
from agentlab._support.yaml_file import LocatedFile
from agentlab.settings import DATA
from agentlab.workflow import _graph
from agentlab.workflow._step import NAME, Step, names_in

SCHEMA = DATA / "workflows" / "schema.json"
"""The format, for editors and for other programs: what `schema` returns."""

_INPUTS = {"uniqueItems": True, "default": [], "examples": [["topic"], ["topic", "data"]]}


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
    inputs: Annotated[list[Annotated[str, NAME]], Field(json_schema_extra=_INPUTS)] = (
        dataclasses.field(default_factory=list)
    )


class _Untitled(GenerateJsonSchema):
    """Leave out the titles of fields, which say no more than their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema() -> dict[str, Any]:
    """Return the format as a JSON Schema of draft 2020-12, with docstrings as descriptions."""
    made = TypeAdapter(WorkflowFile).json_schema(schema_generator=_Untitled)
    for part in (made, made["$defs"]["Step"]):
        about, _, rest = part["description"].partition("\n\nAttributes:")
        part["description"] = " ".join(about.split())
        for entry in re.split(r"\n    (?=\w)", rest.partition("\n\n")[0])[1:]:
            name, _, says = entry.partition(": ")
            part["properties"][name]["description"] = " ".join(says.split())
    head = {"$schema": _Untitled.schema_dialect, "$id": "urn:agentlab:workflow"}
    return head | made | {"title": "Agent Lab workflow"}


def load(path: Path) -> WorkflowFile:
    """Read and check a file.

    Raises:
        FileError: If it is wrong, naming every wrong field and every wrong name that can be read;
            or a circle, if nothing else is wrong.
    """
    located = LocatedFile(path, what="workflow")
    problems = located.problems(WorkflowFile)
    for flaw in _graph.flaws(*_names(located.value)):
        problems.append(located.problem(flaw.where, flaw.says, mention=flaw.mention))
    if problems:
        raise located.error(problems)
    return located.decode(WorkflowFile)


def _names(value: Any) -> tuple[list[_graph.Mentions], list[str] | None]:
    """Return each step's name and mentions, and the inputs; None stands for the unreadable."""
    file = value if isinstance(value, dict) else {}
    steps = file.get("steps")
    mentions: list[_graph.Mentions] = []
    for step in steps if isinstance(steps, list) else []:
        given = step if isinstance(step, dict) else {}
        name, prompt = given.get("name"), given.get("prompt")
        try:
            names = names_in(prompt) if isinstance(prompt, str) else None
        except ValueError:
            names = None
        mentions.append((name if isinstance(name, str) and name.isidentifier() else None, names))
    inputs = file.get("inputs", [])
    readable = isinstance(inputs, list) and all(isinstance(name, str) for name in inputs)
    # without inputs, an unknown field may have been meant to hold them
    meant = "inputs" in file or set(file) <= {"about", "steps"}
    return mentions, inputs if readable and meant else None


def text(file: WorkflowFile) -> str:
    """Return the file as YAML, without defaults and with each line of a prompt on its own.

    Example:
        >>> print(text(WorkflowFile("Hello.", [Step("a", "Say hello.\\nSay it twice.")])))
        about: Hello.
        steps:
          - name: a
            prompt: |-
              Say hello.
              Say it twice.
        <BLANKLINE>
    """
    values: dict[str, Any] = {"about": file.about}
    if file.inputs:
        values["inputs"] = _Row(file.inputs)
    values["steps"] = []
    for step in file.steps:
        defaults = Step(step.name, step.prompt)
        short = {k: v for k, v in vars(step).items() if v != getattr(defaults, k)}
        # the prompt comes last, because it is the longest
        values["steps"].append({"name": step.name, **short, "prompt": step.prompt})
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)


class _Row(list[str]):
    """A list that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Write lists indented, and text of several lines as it is."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, value: str) -> yaml.Node:
    lines = value.split("\n")
    plain = all(line.isprintable() for line in lines)  # else written with escapes, or YAML eats it
    style = '"' if not plain else "|" if len(lines) > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(
    _Row, lambda dumper, row: dumper.represent_sequence("tag:yaml.org,2002:seq", row, True)
)
