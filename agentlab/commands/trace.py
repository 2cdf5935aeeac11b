"""`agentlab trace`: a trace in the forms of other tools, and theirs as a trace."""

import argparse
import sys
from pathlib import Path

import msgspec

from agentlab._support.fields import checked
from agentlab._support.system import write_whole
from agentlab.bench import forms, published
from agentlab.errors import ConfigError
from agentlab.trace import Trace


def run(options: argparse.Namespace) -> int:
    """Export or import, and say what the form cannot carry."""
    if (options.verb == "export") == (options.to is None):
        raise ConfigError("say `export FILE --to FORM`, or `import FILE`, which tells its form")
    if options.verb == "import":
        written = msgspec.json.Encoder().encode_lines(published.load(options.file).spans)
    else:
        trace = Trace.load(options.file)
        began_s = round(options.began.timestamp()) if options.began else 0
        checked("--began", began_s, most=8 * 10**9)  # so that its nanoseconds fit into 64 bits
        written = forms.export(trace, options.to, model=options.model, began_ns=began_s * 10**9)
        if left := trace.requests - len(forms.carried(trace, options.to)):
            reason = "were not answered" if options.to == "mooncake" else "have not ended"
            print(f"left out: {left} of {trace.requests} requests, which {reason}", file=sys.stderr)
    if options.out is None:
        sys.stdout.buffer.write(written)
        return 0
    try:
        write_whole(Path(options.out), written)
    except OSError as error:
        raise ConfigError(f"--out {options.out!r}: {error}; name a file that can be made") from None
    return 0
