"""The content system's settings: arguments win over the environment, and that over a file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import ArgsKwargs

from agentlab._support import yaml_file
from agentlab._support.fields import model
from agentlab.content._journal import Bill

# not strict, because the environment gives text
_Number = Annotated[int, Field(gt=0, le=1_000_000)]
_Seconds = Annotated[float, Field(ge=0.001, le=30 * 86_400)]
_Price = Annotated[float, Field(ge=0, le=1_000_000)]


@model
class Settings:
    """How the system works, in model seconds; every limit holds for a whole batch.

    Attributes:
        max_concurrent_agents: The most requests in flight, and topics in work.
        max_memory_mb: While this process holds more, topics are begun one at a time.
        longest_wait_seconds: How long an endpoint that refuses everybody is waited for, and the
            longest wait that it may ask for. What takes longer ends the batch.
        requests_per_minute: A rate that is kept; None learns the endpoint's own.
        quarantine_after: How often a topic may fail before it is given up.
        prompt_price, answer_price: Dollars for a million tokens; without both there are no costs.
    """

    max_concurrent_agents: _Number = 4
    max_memory_mb: _Number = 1024
    retry_attempts: _Number = 3
    timeout_seconds: _Seconds = 60
    longest_wait_seconds: _Seconds = 300
    requests_per_minute: _Number | None = None
    quarantine_after: _Number = 3
    engine: Literal["sequential", "asyncio", "langgraph"] = "asyncio"
    prompt_price: _Price | None = None
    answer_price: _Price | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_environment(cls, given: Any) -> Any:
        """Add what the environment sets, unless a file is read by itself."""
        if not isinstance(given, ArgsKwargs):
            return given
        named = cls.variables().items()
        there = {name: os.environ[variable] for name, variable in named if variable in os.environ}
        return ArgsKwargs(given.args, there | (given.kwargs or {}))

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Return the variables of the environment, by the settings that they set."""
        return {f.name: f"AGENTLAB_CONTENT_{f.name.upper()}" for f in dataclasses.fields(cls)}

    @classmethod
    def load(cls, file: str | Path, **given: Any) -> Settings:
        """Read a YAML file; the environment and `given` values win over it."""
        read = yaml_file.LocatedFile(Path(file), what="settings file").decode(cls)
        unset = [name for name, variable in cls.variables().items() if variable not in os.environ]
        return cls(**({name: getattr(read, name) for name in unset} | given))

    def dollars(self, bill: Bill) -> float | None:
        """Return what the tokens of a bill cost; None without prices."""
        if self.prompt_price is None or self.answer_price is None:
            return None
        answers = bill.answer_tokens * self.answer_price
        return (bill.prompt_tokens * self.prompt_price + answers) / 1e6
