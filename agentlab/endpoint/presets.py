"""The figures of an endpoint, read from `data/endpoints/NAME.yaml`, each with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
import yaml

from agentlab.endpoint.faults import Fault
from agentlab.endpoint.physics import Physics
from agentlab.errors import ConfigError
from agentlab.settings import DATA

_ENDPOINTS = DATA / "endpoints"

Text = Annotated[str, msgspec.Meta(min_length=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Places = Annotated[int, msgspec.Meta(ge=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")


class Figure(msgspec.Struct, Generic[T], frozen=True, forbid_unknown_fields=True):
    """One figure and where it comes from.

    `basis` is "sourced" (published, or fitted to published tables), "estimated" (a plausible
    value, the reason given) or "chosen" (made up for a lesson).
    """

    value: T
    basis: Literal["sourced", "estimated", "chosen"]
    source: Text


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint's figures as its file gives them, in the units of its sources.

    Where `slots`, `queue` or a limit is left out, there is none. `queue_full_status` is what a
    request gets that finds the queue full; `context_tokens` the longest prompt and answer.
    """

    about: Text
    prefill_base_ms: Figure[NotNegative]
    prefill_per_token_ms: Figure[NotNegative]
    prefill_per_active_ms: Figure[NotNegative]
    itl_base_ms: Figure[NotNegative]
    itl_per_active_ms: Figure[NotNegative]
    jitter_sigma: Figure[NotNegative]
    slots: Figure[AtLeastOne] | None = None
    queue: Figure[Places] | None = None
    queue_full_status: Figure[Literal[429, 503]] | None = None
    context_tokens: Figure[AtLeastOne] | None = None
    requests_per_minute: Figure[AtLeastOne] | None = None
    tokens_per_minute: Figure[AtLeastOne] | None = None
    faults: list[Fault] = []

    @property
    def physics(self) -> Physics:
        """The same figures in seconds, as the formulas take them."""
        return Physics(
            prefill_base_s=self.prefill_base_ms.value / 1000,
            prefill_per_token_s=self.prefill_per_token_ms.value / 1000,
            prefill_per_active_s=self.prefill_per_active_ms.value / 1000,
            itl_base_s=self.itl_base_ms.value / 1000,
            itl_per_active_s=self.itl_per_active_ms.value / 1000,
            slots=self.slots.value if self.slots else None,
            queue=self.queue.value if self.queue else None,
            jitter_sigma=self.jitter_sigma.value,
        )


def names() -> list[str]:
    """The presets that come with the course."""
    return sorted(path.stem for path in _ENDPOINTS.glob("*.yaml"))


def load(preset: str) -> Preset:
    """Read a preset by its name, or from a file of your own by its path.

    Raises:
        ConfigError: If there is no such preset, or a figure in it is missing, misspelt, of the
            wrong type or negative.

    Example:
        >>> load("course").physics.service_s(prompt_tokens=20, output_tokens=91)
        10.0
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else _ENDPOINTS / f"{preset}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no preset {preset!r}; choose one of {', '.join(names())}, or give a .yaml file"
        )
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Preset)
    except (msgspec.MsgspecError, yaml.YAMLError) as error:
        raise ConfigError(f"preset {path}: {error}; correct it there") from None
