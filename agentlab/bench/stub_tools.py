"""Tools of an experiment, which is data: each takes its time, and says the same of the same."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Annotated

from msgspec import UNSET, UnsetType
from pydantic import Field

from agentlab import lab
from agentlab._support.fields import NotNegative, Text, model


@model
class StubTool:
    """A tool that is called with a topic.

    Attributes:
        seconds: How long it takes, in model seconds; of several each call draws one.
        fails: The error with which each call ends, instead of a result.
    """

    seconds: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = 0.0
    fails: Text | UnsetType = UNSET

    def function(self, name: str, seed: int) -> Callable[[str], Awaitable[str]]:
        """Return the tool by that name; with the same seed, the same topic takes as long."""

        async def tool(topic: str) -> str:
            takes_s = self.seconds
            if isinstance(takes_s, list):
                takes_s = Random(f"{name} {topic} {seed}").choice(takes_s)
            await lab.sleep(takes_s)
            if self.fails:
                raise RuntimeError(self.fails)
            return f"What {name} says of {topic} is what it said before."

        return tool
