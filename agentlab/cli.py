"""The command line: `agentlab serve`, `bench`, `write` and `workflow`."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentlab import settings
from agentlab.endpoint import presets
from agentlab.errors import AgentLabError, ConfigError
from agentlab.trace import Span, span_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agentlab.bench.cost import Cost


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` asks for; returns the exit code, 2 for an error of the user's."""
    options = _parser().parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except AgentLabError as error:
        print(f"agentlab: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agentlab",
        description="Agent Lab: its local model, its benchmark, and its content system.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="serve the endpoint on loopback until Ctrl-C",
        description="Serve an OpenAI-compatible endpoint on loopback until Ctrl-C. With "
        "OPENAI_BASE_URL or OPENAI_API_KEY set, it forwards to that model (AGENTLAB_LOCAL=1 "
        "keeps the local one).",
    )
    serve.set_defaults(run=_serve)
    default = settings.Settings()
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    serve.add_argument("--preset", help=f"{', '.join(presets.names())}, or a .yaml file")
    serve.add_argument(
        "--time-scale",
        help=f"model seconds to a real second (default {default.time_scale:g})",
    )
    serve.add_argument("--seed", help=f"draws answers and jitter (default {default.seed})")
    serve.add_argument("--requests-per-minute", help="a rate limit; 0 lifts the preset's")
    serve.add_argument("--tokens-per-minute", help="the same for tokens")
    serve.add_argument("--faults", metavar="FILE", help="a fault plan, as YAML")
    serve.add_argument("--record", metavar="FILE", help="append every answer to this file")
    serve.add_argument("--replay", metavar="FILE", help="answer from such a file")
    serve.add_argument("--trace", metavar="FILE", help="append a line of JSON for every request")
    serve.add_argument(
        "--classroom",
        action="store_true",
        help="for a class: everybody's name is a key, fair shares, a page for the projector",
    )
    serve.add_argument("--host", help="of a class: where to listen; 0.0.0.0 lets the network in")
    serve.add_argument("--learners", metavar="FILE", help="of a class: its list, a name a line")
    serve.add_argument("--token", help="of a class: the teacher's; left out, one is made")
    serve.add_argument(
        "--yes",
        action="store_const",
        const=True,
        help="of a class: let it ask a real model, which costs money",
    )
    bench = commands.add_parser(
        "bench",
        help="measure an experiment, or compare two results",
        description="Measure an experiment: writes NAME.json with the raw data, NAME.md with the "
        "table, and NAME.png. Ctrl-C keeps what is done.",
    )
    bench.set_defaults(run=_bench)
    bench.add_argument("experiment", nargs="?", help="a name, or a .yaml file")
    bench.add_argument("--out", metavar="DIR", default="results", help="default: results")
    bench.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    bench.add_argument("--yes", action="store_true", help="ask a real model, which costs money")
    bench.add_argument(
        "--price",
        nargs=2,
        type=float,
        metavar=("IN", "OUT"),
        help="dollars for a million tokens of prompts and of answers, for the estimate",
    )
    bench.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two .json files")
    write = commands.add_parser(
        "write",
        help="write about many topics, and lose nothing",
        description="Write a Markdown and an HTML file about each topic. Every answer is recorded "
        "in DIR/journal.sqlite as it comes, so that after Ctrl-C, or worse, --resume goes on and "
        "asks nothing again.",
    )
    write.set_defaults(run=_write)
    write.add_argument("topics", metavar="TOPICS.txt", help="a topic a line; # begins a comment")
    write.add_argument("--out", metavar="DIR", default="content", help="default: content")
    write.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    write.add_argument(
        "--retry-quarantined", action="store_true", help="try again what was given up"
    )
    write.add_argument("--type", choices=("blog", "comprehensive"), default="blog")
    write.add_argument("--settings", metavar="FILE", help="the content system's, as YAML")
    write.add_argument("--journal", metavar="URL", help="elsewhere, such as postgresql://...")
    workflow = commands.add_parser(
        "workflow",
        help="check, show or export workflow files",
        description="check: whatever is wrong is named by file, line and column, and the exit code "
        "is 1. show: steps, bounds, and the graph as Mermaid text. export: a Python script that "
        "needs no Agent Lab.",
    )
    workflow.set_defaults(run=_workflow)
    workflow.add_argument("verb", choices=("check", "show", "export"))
    workflow.add_argument("files", nargs="+", metavar="FILE", help="a name, or a .yaml file")
    workflow.add_argument(
        "--to",
        choices=("langgraph", "flow", "crew"),
        default="langgraph",
        help="what export writes: LangGraph (default), or CrewAI as a Flow or as a crew",
    )
    doctor = commands.add_parser(
        "doctor",
        help="is everything there? OK or FAIL, with the cure",
        description="Check Python, packages, settings, disk, ports, proxy, kernel and endpoint. "
        "With a key set, the real model is asked for one token, which costs a fraction of a cent.",
    )
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("--offline", action="store_true", help="do not ask the real model")
    progress = commands.add_parser(
        "progress",
        help="which exercises are solved in your saved notebooks",
        description="Read from the saved notebooks which exercises are solved, and what is next.",
    )
    progress.set_defaults(run=_progress)
    progress.add_argument("folder", nargs="?", default="notebooks", help="default: notebooks")
    progress.add_argument("--json", action="store_true", help="for a program to read")
    for command in (bench, write):
        command.add_argument(
            "--cluster",
            nargs="?",
            const="local",
            metavar="ADDRESS",
            help="send from other processes: of a Dask scheduler, or without an address from here",
        )
    return parser


