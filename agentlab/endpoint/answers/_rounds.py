"""Which tools a task names, and which of their calls are due: each as soon as it can, none twice.

A tool is called for the values that its part of the task names. What it lacks comes from the
results of those on which it depends: the tools before a "then", the one that looks up an id, and,
if nothing else holds a value, those that the task names before it. It waits for all their calls.
"""

import json
import re
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, islice, pairwise, product
from typing import Any, NamedTuple

import msgspec

from agentlab.endpoint.answers._patterns import RE, SETS
from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.contract.json_schema import Budget, CannotFill, Schema, resolve, validator_of
from agentlab.endpoint.contract.request import Function

Values = dict[str, list[Any]]  # of each argument that is known
Plan = list[dict[str, Any]]  # for each call of a tool, the arguments that it has to be given
Results = Sequence[tuple[str, str]]  # (tool, result), oldest first
Made = Sequence[tuple[str, str, Any]]  # with a call's arguments, if they are known
Tools = Sequence[Function]

_MOST_CALLS = 16  # of one tool for one task
_LONGEST = 200  # characters of a value
_FAR = 60  # and between two things that are not named together
_MOST_RESULTS = 64  # of the newest, in which a value is looked for
_MOST_STAGES = 16
_MOST_OPTIONS = 200  # that are looked for in a text
_DESCRIBED = 1000  # characters of a description in which a word may be shared


class Group(NamedTuple):
    """Things named alike, as in "in Seoul and in Busan"; `label` is the word before ("user 42")."""

    role: str  # their preposition
    label: str
    values: list[str]


class Things(NamedTuple):
    """What a text names, in its order; codes are those names that have digits.

    Places are what prepositions show to be names, though in lower case.
    """

    names: list[Group]
    codes: list[Group]
    numbers: list[Group]
    places: list[Group]

    def ids(self, owners: Collection[str]) -> list[str]:
        """Return the ids of such owners ("user 42"), or else those of whom nothing is said."""
        owned = [g for g in (*self.codes, *self.numbers) if g.label.rstrip("s") in owners]
        free = [g for g in self.numbers if g.role == "of" or not g.label or g.label >= "가"]
        return next((group.values for group in owned or self.codes or free), [])


@lru_cache(maxsize=256)  # each round of a task reads it again
def things(text: str) -> Things:
    """Return what a text names."""
    text = RE.item_number.sub("-", RE.aside.sub("", text))
    found = [*RE.thing.finditer(text)]
    numbers = [each for each in found if each["number"]]
    names = [each for each in found if not each["number"]] or [*RE.thing_in_korean.finditer(text)]
    names = names or [*_within(RE.listing, RE.listed, text)]
    codes = [each for each in names if RE.code.fullmatch(each[0])]
    places = [*_within(RE.places, RE.place, text)]
    return Things(*(_grouped(text, each) for each in (names, codes, numbers, places)))


