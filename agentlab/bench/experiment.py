"""What is measured: every combination of the lists in an experiment's file."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from agentlab import named, settings
from agentlab.bench.strategy import Strategy
from agentlab.errors import ConfigError
from agentlab.fields import Text
from agentlab.located import LocatedFile
from agentlab.settings import DATA, Settings
from agentlab.workflow import Step, Workflow, random_workflow

_EXPERIMENTS = DATA / "experiments"

AXES = ("workload", "engine", "preset", "at_once", "seed", "strategy")
"""In what cases may differ."""

MOST_MEASUREMENTS = 100_000
"""More than anybody waits for, and a file of them would be read for minutes."""

UpToAMillion = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

Engine = Literal[
    "sequential", "asyncio", "langgraph", "crewai", "dask", "langgraph-graph", "functions", "crowd"
]


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked: agents that are independent of each other, a workflow, or random workflows.

    Attributes:
        agents: How many agents ask one question each.
        tokens: The length of each one's answer. On `course`, n tokens take .9 + n / 10 s.
        workflow: A workflow by its name, or a file's path.
        random: How many random workflows (`workflow.random_workflow`), from seed 0 on.
        inputs: The workflow's inputs.
    """

    agents: UpToAMillion | None = None
    tokens: UpToAMillion = 11
    workflow: Text | None = None
    random: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | UnsetType = UNSET
    inputs: dict[str, str] = {}

    def __post_init__(self) -> None:
        given = (self.agents is not None, self.workflow is not None, self.random is not UNSET)
        if sum(given) != 1:
            raise ValueError("give one of agents, workflow and random")

    @property
    def name(self) -> str:
        """How tables call it, where no other workload of the experiment is called so."""
        if self.workflow is not None:
            return Path(self.workflow).stem
        if self.random is not UNSET:
            return f"{self.random:,} random workflow{'s' if self.random != 1 else ''}"
        return f"{self.agents:,} agent{'s' if self.agents != 1 else ''}"

    @property
    def length(self) -> str:
        """How long each agent's answer is, in words; nothing for workflows."""
        if self.agents is None:
            return ""
        return f"{self.tokens:,} token{'s' if self.tokens != 1 else ''}"

    def build(self, number: int = 0) -> Workflow:
        """Return the workflow to run; of random ones the one with that seed.

        Raises:
            ConfigError: If there is no such workflow, or its inputs are others.
        """
        if self.workflow is not None:
            workflow = Workflow.load(self.workflow)
            workflow.given(self.inputs)
            return workflow
        if self.random is not UNSET:
            return random_workflow(number)
        steps = [
            Step(f"agent_{n}", f"Describe river {n} in ten paragraphs.", max_tokens=self.tokens)
            for n in range(self.agents or 0)
        ]
        return Workflow(steps, name=self.name)


class Case(msgspec.Struct, frozen=True, order=True):
    """One combination: what a row of the table stands for."""

    workload: str
    engine: str
    preset: str
    at_once: int | None
    seed: int
    strategy: Strategy = "once"

    def named(self, axes: Iterable[str]) -> str:
        """Return its values on these axes, as a legend shows them.

        Example:
            >>> Case("4 agents", "asyncio", "course", None, 7).named(["workload", "at_once"])
            '4 agents, at_once no limit'
        """
        return ", ".join(
            f"{axis} {shown(getattr(self, axis))}"
            if axis in ("at_once", "seed")
            else getattr(self, axis)
            for axis in axes
        )


def shown(value: object) -> str:
    """Return a value of a case as a table shows it."""
    return "no limit" if value is None else str(value)


