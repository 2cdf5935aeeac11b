"""Which tools a task names, and which of their calls are due: each as soon as it can, none twice.

A tool is called for the values that its part of the task names. What it lacks comes from the
results of those on which it depends: the tools before a "then", the one that looks up an id, and,
if nothing else holds a value, those that the task names before it. It waits for all their calls.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

from agentlab.endpoint.answers._arguments import (
    WORD,
    Argument,
    Values,
    asked,
    from_results,
    from_task,
    sets_of,
    snake,
    stem,
    words,
)
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.contract.request import Function

Plan = list[dict[str, Any]]  # for each call of a tool, the arguments that it has to be given
Results = Sequence[tuple[str, str]]  # (tool, result), oldest first

_SEARCHING = frozenset("find search list look lookup query".split())
_LOOKING_UP = _SEARCHING | {"get", "fetch", "show", "check", "read"}
_THEN = re.compile(
    r"(?<!since )(?<!until )(?<!by )\bthen\b|\bafter (?:that|which)\b|\b(?:afterwards|finally)\b"
    r"|그\s?다음|그런 다음|그리고 나서|그 후|[한은] (?:다음|뒤|후)",
    re.IGNORECASE,
)
_MOST_STAGES = 16
_MOST_RESULTS = 64  # of the newest, in which a value is looked for
_DESCRIBED = 1000  # characters of a description in which a word may be shared


class Named(NamedTuple):
    """A tool that a task names; `here` is the part of the task about it, `stage` counts "then"s."""

    tool: Function
    here: str
    stage: int


def suitable(tools: Sequence[Function], task: str) -> list[Function]:
    """Return the tools that a task names, in its order, or else the best described one."""
    return [each.tool for each in named(tools, task)]


def named(tools: Sequence[Function], task: str) -> list[Named]:
    """Return the tools that a task names, and where: each from its name to the next tool's.

    Each word names the tool whose name it fits best, by the words and then by the arguments that
    the task has for it; words as "find" do only if no others name any. Words of descriptions do,
    too, if they are Korean, because names are not; there, a part ends with the name.
    """
    of_names = [_named_by(tool) for tool in tools]
    things_of = [of - _LOOKING_UP or of for of in of_names]
    korean = [frozenset(word for word in _described(tool) if word >= "가") for tool in tools]
    thens = [found.start() for found in islice(_THEN.finditer(task), _MOST_STAGES - 1)]
    places: dict[int, tuple[int, int]] = {}
    for vocabulary in (things_of, of_names, korean):
        places = places or _places(tools, vocabulary, task, thens)
    shared = [len(words(task) & _described(tool)) for tool in tools]
    if not places and any(shared):
        places = {shared.index(max(shared)): (0, 0)}
    edges = [0]
    for (before, end), (start, _) in pairwise(places.values()):
        between = [then for then in thens if before < then < start]
        edges.append(between[-1] if between else end if re.search("[가-힣]", task) else start)
    parts = [task[at:to] for at, to in pairwise([*edges, len(task)])]
    found = zip(places.items(), parts, strict=False)
    return [Named(tools[index], part, bisect(thens, at)) for (index, (at, _)), part in found]


def _places(
    tools: Sequence[Function], vocabulary: list[frozenset[str]], task: str, thens: list[int]
) -> dict[int, tuple[int, int]]:
    """Return where in the task each tool is named first, by its index."""
    parts = [task[at:to] for at, to in pairwise([0, *thens, len(task)])]  # by stage
    fit = [[_fit(*pair, part) for pair in zip(tools, vocabulary, strict=True)] for part in parts]
    takes = [_takes(tool) for tool in tools]
    ids = (group for group in (*things(task).codes, *things(task).numbers) if not group.role)
    labels = {stem(group.label) for group in ids} & set[str]().union(*takes)
    said = [(stem(found[0]), found.span()) for found in WORD.finditer(task)]
    places: dict[int, tuple[int, int]] = {}
    for word, span in sorted(said, key=lambda each: each[0] in labels):
        bearing = [index for index, known in enumerate(vocabulary) if word in known]
        stage = bisect(thens, span[0])
        if word in labels:  # "user 42" is an id, and calls a tool if no other takes that id
            same = [index for index, (at, _) in places.items() if bisect(thens, at) == stage]
            taken = any(word in takes[index] for index in same)
            bearing = [index for index in bearing if word in takes[index] and not taken]
        best = max((fit[stage][index] for index in bearing), default=None)
        for index in [index for index in bearing if fit[stage][index] == best]:
            places.setdefault(index, span)
    return dict(sorted(places.items(), key=lambda place: place[1]))


def _fit(tool: Function, known: frozenset[str], part: str) -> tuple[int, ...]:
    """Return how well a tool fits a part of the task: by its words, then by its arguments."""
    said = words(part)
    return len(known & said), len(_named_by(tool) & said), _suits(tool, part), -len(known)


def _suits(tool: Function, text: str) -> int:
    """Return how many of a tool's arguments `text` names, less those that it does not."""
    needed = {each.name for each in asked(tool) if each.kind in ("id", "number", "name")}
    return 2 * len(from_task(tool, text).keys() & needed) - len(needed)


def _takes(tool: Function) -> set[str]:
    """Return what the ids are of that a tool needs."""
    return {stem(owner) for each in asked(tool) for owner in each.of}


