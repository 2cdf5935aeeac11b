"""A step of a workflow: one question, whose `{placeholders}` say what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated

from pydantic import Field

from agentlab._support.fields import AtLeastOne, Text, model
from agentlab.errors import ConfigError

NAME = Field(
    json_schema_extra={
        "pattern": r"^[\p{XID_Start}_][\p{XID_Continue}]*$",
        "patternErrorMessage": "A name goes into braces in prompts, so it is one word of letters, "
        "digits and underscores that does not begin with a digit.",
    }
)
"""What editors are told of a name; it says no more than `str.isidentifier`."""

_PROMPT = Field(
    json_schema_extra={
        "pattern": r"^(?:[^{}]|\{\{|\}\}|\{[\p{XID_Start}_][\p{XID_Continue}]*:?\})*$",
        "patternErrorMessage": "Only a name goes into braces; write {{ or }} for a brace.",
        "examples": ["What is known about {topic}?", "Join {research} and {analysis}."],
    }
)


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

    Example:
        >>> Step("summary", "Write one report from {research} and {analysis}.").mentions
        ('research', 'analysis')
    """

    name: Annotated[Text, NAME]
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
            raise ConfigError(f"step {self.name!r}: {error}", field="prompt") from None

    @property
    def mentions(self) -> tuple[str, ...]:
        """The names in braces in the prompt, each once, in order."""
        return names_in(self.prompt)

    def asked(self, values: Mapping[str, str]) -> str:
        """Return the prompt with the `values` instead of the names."""
        return self.prompt.format_map(values)


def names_in(prompt: str) -> tuple[str, ...]:
    """Return the names in braces, each once, in order.

    Raises:
        ValueError: If something else than a name is in braces, or a brace is alone.
    """
    names: dict[str, None] = {}
    try:
        for _, name, form, conversion in Formatter().parse(prompt):
            if name is None:
                continue
            if form or conversion or not name.isidentifier():
                raise ValueError(f"{{{name}}} is not the name of a step or an input")
            names[name] = None
    except ValueError as error:
        way_out = "write {name} for what is to be filled in, and {{ or }} for a brace"
        raise ValueError(f"{error}; {way_out}") from None
    return tuple(names)
