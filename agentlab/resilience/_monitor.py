"""What happened to the calls: attempts, outcomes and latency, even when runs overlap.

Names and buckets are those of OpenTelemetry's conventions for generative AI, version 0.1.0, as
Prometheus writes them. Tokens are not counted: a guard sees a call's answer, not its usage, which
is in the trace. https://github.com/open-telemetry/semantic-conventions-genai
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from agentlab import lab


class Monitor:
    """Counts calls, and the attempts that they took, by agent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["gen_ai_agent_name", "error_type"]
        self._duration = Histogram(
            "gen_ai_client_inference_duration_seconds",
            "Of a call with all its attempts, in model seconds; error_type is empty on success.",
            ["gen_ai_operation_name", "gen_ai_provider_name", *labels],
            buckets=[round(0.01 * 2**n, 2) for n in range(14)],
            registry=self.registry,
        )
        said = "Requests sent, by how each ended; hedges left out."
        self._attempts = Counter("agentlab_attempts", said, labels, registry=self.registry)
        self._latest_s: deque[float] = deque(maxlen=1000)
        self._in_flight = 0

    @contextmanager
    def call(self, agent: str) -> Iterator[None]:
        """Measure one call, with all its attempts."""
        began_s = lab.now_s()
        self._in_flight += 1
        error_type = ""
        try:
            yield
            self._latest_s.append(lab.now_s() - began_s)
        except BaseException as error:
            error_type = type(error.__cause__ or error).__name__
            raise
        finally:
            self._in_flight -= 1
            took_s = lab.now_s() - began_s
            self._duration.labels("chat", "openai", agent, error_type).observe(took_s)

    def attempt(self, agent: str, error: BaseException | None) -> None:
        """Count one request that has ended, well or with an error."""
        self._attempts.labels(agent, type(error).__name__ if error else "").inc()

    def health(self) -> dict[str, float]:
        """Return calls, how they ended, attempts, and the latency of the latest 1,000 answers."""
        health: dict[str, float] = {"in_flight": self._in_flight}
        health["calls"], health["failed"] = _sums(self._duration, "_count")
        health["attempts"], health["failed_attempts"] = _sums(self._attempts, "_total")
        if len(self._latest_s) > 1:
            cuts = quantiles(self._latest_s, n=100, method="inclusive")
            health |= {"p50_s": round(cuts[49], 3), "p95_s": round(cuts[94], 3)}
        return health

    def prometheus(self) -> str:
        """Return everything in Prometheus' text format, to be scraped or written to a file."""
        return generate_latest(self.registry).decode()


def _sums(metric: Counter | Histogram, what: str) -> tuple[int, int]:
    samples = [s for m in metric.collect() for s in m.samples if s.name.endswith(what)]
    failed = sum(s.value for s in samples if s.labels["error_type"])
    return int(sum(s.value for s in samples)), int(failed)
