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
    owners,
    sets_of,
    shared_out,
)
from agentlab.endpoint.answers._conversation import Conversation, Found
from agentlab.endpoint.answers._naming import Named, bears, supplier
from agentlab.endpoint.answers._things import Group, things
from agentlab.endpoint.contract.request import Function

_MOST_RESULTS = 64  # of the newest, in which a value is looked for


class Rounds:
    """The calls of a task, from its first round to its last."""

    def __init__(
        self,
        tools: Sequence[Function],
        task: str,
        said: Conversation,
        needs: Sequence[Named],
        people: Callable[[Function], Values],
    ):
        self._tools, self._task, self._said, self._people = tools, task, said, people
        self._needs = {need.tool.name: need for need in needs}
        self._suppliers: dict[str, set[str]] = {}
        for need in needs:
            self._add_suppliers(need)
        self._planned: dict[str, list[dict[str, Any]] | None] = {}

    def due(self) -> list[tuple[Function, list[dict[str, Any]]]]:
        """Return the calls of this round: each tool, with the arguments that it has to be given."""
        made = [each.name for each in self._said.found]
        plans = [(need.tool, (self._plan(name) or [])) for name, need in self._needs.items()]
        return [(tool, plan[made.count(tool.name) :]) for tool, plan in plans]

    def _named(self, tool: Function, text: str) -> Values:
        return from_task(tool, text) | self._people(tool)

    def _add_suppliers(self, need: Named) -> None:
        """Have what looks up its ids called before, named by the task or not."""
        supplying = self._suppliers.setdefault(need.tool.name, set())
        for argument in self._lacking(need):
            found = supplier(
                [*(n.tool for n in self._needs.values()), *self._tools], need.tool, argument
            )
            if argument.kind != "id" or found is None or self._earlier(need, argument):
                continue
            supplying.add(found.name)
            if found.name not in self._needs:
                added = Named(found, self._task, need.stage)
                self._needs = {found.name: added} | self._needs
                self._add_suppliers(added)
            elif self._needs[found.name].stage > need.stage:
                self._needs[found.name] = self._needs[found.name]._replace(stage=need.stage)

    def _plan(self, name: str) -> list[dict[str, Any]] | None:
        """Return the arguments of each call of a tool; None as long as it waits."""
        if name not in self._planned:
            self._planned[name] = None  # whoever waits for it meanwhile waits for itself
            depends_on = self._depends_on(self._needs[name])
            if all(self._finished(each) for each in depends_on):
                self._planned[name] = self._calls(self._needs[name], depends_on)
        return self._planned[name]

    def _finished(self, name: str) -> bool:
        plan = self._plan(name)
        return plan is not None and len(plan) <= sum(f.name == name for f in self._said.found)

    def _depends_on(self, need: Named) -> list[str]:
        supplying, names = self._suppliers[need.tool.name], [*self._needs]
        lacking = [a for a in self._lacking(need) if not (a.kind == "id" and supplying)]
        before = names[: names.index(need.tool.name)] if lacking else []
        earlier = [name for name in names if self._needs[name].stage < need.stage]
        same = [name for name in before if self._needs[name].stage == need.stage]
        return [*dict.fromkeys([*earlier, *supplying, *same])]

    def _lacking(self, need: Named) -> list[Argument]:
        """Return the arguments for which the task names no value."""
        known = self._named(need.tool, need.here) | self._named(need.tool, self._task)
        needed = [each for each in asked(need.tool) if each.kind in ("id", "number", "name")]
        return [each for each in needed if each.name not in known]

    def _calls(self, need: Named, depends_on: list[str]) -> list[dict[str, Any]]:
        """Return the arguments of each call, now that all is known; none without its ids."""
        tool, values = need.tool, Values()
        found = [f for f in self._said.found if f.name in depends_on and f.informs]
        here, task = self._named(tool, need.here), self._named(tool, self._task)
        if not found or not need.stage:
            here = task | here
        numbers = [each for each in asked(tool) if each.kind == "number"]
        if found and len(numbers) > sum(each.name in here for each in numbers):
            here |= self._numbers(tool, numbers, here, found)
        for each in asked(tool):
            known = here.get(each.name) or self._held(tool, each, found) or task.get(each.name)
            if not known and each.kind == "id":
                known = self._earlier(need, each) or ([] if depends_on else self._any(each))
            if not known and (each.kind == "id" or (each.kind == "number" and depends_on)):
                return []
            values |= {each.name: known} if known else {}
        return sets_of(tool, values)

    def _held(self, tool: Function, argument: Argument, found: Sequence[Found]) -> list[Any]:
        """Return what results hold: by an id's own name, or else what its own tools call an id."""
        texts = [each.text for each in found][-_MOST_RESULTS:]
        if argument.kind == "text":
            return ["\n".join(texts)] if texts else []
        of = owners(tool, argument)
        bearing = {other.name for other in self._tools if other is not tool and bears(other, of)}
        if argument.kind != "id" or not bearing:
            return [] if argument.kind == "other" else from_results(tool, argument, texts, True)
        own = [each.text for each in found if each.name in bearing][-_MOST_RESULTS:]
        return from_results(tool, argument, own, True) or from_results(tool, argument, texts, False)

    def _numbers(
        self, tool: Function, numbers: list[Argument], here: Values, found: Sequence[Found]
    ) -> Values:
        """Share out numbers: results by name, then other results, then those of the task's part."""
        texts = [each.text for each in found][-_MOST_RESULTS:]
        named = {a.name: from_results(tool, a, texts, True, named=True) for a in numbers}
        values = {name: known for name, known in named.items() if known}
        left = [each for each in numbers if each.name not in values]
        said = [here[each.name] for each in numbers if each.name in here]
        lacking = left[: max(len(left) - len(said), 0)]
        if lacking:
            pool = from_results(tool, lacking[0], texts, True)
            groups = [Group("", [], [value], False) for value in pool] if len(lacking) > 1 else []
            values |= shared_out(lacking, groups or [Group("", [], pool, False)])
        rest = left[len(lacking) :]
        return values | {a.name: each for a, each in zip(rest, said, strict=False)}

    def _earlier(self, need: Named, argument: Argument) -> list[Any]:
        """Return an id that was found in a task before, of what this one names, if it does."""
        mentioned = [value for group in things(self._task).names for value in group.values]
        found = [
            each
            for each in self._said.earlier[::-1][:_MOST_RESULTS]
            if each.informs
            and (not mentioned or any(name in each.arguments + each.text for name in mentioned))
        ]
        latest = (self._held(need.tool, argument, [each]) for each in found)
        return next(filter(None, latest), [])

    def _any(self, argument: Argument) -> list[Any]:
        """Return the first of what the task names, where no tool looks up what it is the id of."""
        named = things(self._task)
        groups = [*(named.names if argument.type == "string" else []), *named.numbers]
        return fitting(argument, groups[0].values) if groups else []
