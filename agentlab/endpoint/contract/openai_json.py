"""OpenAI's JSON: how bodies and events are read, and what is said of a body that is wrong.

Source: what OpenAI's API answers to requests with one mistake or two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

Json = dict[str, Any]
T = TypeVar("T")

_LONGEST_MESSAGE = 1000
_IS_JSON = (
    "send JSON in UTF-8, nested at most some hundred deep, without halves of surrogate pairs, "
    "and without numbers that a double cannot hold"
)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RequestError(Exception):
    """A request that cannot be answered, in OpenAI's words.

    `retry_after_s` is in model seconds; `allow` names the methods that the path takes.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
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


def decode(body: bytes, kind: type[T]) -> T:
    """Read a request's body; raise a RequestError of status 400 that names the wrong field."""
    try:
        with suppress(msgspec.ValidationError):
            return msgspec.json.decode(body, type=kind)
        value = msgspec.json.decode(body)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise _mistake(str(error), value, _type_info(kind)) from None
    except _NOT_JSON as error:
        at = re.search(r"\(byte (\d+)\)", str(error))
        where = f" It is wrong from byte {at[1]} on." if at else ""
        message = f"We could not parse the JSON body of your request.{where} (HINT: {_IS_JSON}.)"
        raise RequestError(400, message) from None


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


# Answers to wrong requests, in OpenAI's words and with its codes.


def missing(param: str) -> RequestError:
    """Return the answer to a request without a field that it needs."""
    message = f"Missing required parameter: '{param}'."
    return RequestError(400, message, param=param, code="missing_required_parameter")


def invalid(param: str | None, what: str) -> RequestError:
    """Return the answer to a field whose value is wrong."""
    message = f"Invalid value for '{param}': {what}"
    return RequestError(400, message, param=param, code="invalid_value")


def unsupported(param: str) -> RequestError:
    """Return the answer to a field that the local model does not act on."""
    message = f"Unsupported parameter: '{param}' is not supported with this model; leave it out."
    return RequestError(400, message, param=param, code="unsupported_parameter")


def not_among(param: str, value: str, supported: Iterable[Any]) -> RequestError:
    """Return the answer to a value that is not one of the supported ones."""
    *most, last = [f"'{each}'" for each in supported]
    listed = f"{', '.join(most)}{',' * (len(most) > 1)} and {last}" if most else last
    message = f"Invalid value: '{value}'. Supported values are: {listed}."
    return RequestError(400, message, param=param, code="invalid_value")


def unknown(param: str) -> RequestError:
    """Return the answer to a field that there is not."""
    message = f"Unknown parameter: '{param}'."
    return RequestError(400, message, param=param, code="unknown_parameter")


def wrong_type(param: str, got: str, expected: str) -> RequestError:
    """Return the answer to a value of another type than `expected`, as OpenAI calls it."""
    of = f" for '{param}'" if param else ""
    message = f"Invalid type{of}: expected {expected}, but got {got} instead."
    return RequestError(400, message, param=param or None, code="invalid_type")


def out_of_bounds(param: str, what: str, expected: str, got: object, code: str) -> RequestError:
    """Return the answer to a value that is too small or large, too short or long."""
    tail = "" if got is None else f", but got {got} instead"
    message = f"Invalid '{param}': {what}. Expected {expected}{tail}."
    return RequestError(400, message, param=param, code=code)


# What msgspec says of the first mistake, in OpenAI's words.

_WHERE = re.compile(r"(.*?)(?: - at `(key` in `)?\$([\w.\[\]]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*?)`?", re.DOTALL)
_TYPE = re.compile(r"Expected `(.*?)(?: \| null)?`, got `(.*)`")
_SIZE = re.compile(r"Expected `(\w+)` (>=|<=) (.*?)(?:\.0)?")
_LENGTH = re.compile(r"Expected `(.*)` of length (>=|<=) (.*)")
_FORM = re.compile(r"Expected `str` matching regex '(.*)'")
_STEP = re.compile(r"\w+|\.\.\.")  # the last one is into a map, by whatever name
_NOUNS = {"bool": "boolean", "int": "integer", "float": "decimal", "str": "string"}
_type_info: Callable[[Any], inspect.Type] = cache(inspect.type_info)


def _mistake(said: str, value: Any, kind: inspect.Type) -> RequestError:
    where: Any = _WHERE.fullmatch(said)
    what, key, path = where.groups("")
    param = path.partition("[...]")[0].removeprefix(".")
    if field := _FIELD.fullmatch(what):
        name = f"{param}.{field[2]}" if param else field[2]
        return missing(name) if field[1] == "missing required" else unknown(name)
    if wrong := _TYPE.fullmatch(what):
        first, *more = [_a(name) for name in wrong[1].split(" | ")]
        expected = f"one of {first} or {more[0].split()[1]}" if more else first
        return unsupported(param) if first == "null" else wrong_type(param, _a(wrong[2]), expected)
    got, kinds = _at(path, value, kind)
    if key:
        what, got = what.replace("str", "property name"), None
    if size := _SIZE.fullmatch(what):
        return _too_small_or_large(param, size, got)
    if length := _LENGTH.fullmatch(what):
        return _too_short_or_long(param, length, got)
    if form := _FORM.fullmatch(what):
        expected = f"a string that matches the pattern '{form[1]}'"
        problem = "string does not match pattern"
        return out_of_bounds(param, problem, expected, None, "invalid_value")
    supported = [each.values for each in kinds if isinstance(each, inspect.LiteralType)]
    return not_among(param, got, supported[0]) if supported else invalid(param, f"{what}.")


