"""Models of settings and data files, and numbers: how they are checked, and mistakes worded.

pydantic finds every mistake in a value; msgspec, which is faster, decodes the same dataclasses.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Real
from reprlib import Repr
from typing import Annotated, Any, TypeVar, cast, dataclass_transform, get_args

import msgspec
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from agentlab.errors import ConfigError

T = TypeVar("T")

Where = tuple[str | int, ...]  # the way to a value: ("steps", 1, "prompt")
Text = Annotated[str, msgspec.Meta(min_length=1), Field(min_length=1)]  # not empty
AtLeastOne = Annotated[int, msgspec.Meta(ge=1), Field(ge=1, strict=True)]
Count = Annotated[int, msgspec.Meta(ge=0), Field(ge=0, strict=True)]
NotNegative = Annotated[float, msgspec.Meta(ge=0), Field(ge=0, strict=True)]

_SHORT = Repr()
_SHORT.maxlevel = 2  # a file of a few lines can hold lists of lists of millions


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def model(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass that checks its fields and takes no others.

    Its constructor raises a ConfigError that names everything that is wrong.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
    made = dataclass(frozen=True, config=config)(kind)
    plain = made.__init__
    names = [field.name for field in dataclasses.fields(made)]

    @wraps(plain)
    def checking(self: Any, *args: Any, **values: Any) -> None:
        named = dict(zip(names, args, strict=False))  # so that mistakes have a name
        try:
            plain(self, *args[len(names) :], **named, **values)
        except ValidationError as error:
            raise ConfigError(refusal(error, made)) from None

    made.__init__ = checking  # type: ignore[method-assign]
    return cast(type[T], made)


def mistakes(error: ValidationError, kind: Any) -> Iterator[tuple[Where, str, bool]]:
    """Yield where a value is wrong, what is wrong with it, and whether no such field exists."""
    for one in error.errors(include_url=False):
        where = one["loc"]
        match one["type"]:
            case "is_instance_of":  # of UnsetType, which nobody writes
                continue
            case "missing" | "missing_argument":
                yield where[:-1], f"`{where[-1]}` is missing; add it", False
            case "unexpected_keyword_argument" | "invalid_key":
                known = _fields(kind, where[:-1])
                way_out = f"choose from {', '.join(known)}"
                if near := get_close_matches(str(where[-1]), known, n=1):
                    way_out = f"did you mean `{near[0]}`?"
                yield where, f"there is no such field; {way_out}", True
            case "value_error":  # a model's own check, which may say what it looked at
                raised = one["ctx"]["error"]
                field = getattr(raised, "field", None)
                yield where if field is None else (*where, field), str(raised), False
            case _:
                says = one["msg"].removeprefix("Input ")
                yield where, f"{says[:1].lower()}{says[1:]}; got {_SHORT.repr(one['input'])}", False


def refusal(error: ValidationError, kind: Any) -> str:
    """Return all mistakes of a value in no file, with the variables that set its fields."""
    variables: dict[Any, str] = kind.variables() if hasattr(kind, "variables") else {}
    lines = []
    for where, says, _ in mistakes(error, kind):
        if where and where[0] in variables:
            says += f"; set {variables[where[0]]}, or pass {where[0]}=..., to one that fits"
        lines.append(f"{dotted(where)}: {says}" if where else says)
    return "; ".join(lines)


def dotted(where: Where) -> str:
    """Return the way to a value as a reader would write it: steps[1].prompt."""
    way = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return way.removeprefix(".")


def _fields(kind: Any, where: Where) -> list[str]:
    found = _model(kind)
    for step in where:
        known = {} if found is None else found.__pydantic_fields__
        if step in known:  # else it is a number, or names a type
            found = _model(known[step].annotation)
    return [] if found is None else list(found.__pydantic_fields__)


def _model(kind: Any) -> Any:
    """Return the model in an annotation, such as `list[Model] | None`."""
    if hasattr(kind, "__pydantic_fields__"):
        return kind
    return next(filter(None, map(_model, get_args(kind))), None)


def checked(
    name: str, value: Any, *, least: float = 0, above: bool = False, most: float = math.inf,
    whole: bool = False, optional: bool = False,
) -> None:  # fmt: skip
    """Refuse a value that is not a finite number in its range: text, a bool, nan, infinity.

    `above` leaves the range's lower end out; `whole` refuses 2.0, too.
    """
    if optional and value is None:
        return
    if isinstance(value, Integral if whole else Real) and not isinstance(value, bool):
        number: Any = value
        enough = number > least if above else number >= least  # False for nan, as all are
        if enough and number <= min(most, sys.float_info.max):
            return
    kind = "a whole number" if whole else "a finite number"
    lower = f", {'above' if above else 'at least'} {least:,}" if least > -math.inf else ""
    upper = f" and at most {most:,}" if most < math.inf else ""
    none = ", or None" if optional else ""
    try:
        got = repr(value)[:60]
    except Exception:  # an int of more digits than Python converts, or somebody's own class
        got = f"something of type {type(value).__name__}"
    raise ConfigError(f"{name} must be {kind}{lower}{upper}{none}; got {got}")
