"""Names that need each other, such as steps: their order, and bounds from the time of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from operator import itemgetter

from agentlab._support.fields import Where
from agentlab.errors import ConfigError
from agentlab.trace import max_overlap

Mentions = Sequence[tuple[str, Sequence[str]]]
"""Each node's name, and the names of nodes and inputs that it uses."""

Needs = Mapping[str, Sequence[str]]
"""Node -> the nodes that it needs, each of which stands before it."""


class Graph:
    """Which node needs which, sorted so that each comes after those that it needs.

    `needs` has the nodes that each node needs, without `inputs`; messages call one a `node`.

    Raises:
        ConfigError: If a name is unknown, given twice or never used, or needs form a circle.
    """

    def __init__(self, mentions: Mentions, *, inputs: Sequence[str] = (), node: str = "step"):
        self._node = node
        for _, says in flaws(mentions, inputs, node=node):
            raise ConfigError(says)
        left = {name: tuple(n for n in names if n not in inputs) for name, names in mentions}
        self.needs: dict[str, tuple[str, ...]] = {}
        while left:
            for name, needed in list(left.items()):
                if self.needs.keys() >= set(needed):
                    self.needs[name] = left.pop(name)

    @property
    def ends(self) -> list[str]:
        """The nodes that no other needs: what the whole is for."""
        needed = {name for names in self.needs.values() for name in names}
        return [name for name in self.needs if name not in needed]

    def plan(self, seconds: Mapping[str, float], wait_s: Mapping[str, float] | None = None) -> Plan:
        """Return when each node runs if it starts as soon as those that it needs have ended.

        `seconds` has how long each takes, as `trace.seconds` does; `wait_s` how long after those
        that it needs, or after the beginning, a node may start, if not immediately.

        Raises:
            ConfigError: If the time of a node is missing or negative.
        """
        for name in self.needs:
            if seconds.get(name, -1.0) < 0:
                says = f"{self._node} {name!r} takes {seconds.get(name)!r} seconds"
                raise ConfigError(f"{says}; give each {self._node}'s time, 0 or more")
        return Plan(self.needs, {name: seconds[name] for name in self.needs}, wait_s or {})


Flaw = tuple[Where, str]
"""The way to a name in a workflow file, and what is wrong with it."""


def flaws(mentions: Mentions, inputs: Sequence[str], *, node: str = "step") -> list[Flaw]:
    """Return everything that is wrong with names, or else the first circle."""
    found: list[Flaw] = []
    names = [name for name, _ in mentions]
    used = {need for _, needs in mentions for need in needs}
    seen: set[str] = set()
    places: list[Where] = [("inputs", number) for number in range(len(inputs))]
    places += [("steps", number, "name") for number in range(len(names))]
    for where, name in zip(places, [*inputs, *names], strict=True):
        if name in seen:
            says = f"the name {name!r} is given twice; give each {node} and input one of its own"
            found.append((where, says))
        elif where[0] == "inputs" and name not in used:
            found.append((where, f"no {node} uses the input {name!r}; take it out"))
        seen.add(name)
    for number, (name, needs) in enumerate(mentions):
        for need in [need for need in needs if need not in seen]:
            says = f"{node} {name!r} needs {need!r}, which is no {node} and no input"
            there = listed(dict.fromkeys([*names, *inputs]))
            found.append((("steps", number, "prompt"), f"{says}; there are {there}"))
    if not found:
        try:
            TopologicalSorter(dict(mentions)).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            says = f"these {node}s wait for each other forever: {' -> '.join(circle)}; take one out"
            found.append((("steps", names.index(circle[0]), "prompt"), says))
    return found


class Plan:
    """A graph's schedule without limits, and the bounds that follow from it.

    Attributes:
        start_s: Node -> its earliest start: the end of the last node that it needs.
        work_s: The time of all nodes, one after the other.
        span_s: The time of the longest chain of nodes that need each other: the lower bound.
        critical_path: That chain, from first to last.
        supersteps_s: The makespan in supersteps, each as long as its longest node. A node's
            superstep is one later than the latest of those that it needs.

    Work, span and their law: R. D. Blumofe and C. E. Leiserson, J. ACM 46 (1999); the bound for a
    limited number of workers: R. L. Graham (1966).
    """

    def __init__(self, needs: Needs, seconds: dict[str, float], wait_s: Mapping[str, float]):
        self.seconds = seconds
        self._released_s: dict[str, float] = {}  # the waits alone, on the longest way there
        self.start_s: dict[str, float] = {}
        self.end_s: dict[str, float] = {}
        superstep: dict[str, int] = {}
        longest_s: dict[int, float] = {}
        for name, needed in needs.items():  # sorted: what a node needs stands before it
            mine_s = wait_s.get(name, 0.0)
            self._released_s[name] = mine_s + max((self._released_s[n] for n in needed), default=0)
            before_s = max((self.end_s[need] for need in needed), default=0.0)
            self.start_s[name] = round(mine_s + before_s, 9)
            self.end_s[name] = round(self.start_s[name] + seconds[name], 9)
            number = superstep[name] = 1 + max((superstep[need] for need in needed), default=0)
            longest_s[number] = max(longest_s.get(number, 0.0), seconds[name])
        self.work_s = round(sum(seconds.values()), 9)
        self.span_s = max(self.end_s.values(), default=0.0)
        self.supersteps_s = round(sum(longest_s.values()), 9)
        self.critical_path: list[str] = []
        among: Collection[str] = needs
        while among:
            node = max(among, key=self.end_s.__getitem__)
            self.critical_path.insert(0, node)
            among = needs[node]

    @property
    def peak(self) -> int:
        """The most nodes that run at the same time."""
        return max_overlap((self.start_s[name], self.end_s[name]) for name in self.seconds)

    def bound_s(self, max_concurrency: int | None = None) -> float:
        """Return the time that no schedule with at most `max_concurrency` nodes in flight beats."""
        bound_s, left_s = self.span_s, 0.0
        if max_concurrency is None:
            return bound_s
        # What is released at some time or later is not done before all slots have done it.
        for name, released_s in sorted(self._released_s.items(), key=itemgetter(1), reverse=True):
            left_s += self.seconds[name]
            bound_s = max(bound_s, released_s + round(left_s, 9) / max_concurrency)
        return bound_s


def listed(names: Iterable[str]) -> str:
    """Return names for a message, in quotes."""
    return ", ".join(map(repr, names)) or "none"
