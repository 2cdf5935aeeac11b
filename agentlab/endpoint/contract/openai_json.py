"""OpenAI's JSON: how bodies and events are read, and what is said of a body that is wrong.

Source: what OpenAI's API answers to requests with one mistake or two.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from agentlab._support import DATA
from agentlab._support.patterns import Patterns

Json = dict[str, Any]
T = TypeVar("T")

_LONGEST_MESSAGE = 1000
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_RE = Patterns(DATA / "patterns" / "openai.yaml")
_Form = tuple[int, str, str | None, str]  # status, type, code, message
_FORMS = msgspec.yaml.decode((DATA / "request_errors.yaml").read_bytes(), type=dict[str, _Form])
FAULTS = [status for name, (status, *_) in _FORMS.items() if name.startswith("fault_")]


class RequestError(Exception):
    """A request that cannot be answered, in OpenAI's words.

    `retry_after_s` is in model seconds; `allow` names the methods that the path takes.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        allow: Iterable[str] = (),
    ):
        # It may quote what a client sent: too much, or what no JSON can carry.
        message = message[:_LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()
        param = param and param[:_LONGEST_MESSAGE]
        super().__init__(message)
        self.status, self.retry_after_s, self.allow = status, retry_after_s, tuple(allow)
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal(name: str, param: str | None = None, what: str = "", **words: Any) -> RequestError:
    """Return the answer that data/request_errors.yaml has under `name`, with these words in it.

    `retry_after_s` and `allow` are the error's own.
    """
    status, kind, code, form = _FORMS[name]
    message, kind = form.format(param=param, what=what, **words), kind.format(**words)
    retry_after_s, allow = words.get("retry_after_s"), words.get("allow", ())
    return RequestError(status, message, kind, param, code, retry_after_s, allow)


invalid = partial(refusal, "invalid")


def not_among(param: str, value: str, supported: Iterable[Any]) -> RequestError:
    """Return the answer to a value that is not one of the supported ones."""
    *most, last = (f"'{each}'" for each in supported)
    listed = f"{', '.join(most)}{',' * (len(most) > 1)} and {last}" if most else last
    return refusal("not_among", param, value=value, supported=listed)


def wrong_type(param: str, got: str, expected: str) -> RequestError:
    """Return the answer to a value of another type than `expected`, as msgspec calls it."""
    of = f" for '{param}'" if param else ""
    what = re.sub(r"\w+", lambda word: _NOUNS.get(word[0], word[0]), f"{expected}, but got {got}")
    return refusal("invalid_type", param or None, what, of=of)


def decode(body: bytes, kind: type[T]) -> T:
    """Read a request's body; raise a RequestError of status 400 that names the wrong field."""
    try:
        with suppress(msgspec.ValidationError):
            return msgspec.json.decode(body, type=kind)
        value, cannot = msgspec.json.decode(body), getattr(kind, "cannot", {})
        # Of what is no field, `cannot` is refused by its name, and `ignored` is taken.
        for name in (*cannot, *getattr(kind, "ignored", ())) if isinstance(value, dict) else ():
            if name not in cannot or value.get(name) is None:
                value.pop(name, None)  # null asks for nothing
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise _mistake(str(error), value, _type_info(kind), cannot) from None
    except _NOT_JSON as error:
        at = re.search(r"\(byte (\d+)\)", str(error))
        where = f" It is wrong from byte {at[1]} on." if at else ""
        raise refusal("not_json", where=where) from None


def read_json(text: bytes) -> Any:
    """Return what the text holds; None if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except _NOT_JSON:
        return None


def read_object(text: bytes) -> Json:
    """Return the object that the text holds; an empty one if it holds none."""
    told = read_json(text)
    return told if isinstance(told, dict) else {}


def event(data: Json) -> bytes:
    """Return one server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


# What msgspec says of the first mistake, in OpenAI's words.

_NOUNS: dict[str, str] = _RE.mapping("nouns")
_type_info: Callable[[Any], inspect.Type] = cache(inspect.type_info)


def _mistake(said: str, value: Any, kind: inspect.Type, cannot: Json) -> RequestError:
    where: Any = _RE.where.fullmatch(said)
    what, key, path = where.groups("")
    param = path.partition("[...]")[0].removeprefix(".")
    if field := _RE.field.fullmatch(what):
        name = f"{param}.{field[2]}" if param else field[2]
        if name in cannot:
            return refusal("moved" if cannot[name] else "unsupported", name, to=cannot[name])
        return refusal("missing" if field[1][0] == "m" else "unknown_parameter", name)
    if wrong := _RE.type.fullmatch(what):
        return wrong_type(param, wrong[2], wrong[1].replace(" | ", " or "))
    got, kinds = _at(path, value, kind)
    if bound := _RE.bound.fullmatch(what):
        return _out_of_bounds(param, bound, "property name" if key else "", got)
    supported = [each.values for each in kinds if isinstance(each, inspect.LiteralType)]
    what = what.replace("Expected `str` matching regex", "it must match")
    return not_among(param, got, supported[0]) if supported else invalid(param, f"{what}.")


def _at(path: str, value: Any, kind: Any) -> tuple[Any, list[Any]]:
    """Return what is at a place in a value (None if in a map), and the types that it may have."""
    kinds = [kind]
    for step in _RE.step.findall(path):
        value = value[int(step)] if isinstance(value, list) else value.get(step)
        fields = [each for kind in kinds for each in getattr(kind, "fields", ())]
        inner = [field.type for field in fields if field.encode_name == step]
        inner += [kind.item_type for kind in kinds if isinstance(kind, inspect.ListType)]
        kinds = [each for kind in inner for each in getattr(kind, "types", (kind,))]
    return value, kinds


def _out_of_bounds(param: str, bound: re.Match[str], name: str, got: Any) -> RequestError:
    """Return the answer to what is too small or large, too short or long."""
    kind, length, sign, limit = bound.groups("")
    noun = name or _NOUNS.get(kind, kind).split()[-1]
    side = "below_min" if sign == ">=" else "above_max"
    code = f"{noun.replace(' ', '_')}_{side}_{'length' if length else 'value'}"
    if length and sign == ">=":
        code = f"empty_{noun}"
    elif noun == "object":
        code = "object_above_max_properties"
    told = "" if length or got is None else f", but got {got} instead"
    what = f"Invalid '{param}': expected {noun}{length} {sign} {limit}{told}."
    return RequestError(400, what, param=param, code=code)


# What a stream of events tells while it passes. The pieces may be cut anywhere; what only keeps a
# connection alive (comments, a role, empty words) is not a token.

_TIMES = ": x-lab-times "  # what another lab tells
_LONGEST_BYTES = 8 * 1024 * 1024  # of one event; what is longer is not an event
_MOST_TOKENS = 2**53


class Events:
    """Reads along in a stream.

    It has `begun` with the first token: content, reasoning, a refusal or a tool call. It has
    `ended` with the last event, after which many clients do not wait. `times` are another lab's.
    """

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.counts = [0, 0, 0]
        self.times = b""
        self._rest = ""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        *events, self._rest = _RE.between.split(self._rest + piece.decode("latin-1"))
        for event in events:
            data = "\n".join(_RE.data.findall(event))
            self.begun = self.begun or _RE.token.search(data) is not None
            if '_tokens"' in event:
                self.counts = counts_in(data.encode("latin-1"))
            if event.startswith(_TIMES):
                self.times = event.removeprefix(_TIMES).encode("latin-1")
            self.ended = self.ended or _RE.last.search(event) is not None
        self._rest = self._rest[-_LONGEST_BYTES:]


def counts_in(body: bytes) -> list[int]:
    """Return what an answer, or an event, says of its tokens: the prompt's, its own, the cached.

    One is 0 if it does not say, or says nonsense.
    """
    answer = read_object(body)
    usage = _part(answer, "usage") or _part(answer.get("response"), "usage")
    sent = _part(usage, "prompt_tokens") or _part(usage, "input_tokens")
    made = _part(usage, "completion_tokens") or _part(usage, "output_tokens")
    read = _part(usage, "prompt_tokens_details") or _part(usage, "input_tokens_details")
    told = sent, made, _part(read, "cached_tokens")
    return [n if type(n) is int and 0 <= n <= _MOST_TOKENS else 0 for n in told]


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
