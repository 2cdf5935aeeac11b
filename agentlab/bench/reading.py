"""What results say: curves over a growing number, how far each goes, and what ends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

from agentlab.bench.experiment import Case
from agentlab.bench.laws import Usl, fit_usl
from agentlab.bench.results import Measurement, Results

AXES = ("workload", "engine", "preset", "at_once", "seed", "strategy")
ENOUGH = 0.8
"""The share of the bound from which on we say that more agents still help."""


class Point(NamedTuple):
    """One case of a curve: medians over its repeats, times in model seconds."""

    n: int
    elapsed_s: float
    bound_s: float
    throughput: float
    peak: int
    p50_s: float | None
    p95_s: float | None
    cpu_ms: float | None
    busy: float | None

    @property
    def efficiency(self) -> float:
        """The share of the time taken that no schedule can save; 1 is perfect."""
        return self.bound_s / self.elapsed_s if self.elapsed_s else 1.0


class Curve(NamedTuple):
    """Cases that differ only in how many agents there are, or how many may be in flight."""

    name: str
    axis: Literal["agents", "at_once"]
    points: list[Point]

    @property
    def usl(self) -> Usl | None:
        """The scalability law fitted to it, where it has four points and grows in flight."""
        if self.axis != "at_once" or len(self.points) < 4:
            return None
        return fit_usl([p.n for p in self.points], [p.throughput for p in self.points])


def axes(results: Results) -> list[str]:
    """In what the measured cases differ; the engine, if they do not."""
    measured = [case for case in results.experiment.cases() if results.of(case)]
    return [a for a in AXES if len({getattr(case, a) for case in measured}) > 1] or ["engine"]


def named(case: Case, axes: Iterable[str]) -> str:
    """A case by its values on these axes, as a legend has it.

    Example:
        >>> named(Case("4 agents", "asyncio", "course", None, 7), ["workload", "at_once"])
        '4 agents, at_once no limit'
    """
    return ", ".join(
        f"{axis} {shown(getattr(case, axis))}"
        if axis in ("at_once", "seed")
        else getattr(case, axis)
        for axis in axes
    )


def shown(value: object) -> str:
    """A value of a case, as a table has it."""
    return "no limit" if value is None else str(value)


def curves(results: Results) -> list[Curve]:
    """The curves of an experiment that varies one number, at three or more values; else none."""
    agents = {w.name: w.agents for w in results.experiment.workloads if w.agents is not None}
    varied = axes(results)
    if "at_once" in varied and len(set(results.experiment.at_once) - {None}) >= 3:
        axis: Literal["agents", "at_once"] = "at_once"
        others = [a for a in varied if a != "at_once"] or ["engine"]
    elif "workload" in varied and len(agents) >= 3:
        axis = "agents"
        others = [a for a in varied if a != "workload"] or ["engine"]
    else:
        return []
    found: dict[str, list[Point]] = {}
    for case in results.experiment.cases():
        n = case.at_once if axis == "at_once" else agents.get(case.workload)
        if n is not None and results.of(case):
            found.setdefault(named(case, others), []).append(_point(n, results.of(case)))
    return [Curve(name, axis, sorted(points)) for name, points in found.items()]


def readings(results: Results) -> list[str]:
    """In a sentence each, what the figures say.

    Example:
        >>> from agentlab.bench import experiment, measure
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     r = measure.run(experiment.load("article"), Path(folder) / "article.json")
        >>> print(readings(r)[1])
        asyncio: at least 1.00 of the bound up to 16 agents
    """
    found = curves(results)
    if not found:
        return _costs(results)
    return [_knee(curve) if curve.axis == "at_once" else reach(curve) for curve in found]


def reach(curve: Curve) -> str:
    """How far a curve over agents keeps to the bound, and why it goes no further.

    With the endpoint's time L and c of processor time for each of N requests, one process takes
    about L + N c. So the processor is to blame if its time is most of what the bound leaves.
    """
    kept = [p for p in curve.points if p.efficiency >= ENOUGH]
    missed = [p for p in curve.points if p.efficiency < ENOUGH]
    last = curve.points[-1]
    if last.peak == 1:
        return f"{curve.name}: one at a time, {_agents(last.n)} in {last.elapsed_s:,.1f} s"
    if not missed:
        least = min(p.efficiency for p in kept)
        return f"{curve.name}: at least {least:.2f} of the bound up to {_agents(last.n)}"
    said = f"{curve.name}: {last.efficiency:.2f} of the bound at {_agents(last.n)}"
    if kept:
        said = f"{said}, {ENOUGH:g} or better up to {kept[-1].n:,}"
    if last.busy is None or last.cpu_ms is None or last not in missed:
        return said
    share = last.busy * last.elapsed_s / (last.elapsed_s - last.bound_s)
    blame = "this processor" if share > 0.5 else "not this processor"
    return f"{said}; {blame}, {last.cpu_ms:.2f} ms a request"


def _point(n: int, runs: Sequence[Measurement]) -> Point:
    elapsed_s = median(m.elapsed_s for m in runs)
    return Point(
        n=n,
        elapsed_s=elapsed_s,
        bound_s=median(m.bound_s for m in runs),
        throughput=runs[0].answered / elapsed_s if elapsed_s else 0.0,
        peak=max(m.peak for m in runs),
        p50_s=_median(m.p50_s for m in runs),
        p95_s=_median(m.p95_s for m in runs),
        cpu_ms=_median(m.cpu_ms for m in runs),
        busy=_median(m.busy for m in runs),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _knee(curve: Curve) -> str:
    best = max(curve.points, key=lambda p: p.throughput)
    said = f"{curve.name}: most at {best.n} at once, {best.throughput:.3g} answers a second"
    if curve.usl is None:
        return said
    return f"{said}; contention {curve.usl.contention:.2g}, coherency {curve.usl.coherency:.2g}"


def _agents(n: int) -> str:
    return f"{n:,} agent{'s' if n != 1 else ''}"


def _costs(results: Results) -> list[str]:
    """Where nothing grows: what an answer costs, by strategy and by engine."""
    said = []
    axis: Literal["strategy", "engine"]
    for axis in ("strategy", "engine"):
        by: dict[str, list[list[Measurement]]] = {}
        for case in results.experiment.cases():
            if runs := results.of(case):
                by.setdefault(getattr(case, axis), []).append(runs)
        for name, cases in by.items() if len(by) > 1 else ():
            every = [m for runs in cases for m in runs]
            answered = sum(m.answered for m in every)
            costs_ms = [ms for runs in cases if (ms := _median(m.cpu_ms for m in runs)) is not None]
            if axis == "strategy" and answered:
                each = sum(m.requests for m in every) / answered
                said.append(f"{name}: {each:.3g} request{'s' if each != 1 else ''} an answer")
            elif costs_ms:
                least, most = min(costs_ms), max(costs_ms)
                said.append(f"{name}: {least:.2f} to {most:.2f} ms of processor time a request")
    return said
