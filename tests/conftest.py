"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest


@pytest.fixture
def fresh_lab() -> Iterator[ModuleType]:
    """The lab with the environment's settings, before and after the test."""
    from agentlab import lab

    lab.configure()
    yield lab
    lab.configure()
