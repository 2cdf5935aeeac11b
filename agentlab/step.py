"""A step of a workflow: one question, whose `{placeholders}` say what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated

import msgspec

from agentlab.errors import ConfigError
from agentlab.fields import AtLeastOne, Text


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
    max_tokens: AtLeastOne | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = 0.0

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(
                f"step {self.name!r}: a name goes into braces in other prompts, so it must be "
                "one word of letters, digits and underscores",
                field="name",
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
            "{{ or }} for a brace",
            field="prompt",
        ) from None
    return tuple(names)
