"""What is measured: every combination of the lists in an experiment's file."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from agentlab import lab, settings
from agentlab._support import DATA, yaml_file
from agentlab._support.fields import NotNegative, Text, Where, model
from agentlab._support.yaml_file import LocatedFile
from agentlab.bench.arrivals import Arrivals, replayed
from agentlab.bench.published import Arrival
from agentlab.bench.summary import Price, Slo, Window
from agentlab.endpoint.answers.answer import FRAME_TOKENS
from agentlab.endpoint.contract.tokens import split
from agentlab.errors import ConfigError
from agentlab.settings import Settings
from agentlab.workflow import Step, Workflow, listed, random_workflow

_EXPERIMENTS = DATA / "experiments"

AXES = ("workload", "engine", "preset", "max_concurrency", "seed", "strategy")
_MOST_MEASUREMENTS = 100_000  # it would take minutes to read a file of more

UpToAMillion = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1), Field(ge=0, le=2**63 - 1, strict=True)]

T = TypeVar("T")
Some = Annotated[list[T], Field(min_length=1)]

Engine = Literal[
    "sequential", "asyncio", "langgraph", "crewai", "dask", "openai-agents", "pydantic-ai",
    "langgraph-graph", "functions", "crowd",
]  # fmt: skip
Strategy = Literal["once", "insist", "retry", "timeout", "pace"]


def counted(number: int, what: str) -> str:
    """Return how many there are in words: "1 agent", "1,024 agents"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@model
class StubTool:
    """A tool that is called with a topic, takes its time, and says the same of the same topic.

    Attributes:
        seconds: How long it takes, in model seconds; of several each call draws one.
        fails: The error with which each call ends, instead of a result.
    """

    seconds: NotNegative | Some[NotNegative] = 0.0
    fails: Text | UnsetType = UNSET

    def function(self, name: str, seed: int) -> Callable[[str], Awaitable[str]]:
        """Return the tool by that name; with the same seed, the same topic takes as long."""

        async def tool(topic: str) -> str:
            takes_s, draw = self.seconds, Random(f"{name} {topic} {seed}")
            await lab.sleep(draw.choice(takes_s) if isinstance(takes_s, list) else takes_s)
            if self.fails:
                raise RuntimeError(self.fails)
            return f"What {name} says of {topic} is what it said before."

        return tool


