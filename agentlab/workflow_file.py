"""Workflow files: read with the line of whatever is wrong, and written so that they load equal.

The format is published as a JSON Schema, `data/workflows/schema.json`. A file that begins with

    # yaml-language-server: $schema=schema.json

is completed and checked by editors while it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import yaml

from agentlab.errors import ConfigError, Problem
from agentlab.fields import Text
from agentlab.files import write_whole
from agentlab.graph import listed
from agentlab.located import LocatedFile, Where
from agentlab.settings import DATA
from agentlab.step import Step

SCHEMA = DATA / "workflows" / "schema.json"
"""The format, for editors and for other programs."""


class WorkflowFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds.

    Attributes:
        about: What the workflow is for, in a sentence.
        steps: The questions, in the order in which a reader should meet them.
        inputs: The names that the user fills in at each run.
    """

    about: Text
    steps: Annotated[list[Step], msgspec.Meta(min_length=1)]
    inputs: list[str] = []


def load(path: Path) -> WorkflowFile:
    """Read and check a file.

    Raises:
        FileError: If it is wrong, naming all fields and all names that are, the latter as far as
            the fields could be read; and if none is, a circle.
    """
    located = LocatedFile(path, what="workflow")
    names = _Names.of(located.value)
    problems = located.misfits(WorkflowFile)
    if problems := [*problems, *_names(located, names), *_mentions(located, names)]:
        raise located.error(problems)
    file = located.decode(WorkflowFile)
    if circle := _circle(located, file):
        raise located.error([circle])
    return file


def text(file: WorkflowFile) -> str:
    """The file as YAML: what is as by default is left out, and prompts stand in lines of their own.

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
    values["steps"] = [_short(step) for step in file.steps]
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)


def save(path: Path, content: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigError: If its name is none of a workflow's file.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"a workflow's file ends in .yaml; got {str(path)!r}")
    write_whole(path, content.encode())


class _Names(NamedTuple):
    """The names in a file whose fields may be wrong; None stands for what cannot be read.

    A name that may only be misspelt where it is given is no problem where it is used, so a check
    that needs what cannot be read is left out.
    """

    inputs: list[str] | None
    steps: list[str | None]
    mentions: list[tuple[str, ...] | None]

    @classmethod
    def of(cls, value: Any) -> _Names:
        """Of what YAML made of a file."""
        file = value if isinstance(value, dict) else {}
        steps = file.get("steps")
        fields = [one if isinstance(one, dict) else {} for one in _listed(steps)]
        return cls(
            inputs=_inputs(file),
            steps=[_name(step.get("name")) for step in fields],
            mentions=[_mentioned(step.get("prompt")) for step in fields],
        )

    @property
    def used(self) -> set[str] | None:
        """All names in prompts; None if a prompt cannot be read."""
        every = [names for names in self.mentions if names is not None]
        return set().union(*every) if len(every) == len(self.mentions) else None

    @property
    def known(self) -> list[str] | None:
        """All that a prompt may name, each once; None if a name cannot be read."""
        steps = [name for name in self.steps if name is not None]
        if self.inputs is None or len(steps) < len(self.steps):
            return None
        return list(dict.fromkeys([*steps, *self.inputs]))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _inputs(file: dict[Any, Any]) -> list[str] | None:
    if "inputs" not in file:  # there are none, or another field was meant to hold them
        return [] if set(file) <= set(WorkflowFile.__struct_fields__) else None
    inputs = file["inputs"]
    if isinstance(inputs, list) and all(isinstance(name, str) for name in inputs):
        return inputs
    return None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value.isidentifier() else None


def _mentioned(prompt: Any) -> tuple[str, ...] | None:
    if not isinstance(prompt, str):
        return None
    try:
        return Step("any", prompt).mentions
    except ConfigError:
        return None


def _names(located: LocatedFile, names: _Names) -> Iterator[Problem]:
    """Names that two have, and inputs that nobody uses."""
    used = names.used
    inputs: set[str] = set()
    for number, name in enumerate(names.inputs or []):
        where: Where = ("inputs", number)
        if name in inputs:
            yield located.problem(where, f"the input {name!r} is named twice; keep one")
        elif used is not None and name not in used:
            yield located.problem(
                where, f"no prompt uses the input {name!r}; take it out, or use it"
            )
        inputs.add(name)
    steps: set[str] = set()
    for number, step in enumerate(names.steps):
        where = ("steps", number, "name")
        if step is None:
            continue
        if step in inputs:
            yield located.problem(where, f"{step!r} is a step and an input; rename one of them")
        elif step in steps:
            yield located.problem(
                where, f"two steps are called {step!r}; give each a name of its own"
            )
        steps.add(step)


def _mentions(located: LocatedFile, names: _Names) -> Iterator[Problem]:
    """Names in prompts that there are not."""
    known = names.known
    if known is None:
        return
    for number, (step, mentions) in enumerate(zip(names.steps, names.mentions, strict=True)):
        for name in mentions or ():
            if name not in known:
                likely = get_close_matches(name, known, n=1)
                way_out = (
                    f"did you mean {{{likely[0]}}}?" if likely else f"there are {listed(known)}"
                )
                yield located.problem(
                    ("steps", number, "prompt"),
                    f"step {step!r} needs {name!r}, which is no step and no input; {way_out}",
                    mention=name,
                )


def _circle(located: LocatedFile, file: WorkflowFile) -> Problem | None:
    """The first circle of steps, at the place where one of them mentions the next."""
    needs = {step.name: set(step.mentions) - set(file.inputs) for step in file.steps}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        numbers = {step.name: number for number, step in enumerate(file.steps)}
        return located.problem(
            ("steps", numbers[circle[0]], "prompt"),
            f"these steps wait for each other for ever: {' -> '.join(circle)}; take one name out "
            "of a prompt",
            mention=circle[1],
        )
    return None


def _short(step: Step) -> dict[str, Any]:
    fields = msgspec.structs.fields(Step)
    values = {field.name: getattr(step, field.name) for field in fields}
    short = {f.name: values[f.name] for f in fields if f.required or values[f.name] != f.default}
    return {"name": short.pop("name"), **{k: v for k, v in short.items() if k != "prompt"}} | {
        "prompt": step.prompt  # last, for it is the longest
    }


class _Row(list[str]):
    """A list that is written in one line."""


class _Dumper(yaml.SafeDumper):
    """Lists set in, and text of many lines as it is."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, value: str) -> yaml.Node:
    lines = value.split("\n")
    plain = all(line.isprintable() for line in lines)  # else written with escapes, or YAML eats it
    style = '"' if not plain else "|" if len(lines) > 1 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _row_node(dumper: _Dumper, value: _Row) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(_Row, _row_node)
