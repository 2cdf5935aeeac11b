"""What `agentlab serve --classroom` does: it serves a class, and says how to join it."""

from __future__ import annotations

import os
import re
import secrets
from typing import Any

from agentlab.classroom._app import Classroom, in_a_notebook
from agentlab.classroom._door import Roster, load_names, own_addresses
from agentlab.endpoint.server.app import OnEnd
from agentlab.endpoint.server.serve import HOST, serve
from agentlab.errors import ConfigError
from agentlab.settings import Settings, from_environment

PRESET = "class"  # where none is chosen: that of lessons, with slots to share
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look like others on a projector
_EVERYWHERE = {"0.0.0.0", "::"}
_SHORTEST_TOKEN = 12


def class_settings(**given: Any) -> Settings:
    """Return what the environment and `given` ask for, with `PRESET` where they name none."""
    chosen = {} if os.environ.get("AGENTLAB_PRESET") else {"preset": PRESET}
    return from_environment(**(chosen | given))


def serve_class(
    settings: Settings,
    *,
    port: int,
    host: str | None = None,
    learners: str | None = None,
    token: str | None = None,
    yes: bool | None = False,
    on_end: OnEnd | None = None,
) -> None:
    """Serve a class until a signal comes.

    Args:
        host: Where to listen: None for loopback, 0.0.0.0 for all of this machine's addresses.
        learners: A file with the class list; None lets any name in.
        yes: Let the class ask a real model, which costs money.
    """
    host, token = host or HOST, token or new_token()
    if not re.fullmatch(f"[!-~]{{{_SHORTEST_TOKEN},}}", token):
        raise ConfigError(
            f"a token has at least {_SHORTEST_TOKEN} letters or digits, got one of {len(token)}; "
            "leave --token out, and one is made"
        )
    if settings.real and (learners is None or not yes):
        raise ConfigError(
            f"this class would ask {settings.model} at {settings.upstream}, with your key and "
            "your money; set AGENTLAB_LOCAL=1 for the local model, which is free, "
            "or give the class list with --learners FILE, and add --yes"
        )
    listed = None if learners is None else load_names(learners)
    room = Classroom(settings, token=token, roster=Roster(listed), host=host, on_end=on_end)
    who = f"the {len(listed)} names of the class list" if listed else "any name"
    model = settings.replay or settings.upstream or f"preset {settings.preset}"

    def announce(url: str) -> None:
        end = url.rpartition(":")[2]  # the port, and /v1
        addresses = (own_addresses() or [HOST]) if host in _EVERYWHERE else []
        room.urls[:] = [f"http://{address}:{end}" for address in addresses] or [url]
        print(welcome(room, host=host, token=token, who=who, model=model), flush=True)

    serve(room, port, announce=announce, host=host)


def new_token() -> str:
    """Make a token that can be read from a screen and typed: three times four letters, 59 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))


def welcome(room: Classroom, *, host: str, token: str, who: str, model: str) -> str:
    """Return what the teacher reads in the terminal: `who` may ask which `model`."""
    first, *others = room.urls
    port = first.rpartition(":")[2].removesuffix("/v1")
    here = HOST if host in _EVERYWHERE else host
    network = (
        "Only this machine can reach it; --host 0.0.0.0 lets the class in."
        if host in (HOST, "localhost")
        else "ANYBODY ON THIS NETWORK can reach it, unencrypted. Stop it after class."
    )
    notebook = "\n".join(f"    {line}" for line in in_a_notebook(first))
    also = f"\n  Also at     {', '.join(others)}" if others else ""
    return f"""\
Classroom ({model}, {room.room.time_scale:g} model seconds a second). {network}
  Projector   http://{here}:{port}/classroom
  Token       {token}   (for the teacher's settings on that page; show it to nobody)
  Learners    ({who}), in a notebook:
{notebook}
  or in the terminal, before `make lab` (Windows: docs/classroom.md):
    export OPENAI_BASE_URL={first}
    export OPENAI_API_KEY=your-name{also}
Ctrl-C stops it."""
