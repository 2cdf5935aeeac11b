"""Which calls are due: each as soon as its arguments are known, and none twice.

A tool is called for the values that its part of the task names. What it lacks comes from the
results of those on which it depends: the tools before a "then", the one that looks up an id, and,
if nothing else holds a value, those that the task names before it. It waits for all their calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentlab.endpoint.answers._arguments import (
    Argument,
    Values,
    asked,
    fitting,
    from_results,
    from_task,
    sets_of,
    suits,
)
from agentlab.endpoint.answers._conversation import Conversation, Found
from agentlab.endpoint.answers._naming import Named, looks_up, speaks_of
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.contract.request import Function

Plan = list[dict[str, Any]]  # for each call of a tool, the arguments that it has to be given

_MOST_RESULTS = 64  # of the newest, in which a value is looked for


class Rounds:
    """The calls of a task, from its first round to its last; `known` are values to start with."""

    def __init__(
        self,
        tools: Sequence[Function],
        needs: Sequence[Named],
        said: Conversation,
        task: str,
        known: Callable[[Function], Values],
    ):
        self._tools, self._said, self._task, self._known = tools, said, task, known
        self._needs = {need.tool.name: need for need in needs}
        self._suppliers: dict[str, set[str]] = {}
        for need in needs:
            self._add_suppliers(need)
        self._plans: dict[str, Plan | None] = {}

    def due(self) -> list[tuple[Function, Plan]]:
        """Return the calls of this round."""
        plans = [(need.tool, self._plan(name) or []) for name, need in self._needs.items()]
        return [(tool, plan[self._made(tool.name) :]) for tool, plan in plans]

    def _made(self, name: str) -> int:
        return sum(each.name == name for each in self._said.found)

    def _add_suppliers(self, need: Named) -> None:
        """Have those called before that look up its ids, whether the task names them or not."""
        self._suppliers[need.tool.name] = set()
        for argument in self._lacking(need):
            rank = {tool.name: looks_up(tool, need.tool, argument) for tool in self._tools}
            able = [tool for tool in self._tools if rank[tool.name]]
            if argument.kind != "id" or not able or self._earlier(need.tool, argument):
                continue
            named = self._needs.keys()
            best = max(able, key=lambda t: (t.name in named, rank[t.name], suits(t, self._task)))
            first = best.name
            self._suppliers[need.tool.name].add(first)
            if first in self._needs:
                stage = min(need.stage, self._needs[first].stage)
                self._needs[first] = self._needs[first]._replace(stage=stage)
            else:
                self._needs = {first: Named(best, self._task, need.stage)} | self._needs
                self._add_suppliers(self._needs[first])

    def _plan(self, name: str) -> Plan | None:
        """Return the calls of a tool, those made included; None as long as it waits."""
        if name not in self._plans:
            self._plans[name] = None  # what waits for it meanwhile waits for itself
            depends_on = self._depends_on(self._needs[name])
            plans = {other: self._plan(other) for other in depends_on}
            if all(p is not None and self._made(other) >= len(p) for other, p in plans.items()):
                self._plans[name] = self._calls(self._needs[name], depends_on)
        return self._plans[name]

    def _depends_on(self, need: Named) -> list[str]:
        supplying, names = self._suppliers[need.tool.name], [*self._needs]
        lacking = [a for a in self._lacking(need) if a.kind != "id" or not supplying]
        before = names[: names.index(need.tool.name)] if lacking else []
        same = {name for name in before if self._needs[name].stage == need.stage}
        earlier = {name for name in names if self._needs[name].stage < need.stage}
        return [name for name in names if name in earlier | supplying | same]

    def _named(self, tool: Function, text: str) -> Values:
        return from_task(tool, text) | self._known(tool)

    def _lacking(self, need: Named) -> list[Argument]:
        """Return the arguments for which the task names no value; texts come with the tool."""
        here = self._named(need.tool, need.here)
        task = self._named(need.tool, self._task)
        return [
            each
            for each in asked(need.tool)
            if each.name not in here and (each.kind == "text" or each.name not in task)
            if each.kind != "other"
        ]

    def _calls(self, need: Named, depends_on: list[str]) -> Plan:
        """Return the calls of a tool, now that all is known; none if an id is not."""
        tool, values = need.tool, Values()
        found = [f for f in self._said.found if f.name in depends_on and f.informs]
        here, task = self._named(tool, need.here), self._named(tool, self._task)
        later = bool(found and need.stage)
        ids = any(each.kind == "id" for each in asked(tool))  # then its numbers are mere options
        computed = [each for each in asked(tool) if each.kind == "number" and not ids]
        here |= self._numbers(tool, here if later else task | here, found)
        for each in asked(tool):
            held, said = self._held(tool, each, found), task.get(each.name, [])
            rest = [held, said] if later or each.kind == "text" else [said, held]
            known = next(filter(None, [here.get(each.name), *rest]), [])
            if not known and each.kind == "id":
                known = self._earlier(tool, each) or ([] if depends_on else self._any(each))
            if not known and (each.kind == "id" or (each in computed and depends_on)):
                return []
            values |= {each.name: known} if known else {}
        return sets_of(tool, values)

    def _held(self, tool: Function, argument: Argument, found: Sequence[Found]) -> list[Any]:
        """Return what results hold: of an id, those first of the tools that speak of its owner."""
        found = found[-_MOST_RESULTS:]
        if argument.kind in ("text", "other"):
            texts = [each.text for each in found if argument.kind == "text"]
            return ["\n".join(texts)] if texts else []
        of = {o.name for o in self._tools if argument.kind == "id" and speaks_of(o, tool, argument)}
        own = [each.text for each in found if not of or each.name in of]
        return from_results(tool, argument, own, True) or from_results(
            tool, argument, [each.text for each in found], False
        )

    def _numbers(self, tool: Function, here: Values, found: Sequence[Found]) -> Values:
        """Return the numbers of a call: what results hold first, if the task names too few."""
        numbers = [each for each in asked(tool) if each.kind == "number"]
        said = [here[each.name] for each in numbers if each.name in here]
        if not found or len(said) == len(numbers):
            return {}
        held = self._held(tool, numbers[0], found)
        lists = [held] if len(numbers) - len(said) == 1 else [[number] for number in held]
        return {each.name: known for each, known in zip(numbers, lists + said, strict=False)}

    def _earlier(self, tool: Function, argument: Argument) -> list[Any]:
        """Return an id that a task before found, of what this one names, if it does."""
        names = [value for group in things(self._task).names for value in group.values]
        for each in self._said.earlier[: -_MOST_RESULTS - 1 : -1]:
            about = not names or any(name in each.arguments + each.text for name in names)
            if about and each.informs and (known := self._held(tool, argument, [each])):
                return known
        return []

    def _any(self, argument: Argument) -> list[Any]:
        """Return the first of what the task names, where no tool looks up what it is the id of."""
        named = things(self._task)
        groups = [*(named.names if argument.type == "string" else []), *named.numbers]
        return fitting(argument, groups[0].values) if groups else []
