"""The figures of an endpoint, read from `data/endpoints/NAME.yaml`, each with its source."""

from __future__ import annotations

from dataclasses import field
from typing import Generic, Literal, TypeVar

from agentlab._support import yaml_file
from agentlab._support.fields import AtLeastOne, Count, NotNegative, Text, model
from agentlab.endpoint.middleware.fault_plan import Fault
from agentlab.endpoint.physics.formulas import Physics
from agentlab.settings import DATA

_ENDPOINTS = DATA / "endpoints"
T = TypeVar("T")


@model
class Figure(Generic[T]):
    """One figure and where it comes from: published tables, a reasoned estimate, or a lesson."""

    value: T
    basis: Literal["sourced", "estimated", "chosen"]
    source: Text


@model
class Preset:
    """An endpoint's figures as its file gives them, in the units of its sources; None: no limit."""

    about: Text
    prefill_base_ms: Figure[NotNegative]
    prefill_per_token_ms: Figure[NotNegative]
    prefill_per_active_ms: Figure[NotNegative]
    itl_base_ms: Figure[NotNegative]
    itl_per_active_ms: Figure[NotNegative]
    jitter_sigma: Figure[NotNegative]
    slots: Figure[AtLeastOne] | None = None
    queue: Figure[Count] | None = None
    context_tokens: Figure[AtLeastOne] | None = None
    requests_per_minute: Figure[AtLeastOne] | None = None
    tokens_per_minute: Figure[AtLeastOne] | None = None
    faults: list[Fault] = field(default_factory=list)

    @property
    def physics(self) -> Physics:
        """The figures in seconds, as the formulas take them."""
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
    """Return the names of the presets that come with the course."""
    return yaml_file.names(_ENDPOINTS)


def load(preset: str) -> Preset:
    """Read a preset by its name, or from a file by its path; ConfigError if that cannot work.

    Example:
        >>> load("course").physics.service_s(prompt_tokens=20, output_tokens=91)
        10.0
    """
    path = yaml_file.found(preset, _ENDPOINTS, what="preset")
    return yaml_file.LocatedFile(path, what="preset").decode(Preset)