def _a(kind: str) -> str:
    """Return what OpenAI calls a value of a type, as msgspec calls it."""
    noun = _NOUNS.get(kind, kind)
    return noun if noun == "null" else f"{'an' if noun[0] in 'aio' else 'a'} {noun}"


def _at(path: str, value: Any, kind: Any) -> tuple[Any, list[Any]]:
    """Return what is at a place in a value (None if in a map), and the types that it may have."""
    kinds = [kind]
    for step in _STEP.findall(path):
        value = value[int(step)] if isinstance(value, list) else value.get(step)
        fields = [each for kind in kinds for each in getattr(kind, "fields", ())]
        inner = [field.type for field in fields if field.encode_name == step]
        inner += [kind.item_type for kind in kinds if isinstance(kind, inspect.ListType)]
        kinds = [each for kind in inner for each in getattr(kind, "types", (kind,))]
    return value, kinds


def _too_small_or_large(param: str, bound: re.Match[str], got: Any) -> RequestError:
    kind, sign, limit = bound.groups()
    noun, (side, end) = _NOUNS[kind], {">=": ("below", "min"), "<=": ("above", "max")}[sign]
    code = f"{noun}_{side}_{end}_value"
    return out_of_bounds(
        param, f"{noun} {side} {end}imum value", f"a value {sign} {limit}", got, code
    )


def _too_short_or_long(param: str, bound: re.Match[str], got: Any) -> RequestError:
    kind, sign, limit = bound.groups()
    noun, a_noun = _NOUNS.get(kind, kind), _a(kind)
    if sign == ">=":
        expected, got = f"{a_noun} with minimum length {limit}", f"an empty {noun}"
        return out_of_bounds(param, f"empty {noun}", expected, got, f"empty_{noun}")
    got = None if got is None else f"{a_noun} with length {len(got)}"
    code = f"{noun.replace(' ', '_')}_above_max_{'properties' if noun == 'object' else 'length'}"
    expected = f"{a_noun} with maximum length {limit}"
    return out_of_bounds(param, f"{noun} too long", expected, got, code)


# What a stream of events tells while it passes. The pieces may be cut anywhere; what only keeps a
# connection alive (comments, a role, empty words) is not a token.

_TIMES = b": x-lab-times "  # what another lab tells
_BETWEEN = re.compile(rb"\r?\n\r?\n")
_DATA = re.compile(rb"^data:(.*)$", re.M)
_LAST = re.compile(
    rb'^(?:data: ?\[DONE\]|(?:event: ?|data: ?\{"type": ?")'
    rb"response\.(?:completed|incomplete|failed)\b)",
    re.M,
)
_SAID = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_LABELS = ("type", "index")
_LONGEST_BYTES = 8 * 1024 * 1024  # of one event; what is longer is not an event
_MOST_TOKENS = 2**53


class Counts(msgspec.Struct, frozen=True):
    """How many tokens an answer says that it took; 0 if it does not say, or says nonsense."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Events:
    """Reads along in a stream.

    It has `begun` with the first token: content, reasoning, a refusal or a tool call. It has
    `ended` with the last event, after which many clients do not wait. `times` are another lab's.
    """

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.counts = Counts()
        self.times = b""
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        *events, self._rest = _BETWEEN.split(self._rest + piece if self._rest else piece)
        for event in events:
            data = b"\n".join(_DATA.findall(event))
            self.begun = self.begun or _has_token(data)
            if b'_tokens"' in event:
                self.counts = counts_in(data)
            if event.startswith(_TIMES):
                self.times = event.removeprefix(_TIMES)
            self.ended = self.ended or _LAST.search(event) is not None
        self._rest = self._rest[-_LONGEST_BYTES:]


def counts_in(body: bytes) -> Counts:
    """Return the token counts of an answer, or of an event's data."""
    told = read_object(body)
    usage = _part(told, "usage") or _part(told.get("response"), "usage")
    sent = _part(usage, "prompt_tokens") or _part(usage, "input_tokens")
    made = _part(usage, "completion_tokens") or _part(usage, "output_tokens")
    return Counts(*(n if type(n) is int and 0 <= n <= _MOST_TOKENS else 0 for n in (sent, made)))


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _has_token(data: bytes) -> bool:
    told = read_object(data)
    kind, choices = str(told.get("type")), told.get("choices")
    if kind.endswith(".delta"):
        return bool(told.get("delta"))
    if kind == "response.output_item.added":
        return str(_part(told.get("item"), "type")).endswith("_call")
    said = []
    for choice in choices if isinstance(choices, list) else []:
        said += [_part(choice, "text"), *(_part(_part(choice, "delta"), name) for name in _SAID)]
    return _holds_words(said)


def _holds_words(said: Any) -> bool:
    """Return True for a text that is not empty, a call, or a part with text, however nested."""
    if isinstance(said, list):
        return any(map(_holds_words, said))
    if isinstance(said, dict):  # a call, or a part: {"type": "text", "text": ""}
        return any(_holds_words(value) for name, value in said.items() if name not in _LABELS)
    return isinstance(said, str) and said != ""
