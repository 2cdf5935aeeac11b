"""What the tests share: no real model is ever asked, whatever the environment holds."""

from __future__ import annotations

import os

import pytest

for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
    os.environ.pop(name, None)


@pytest.fixture
def fresh_lab():
    """The lab with the environment's settings, before and after the test."""
    from agentlab import lab

    lab.configure()
    yield lab
    lab.configure()