@model
class Workload:
    """What is asked: agents with one question each, a workflow, or random workflows.

    Attributes:
        agents: How many; of a published trace the first ones, if it has as many.
        tokens: The length of each answer, or several, of which each agent draws one.
        prompt_tokens: The same of the prompts; left out, they are as long as their words.
        arrivals: When agents arrive; left out, all are there from the beginning.
        turns: How many questions each agent asks, one after the other. Each has all that was said
            before in its prompt, and comes `think_s` after the answer to the one before.
        random: So many random workflows, from seed 0 on.
        tools: What the steps of a workflow call by these names.
    """

    agents: UpToAMillion | None = None
    tokens: UpToAMillion | Some[UpToAMillion] = 11
    workflow: Text | None = None
    random: Annotated[int, Field(ge=1, le=10_000, strict=True)] | UnsetType = UNSET
    inputs: dict[str, str] = field(default_factory=dict)
    prompt_tokens: UpToAMillion | Some[UpToAMillion] | UnsetType = UNSET
    arrivals: Arrivals | UnsetType = UNSET
    turns: Annotated[int, Field(ge=1, le=100, strict=True)] | UnsetType = UNSET
    think_s: NotNegative | UnsetType = UNSET
    tools: dict[str, StubTool] | UnsetType = UNSET

    def __post_init__(self) -> None:
        given = (self.agents is not None, self.workflow is not None, self.random is not UNSET)
        if sum(given) != 1:
            raise ValueError("give one of agents, workflow and random")
        if self.agents is None and not self.plain:
            raise ValueError("arrivals, prompt_tokens, turns and think_s are for agents")
        if self.workflow is None and self.tools:
            raise ValueError("tools are for a workflow, whose steps name them")
        if self.arrivals and self.arrivals.trace and self.prompt_tokens is not UNSET:
            raise ValueError("prompt_tokens: the trace has the length of each prompt; leave it out")

    @property
    def plain(self) -> bool:
        """True if all are there from the beginning, ask once, and ask the same in their words."""
        more = (self.arrivals, self.prompt_tokens, self.turns, self.think_s)
        return all(one is UNSET for one in more) and isinstance(self.tokens, int)

    @property
    def name(self) -> str:
        """Its name in tables, if no other workload has the same."""
        if self.workflow is not None:
            return Path(self.workflow).stem
        if self.random is not UNSET:
            return counted(self.random, "random workflow")
        name = counted(self.agents or 0, "agent")
        name += f", {counted(self.turns, 'turn')}" if self.turns else ""
        return f"{name}, {self.arrivals}" if self.arrivals else name

    def functions(self, seed: int) -> dict[str, Callable[..., Any]] | None:
        """Return its tools as functions; None if it has none."""
        return {name: one.function(name, seed) for name, one in (self.tools or {}).items()} or None

    def sessions(self, seed: int) -> list[Arrival]:
        """Return when each agent arrives and how much it says; the same seed draws the same.

        A prompt of 0 tokens is as long as its words.
        """
        agents, draw = self.agents or 0, Random(f"lengths {seed}")
        if self.arrivals and self.arrivals.trace:
            return replayed(self.arrivals.trace, agents)

        def one(of: int | list[int] | UnsetType) -> Any:
            return draw.choice(of) if isinstance(of, list) else of or 0

        times_s = self.arrivals.at_s(agents, seed) if self.arrivals else [0.0] * agents
        return [Arrival(at_s, one(self.prompt_tokens), one(self.tokens)) for at_s in times_s]

    def drawn(self, seed: int, *, number: int = 0) -> tuple[Workflow, dict[str, float]]:
        """Return the workflow for a seed, and how long after its needs each step is due.

        A step without needs is due so long after the beginning: when its agent arrives. Raises a
        ConfigError if there is no such workflow, or it takes other inputs.
        """
        if self.workflow is not None:
            workflow = Workflow.load(self.workflow)
            workflow.given(self.inputs)
            called = {tool for step in workflow.steps for tool in step.tools}
            if called != {*(self.tools or {})}:
                calls = f"{workflow.name!r} calls the tools {listed(sorted(called))}"
                raise ConfigError(f"{calls}; give just these under `tools`, each as {{seconds: 2}}")
            return workflow, {}
        if self.random is not UNSET:
            return random_workflow(number), {}
        steps: list[Step] = []
        wait_s: dict[str, float] = {}
        for agent, session in enumerate(self.sessions(seed)):
            prompt = f"Describe river {agent} in ten paragraphs."
            if session.prompt_tokens:
                pieces, tokens = split(prompt), session.prompt_tokens - 2 * FRAME_TOKENS
                prompt = "".join(pieces[: max(tokens, 1)]) + " water" * (tokens - len(pieces))
            for turn in range(self.turns or 1):
                name = f"agent_{agent}_turn_{turn}" if self.turns else f"agent_{agent}"
                wait_s[name] = float(self.think_s or 0.0) if turn else session.at_s
                steps.append(Step(name, prompt, max_tokens=session.output_tokens))
                prompt += f"\n\n{{{name}}}\n\nWhat follows from this for river {agent}?"
        return Workflow(steps, name=self.name), wait_s


class Case(msgspec.Struct, frozen=True, order=True):
    """One combination: a row of the table."""

    workload: str
    engine: str
    preset: str
    max_concurrency: int | None
    seed: int
    strategy: Strategy = "once"

    def named(self, axes: Iterable[str]) -> str:
        """Return its values on these axes, for a legend."""
        names = {"max_concurrency": "max_concurrency ", "seed": "seed "}
        return ", ".join(names.get(axis, "") + shown(getattr(self, axis)) for axis in axes)


def shown(value: object) -> str:
    return "no limit" if value is None else str(value)


def varied(cases: Iterable[Case]) -> list[str]:
    """Return the axes on which these cases differ; the engine, if they do not."""
    values = list(cases)
    return [a for a in AXES if len({getattr(case, a) for case in values}) > 1] or ["engine"]


