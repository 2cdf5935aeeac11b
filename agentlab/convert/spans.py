"""A trace of ours in the forms that others read; `published` reads them, and theirs, again.

What a form cannot carry is left out, and is None when it is read again; docs/traces.md lists it.
"""

import csv
import io
from collections.abc import Sequence
from itertools import count

import msgspec

from agentlab.convert import otel, perfetto
from agentlab.errors import ConfigError
from agentlab.trace import Span, Trace

FORMS = ("otel", "perfetto", "mooncake", "csv")
TIMES = ("arrived_s", "started_s", "first_token_s", "end_s")
BLOCK_TOKENS = 512  # of a prompt, for one of Mooncake's hashes
_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "attempt", "status", "late_ms")
_MOST = 10**9  # so that nanoseconds fit into 64 bits


def carried(trace: Trace, form: str) -> list[Span]:
    """Return the requests, tools and agents that a form can carry, in order.

    A CSV carries all, Mooncake's requests that were answered, the others what has ended.
    """
    if form == "mooncake":
        return [s for s in trace.spans if s.ok and s.prompt_tokens and s.completion_tokens]
    spans = [
        span for span in [*trace.tools, *trace.spans] if form == "csv" or span.end_s is not None
    ]
    return sorted(spans, key=lambda span: span.arrived_s)


def export(trace: Trace, form: str, *, model: str = "", began_ns: int = 0) -> bytes:
    """Write what one of the `FORMS` can carry of a trace; only "otel" says model and date."""
    spans = [possible(f"request {s.request_id!r:.60}", s) for s in carried(trace, form)]
    if form == "otel":
        return otel.export(spans, model=model, began_ns=began_ns)
    if form == "perfetto":
        return perfetto.export(spans)
    return (_mooncake(spans) if form == "mooncake" else _csv(spans)).encode()


def possible(where: str, span: Span) -> Span:
    """Return a span, if its numbers can be; else raise a ConfigError."""
    for name in (*TIMES, *_COUNTS):
        value = getattr(span, name)
        least = -_MOST if name in TIMES else 0  # an agent may begin before its first request
        if value is not None and not least <= value <= _MOST:  # nan is refused, too
            most = f"{least:,} to {_MOST:,}"
            raise ConfigError(f"{where}: {name} must be from {most}; got {value!r:.60}")
    times_s = [at_s for name in TIMES if (at_s := getattr(span, name)) is not None]
    if times_s != sorted(times_s):
        raise ConfigError(f"{where}: {', '.join(TIMES)} must not decrease; got {times_s}")
    return span


def _csv(spans: Sequence[Span]) -> str:
    table = io.StringIO()
    columns = max((type(span).__struct_fields__ for span in spans), key=len, default=())
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(msgspec.structs.asdict, spans))
    return table.getvalue()


def _mooncake(spans: Sequence[Span]) -> str:
    """Return a line per request; blocks that it found in the cache have the hashes of earlier ones.

    A trace records no prompts, so whose blocks they were is a guess: those of its agent's latest
    request, or of anybody's if that has more. What nobody is known to share has a hash of its own.
    """
    new, lines = count(), []
    latest: dict[str | None, list[int]] = {None: []}  # whole blocks of an agent, and of anybody
    for span in spans:
        known = max(latest.get(span.agent, []), latest[None], key=len)
        hashes = known[: span.cached_tokens // BLOCK_TOKENS]
        hashes += [next(new) for _ in range(-(-span.prompt_tokens // BLOCK_TOKENS) - len(hashes))]
        latest[span.agent] = latest[None] = hashes[: span.prompt_tokens // BLOCK_TOKENS]
        lengths = {"input_length": span.prompt_tokens, "output_length": span.completion_tokens}
        line = {"timestamp": round(span.arrived_s * 1000), **lengths, "hash_ids": hashes}
        lines.append(msgspec.json.encode(line).decode() + "\n")
    return "".join(lines)