def _write(options: argparse.Namespace) -> int:
    from agentlab.content import command

    return command.write(
        Path(options.topics),
        Path(options.out),
        content_type=options.type,
        resume=options.resume,
        settings_file=options.settings,
        journal=options.journal,
        cluster=options.cluster,
        retry_quarantined=options.retry_quarantined,
    )


def _workflow(options: argparse.Namespace) -> int:
    from agentlab import workflow_command

    if options.verb == "show":
        print("\n\n".join(map(workflow_command.show, options.files)))
        return 0
    if options.verb == "export":
        for file in options.files:
            print(workflow_command.export(file, options.to), end="")
        return 0
    lines, right = workflow_command.check(options.files)
    print("\n".join(lines))
    return 0 if right else 1


def _bench(options: argparse.Namespace) -> int:
    from agentlab.bench import compare, experiment, tuning

    if options.compare:
        print(compare.of_files(*options.compare))
        return 0
    if options.experiment is None:
        raise ConfigError(
            f"name an experiment, one of {', '.join(experiment.names())}, or two --compare files"
        )
    path = experiment.found(options.experiment)
    file = Path(options.out) / f"{path.stem}.json"
    try:
        return (_tune if tuning.is_tuning(path) else _measure)(path, file, options)
    except KeyboardInterrupt:
        print(f"stopped; what is done is in {file}. Go on with --resume.", file=sys.stderr)
        return 130


def _measure(path: Path, file: Path, options: argparse.Namespace) -> int:
    from agentlab.bench import cost, experiment, measure, plots, report, results

    chosen = experiment.load(path)
    real = settings.from_environment()
    if chosen.clock == "real" and real.real:
        asked = f"this asks {real.model} at {real.upstream} {_bill(cost.cost(chosen), options)}"
        if not options.yes:
            raise ConfigError(f"{asked}; add --yes to do it, or set AGENTLAB_LOCAL=1")
        print(asked, file=sys.stderr)
    measured = measure.run(chosen, file, resume=options.resume, cluster=options.cluster)
    _report(file, report.markdown(measured), plots.figure(measured))
    return 1 if results.unequal(measured.measurements) else 0


def _tune(path: Path, file: Path, options: argparse.Namespace) -> int:
    from agentlab.bench import tuning

    tuned = tuning.run(tuning.load(path), file, resume=options.resume)
    _report(file, tuning.markdown(tuned), tuning.figure(tuned))
    return 0


def _report(file: Path, table: str, figure: Figure) -> None:
    file.with_suffix(".md").write_text(table, encoding="utf-8")
    figure.savefig(file.with_suffix(".png"), dpi=80)
    print(table)


def _bill(cost: Cost, options: argparse.Namespace) -> str:
    if options.price is None:
        return f"{cost}; --price tells what that is in money"
    return f"{cost}, ${cost.dollars(*options.price):.4f} at most, if nothing is asked twice"


def _doctor(options: argparse.Namespace) -> int:
    from agentlab import doctor

    return doctor.report(offline=options.offline)


def _progress(options: argparse.Namespace) -> int:
    from agentlab import progress_report

    found = progress_report.report(Path(options.folder))
    print(progress_report.json(found) if options.json else progress_report.text(found))
    return 1 if any(lesson.problem for lesson in found.lessons) else 0


def _serve(options: argparse.Namespace) -> int:
    fields = settings.Settings.__struct_fields__
    given = {f: value for f in fields if (value := getattr(options, f, None)) is not None}
    chosen = _class_settings(given) if options.classroom else settings.from_environment(**given)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))  # Ctrl-C is the way to end it
        on_end = _to_file(options.trace, stack) if options.trace else None
        (_serve_class if options.classroom else _serve_one)(chosen, options, on_end)
    return 0


def _class_settings(given: dict[str, Any]) -> settings.Settings:
    from agentlab.classroom.start import class_settings

    return class_settings(**given)


def _serve_one(
    chosen: settings.Settings,
    options: argparse.Namespace,
    on_end: Callable[[Span], object] | None,
) -> None:
    from agentlab.endpoint.serve import build_app, serve  # uvicorn is for this command only

    for name in ("host", "learners", "token", "yes"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} is for a class; add --classroom")
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
    from agentlab.classroom.start import serve_class

    serve_class(
        chosen,
        port=options.port,
        host=options.host,
        learners=options.learners,
        token=options.token,
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