def varied(cases: Iterable[Case]) -> list[str]:
    """In what these cases differ; the engine, if they do not."""
    values = list(cases)
    return [a for a in AXES if len({getattr(case, a) for case in values}) > 1] or ["engine"]


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of `data/experiments/`, or one of your own.

    Attributes:
        about: The question, in a sentence.
        engines: What drives the agents. `dask` sends from other processes, `langgraph-graph` is
            LangGraph's plain graph, which runs in supersteps, `functions` is `agentlab.parallel`,
            and `crowd` has no client (`agentlab.bench.closed_loop`).
        clock: "virtual" is exact and needs no repeats; "real" is what a user waits.
        at_once: The most requests in flight; null is no limit.
        strategies: How a refused request is met; see `agentlab.bench.strategy`.
        repeats: How often each case is measured, in turn with all others; of random workflows,
            how often each one is.
        warmups: How often each case is run before, unmeasured, on the real clock.
        settings: What else `lab.configure` takes, such as `requests_per_minute`.
    """

    about: Text
    workloads: Annotated[list[Workload], msgspec.Meta(min_length=1)]
    engines: Annotated[list[Engine], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["sequential", "asyncio"]
    )
    presets: Annotated[list[Text], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["course"]
    )
    at_once: Annotated[list[UpToAMillion | None], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [None]
    )
    seeds: Annotated[list[Seed], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [7]
    )
    strategies: Annotated[list[Strategy], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["once"]
    )
    clock: Literal["virtual", "real"] = "virtual"
    repeats: UpToAMillion = 1
    warmups: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        many = sum(workload.random or 1 for workload in self.workloads) * self.repeats
        for field in ("engines", "presets", "at_once", "seeds", "strategies"):
            values = getattr(self, field)
            many *= len(values)
            if twice := [value for value, times in Counter(values).items() if times > 1]:
                raise ValueError(f"{field}: {twice[0]!r} is there twice; name each once")
        if many > MOST_MEASUREMENTS:
            raise ValueError(
                f"these are {many:,} measurements, and at most {MOST_MEASUREMENTS:,} are made; "
                "shorten a list, or repeat less often"
            )
        for engine in {"crewai", "dask"} & set(self.engines):
            if self.clock == "virtual":
                raise ValueError(f"the engine {engine} keeps no virtual time; set clock: real")
        if "crowd" in self.engines:
            self._check_crowd()
        if len(self.by_name) < len(self.workloads):
            names = ", ".join(workload.name for workload in self.workloads)
            raise ValueError(
                f"two workloads have one name: {names}; leave one out, or give its workflow's file "
                "another name"
            )
        if taken := {"preset", "seed"} & set(self.settings):
            raise ValueError(f"settings: {taken.pop()} has a list of its own in the experiment")

    def _check_crowd(self) -> None:
        wrong = {
            "clock: virtual": self.clock != "virtual",
            "workloads with agents": any(w.agents is None for w in self.workloads),
            "numbers in at_once": None in self.at_once,
            "no strategies": self.strategies != ["once"],
            "no settings": bool(self.settings),
        }
        if any(wrong.values()):
            needs = " and ".join(need for need, missing in wrong.items() if missing)
            raise ValueError(f"the engine crowd has no client, so it needs {needs}")

    @property
    def by_name(self) -> dict[str, Workload]:
        """Name -> workload. The name tells the length of answers where another would have it too.

        Example:
            >>> lengths = [Workload(agents=1), *(Workload(agents=3, tokens=n) for n in (44, 109))]
            >>> list(Experiment(about="x", workloads=lengths).by_name)
            ['1 agent', '3 agents, 44 tokens', '3 agents, 109 tokens']
        """
        named = Counter(workload.name for workload in self.workloads)
        return {
            f"{w.name}, {w.length}" if named[w.name] > 1 and w.length else w.name: w
            for w in self.workloads
        }

    def runs(self, workload: str) -> int:
        """Return how often each case of this workload is measured."""
        return self.repeats * (self.by_name[workload].random or 1)

    @property
    def chosen(self) -> Settings:
        """The environment's settings, changed by its own."""
        return settings.from_environment(**self.settings)

    @property
    def asks_real(self) -> bool:
        """True if a real model will answer: in virtual time none can."""
        return self.clock == "real" and self.chosen.real

    def as_asked(self) -> Experiment:
        """As it will be measured: a real model has no preset and no seed, so one of each is enough.

        All of them would be the same cases, paid for again.
        """
        if not self.asks_real:
            return self
        return msgspec.structs.replace(self, presets=self.presets[:1], seeds=self.seeds[:1])

    def cases(self) -> Iterator[Case]:
        """Every combination; those that one endpoint can answer stand together."""
        for preset, seed in itertools.product(self.presets, self.seeds):
            for workload, at_once, strategy, engine in itertools.product(
                self.by_name, self.at_once, self.strategies, self.engines
            ):
                yield Case(workload, engine, preset, at_once, seed, strategy)


def names() -> list[str]:
    """Return the experiments that come with the course."""
    return named.names(_EXPERIMENTS)


def found(file: str | Path) -> Path:
    """Return the file of an experiment, given by its name or by its path.

    Raises:
        ConfigError: If there is none.
    """
    return named.found(file, _EXPERIMENTS, what="experiment")


def load(file: str | Path) -> Experiment:
    """Read an experiment by its name, or from a file by its path.

    Raises:
        ConfigError: If there is no such file.
        FileError: If it is wrong, naming line and field.

    Example:
        >>> load("article").clock
        'virtual'
    """
    located = LocatedFile(found(file), what="experiment")
    experiment = located.decode(Experiment)
    for number, workload in enumerate(experiment.workloads):
        try:
            workload.build()
        except ConfigError as error:
            raise located.error([located.problem(("workloads", number), str(error))]) from None
    if experiment.settings:
        try:
            _ = experiment.chosen
        except ConfigError as error:
            raise located.error([located.problem(("settings",), str(error))]) from None
    return experiment
