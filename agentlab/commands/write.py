"""`agentlab write`: a batch in a terminal, with Ctrl-C as a way to end it well."""

from __future__ import annotations

import argparse
import asyncio
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

from agentlab import lab, running
from agentlab.commands import cluster_argument, leave_out_argument
from agentlab.content.settings import Settings
from agentlab.content.system import Content, ContentSystem, summary
from agentlab.content.topics import read_topics
from agentlab.errors import ConfigError

DESCRIPTION = (
    "Write a Markdown and an HTML file about each topic. Every answer is recorded in "
    "DIR/journal.sqlite as it comes, so that after Ctrl-C, or worse, --resume goes on and asks "
    "nothing again. A real model is asked one question first: what every topic would meet ends "
    "the batch before it begins."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("topics", metavar="TOPICS.txt", help="a topic a line; # begins a comment")
    parser.add_argument("--out", metavar="DIR", default="content", help="default: content")
    parser.add_argument("--resume", action="store_true", help="go on with what is in DIR")
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try again what was given up"
    )
    parser.add_argument("--type", choices=("blog", "comprehensive"), default="blog")
    parser.add_argument("--settings", metavar="FILE", help="the content system's, as YAML")
    parser.add_argument("--journal", metavar="URL", help="elsewhere, such as postgresql://...")
    cluster_argument(parser)
    leave_out_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Write; returns what `write` does."""
    left_out = options.leave_out
    with lab.configure(leave_out=left_out) if left_out else nullcontext():
        return write(
            Path(options.topics),
            Path(options.out),
            content_type=options.type,
            resume=options.resume,
            settings_file=options.settings,
            journal=options.journal,
            cluster=options.cluster,
            retry_quarantined=options.retry_quarantined,
        )


def write(
    topics_file: Path,
    out: Path,
    *,
    content_type: Literal["blog", "comprehensive"] = "blog",
    resume: bool = False,
    settings_file: str | None = None,
    journal: str | None = None,
    cluster: str | None = None,
    retry_quarantined: bool = False,
) -> int:
    """Write about the topics in a file, and print what became of them.

    Returns:
        0 if all are done; after a signal 128 and its number, as shells have it, which is 130 after
        Ctrl-C; and 1 if something else left topics undone.

    Raises:
        ConfigError: If there are no topics, or there is a journal and `resume` is not given.
    """
    topics = read_topics(topics_file)
    settings = Settings.load(settings_file) if settings_file else Settings()
    if journal is None and (out / "journal.sqlite").exists() and not resume:
        raise ConfigError(
            f"{out} holds a journal of an earlier run; go on with --resume, or choose another "
            "folder with --out"
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # one that has not every letter says which it was
        sys.stdout.reconfigure(errors="backslashreplace")
    signals, done = _Signals(), False
    with (
        suppress(KeyboardInterrupt),  # where there is nothing to say yet, or all is said
        signals.handled(),
        ContentSystem(settings, out=out, journal=journal) as system,
    ):
        signals.system = system
        if retry_quarantined:
            print(f"{system.journal.release()} taken out of quarantine", file=sys.stderr)
        try:
            contents = asyncio.run(_batch(system, signals, topics, content_type, cluster))
        except KeyboardInterrupt:  # the second signal, or on Windows the first
            contents = system.so_far(topics, content_type)
        print(summary(contents, system.journal, settings))
        if any(content.status == "quarantined" for content in contents):
            print("--resume --retry-quarantined tries those again", file=sys.stderr)
        if system.stopped is not None:
            print(f"stopped: {system.stopped.rstrip('.')}. Go on with --resume.", file=sys.stderr)
        done = all(content.status == "done" for content in contents)
    if signals.first is not None:
        return 128 + signals.first
    return 0 if done else 1


async def _batch(
    system: ContentSystem,
    signals: _Signals,
    topics: list[str],
    content_type: Literal["blog", "comprehensive"],
    cluster: str | None,
) -> list[Content]:
    with signals.waited_for():
        if running.current().real:  # before a batch is paid for, one question tells if it can be
            await system.first_question(topics, content_type)
            if system.stopped is not None:
                return system.so_far(topics, content_type)
        return await system.batch_generate(topics, content_type, progress=True, cluster=cluster)


class _Signals:
    """What ends a batch: the first signal waits for what is in flight, the second does not.

    Attributes:
        first: The number of the first that came.
        system: What it stops, as soon as there is one.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.system: ContentSystem | None = None
        names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
        numbers = [number for name in names if (number := getattr(signal, name, None))]
        # Who starts it with nohup wants it to outlive the terminal.
        ignored = [n for n in numbers[1:] if signal.getsignal(n) == signal.SIG_IGN]
        self._numbers = [number for number in numbers if number not in ignored]

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Inside, a signal that nothing waits for is a `KeyboardInterrupt`."""
        before = {number: signal.signal(number, self._interrupt) for number in self._numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Inside, in an event loop, the first one waits for what is in flight."""
        loop = asyncio.get_running_loop()
        try:
            for number in self._numbers:
                loop.add_signal_handler(number, self._drain, loop, number)
        except NotImplementedError:  # on Windows Ctrl-C cancels immediately
            yield
            return
        try:
            yield
        finally:
            self._back(loop)

    def _drain(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self._back(loop)
        self._came(number)
        print("waiting for what is in flight; Ctrl-C again cancels it", file=sys.stderr)

    def _back(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in self._numbers:
            if loop.remove_signal_handler(number):
                signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        for each in self._numbers:  # a third one ends the process, whatever it is doing
            signal.signal(each, signal.SIG_DFL)
        self._came(number)
        raise KeyboardInterrupt

    def _came(self, number: int) -> None:
        self.first = self.first or number
        if self.system is not None:
            self.system.stop("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
