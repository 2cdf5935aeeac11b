"""What a step asks, and what makes two questions the same."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from agentlab import running
from agentlab.clock import is_virtual
from agentlab.errors import ConfigError
from agentlab.workflow import Step


def options_of(step: Step) -> dict[str, Any]:
    """What an engine asks a step's question with."""
    return {
        "system": step.system,
        "max_tokens": step.max_tokens,
        "temperature": step.temperature,
    }


def question(step: Step, values: Mapping[str, str]) -> str:
    """The digest of a step's question, with the answers that it mentions filled in."""
    return digest(step.asked(values), options_of(step))


def digest(prompt: str, options: dict[str, Any]) -> str:
    """What makes two questions the same: the model, the prompt, and what else is sent with it.

    Not the limit on tokens, because an answer that was whole under one is whole under another:
    to raise it for those that were cut off asks nothing else again. Nor the address, because one
    model may be reached at several.

    Raises:
        ConfigError: If the model's name cannot be sent.
    """
    model = running.current()
    local = is_virtual() or not model.real
    rest = {name: value for name, value in options.items() if name != "max_tokens"}
    asked = [model.model, "local" if local else "real", prompt, rest]
    try:
        return blake2b(msgspec.json.encode(asked, order="sorted"), digest_size=16).hexdigest()
    except UnicodeEncodeError as error:  # of the rest, all is whole characters
        raise ConfigError(f"model {model.model!r}: {error}; give its name") from None
