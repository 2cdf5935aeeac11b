"""`agentlab serve`: the endpoint, for one or for a class, until Ctrl-C."""

import argparse
import contextlib
import secrets
from functools import partial

import msgspec

from agentlab import settings
from agentlab.commands.main import COMMANDS
from agentlab.endpoint.server.app import build_app
from agentlab.endpoint.server.serve import serve
from agentlab.errors import ConfigError

_OF_A_CLASS = ("host", "learners", "token", "yes")


def run(options: argparse.Namespace) -> int:
    """Serve; return 0 after Ctrl-C."""
    fields = settings.Settings.__dataclass_fields__
    given = {f: value for f in fields if (value := getattr(options, f, None)) is not None}
    of_a_class = {name: getattr(options, name) for name in _OF_A_CLASS}
    for name, value in of_a_class.items():
        if value is not None and not options.classroom:
            raise ConfigError(f"--{name} is for a class; add --classroom")
    trace = options.trace
    on_end = (lambda span: trace.write(msgspec.json.encode(span) + b"\n")) if trace else None
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the way to end it
        if options.classroom:
            from agentlab.classroom.app import class_settings, serve_class

            serve_class(class_settings(**given), port=options.port, on_end=on_end, **of_a_class)
            return 0
        chosen, lab_key = settings.from_environment(**given), f"lab-{secrets.token_urlsafe(24)}"
        app = build_app(chosen, lab_key=lab_key, on_end=on_end)
        words = COMMANDS["serve"]["says"]["real" if chosen.real else "local"]
        said = partial(words.format, chosen, key=lab_key)
        serve(app, options.port, announce=lambda url: print(said(url=url), flush=True))
    return 0
