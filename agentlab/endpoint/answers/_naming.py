"""Which tools a task names, and where; which look up an id, and which end a task."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from agentlab.endpoint.answers._arguments import Argument, asked, owners, snake, suits
from agentlab.endpoint.answers._things import things
from agentlab.endpoint.contract.request import Function

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[\uac00-\ud7a3]{2,}")
_PARTICLE = re.compile(r"(?<=..)(?:의|에서|은|는|이|가|을|를|와|과|에|도|으로|로)$")
_IDLE = frozenset(
    "the and for with from that this what which who how are was were you your all any can get "
    "set use used using tool tools function return returns given about into one its our will "
    "should must does name value input output data call text string".split()
)
_SEARCHING = frozenset("find search list look lookup query".split())
_LOOKING_UP = _SEARCHING | {"get", "fetch", "show", "check", "read"}
_ENDING = re.compile(
    r"final_.+|(?:submit|finish|complete|end|done|terminate|exit)"
    r"(?:_(?:the|final|answer|result|response|task|run|conversation)s?)*"
)
_THEN = re.compile(
    r"(?<!since )(?<!until )(?<!by )\bthen\b|\bafter (?:that|which)\b|\b(?:afterwards|finally)\b"
    r"|그\s?다음|그런 다음|그리고 나서|그 후|[한은] (?:다음|뒤|후)",
    re.IGNORECASE,
)
_MOST_STAGES = 16
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
    """Return the tools that a task names, in its order, or else the best described one.

    Each word names the tool whose name it fits best, by the words and then by the arguments that
    the task has for it; words as "find" do only if no others name any. Words of descriptions do,
    too, if they are Korean, because names are not.
    """
    of_names = [words(_spaced(tool)) for tool in tools]
    things_of = [of - _LOOKING_UP or of for of in of_names]
    korean = [frozenset(w for w in words(_described(tool)) if w >= "가") for tool in tools]
    places: dict[int, tuple[int, int]] = {}
    for vocabulary in (things_of, of_names, korean):
        places = places or _places(tools, vocabulary, task)
    if not places:
        shared = [len(words(task) & words(_described(tool))) for tool in tools]
        places = {shared.index(max(shared)): (0, 0)} if any(shared) else {}
    return _parted([(tools[index], place) for index, place in places.items()], task)


def _places(
    tools: Sequence[Function], vocabulary: list[frozenset[str]], task: str
) -> dict[int, tuple[int, int]]:
    """Return where in the task each tool is named first, by its index."""
    said = [(_stem(found[0]), found.span()) for found in _WORD.finditer(task)]
    thens = _thens(task)
    parts = [task[at:to] for at, to in pairwise([0, *thens, len(task)])]  # by stage
    fit = [[_fit(*pair, part) for pair in zip(tools, vocabulary, strict=True)] for part in parts]
    takes = [_takes(tool) for tool in tools]
    ids = (group.label for group in (*things(task).codes, *things(task).numbers) if not group.role)
    labels = {_stem(word) for label in ids for word in label} & set[str]().union(*takes)
    places: dict[int, tuple[int, int]] = {}
    for word, span in sorted(said, key=lambda each: each[0] in labels):
        bearing = [index for index, known in enumerate(vocabulary) if word in known]
        stage = bisect(thens, span[0])
        if word in labels:  # "user 42" is an id, and calls a tool if no other takes that id
            same = [index for index, (at, _) in places.items() if bisect(thens, at) == stage]
            taken = any(word in takes[index] for index in same)
            bearing = [i for i in bearing if word in takes[i] and not taken]
        best = max((fit[stage][index] for index in bearing), default=None)
        for index in [index for index in bearing if fit[stage][index] == best]:
            places.setdefault(index, span)
    return dict(sorted(places.items(), key=lambda place: place[1]))


def _thens(task: str) -> list[int]:
    return [found.start() for found in islice(_THEN.finditer(task), _MOST_STAGES - 1)]


def _fit(tool: Function, known: frozenset[str], part: str) -> tuple[int, ...]:
    """Return how well a tool fits a part of the task: by its words, then by its arguments."""
    said = words(part)
    return len(known & said), len(words(_spaced(tool)) & said), suits(tool, part), -len(known)


def _parted(tools: list[tuple[Function, tuple[int, int]]], task: str) -> list[Named]:
    """Give each tool its part of the task: from its name to the next; in Korean, up to its name."""
    korean = re.search("[가-힣]", task)
    thens = _thens(task)
    edges = [0]
    for (_, (before, end)), (_, (start, _)) in pairwise(tools):
        between = [then for then in thens if before < then < start]
        edges.append(between[-1] if between else end if korean else start)
    parts = [task[at:to] for at, to in pairwise([*edges, len(task)])]
    named = zip(tools, parts, strict=False)
    return [Named(tool, part, bisect(thens, at)) for (tool, (at, _)), part in named]


def looks_up(other: Function, tool: Function, argument: Argument) -> int:
    """Return 2 if a tool's name says that it looks up what another one needs, 1 if its words do.

    `find_user` looks up a `user_id`; so does `find_person`, described as "Find a user by name".
    """
    of, verb = _owners(tool, argument), snake(other.name).split("_")[0]
    if other.name == tool.name or verb not in _LOOKING_UP or of & _takes(other):
        return 0
    if of <= words(_spaced(other)):
        return 2
    about = words(_described(other))
    return int(of <= about and (verb in _SEARCHING or "id" in about))


def speaks_of(other: Function, tool: Function, argument: Argument) -> bool:
    """Return True if a tool's name or description has the word for what an id is of."""
    told = words(_spaced(other)) | words(_described(other))
    return other.name != tool.name and _owners(tool, argument) <= told


def ends_the_task(tool: Function, others: Sequence[Function]) -> bool:
    """Return True if a call is the answer: of `final_answer`, or of a class beside functions."""
    a_class = tool.name[:1].isupper() and any(other.name[:1].islower() for other in others)
    return a_class or bool(_ENDING.fullmatch(snake(tool.name)))


@lru_cache(maxsize=1024)  # of names, descriptions and tasks that come again
def words(text: str) -> frozenset[str]:
    """Return the words of a text that say what it is about, as far as words are compared."""
    return frozenset(_stem(found[0]) for found in _WORD.finditer(text)) - {""}


def _stem(word: str) -> str:
    stem = _PARTICLE.sub("", word).lower().rstrip("s")[:7]
    short = len(word) < 3 and word < "가" and stem != "id"
    return "" if short or stem in _IDLE else stem


def _takes(tool: Function) -> set[str]:
    """Return what the ids are of that a tool needs."""
    ids = [each for each in asked(tool) if each.kind == "id"]
    return set[str]().union(*(_owners(tool, each) for each in ids))


def _owners(tool: Function, argument: Argument) -> set[str]:
    return {_stem(owner) for owner in owners(tool, argument)}


def _spaced(tool: Function) -> str:
    return snake(tool.name).replace("_", " ")


def _described(tool: Function) -> str:
    return (tool.description or "")[:_DESCRIBED]
