"""`agentlab serve`: the endpoint, for one or for a class, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path

from agentlab import settings
from agentlab.classroom.roster import NAMES_PER_ADDRESS
from agentlab.classroom.start import class_settings, serve_class
from agentlab.commands import leave_out_argument
from agentlab.endpoint import presets
from agentlab.endpoint.serve import build_app, serve
from agentlab.errors import ConfigError
from agentlab.trace import Span, span_line

DESCRIPTION = (
    "Serve an OpenAI-compatible endpoint until Ctrl-C, on loopback unless a class asks for more. "
    "With OPENAI_BASE_URL or OPENAI_API_KEY set, it forwards to that model (AGENTLAB_LOCAL=1 keeps "
    "the local one)."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    default = settings.Settings()
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    parser.add_argument("--preset", help=f"{', '.join(presets.names())}, or a .yaml file")
    parser.add_argument(
        "--time-scale",
        help=f"model seconds to a real second (default {default.time_scale:g})",
    )
    parser.add_argument("--seed", help=f"draws answers and jitter (default {default.seed})")
    parser.add_argument("--requests-per-minute", help="a rate limit; 0 lifts the preset's")
    parser.add_argument("--tokens-per-minute", help="the same for tokens")
    parser.add_argument("--faults", metavar="FILE", help="a fault plan, as YAML")
    parser.add_argument("--record", metavar="FILE", help="append every answer to this file")
    parser.add_argument("--replay", metavar="FILE", help="answer from such a file")
    leave_out_argument(parser)
    parser.add_argument("--trace", metavar="FILE", help="append a line of JSON for every request")
    parser.add_argument(
        "--classroom",
        action="store_true",
        help="for a class: everybody's name is a key, fair shares, a page for the projector",
    )
    parser.add_argument("--host", help="of a class: where to listen; 0.0.0.0 lets the network in")
    parser.add_argument("--learners", metavar="FILE", help="of a class: its list, a name a line")
    parser.add_argument("--token", help="of a class: the teacher's; left out, one is made")
    parser.add_argument(
        "--names-per-address",
        type=int,
        metavar="N",
        help=f"of a class without a list: as many from one address (default {NAMES_PER_ADDRESS})",
    )
    parser.add_argument(
        "--yes",
        action="store_const",
        const=True,
        help="of a class: let it ask a real model, which costs money",
    )


def run(options: argparse.Namespace) -> int:
    """Serve; returns 0 after Ctrl-C."""
    fields = settings.Settings.__dataclass_fields__
    given = {f: value for f in fields if (value := getattr(options, f, None)) is not None}
    chosen = class_settings(**given) if options.classroom else settings.from_environment(**given)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))  # Ctrl-C is the way to end it
        on_end = _to_file(options.trace, stack) if options.trace else None
        (_serve_class if options.classroom else _serve_one)(chosen, options, on_end)
    return 0


def _serve_one(
    chosen: settings.Settings,
    options: argparse.Namespace,
    on_end: Callable[[Span], object] | None,
) -> None:
    for name in ("host", "learners", "token", "names_per_address", "yes"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is for a class; add --classroom")
    lab_key = f"lab-{secrets.token_urlsafe(24)}"
    serve(
        build_app(chosen, lab_key=lab_key, on_end=on_end),
        options.port,
        announce=lambda url: print(_welcome(chosen, url, lab_key), flush=True),
    )


def _serve_class(
    chosen: settings.Settings,
    options: argparse.Namespace,
    on_end: Callable[[Span], object] | None,
) -> None:
    serve_class(
        chosen,
        port=options.port,
        host=options.host,
        learners=options.learners,
        token=options.token,
        names_per_address=(
            NAMES_PER_ADDRESS if options.names_per_address is None else options.names_per_address
        ),
        yes=bool(options.yes),
        on_end=on_end,
    )


def _to_file(path: str, stack: contextlib.ExitStack) -> Callable[[Span], object]:
    try:
        file = Path(path).open("ab", buffering=0)  # noqa: SIM115 (the stack closes it)
    except OSError as error:
        raise ConfigError(f"cannot trace to {path!r}: {error}; choose another file") from None
    stack.enter_context(file)
    return lambda span: file.write(span_line(span))


def _welcome(chosen: settings.Settings, url: str, lab_key: str) -> str:
    if chosen.real:
        return f"Forwarding {url} to {chosen.upstream}; clients show the key {lab_key}"
    if chosen.replay is not None:
        return f"Replaying {chosen.replay} at {url}; any key will do. Ctrl-C stops it."
    return (
        f"Local model at {url} (preset {chosen.preset}, {chosen.time_scale:g} model seconds a "
        f"second, seed {chosen.seed}); any key will do. Ctrl-C stops it."
    )
