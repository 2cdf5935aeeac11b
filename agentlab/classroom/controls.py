"""What the teacher may change while the class runs, and what a change may be."""

from __future__ import annotations

from typing import Any

import msgspec

from agentlab.endpoint import faults, presets
from agentlab.endpoint.faults import Fault
from agentlab.errors import ConfigError
from agentlab.fields import Count


class Controls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The teacher's settings.

    The time scale is not among them: the clients' time-outs and waits are counted by it.

    Attributes:
        preset: Which endpoint the local model behaves like; None where another model answers.
        requests_per_minute: The whole class's limit; None takes the preset's, 0 lifts it.
        tokens_per_minute: The same for tokens.
        learner_requests_per_minute: Each learner's own limit; 0 for none.
        learner_tokens_per_minute: The same for tokens.
        faults: What goes wrong, beside the preset's own.
        paused: New requests wait at the door; what is in flight goes on.
    """

    preset: str | None = "course"
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    learner_requests_per_minute: Count = 0
    learner_tokens_per_minute: Count = 0
    faults: list[Fault] = []
    paused: bool = False

    def changed(self, changes: Any) -> Controls:
        """These with `changes`, a dict of some of the fields, as it came from outside.

        Raises:
            ConfigError: If one of them cannot be, saying which and why; nothing has changed then.

        Example:
            >>> Controls().changed({"paused": True}).paused
            True
        """
        if not isinstance(changes, dict):
            raise ConfigError(f"settings are an object of names and values; got {changes!r}")
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        try:
            chosen = msgspec.convert(fields | changes, Controls)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"{error}; the settings are {', '.join(self.__struct_fields__)}"
            ) from None
        self._check_preset(chosen.preset)
        return msgspec.structs.replace(
            chosen, faults=faults.load(changes.get("faults", self.faults))
        )

    def _check_preset(self, preset: str | None) -> None:
        # A file of the teacher's own may stay, but none is read because somebody names it here.
        if preset == self.preset:
            return
        if self.preset is None:
            raise ConfigError(f"no local model answers here, so preset {preset!r} cannot be chosen")
        if preset not in presets.names():
            raise ConfigError(f"no preset {preset!r}; choose one of {', '.join(presets.names())}")
