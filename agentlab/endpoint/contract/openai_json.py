"""OpenAI's JSON: how bodies and events are read, and what is said of a body that is wrong.

Source: what OpenAI's API answers to requests with one mistake or two.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, TypeVar

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


# Answers to wrong requests, with OpenAI's codes.


def refused(code: str, param: str | None, message: str) -> RequestError:
    """Return the answer to a request that is wrong in one field."""
    return RequestError(400, message, param=param, code=code)


def missing(param: str) -> RequestError:
    """Return the answer to a request without a field that it needs."""
    what = f"Missing required parameter: '{param}'."
    return refused("missing_required_parameter", param, what)


def invalid(param: str | None, what: str) -> RequestError:
    """Return the answer to a field whose value is wrong."""
    return refused("invalid_value", param, f"Invalid value for '{param}': {what}")


def unsupported(param: str) -> RequestError:
    """Return the answer to a field that the local model does not act on."""
    what = f"Unsupported parameter: '{param}' is not supported with this model; leave it out."
    return refused("unsupported_parameter", param, what)


def not_among(param: str, value: str, supported: Iterable[Any]) -> RequestError:
    """Return the answer to a value that is not one of the supported ones."""
    listed = ", ".join(f"'{each}'" for each in supported)
    what = f"Invalid value: '{value}'. Supported values are: {listed}."
    return refused("invalid_value", param, what)


# What msgspec says of the first mistake, in OpenAI's words.

_WHERE = re.compile(r"(.*?)(?: - at `(key` in `)?\$([\w.\[\]]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*?)`?", re.DOTALL)
_TYPE = re.compile(r"Expected `(.*?)(?: \| null)?`, got `(.*)`")
_BOUND = re.compile(r"Expected `(.*)`( of length)? (>=|<=) (.*?)(?:\.0)?")
_STEP = re.compile(r"\w+|\.\.\.")  # the last one is into a map, by whatever name
_NOUNS = {"bool": "boolean", "int": "integer", "float": "decimal", "str": "string"}
_type_info: Callable[[Any], inspect.Type] = cache(inspect.type_info)


def _mistake(said: str, value: Any, kind: inspect.Type) -> RequestError:
    where: Any = _WHERE.fullmatch(said)
    what, key, path = where.groups("")
    param = path.partition("[...]")[0].removeprefix(".")
    if field := _FIELD.fullmatch(what):
        name = f"{param}.{field[2]}" if param else field[2]
        unknown = refused("unknown_parameter", name, f"Unknown parameter: '{name}'.")
        return missing(name) if field[1] == "missing required" else unknown
    if wrong := _TYPE.fullmatch(what):
        expected = wrong[1].replace(" | ", " or ")
        return unsupported(param) if expected == "null" else wrong_type(param, wrong[2], expected)
    got, kinds = _at(path, value, kind)
    if bound := _BOUND.fullmatch(what):
        return _out_of_bounds(param, bound, "property name" if key else "", got)
    supported = [each.values for each in kinds if isinstance(each, inspect.LiteralType)]
    what = what.replace("Expected `str` matching regex", "it must match")
    return not_among(param, got, supported[0]) if supported else invalid(param, f"{what}.")


def wrong_type(param: str, got: str, expected: str) -> RequestError:
    """Return the answer to a value of another type than `expected`, as msgspec calls it."""
    of = f" for '{param}'" if param else ""
    what = re.sub(r"\w+", lambda word: _NOUNS.get(word[0], word[0]), f"{expected}, but got {got}")
    return refused("invalid_type", param or None, f"Invalid type{of}: expected {what} instead.")


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


def _out_of_bounds(param: str, bound: re.Match[str], name: str, got: Any) -> RequestError:
    """Return the answer to what is too small or large, too short or long."""
    kind, length, sign, limit = bound.groups("")
    noun = name or _NOUNS.get(kind, kind)
    side = "below_min" if sign == ">=" else "above_max"
    code = f"{noun.replace(' ', '_')}_{side}_{'length' if length else 'value'}"
    if length and sign == ">=":
        code = f"empty_{noun}"
    elif noun == "object":
        code = "object_above_max_properties"
    told = "" if length else f", but got {got} instead"
    what = f"Invalid '{param}': expected {noun}{length} {sign} {limit}{told}."
    return refused(code, param, what)


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
_TOKEN = re.compile(  # words that are not empty, or a call
    rb'"(?:content|text|delta|refusal|reasoning(?:_content)?|arguments)"\s*:\s*"(?!")'
    rb'|"(?:tool_calls|function_call)"\s*:\s*[\[{]\s*[{"]|"type"\s*:\s*"[a-z_]+_call"'
)
_LONGEST_BYTES = 8 * 1024 * 1024  # of one event; what is longer is not an event
_MOST_TOKENS = 2**53


class Counts(NamedTuple):
    """How many tokens an answer says that it took; 0 if it does not say, or says nonsense."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


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
            self.begun = self.begun or _TOKEN.search(data) is not None
            if b'_tokens"' in event:
                self.counts = counts_in(data)
            if event.startswith(_TIMES):
                self.times = event.removeprefix(_TIMES)
            self.ended = self.ended or _LAST.search(event) is not None
        self._rest = self._rest[-_LONGEST_BYTES:]


def counts_in(body: bytes) -> Counts:
    """Return the token counts of an answer, or of an event's data."""
    answer = read_object(body)
    usage = _part(answer, "usage") or _part(answer.get("response"), "usage")
    sent = _part(usage, "prompt_tokens") or _part(usage, "input_tokens")
    made = _part(usage, "completion_tokens") or _part(usage, "output_tokens")
    read = _part(usage, "prompt_tokens_details") or _part(usage, "input_tokens_details")
    told = sent, made, _part(read, "cached_tokens")
    return Counts(*(n if type(n) is int and 0 <= n <= _MOST_TOKENS else 0 for n in told))


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
