"""The lab's settings: what the environment says, and where the course's data lies.

No message repeats what may be a secret.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, HttpUrl, TypeAdapter, ValidationError

from agentlab._support import DATA as DATA
from agentlab._support.catalogue import translated
from agentlab._support.fields import AtLeastOne, NotNegative, Text, model
from agentlab.errors import ConfigError

OPENAI_URL = "https://api.openai.com/v1"
"""Where a key without a base URL leads, as in OpenAI's own client."""

MayBeLeftOut = Literal[
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "parallel_tool_calls", "stream_options", "user", "store",
    "service_tier", "max_completion_tokens", "max_tokens",
]  # fmt: skip
"""The parameters that a request can leave out. A limit goes by its other name then."""

_Limit = Annotated[int, Field(ge=0)]  # which the environment gives as text


@model
class Capacity:
    """How many slots the endpoint has from `from_s` model seconds after its first request on."""

    from_s: NotNegative
    slots: AtLeastOne


@model
class Settings:
    """How the endpoint behaves, and which model stands behind it.

    Attributes:
        preset: A file of `data/endpoints/`, by name, or the path of a YAML file of your own.
        time_scale: Model seconds per real second: at 10, an agent of 10 s takes 1 s.
        requests_per_minute: The rate limit; None takes the preset's, 0 lifts it, as for tokens.
        faults: What goes wrong: a list for `endpoint.middleware.fault_plan`, or a file's path.
        upstream: The address of the real model or the class that answers; None for the local one.
        leave_out: Parameters that the real model is never sent, because it refuses them.
        max_body_bytes: What is longer is refused (413).

    The upstream's key is not here: only the endpoint's own process reads it, from its environment.
    """

    preset: Text = "course"
    time_scale: Annotated[float, Field(ge=0.001, le=10_000)] = 10.0
    seed: int = 7
    requests_per_minute: _Limit | None = None
    tokens_per_minute: _Limit | None = None
    capacity: list[Capacity] = field(default_factory=list)
    faults: str | list[dict[str, Any]] = field(default_factory=list)
    upstream: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    model: Text = "gpt-4o-mini"
    leave_out: list[MayBeLeftOut] = field(default_factory=list)
    max_body_bytes: Annotated[int, Field(ge=1)] | None = None

    @staticmethod
    def variables() -> dict[str, str]:
        """Return the variables of the environment, by the settings that they set."""
        own = {n: f"AGENTLAB_{n.upper()}" for n in Settings.__annotations__ if n != "capacity"}
        return own | {"upstream": "OPENAI_BASE_URL", "model": "OPENAI_MODEL"}

    @property
    def real(self) -> bool:
        """True if a real model answers, in its own time."""
        return self.upstream is not None

    @property
    def longest_body_bytes(self) -> int:
        """`max_body_bytes`, or 1 MiB; or 8 MiB before a real model, which may look at pictures."""
        return self.max_body_bytes or (8 * 2**20 if self.real else 2**20)


def from_environment(environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """Return the settings that `environ` asks for; `given` values win over it.

    `OPENAI_BASE_URL`, or `OPENAI_API_KEY` alone, names the real model to forward to;
    `AGENTLAB_LOCAL=1` keeps the local model nevertheless. What cannot work is a ConfigError.

    Example:
        >>> from_environment({"AGENTLAB_TIME_SCALE": "100"}, seed=1).time_scale
        100.0
    """
    # A shell or .env may leave blanks and quotes around a value.
    read = {s: environ.get(v, "").strip(" \t\r\n\"'") for s, v in Settings.variables().items()}
    values: dict[str, Any] = {setting: value for setting, value in read.items() if value}
    if environ.get("OPENAI_API_KEY", "").strip():
        values.setdefault("upstream", OPENAI_URL)
    if (local := environ.get("AGENTLAB_LOCAL", "").strip()) == "1":
        values.pop("upstream", None)
    elif local not in ("", "0"):
        raise ConfigError(f"AGENTLAB_LOCAL is {local!r}; set it to 0 or 1")
    language(environ)  # which may be none that there is
    values |= given
    if isinstance(values.get("upstream"), str):
        values["upstream"] = checked_address(values["upstream"])
    if isinstance(values.get("leave_out"), str):
        values["leave_out"] = [name.strip() for name in values["leave_out"].split(",")]
    chosen = Settings(**values)
    if chosen.real:  # whether another lab answers there is not known yet
        key_from(environ, learner=chosen.upstream != OPENAI_URL)
    return chosen


def language(environ: Mapping[str, str] = os.environ) -> str:
    """Return `en` or `ko`: `AGENTLAB_LANGUAGE`, or if unset, that of the folder of the lesson."""
    named = environ.get("AGENTLAB_LANGUAGE", "").strip().lower()
    if named not in ("", "en", "ko"):
        raise ConfigError(f"AGENTLAB_LANGUAGE is {named!r}; set it to en or ko")
    return named or ("ko" if Path.cwd().parts[-2:] == ("notebooks", "ko") else "en")


def said(text: str) -> str:
    """Return a text as the learner reads it: in Korean, where that is the language."""
    return translated(text, DATA / "ko" / "texts.yaml") if language() == "ko" else text


# How text that is not a key looks, and what to say; a learner's name may look as the last does.
_NOT_A_KEY = msgspec.yaml.decode((DATA / "not_a_key.yaml").read_bytes(), type=list[tuple[str, str]])


def key_from(environ: Mapping[str, str] = os.environ, *, learner: bool = False) -> str | None:
    """Return the key in `OPENAI_API_KEY`, or None; what cannot be one is a ConfigError.

    A `learner`'s may be a name in any language: another lab's endpoint takes it for a key.
    """
    key = environ.get("OPENAI_API_KEY", "").strip()
    may_be_a_name = learner and not key.startswith("sk-")
    for looks, wrong in _NOT_A_KEY[:-1] if may_be_a_name else _NOT_A_KEY:
        if re.search(looks, key, re.IGNORECASE):
            raise ConfigError(f"OPENAI_API_KEY {wrong}")
    return key or None


_URL = TypeAdapter(HttpUrl)
_NOT_AN_ADDRESS = msgspec.yaml.decode((DATA / "not_an_address.yaml").read_bytes())


def checked_address(text: str) -> str:
    """Return the address of a real model, checked, and without slashes at its end."""
    whole = re.fullmatch(r"https?://[\w\[]\S*", text, re.IGNORECASE)  # a key may follow a blank
    try:
        address = str(_URL.validate_python(text if whole else ""))
    except ValidationError:
        address = ""
    for looks, wrong in _NOT_AN_ADDRESS:
        if found := re.search(looks, address):
            says = f"OPENAI_BASE_URL (the setting upstream) {wrong.format(found[0])}"
            raise ConfigError(f"{says}; set it to an address such as http://localhost:11434/v1")
    return address.rstrip("/")
