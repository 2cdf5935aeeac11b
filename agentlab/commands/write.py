"""`agentlab write`: a batch in a terminal, with Ctrl-C as a way to end it well."""

import argparse
import asyncio
import io
import signal
import sys
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from agentlab import lab
from agentlab.content import Content, ContentSystem, Settings, read_topics, summary
from agentlab.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    """Write about the topics in a file, and print what became of them.

    Return 0 if all are done, after a signal 128 and its number, as shells have it, and else 1.
    """
    topics, out = read_topics(Path(options.topics)), Path(options.out)
    settings = Settings.load(options.settings) if options.settings else Settings()
    if not (options.journal or options.resume) and (out / "journal.sqlite").exists():
        holds = f"{out} holds a journal of an earlier run"
        raise ConfigError(f"{holds}; go on with --resume, or choose another folder with --out")
    if isinstance(sys.stdout, io.TextIOWrapper):  # one that has not every letter says which it was
        sys.stdout.reconfigure(errors="backslashreplace")
    came: list[int] = []  # signals
    contents: list[Content] = []
    with (
        lab.configure(leave_out=options.leave_out) if options.leave_out else nullcontext(),
        ContentSystem(settings, out=out, journal=options.journal) as system,
    ):
        if options.retry_quarantined:
            print(f"{system.journal.release()} taken out of quarantine", file=sys.stderr)
        try:
            contents = asyncio.run(_batch(system, came, topics, options))
        except (asyncio.CancelledError, KeyboardInterrupt):  # on Windows the first Ctrl-C
            came = came or [signal.SIGINT]
            system.stop("Ctrl-C")
        if contents:
            print(summary(contents, system.journal, settings))
        if any(content.status == "quarantined" for content in contents):
            print("--resume --retry-quarantined tries those again", file=sys.stderr)
        if system.stopped is not None:
            print(f"stopped: {system.stopped.rstrip('.')}. Go on with --resume.", file=sys.stderr)
    return 128 + came[0] if came else int(any(each.status != "done" for each in contents))


async def _batch(
    system: ContentSystem, came: list[int], topics: list[str], options: argparse.Namespace
) -> list[Content]:
    """Write; add signals to `came`: the first waits for what is in flight, the second does not."""
    loop, handlers = asyncio.get_running_loop(), ExitStack()
    # Who starts it with nohup wants it to outlive the terminal; Windows has no SIGHUP.
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    numbers = {signal.SIGINT, signal.SIGTERM, hangup}
    numbers -= {hangup} if signal.getsignal(hangup) == signal.SIG_IGN else set()
    batch = asyncio.current_task()

    def end(number: signal.Signals) -> None:
        came.append(number)
        if batch is not None and len(came) > 1:
            handlers.close()  # a third one is the system's own
            batch.cancel()
            return
        system.stop("Ctrl-C" if number == signal.SIGINT else number.name)
        print("waiting for what is in flight; Ctrl-C again ends it", file=sys.stderr)

    with handlers:
        # On Windows Ctrl-C cancels immediately; what is recorded is kept.
        with suppress(NotImplementedError):
            for number in numbers:
                loop.add_signal_handler(number, end, number)
                handlers.callback(loop.remove_signal_handler, number)
        return await system.batch_generate(
            topics, options.type, progress=True, cluster=options.cluster
        )
