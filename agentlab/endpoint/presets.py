"""The figures of an endpoint, read from `data/endpoints/NAME.yaml`, each with its source."""

import re
from dataclasses import field
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import Field

from agentlab._support import DATA, yaml_file
from agentlab._support.fields import AtLeastOne, Count, NotNegative, Text, model
from agentlab._support.system import write_whole
from agentlab.endpoint.middleware.fault_plan import Fault
from agentlab.endpoint.physics.formulas import Physics

_ENDPOINTS = DATA / "endpoints"
names = partial(yaml_file.names, _ENDPOINTS)  # of those that come with the course
T = TypeVar("T")


@model
class Figure(Generic[T]):
    """One figure and where it comes from: published, measured here, estimated, or a lesson's."""

    value: T
    basis: Literal["sourced", "fitted", "estimated", "chosen"]
    source: Text


@model
class Preset:
    """An endpoint's figures as its file gives them, in the units of its sources; None: no limit.

    Before `reasoning_share` of the answers come `reasoning_tokens`, which are not shown, if the
    request's limit has room for them. `fitted_to` and `judged_on` say which measurements they
    rest on, and which others they predicted, how well. The rest is told in
    `agentlab.endpoint.physics.formulas`.
    """

    about: Text
    prefill_base_ms: Figure[NotNegative]
    prefill_per_token_ms: Figure[NotNegative]
    itl_base_ms: Figure[NotNegative]
    itl_per_active_ms: Figure[NotNegative]
    jitter_sigma: Figure[NotNegative]
    itl_per_context_token_ms: Figure[NotNegative] | None = None
    reading_base_ms: Figure[NotNegative] | None = None
    streaming_per_token_ms: Figure[NotNegative] | None = None
    batched_tokens: Figure[AtLeastOne] | None = None
    kv_tokens: Figure[AtLeastOne] | None = None
    preempts: Figure[bool] | None = None
    prefix_caching: Figure[bool] | None = None
    reasoning_share: Figure[Annotated[float, Field(ge=0, le=1)]] | None = None
    reasoning_tokens: Figure[AtLeastOne] | None = None
    slots: Figure[AtLeastOne] | None = None
    queue: Figure[Count] | None = None
    context_tokens: Figure[AtLeastOne] | None = None
    requests_per_minute: Figure[AtLeastOne] | None = None
    tokens_per_minute: Figure[AtLeastOne] | None = None
    faults: list[Fault] = field(default_factory=list)
    fitted_to: Text | None = None
    judged_on: Text | None = None

    @property
    def physics(self) -> Physics:
        """The figures in seconds, as the formulas take them."""
        given: dict[str, Any] = {}
        for name in Physics.__struct_fields__:
            figure = getattr(self, re.sub("_s$", "_ms", name), None)
            if figure is not None:
                given[name] = figure.value / 1000 if name.endswith("_s") else figure.value
        return Physics(**given)


def load(preset: str) -> Preset:
    """Read a preset by its name, or from a file by its path; ConfigError if that cannot work.

    Example:
        >>> load("course").physics.service_s(prompt_tokens=20, output_tokens=91)
        10.0
    """
    path = yaml_file.found(preset, _ENDPOINTS, what="preset")
    return _read(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache  # each run in virtual time has an endpoint of its own
def _read(path: Path, changed_ns: int, size: int) -> Preset:
    return yaml_file.LocatedFile(path, what="preset").decode(Preset)


def save(physics: Physics, path: Path, *, source: str, **words: str) -> None:
    """Write fitted physics as a preset; `words` are its `about`, `fitted_to` and `judged_on`."""
    figures = {}
    for name in Physics.__struct_fields__:
        value, in_ms = getattr(physics, name), name.endswith("_s")
        if name != "capacity" and (value or in_ms or name == "jitter_sigma"):
            shown = float(f"{value * 1000:.4g}") if in_ms else value
            key = re.sub("_s$", "_ms", name)
            figures[key] = {"value": shown, "basis": "fitted", "source": source}
    whole = {"about": words.pop("about"), **figures, **words}
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=10_000)
    write_whole(path, text.encode())