@model
class Experiment:
    """A file of `data/experiments/`, or one of your own.

    Attributes:
        engines: What drives the agents. `langgraph-graph` is LangGraph's plain graph, `functions`
            is `agentlab.learning.parallel`, and `crowd` is `agentlab.bench.closed_loop`.
        strategies: How a refused request is met; see `agentlab.bench.measure.asking`.
        warmups: How often each case is run before, unmeasured, on the real clock.
        slo: Which calls count for goodput.
        window: Which calls count for percentiles and throughput, after a warm-up.
        price: From which each case's cost is told.
        stream: Whether answers are streamed, so that a real model's have a time to first token.
        settings: What else `lab.configure` takes, such as `requests_per_minute`.
    """

    about: Text
    workloads: Some[Workload]
    engines: Some[Engine] = field(default_factory=lambda: ["sequential", "asyncio"])
    presets: Some[Text] = field(default_factory=lambda: ["course"])
    max_concurrency: Some[UpToAMillion | None] = field(default_factory=lambda: [None])
    seeds: Some[Seed] = field(default_factory=lambda: [7])
    strategies: Some[Strategy] = field(default_factory=lambda: ["once"])
    clock: Literal["virtual", "real"] = "virtual"
    repeats: UpToAMillion = 1
    warmups: Annotated[int, Field(ge=0, le=1000, strict=True)] = 1
    settings: dict[str, Any] = field(default_factory=dict)
    slo: Slo | UnsetType = UNSET
    window: Window | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    stream: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        many = sum(workload.random or 1 for workload in self.workloads) * self.repeats
        for axis in ("engines", "presets", "max_concurrency", "seeds", "strategies"):
            (most, times), *_ = Counter(getattr(self, axis)).most_common(1)
            many *= len(getattr(self, axis))
            if times > 1:
                raise ValueError(f"{axis}: {most!r} is there twice; name each once")
        if many > _MOST_MEASUREMENTS:
            raise ValueError(f"{many:,} measurements, and {_MOST_MEASUREMENTS:,} are the most")
        if self.clock == "virtual" and {"crewai", "dask"} & set(self.engines):
            raise ValueError("crewai and dask keep real time; take them out, or set clock: real")
        client = self.settings or self.stream or self.clock == "real" or self.strategies != ["once"]
        plain = all(workload.plain for workload in self.workloads) and not client
        if "crowd" in self.engines and (not plain or None in self.max_concurrency):
            needs = "clock: virtual, strategies: [once] and numbers in max_concurrency"
            lacks = "takes no settings, arrivals, turns and lengths"
            raise ValueError(f"the engine crowd has no client; it needs {needs}, and {lacks}")
        if len(self.by_name) < len(self.workloads):
            names = ", ".join(workload.name for workload in self.workloads)
            raise ValueError(f"two workloads have one name: {names:.200}; leave out or rename one")
        if taken := {"preset", "seed"} & set(self.settings):
            raise ValueError(f"settings: {taken.pop()} has a list of its own in the experiment")

    @property
    def by_name(self) -> dict[str, Workload]:
        """Name -> workload. The name has the length of answers if another would be equal."""
        times = Counter(workload.name for workload in self.workloads)
        found = {}
        for workload in self.workloads:
            name = workload.name
            if times[name] > 1 and workload.agents is not None:
                name += f", {workload.tokens} tokens"
                name += f", {workload.prompt_tokens} asked" if workload.prompt_tokens else ""
            found[name] = workload
        return found

    def runs(self, workload: str) -> int:
        """Return how often each case of this workload is measured."""
        return self.repeats * (self.by_name[workload].random or 1)

    @property
    def chosen(self) -> Settings:
        return settings.from_environment(**self.settings)

    @property
    def asks_real(self) -> bool:
        """True if a real model will answer: in virtual time none can."""
        return self.clock == "real" and self.chosen.real

    def as_asked(self) -> Self:
        """Return it as it will be measured: a real model has one preset and one seed."""
        if not self.asks_real:
            return self
        return dataclasses.replace(self, presets=self.presets[:1], seeds=self.seeds[:1])

    def cases(self) -> Iterator[Case]:
        work = itertools.product(self.presets, self.seeds, self.by_name)
        ways = [*itertools.product(self.max_concurrency, self.strategies, self.engines)]
        for (preset, seed, workload), (most, strategy, engine) in itertools.product(work, ways):
            yield Case(workload, engine, preset, most, seed, strategy)


names = partial(yaml_file.names, _EXPERIMENTS)
found = partial(yaml_file.found, folder=_EXPERIMENTS, what="experiment")


def load(file: str | Path) -> Experiment:
    """Read an experiment by its name, or from a file by its path; a ConfigError names mistakes.

    Example:
        >>> load("article").clock
        'virtual'
    """
    located = LocatedFile(found(file), what="experiment")
    experiment = located.decode(Experiment)
    where: Where = ("settings",)
    try:
        if experiment.settings:
            settings.from_environment(**experiment.settings)
        for number, workload in enumerate(experiment.workloads):
            where = ("workloads", number)
            if workload.workflow is not None or workload.arrivals:
                workload.drawn(seed=7)
    except ConfigError as error:
        raise located.error([located.problem(where, str(error))]) from None
    return experiment
