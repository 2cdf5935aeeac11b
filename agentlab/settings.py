"""The lab's settings: what the environment says, and where the course's data lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from agentlab import _upstream
from agentlab.errors import ConfigError
from agentlab.fields import AtLeastOne, Count, NotNegative, Text

_HERE = Path(__file__).resolve().parent
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parent / "data"
"""The course's data: inside the package where it is installed, beside it in a checkout."""

key_from = _upstream.key_from
account_from = _upstream.account_from
checked_address = _upstream.address

OPENAI_URL = "https://api.openai.com/v1"
"""Where a key without a base URL leads, as in OpenAI's own client."""

MayBeLeftOut = Literal[
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "parallel_tool_calls", "stream_options", "user", "store",
    "service_tier", "max_completion_tokens", "max_tokens",
]  # fmt: skip
"""The parameters that a question can be asked without. A limit goes by its other name then."""

Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]")]


class Capacity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From `from_s` model seconds after the endpoint's first request on, it has so many slots."""

    from_s: NotNegative
    slots: AtLeastOne


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the endpoint behaves, and which model stands behind it.

    Attributes:
        preset: A file of `data/endpoints/`, by name, or the path of a YAML file of your own.
        time_scale: Model seconds to a real second: at 10, an agent of 10 s takes 1 s.
        seed: From which answers and jitter are drawn.
        requests_per_minute: The rate limit; None takes the preset's, 0 lifts it.
        tokens_per_minute: The same for tokens.
        capacity: How many slots the local model has, and from when, in place of the preset's.
        faults: What goes wrong, as `agentlab.endpoint.faults` reads it: a list, or a file's path.
        record: A file to which every answer is appended; None records nothing.
        replay: A file so recorded, whose answers are given again in place of a model's.
        upstream: The address, ending in `/v1`, of the real model or the class that answers; None
            for the local model. (`lab.configure(upstream=None)` turns away what is paid for, and
            keeps a class whose model is the local one.)
        model: The model's name that clients send; the local model takes any.
        max_body_bytes: How long the body of a request may be; longer ones are refused (413). None
            takes 1 MiB for the local model, and 8 MiB for a real one, which may look at pictures.
        leave_out: Parameters that the real model is never sent, because it refuses them. Of the
            two names for an answer's longest length, the other is sent.

    The upstream's key is not here: only the endpoint's own process reads it, from its environment.
    """

    preset: Text = "course"
    time_scale: Annotated[float, msgspec.Meta(ge=0.001, le=10_000)] = 10.0
    seed: int = 7
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    capacity: list[Capacity] = []
    faults: str | list[dict[str, Any]] = []
    record: Text | None = None
    replay: Text | None = None
    upstream: Address | None = None
    model: Text = "gpt-4o-mini"
    leave_out: list[MayBeLeftOut] = []
    max_body_bytes: AtLeastOne | None = None

    @property
    def real(self) -> bool:
        """True if a real model answers, in its own time."""
        return self.upstream is not None and self.replay is None

    @property
    def longest_body_bytes(self) -> int:
        """`max_body_bytes`, or what it stands for."""
        return self.max_body_bytes or (8 * 2**20 if self.real else 2**20)


_VARIABLES = {
    "preset": "AGENTLAB_PRESET",
    "time_scale": "AGENTLAB_TIME_SCALE",
    "seed": "AGENTLAB_SEED",
    "requests_per_minute": "AGENTLAB_REQUESTS_PER_MINUTE",
    "tokens_per_minute": "AGENTLAB_TOKENS_PER_MINUTE",
    "faults": "AGENTLAB_FAULTS",
    "record": "AGENTLAB_RECORD",
    "replay": "AGENTLAB_REPLAY",
    "upstream": "OPENAI_BASE_URL",
    "model": "OPENAI_MODEL",
    "leave_out": "AGENTLAB_LEAVE_OUT",
    "max_body_bytes": "AGENTLAB_MAX_BODY_BYTES",
}


def from_environment(environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """The settings that `environ` asks for; `given` values win over it.

    `OPENAI_BASE_URL`, or `OPENAI_API_KEY` alone, names the real model to forward to;
    `AGENTLAB_LOCAL=1` keeps the local model all the same. White space around a value is no part
    of it, and nor are quotes around an address or a model's name.

    Raises:
        ConfigError: If a value is of the wrong type or out of range, naming it, or if the address
            or the key of a real model cannot be one.

    Example:
        >>> from_environment({"AGENTLAB_TIME_SCALE": "100"}, seed=1).time_scale
        100.0
    """
    values: dict[str, Any] = {
        field: value
        for field, name in _VARIABLES.items()
        if (value := _upstream.bare(environ.get(name, ""), quoted=name.startswith("OPENAI_")))
    }
    if _upstream.bare(environ.get("OPENAI_API_KEY", "")):
        values.setdefault("upstream", OPENAI_URL)
    if environ.get("AGENTLAB_LOCAL", "0") not in ("", "0"):
        values.pop("upstream", None)
    values |= given
    if isinstance(values.get("upstream"), str):
        values["upstream"] = _upstream.address(values["upstream"])
    if isinstance(values.get("leave_out"), str):
        values["leave_out"] = [name.strip() for name in values["leave_out"].split(",")]
    try:
        chosen = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{error}; {_way_out(str(error), values)}") from None
    if chosen.real:  # whether another lab answers there is not known yet
        key_from(environ, learner=chosen.upstream != OPENAI_URL)
    return chosen


def _way_out(error: str, values: Mapping[str, Any]) -> str:
    if "$.leave_out" in error:
        allowed = ", ".join(get_args(MayBeLeftOut))
        return f"got {values['leave_out']!r}: what can be left out is {allowed}"
    for field, name in _VARIABLES.items():
        if f"$.{field}" in error:
            return f"got {values[field]!r}: set {name}, or pass {field}=..., to one that fits"
    if "$.capacity" in error:
        return "each line is {from_s: 60, slots: 2}: 60 s after the first request, two slots"
    return f"choose from {', '.join(Settings.__struct_fields__)}"
