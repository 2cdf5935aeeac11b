"""Check numbers that users give before they are used."""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real
from typing import Any

from agentlab.errors import ConfigError


def checked(
    name: str, value: Any, *, least: float = 0, above: bool = False, most: float = math.inf,
    below: bool = False, whole: bool = False, optional: bool = False,
) -> None:  # fmt: skip
    """Refuse a value that is not a finite number in its range: text, a bool, nan, infinity.

    `above` and `below` leave the range's ends out; `whole` refuses 2.0, too.

    Example:
        >>> checked("attempts", 1.5, least=1, whole=True)
        Traceback (most recent call last):
        agentlab.errors.ConfigError: attempts must be a whole number, at least 1; got 1.5
    """
    if optional and value is None:
        return
    if isinstance(value, Integral if whole else Real) and not isinstance(value, bool):
        number: Any = value
        enough = number > least if above else number >= least  # False for nan, as all are
        not_too_many = number < most if below else number <= most
        if enough and not_too_many and number <= sys.float_info.max:
            return
    kind = "a whole number" if whole else "a finite number"
    lower = f", {'above' if above else 'at least'} {least:,}" if least > -math.inf else ""
    upper = f" and {'below' if below else 'at most'} {most:,}" if most < math.inf else ""
    none = ", or None" if optional else ""
    try:
        got = repr(value)[:60]
    except Exception:  # an int of more digits than Python converts, or somebody's own class
        got = f"something of type {type(value).__name__}"
    raise ConfigError(f"{name} must be {kind}{lower}{upper}{none}; got {got}")
