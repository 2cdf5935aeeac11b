"""What fields of settings and data files may hold, where more than one file says the same."""

from __future__ import annotations

from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1)]
"""Text that says something."""
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
"""A whole number from 1."""
Count = Annotated[int, msgspec.Meta(ge=0)]
"""A whole number from 0."""
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
"""Any number from 0."""