def _named_by(tool: Function) -> frozenset[str]:
    return words(" ".join(snake(tool.name)))


def _described(tool: Function) -> frozenset[str]:
    return words((tool.description or "")[:_DESCRIBED])


class Rounds:
    """The rounds of a task; `made` are all results, and `results` those that say something."""

    def __init__(self, tools: Sequence[Function], task: str, made: Results, results: Results):
        self._tools, self._task = tools, task
        self._made, self._results = [name for name, _ in made], results[-_MOST_RESULTS:]
        self._suppliers: dict[str, set[str]] = {}

    def due(self, needs: Sequence[Named]) -> list[tuple[Function, Plan]]:
        """Return the calls of this round."""
        ordered, plans = dict[str, Named](), dict[str, Plan | None]()
        for need in needs:
            self._put(need, {each.tool.name: each for each in needs}, ordered)
        for name, need in ordered.items():
            first = self._first(need, [ordered[other] for other in plans])
            done = [(plans[other], self._made.count(other)) for other in first]
            ready = all(plan is not None and made >= len(plan) for plan, made in done)
            plans[name] = self._calls(need, first) if ready else None
        due = [(name, plan[self._made.count(name) :]) for name, plan in plans.items() if plan]
        return [(ordered[name].tool, plan) for name, plan in due]

    def _put(self, need: Named, needs: dict[str, Named], ordered: dict[str, Named]) -> None:
        """Put a tool after those that look up its ids, whether the task names them or not."""
        name = need.tool.name
        if name in self._suppliers:
            return
        suppliers = self._suppliers[name] = set()
        for argument in self._lacking(need):
            rank = {tool.name: _looks_up(tool, need.tool, argument) for tool in self._tools}
            able = [tool for tool in self._tools if rank[tool.name]]
            if argument.kind == "id" and able:
                best = max(
                    able, key=lambda t: (t.name in needs, rank[t.name], _suits(t, self._task))
                )
                suppliers.add(best.name)
                supplier = needs.get(best.name, Named(best, self._task, need.stage))
                self._put(supplier, needs, ordered)
        ordered[name] = need

    def _first(self, need: Named, before: Sequence[Named]) -> list[str]:
        """Return those of the tools before whose results a tool waits for."""
        suppliers = self._suppliers[need.tool.name]
        lacks = any(each.kind != "id" or not suppliers for each in self._lacking(need))
        names = [(each.tool.name, each.stage < need.stage) for each in before]
        return [name for name, earlier in names if lacks or earlier or name in suppliers]

    def _lacking(self, need: Named) -> list[Argument]:
        """Return the arguments for which the task names no value; texts come with the tool."""
        here, task = from_task(need.tool, need.here), from_task(need.tool, self._task)
        missing = [each for each in asked(need.tool) if each.name not in here]
        able = [each for each in missing if each.kind == "text" or each.name not in task]
        return [each for each in able if each.kind != "other"]

    def _calls(self, need: Named, first: list[str]) -> Plan:
        """Return the calls of a tool, now that all is known; none if an id is not."""
        tool, values = need.tool, Values()
        found = [(name, text) for name, text in self._results if name in first]
        here, task = from_task(tool, need.here), from_task(tool, self._task)
        later = bool(found and need.stage)
        ids = any(each.kind == "id" for each in asked(tool))  # then its numbers are mere options
        here |= self._numbers(tool, here if later else task | here, found)
        for each in asked(tool):
            held, said = self._held(tool, each, found), task.get(each.name, [])
            rest = [held, said] if later or each.kind == "text" else [said, held]
            known = next(filter(None, [here.get(each.name), *rest]), [])
            computed = each.kind == "number" and first and not ids
            if not known and (each.kind == "id" or computed):
                return []
            values |= {each.name: known} if known else {}
        return sets_of(tool, values)

    def _held(self, tool: Function, argument: Argument, found: Results) -> list[Any]:
        """Return what results hold, those of who looks up the tool's ids if anybody does."""
        if argument.kind in ("text", "other"):
            texts = [text for _, text in found if argument.kind == "text"]
            return ["\n".join(texts)] if texts else []
        own = self._suppliers[tool.name]
        return from_results(
            argument, [text for name, text in found if not own or name in own], True
        )

    def _numbers(self, tool: Function, here: Values, found: Results) -> Values:
        """Return the numbers of a call: what results hold first, if the task names too few."""
        numbers = [each for each in asked(tool) if each.kind == "number"]
        said = [here[each.name] for each in numbers if each.name in here]
        if not found or len(said) == len(numbers):
            return {}
        held = self._held(tool, numbers[0], found)
        lists = [held] if len(numbers) - len(said) == 1 else [[number] for number in held]
        return {each.name: known for each, known in zip(numbers, lists + said, strict=False)}


def _looks_up(other: Function, tool: Function, argument: Argument) -> int:
    """Return 2 if a tool's name says that it looks up what another one needs, 1 if its words do.

    `find_user` looks up a `user_id`; so does `find_person`, described as "Find a user by name".
    """
    of, verb = {stem(owner) for owner in argument.of}, snake(other.name)[0]
    if other.name == tool.name or verb not in _LOOKING_UP or of & _takes(other):
        return 0
    return 2 if of <= _named_by(other) else int(of <= _described(other) and verb in _SEARCHING)
