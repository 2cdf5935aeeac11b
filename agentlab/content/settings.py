"""The content system's settings: arguments win over the environment, and that over a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from agentlab.errors import ConfigError

PREFIX = "AGENTLAB_CONTENT_"

_SHORT = Repr()
_SHORT.maxlevel = 2  # a file of a few lines can hold lists of lists of millions

_Number = Annotated[int, Field(gt=0, le=1_000_000)]
_Seconds = Annotated[float, Field(ge=0.001, le=30 * 86_400, allow_inf_nan=False)]
_Price = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class Settings(BaseSettings):
    """How the system works; every limit holds for a whole batch.

    Attributes:
        max_concurrent_agents: The most requests in flight, and topics in work.
        max_memory_mb: While this process holds more, no topic is begun, but for one at a time.
        retry_attempts: The most requests for one answer.
        timeout_seconds: The longest that one request may take, in model seconds.
        longest_wait_seconds: For how many model seconds an endpoint that refuses everybody is
            waited for, and the longest wait that it may ask for. What takes longer ends the batch.
        requests_per_minute: A rate that is kept; None learns the endpoint's own.
        quarantine_after: How often a topic may fail before it is given up.
        engine: What runs a topic's agents; see `agentlab.engines`.
        prompt_price: Dollars for a million tokens of prompts; None leaves costs out.
        answer_price: The same for answers.

    Raises:
        ConfigError: If a value cannot work, naming it and where it came from.

    Example:
        >>> Settings(max_concurrent_agents=4, timeout_seconds=30).retry_attempts
        3
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

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

    def __init__(self, **values: Any) -> None:
        _refuse_unknown(os.environ)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explained(error)) from None
        if (self.prompt_price is None) != (self.answer_price is None):
            raise ConfigError(
                "prompt_price and answer_price go together; a price of 0 is one, too: got "
                f"{self.prompt_price} and {self.answer_price}"
            )

    @classmethod
    def load(cls, file: str | Path, **given: Any) -> Settings:
        """Read a YAML file; the environment and `given` values win over it.

        Raises:
            ConfigError: If it cannot be read, or a value in it cannot work.
        """
        if not Path(file).is_file():
            raise ConfigError(f"no settings file {str(file)!r}; give a .yaml file")

        class FromFile(Settings):
            model_config = SettingsConfigDict(yaml_file=file)

            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                dotenv_settings: PydanticBaseSettingsSource,
                file_secret_settings: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

        try:
            return cls(**FromFile(**given).model_dump())
        except (yaml.YAMLError, ValueError, TypeError, RecursionError, OSError) as error:
            raise ConfigError(f"settings file {str(file)!r}: {error}") from None

    def dollars(self, prompt_tokens: int, answer_tokens: int) -> float | None:
        """What so many tokens cost; None without prices.

        Example:
            >>> Settings(prompt_price=0.15, answer_price=0.60).dollars(1_000_000, 1_000_000)
            0.75
        """
        if self.prompt_price is None or self.answer_price is None:
            return None
        return (prompt_tokens * self.prompt_price + answer_tokens * self.answer_price) / 1e6


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A variable that is misspelt would be heeded by nobody."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            (near,) = get_close_matches(name.upper(), known, n=1, cutoff=0)
            raise ConfigError(f"there is no variable {name}; the nearest is {near}")


def _explained(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"])) or "settings"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            problems.append(f"there is no setting {name!r}; choose from {known}")
            continue
        said = problem["msg"][:1].lower() + problem["msg"][1:]
        problems.append(
            f"{name}: {said}; got {_SHORT.repr(problem['input'])}. Pass another {name}, or set "
            f"{PREFIX}{name.upper()}"
        )
    return "; ".join(problems)