def _within(lists: re.Pattern[str], one: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for each in lists.finditer(text):
        yield from one.finditer(text, *each.span())


def _grouped(text: str, found: list[re.Match[str]]) -> list[Group]:
    groups, by_key, end = list[Group](), dict[str, Group](), 0
    for each in found:
        start, stop = each.span(each.lastgroup or 0)
        between = text[max(end, start - _FAR) : start].lower()
        words = RE.word_between.findall(between)
        role = words.pop() if words and words[-1] in SETS["prepositions"] else ""
        label = words[-1] if words else ""
        # "Seoul and Busan", or "in Seoul and in Busan", or "user Ana and user Bob"
        linked = RE.linked.search(between) and {*words} <= SETS["links"] and not role
        near = groups and linked and start - end < _FAR
        group = groups[-1] if near else by_key.get(role or label)
        if group is None:
            group = Group(role, label, [])
            groups.append(group)
            by_key |= {role or label: group} if role or label else {}
        group.values.append(text[start:stop])
        end = stop
    return groups


class Argument(NamedTuple):
    """One that has to be given."""

    name: str
    kind: str  # id, number, name, text, or other
    type: str
    many: bool  # it is a list
    words: list[str]
    of: list[str]  # whose an id is, as "user" of `user_id`
    schema: Schema  # of the value, or of each in the list
    admits: Callable[[Any], bool]


@lru_cache(maxsize=1024)  # of names, descriptions and tasks that come again
def words(text: str) -> frozenset[str]:
    """Return the words of a text that say what it is about, as far as words are compared."""
    return frozenset(stem(found[0]) for found in RE.word.finditer(text)) - {""}


def stem(word: str) -> str:
    """Return a word as it is compared with others; nothing if it says too little."""
    stem = RE.particle.sub("", word).lower().rstrip("s")[:7]
    short = len(word) < 3 and word < "가" and stem != "id"
    return "" if short or stem in SETS["idle"] else stem


def snake(name: str) -> list[str]:
    """Return the words of a name, in lower case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", name).lower().split("_")


def asked(tool: Function) -> list[Argument]:
    """Return the arguments that a call needs: those required, or all if none is."""
    return _asked(tool.name, msgspec.json.encode(tool.parameters or {}))


@lru_cache(maxsize=256)  # the next request often offers the same
def _asked(tool: str, encoded: bytes) -> list[Argument]:
    root = msgspec.json.decode(encoded)
    properties = root.get("properties", {})
    names = {*(root.get("required") or properties)}
    said = {name: _plain(root, inner) for name, inner in properties.items() if name in names}
    return [_argument(tool, root, name, inner) for name, inner in said.items()]


def _plain(root: Schema, schema: Any, depth: int = 0) -> Schema:
    """Return the schema of a value that is not null, with references followed."""
    if not isinstance(schema, Mapping) or depth > _MOST_STAGES:  # it leads back to itself
        return {}
    options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or []
    options = [resolve(root, schema["$ref"], Budget())] if "$ref" in schema else options
    for option in [each for each in options if each != {"type": "null"}][:1]:
        return _plain(root, option, depth + 1)
    kinds = schema.get("type")
    known = [kind for kind in kinds if kind != "null"][:1] if isinstance(kinds, list) else []
    return {**schema, "type": known[0]} if known else schema


def _argument(tool: str, root: Schema, name: str, inner: Schema) -> Argument:
    many = inner.get("type") == "array" and isinstance(inner.get("items"), Mapping)
    inner = _plain(root, inner["items"]) if many else inner
    words, kind, of, type = snake(name), "name", list[str](), inner.get("type")
    if type not in ("string", "integer", "number") or {"enum", "const"} & inner.keys():
        kind = "other"
    elif RE.id.match("_".join(words)):
        kind, of = "id", words[:-1] or snake(tool)[1:]
    elif inner.get("format") in RE.mapping("formats"):
        kind = "other"
    elif type != "string":
        kind = "number"
    elif SETS["passed_on"] & {*words}:
        kind = "text"
    elif SETS["told"] & {*words}:
        kind = "other"
    admits: Callable[[Any], bool] = bool  # any, if it cannot be checked without the rest
    with suppress(CannotFill):
        admits = validator_of(inner).is_valid
    return Argument(name, kind, str(type), many, words, of, inner, admits)


def from_task(tool: Function, text: str) -> Values:
    """Return the values that `text` names for the arguments of a tool."""
    named, given = things(text), asked(tool)
    values = {each.name: named.ids(each.of) for each in given if each.kind == "id"}
    values |= _shared_out([a for a in given if a.kind == "number"], _left(named.numbers, values))
    values |= {a.name: chosen(a.schema["enum"], text) for a in given if "enum" in a.schema}
    names = [a for a in given if a.kind == "name"]
    ends = {a.name: a.words[-1] for a in names}  # a departure_date is a date
    role_of = {value: group.role for group in named.names for value in group.values}.get
    for form, (_, pattern) in RE.mapping("formats").items():
        those = [a for a in given if form in (a.schema.get("format"), ends.get(a.name))]
        said = re.findall(pattern, text) if those else []
        groups = [Group(role or "", "", [*own]) for role, own in groupby(said, role_of)]
        values |= _shared_out(those, groups)
    names = [a for a in names if a.name not in values]
    values |= _shared_out(names, _left(named.names, values)) or _by_role(names, named.places)
    told = RE.saying.search(text)
    texts = [a for a in given if a.kind == "text" and (told or not SETS["whole"] & {*a.words})]
    left = [Group("", "", [told[1]])] if told else _left(named.names, values)
    values |= {each.name: group.values for each, group in zip(texts, left, strict=False)}
    if people := coworkers(tool):
        values["coworker"] = [max(people, key=lambda who: len(words(who) & words(text)))]
    cast = {each.name: _fitting(each, values.get(each.name, [])) for each in given}
    return {name: known for name, known in cast.items() if known}


def coworkers(tool: Function) -> list[str]:
    """Return those to whom CrewAI's tool hands a task on."""
    found = RE.coworkers.search((tool.description or "") + "\n")
    return [name.strip() for name in found[1].split(",")[:100]] if found else []


def _left(groups: list[Group], values: Values) -> list[Group]:
    taken = {str(value).lower() for known in values.values() for value in known}
    left = ((g, [v for v in g.values if str(v).lower() not in taken]) for g in groups)
    return [Group(g.role, g.label, own) for g, own in left if own] if taken else groups


def chosen(options: Sequence[Any], text: str) -> list[Any]:
    """Return those of the options that a text names as whole words, in its order."""
    low, by_word = text.lower(), {str(each).lower(): each for each in options[:_MOST_OPTIONS]}
    said = sorted((word for word in by_word if word and word in low), key=len, reverse=True)
    one = RE.option.pattern % "|".join(map(re.escape, said))
    return [by_word[word] for word in re.findall(one, low)] if said else []


def _shared_out(arguments: list[Argument], groups: list[Group]) -> Values:
    """Give each argument a group of things: by its preposition, then in their order."""
    values = _by_role(arguments, groups)
    left = [each.name for each in arguments if each.name not in values]
    shared = [group.values for group in _left(groups, values)]
    if len(left) > 1 and not len(left) <= len(shared) < 2 * len(left):  # one by one
        singly = [value for group in shared for value in group]
        whole = max(len(singly) // len(left), 1) * len(left)
        shared = [singly[at : whole : len(left)] for at in range(len(left))]
    return values | {name: share for name, share in zip(left, shared, strict=False) if share}


def _by_role(arguments: list[Argument], groups: list[Group]) -> Values:
    roles, by_role = RE.mapping("roles"), {g.role: g.values for g in reversed(groups) if g.role}
    taking = {roles.get(word, word): each.name for each in arguments[::-1] for word in each.words}
    return {name: by_role[role] for role, name in taking.items() if role in by_role}


def from_results(argument: Argument, texts: Iterable[str]) -> list[Any]:
    """Return the values that results hold for an argument, of every result."""
    is_id, owner = argument.kind == "id", folded("".join(argument.of))
    owners, last = {"", *map(stem, argument.of)}, folded(argument.words[-1])
    names = [owner + last, owner, last, "id", ""] if is_id else [folded(argument.name), ""]
    values = []
    for text in [glance(text) for text in texts if not RE.failed.match(text)]:
        known, named = fields(text), things(text)
        held = [known[name] for name in names if name in known]
        if is_id:
            held.append([id for of, id in RE.id_said.findall(text) if stem(of) in owners])
            held += [named.ids(argument.of)] if "{" not in text else []
        if argument.kind == "number":
            held += [group.values[:1] for group in named.numbers]
        values += next(filter(None, (_fitting(argument, each) for each in held)), [])
    return [*dict.fromkeys(values)]


def sets_of(tool: Function, values: Values) -> list[dict[str, Any]]:
    """Return the arguments of each call: lists as long as each other in pairs, others combined."""
    many = {each.name for each in asked(tool) if each.many}
    lists = [[known] if name in many else known for name, known in values.items()]
    longest = max(map(len, lists), default=1)
    rows: Iterable[Sequence[Any]] = product(*lists)
    if all(len(each) in (1, longest) for each in lists) and lists:
        rows = zip(*(each * (longest // len(each)) for each in lists), strict=True)
    return [dict(zip(values, row, strict=True)) for row in islice(rows, _MOST_CALLS)]


def _fitting(argument: Argument, values: Iterable[Any]) -> list[Any]:
    """Return those values that an argument may have, as its type has them."""
    said = [str(value).strip() for value in values if not isinstance(value, bool)]
    said = [*dict.fromkeys(value for value in said if 0 < len(value) <= _LONGEST)]
    fitting: list[Any] = [value for value in said if argument.kind != "id" or " " not in value]
    if argument.type in ("integer", "number"):
        digits = r"-?\d{1,15}" if argument.type == "integer" else r"-?\d{1,15}(\.\d{1,15})?"
        plain = (value.replace(",", "") for value in said)
        cast = int if argument.type == "integer" else float
        fitting = [cast(value) for value in plain if re.fullmatch(digits, value)]
    return [value for value in fitting if argument.admits(value)]


@lru_cache(maxsize=256)  # several arguments are looked for in the same results
def fields(text: str) -> Mapping[str, list[Any]]:
    """Return each field's values, from the outermost level; three words are one without a name."""
    found, known = data(text), dict[str, list[Any]]()
    if found is text:
        return {"": [text] if re.fullmatch(r"[^\s.:;,]+(?: [^\s.:;,]+){0,2}", text) else []}
    level = [("", "", found)]  # of what, the field's name, and what is in it
    while level:
        here, below = dict[str, list[Any]](), list[tuple[str, str, Any]]()
        for owner, name, value in level:
            inner = data(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
            if isinstance(inner, dict):
                below += [(name, folded(key), each) for key, each in inner.items()]
            elif isinstance(inner, list):
                below += [(owner, name, each) for each in inner]
            elif inner is not None:
                for each in {name, owner + name}:
                    here.setdefault(each, []).append(inner)
        known, level = here | known, below
    return known


def data(text: str) -> Any:
    """Return what JSON, or a dictionary as Python prints it, holds; the text if it is neither."""
    for form in (text, text.replace("'", '"')):
        with suppress(ValueError, RecursionError):
            return json.loads(form)
    return text


def folded(name: str) -> str:
    """Return a field's name as it is compared with others."""
    return re.sub(r"[\W_]+", "", name.lower()).removesuffix("s")


class Named(NamedTuple):
    """A tool that a task names; `here` is the part of the task about it, `stage` counts "then"s."""

    tool: Function
    here: str
    stage: int


def named(tools: Tools, task: str) -> list[Named]:
    """Return the tools that a task names, or else the one that is best described.

    Words as "find" name one only if no others do. In Korean, a tool's part ends with its name.
    """
    of_names = [_named_by(tool) for tool in tools]
    things_of = [of - SETS["looking_up"] or of for of in of_names]
    korean = [frozenset(word for word in _described(tool) if word >= "가") for tool in tools]
    thens = [found.start() for found in islice(RE.then.finditer(task), _MOST_STAGES - 1)]
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
    tools: Tools, vocabulary: list[frozenset[str]], task: str, thens: list[int]
) -> dict[int, tuple[int, int]]:
    """Return where in the task each tool is named first, by its index."""
    parts = [task[at:to] for at, to in pairwise([0, *thens, len(task)])]  # by stage
    fits = [[_fit(*pair, part) for pair in zip(tools, vocabulary, strict=True)] for part in parts]
    ids = [*things(task).codes, *things(task).numbers]
    labels = {stem(group.label) for group in ids if not group.role}
    said = [(stem(found[0]), found.span()) for found in RE.word.finditer(task)]
    places: dict[int, tuple[int, int]] = {}
    for word, span in sorted(said, key=lambda each: each[0] in labels):
        if word in labels and any(word in _takes(tools[index]) for index in places):
            continue  # "user 42" is an id, and no tool is called for it but those that take it
        bearing = [index for index, known in enumerate(vocabulary) if word in known]
        fit = fits[bisect(thens, span[0])]
        best = max((fit[index] for index in bearing), default=None)
        places |= {i: span for i in bearing if fit[i] == best and i not in places}
    return dict(sorted(places.items(), key=lambda place: place[1]))


def _fit(tool: Function, known: Set[str], task: str) -> tuple[int, ...]:
    """Return how well a tool fits the task: by its words, then by its arguments."""
    said, needed = words(task), {a.name for a in asked(tool) if a.kind in ("id", "number", "name")}
    suits = 2 * len(from_task(tool, task).keys() & needed) - len(needed)
    return len(known & said), len(_named_by(tool) & said), suits, -len(known)


def _takes(tool: Function) -> set[str]:
    return {stem(owner) for each in asked(tool) for owner in each.of}


def _named_by(tool: Function) -> frozenset[str]:
    return words(" ".join(snake(tool.name)))


def _described(tool: Function) -> frozenset[str]:
    return words((tool.description or "")[:_DESCRIBED])


def _looks_up(other: Function, tool: Function, of: set[str]) -> bool:
    """Return True if another tool looks up ids of that, as `find_user` does of users."""
    looks = other.name != tool.name and snake(other.name)[0] in SETS["looking_up"]
    return looks and not of & _takes(other) and of <= _named_by(other) | _described(other)


class Rounds:
    """The rounds of a task; `made` are all calls, and `results` those that say something."""

    def __init__(self, tools: Tools, task: str, made: Made, results: Results, told: str):
        self._tools, self._task, self._listed = tools, task, RE.id_listed.findall(told)
        self._made, self._results = made, results[-_MOST_RESULTS:]
        self._suppliers: dict[str, set[str]] = {}

    def due(self, needs: Sequence[Named]) -> list[tuple[Function, Plan]]:
        """Return the calls of this round."""
        ordered, plans = dict[str, Named](), dict[str, Plan | None]()
        for need in needs:
            self._put(need, {each.tool.name: each for each in needs}, ordered)
        for name, need in ordered.items():
            own, lacking = self._suppliers[name], self._lacking(need)
            lacks = any(each.kind != "id" or not own for each in lacking)
            first = [o for o in plans if lacks or o in own or ordered[o].stage < need.stage]
            waits = any((p := plans[o]) is None or self._left(o, p) for o in first)
            plans[name] = None if waits else self._calls(need, first)
        left = {name: self._left(name, plan or []) for name, plan in plans.items()}
        return [(ordered[name].tool, plan) for name, plan in left.items() if plan]

    def _left(self, name: str, plan: Plan) -> Plan:
        """Return the calls of a tool that were not made; one of unknown arguments was the next."""
        left, made = [*plan], [given for tool, _, given in self._made if tool == name]
        for given in made:
            known = isinstance(given, dict)
            same = next((e for e in left if not known or given | e == given), None)
            left = [each for each in left if each is not same]
        return left[: max(0, _MOST_CALLS - len(made))]  # whatever becomes of their arguments

    def _put(self, need: Named, needs: dict[str, Named], ordered: dict[str, Named]) -> None:
        """Put a tool after those that look up its ids, whether the task names them or not."""
        if need.tool.name in self._suppliers:
            return
        suppliers = self._suppliers[need.tool.name] = set[str]()
        for argument in self._lacking(need):
            of = {stem(owner) for owner in argument.of}
            able = [tool for tool in self._tools if of and _looks_up(tool, need.tool, of)]
            rank = [(t.name in needs, of <= _named_by(t), _fit(t, of, self._task)) for t in able]
            if able:
                best = able[rank.index(max(rank))]
                suppliers.add(best.name)
                self._put(needs.get(best.name, Named(best, self._task, need.stage)), needs, ordered)
        ordered[need.tool.name] = need

    def _lacking(self, need: Named) -> list[Argument]:
        """Return the arguments for which the task names no value; texts come with the tool."""
        here, task = self._said(need.tool, need.here), self._said(need.tool, self._task)
        missing = [a for a in asked(need.tool) if a.name not in here and a.kind != "other"]
        return [each for each in missing if each.kind == "text" or each.name not in task]

    def _said(self, tool: Function, text: str) -> Values:
        """Return the values that a text names; of listed ids, or else the one that suits."""
        values, task = from_task(tool, text), words(self._task)
        for each in [each for each in asked(tool) if each.kind == "id"]:
            of = {"", *map(stem, each.of)}
            if listed := {id: about for owner, id, about in self._listed if stem(owner) in of}:
                named = [id for id in listed if re.search(rf"(?i)\b{re.escape(id)}\b", text)]
                suits = max(listed, key=lambda id: len(words(listed[id]) & task))
                values[each.name] = named or values.get(each.name) or [suits]
        return values

    def _calls(self, need: Named, first: list[str]) -> Plan:
        """Return the calls of a tool, now that all is known; none if an id is not."""
        tool, values, own = need.tool, Values(), self._suppliers[need.tool.name]
        found = [(name, text) for name, text in self._results if name in first]
        texts = [text for name, text in found if name in own or not own]
        here, task = self._said(tool, need.here), self._said(tool, self._task)
        ids = any(each.kind == "id" for each in asked(tool))  # then its numbers are mere options
        numbers = [each for each in asked(tool) if each.kind == "number"]
        if texts and len(numbers) > 1 and not ids:  # "multiply the result by 4"
            counted = [[number] for number in from_results(numbers[0], texts)]
            counted += [here[each.name] for each in numbers if each.name in here]
            here |= _shared_out(numbers, [Group("", "", values) for values in counted])
        for each in asked(tool):
            held = from_results(each, texts) if each.kind != "other" else []
            said = task.get(each.name, [])
            if each.kind == "text" and found:
                held = ["\n".join(text for _, text in found)]
            rest = [held, said] if (found and need.stage) or each.kind == "text" else [said, held]
            known = next(filter(None, [here.get(each.name), *rest]), [])
            if not known and (each.kind == "id" or (each.kind == "number" and first and not ids)):
                return []
            values |= {each.name: known} if known else {}
        return sets_of(tool, values)
