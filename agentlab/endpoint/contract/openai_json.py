"""OpenAI's JSON: how a body is read, and what is said of one that is wrong.

Source: what OpenAI's API answers to requests with one mistake or two.
"""

from __future__ import annotations

import operator
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
        return convert(msgspec.json.decode(body), kind)
    except _NOT_JSON as error:
        at = re.search(r"\(byte (\d+)\)", str(error))
        where = f" It is wrong from byte {at[1]} on." if at else ""
        message = f"We could not parse the JSON body of your request.{where} (HINT: {_IS_JSON}.)"
        raise RequestError(400, message) from None


def convert(value: Any, kind: type[T]) -> T:
    """Read what JSON holds; raise a RequestError of status 400 for the first mistake in it."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        path = str(error).rpartition(" - at `")[2]
        way = _STEP.findall(path) + ["..."] * path.startswith("key")
        _check(value, _type_info(kind), "", way)
        raise wrong_field(str(error)) from None


def wrong_field(said: str) -> RequestError:
    """Return the answer to a field that is missing or wrong, as a decoder's error says."""
    what, _, path = said.partition(" - at `$")
    param = path.rstrip("`").lstrip(".") or None
    if lacking := re.match(r"Object missing required field `(\w+)`", what):
        return missing(f"{param}.{lacking[1]}" if param else lacking[1])
    return invalid(param, f"{what}.")


def read_json(text: bytes) -> Any:
    """Return what the text holds; None if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except _NOT_JSON:
        return None


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
    message = f"Invalid value: '{value}'. Supported values are: {_listed(supported, 'and')}."
    return RequestError(400, message, param=param, code="invalid_value")


def wrong_type(param: str, value: Any, expected: str) -> RequestError:
    """Return the answer to a value of another type than `expected`, as OpenAI calls it."""
    of = f" for '{param}'" if param else ""
    message = f"Invalid type{of}: expected {expected}, but got {_JSON[type(value)]} instead."
    return RequestError(400, message, param=param or None, code="invalid_type")


def out_of_bounds(param: str, what: str, expected: str, got: object, code: str) -> RequestError:
    """Return the answer to a value that is too small or large, too short or long."""
    message = f"Invalid '{param}': {what}. Expected {expected}, but got {got} instead."
    return RequestError(400, message, param=param, code=code)


# The first mistake in a value. msgspec says where it is; what lies beside the way to it is not
# looked at, because that may be long.

_STEP = re.compile(r"(?<=\.)\w+|(?<=\[)(?:\d+|\.\.\.)(?=\])")
_JSON = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
_FITS: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.NoneType: (type(None),),
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (float, int),
    inspect.StrType: (str,),
    inspect.LiteralType: (str,),
    inspect.ListType: (list,),
    inspect.DictType: (dict,),
    inspect.StructType: (dict,),
}
_BOUNDS = (("ge", ">=", "below_min"), ("gt", ">", "below_min"),
           ("le", "<=", "above_max"), ("lt", "<", "above_max"))  # fmt: skip
_type_info: Callable[[Any], inspect.Type] = cache(inspect.type_info)


def _check(value: Any, kind: inspect.Type, where: str, way: list[str]) -> None:
    """Raise a RequestError for the first mistake in a value of this type, if it has one."""
    types = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    fits = [each for each in types if type(value) in _FITS.get(type(each), _JSON)]
    if len(fits) > 1:
        return  # which of them was meant is not known
    match fit := fits[0] if fits else None:
        case None if isinstance(kind, inspect.NoneType):
            raise unsupported(where)
        case None:
            names = [_name(each) for each in types if not isinstance(each, inspect.NoneType)]
            names[1:] = [name.removeprefix("a ").removeprefix("an ") for name in names[1:]]
            one_of = "one of " if len(names) > 1 else ""
            raise wrong_type(where, value, one_of + _joined(names, "or"))
        case inspect.StructType():
            _check_fields(value, fit, where, way)
        case inspect.LiteralType() if value not in fit.values:
            raise not_among(where, value, fit.values)
        case inspect.IntType() | inspect.FloatType():
            _check_bounds(value, fit, where)
        case inspect.StrType() | inspect.ListType() | inspect.DictType():
            _check_length(value, fit, where)
            _check_inside(value, fit, where, way)


def _check_fields(value: Json, kind: inspect.StructType, where: str, way: list[str]) -> None:
    stem = f"{where}." if where else ""
    fields = {field.encode_name: field for field in kind.fields}
    for name, field in fields.items():
        if field.required and name not in value:
            raise missing(stem + name)
    unknown = [name for name in value if name not in fields and kind.forbid_unknown_fields]
    for name in unknown[:1]:
        param = stem + name
        message = f"Unknown parameter: '{param}'."
        raise RequestError(400, message, param=param, code="unknown_parameter")
    for name, field in fields.items():
        if name in value:
            _check(value[name], field.type, stem + name, way[1:] if name in way[:1] else [])


def _check_inside(value: Any, kind: Any, where: str, way: list[str]) -> None:
    step = way[0] if way else ""
    if isinstance(kind, inspect.ListType) and step.isdecimal() and int(step) < len(value):
        _check(value[int(step)], kind.item_type, f"{where}[{step}]", way[1:])
    elif isinstance(kind, inspect.DictType) and step:
        for name, each in value.items():
            param, longest = f"{where}.{name}", getattr(kind.key_type, "max_length", None)
            if longest is not None and len(name) > longest:
                what, code = "property name too long", "property_name_above_max_length"
                raise out_of_bounds(param, what, f"at most {longest} characters", len(name), code)
            _check(each, kind.value_type, param, way[1:])
    elif isinstance(kind, inspect.StrType) and not re.search(kind.pattern or "", value):
        what = "string does not match pattern. Expected a string that matches the pattern"
        message = f"Invalid '{where}': {what} '{kind.pattern}'."
        raise RequestError(400, message, param=where, code="invalid_value")


def _check_length(value: Any, kind: Any, where: str) -> None:
    least, most, length = kind.min_length or 0, kind.max_length, len(value)
    a_noun = _JSON[type(value)]
    noun = a_noun.split()[1]
    if length < least:
        expected, got = f"{a_noun} with minimum length {least}", f"an empty {noun}"
        raise out_of_bounds(where, f"empty {noun}", expected, got, f"empty_{noun}")
    if most is None or length <= most:
        return
    if noun == "object":
        expected, got = f"{a_noun} with at most {most} properties", f"{a_noun} with {length}"
        code = "object_above_max_properties"
        raise out_of_bounds(where, "too many properties", expected, f"{got} properties", code)
    expected, got = f"{a_noun} with maximum length {most}", f"{a_noun} with length {length}"
    raise out_of_bounds(where, f"{noun} too long", expected, got, f"{noun}_above_max_length")


def _check_bounds(value: float, kind: Any, where: str) -> None:
    noun = "integer" if isinstance(kind, inspect.IntType) else "decimal"
    for name, sign, side in _BOUNDS:
        bound = getattr(kind, name)
        if bound is not None and not getattr(operator, name)(value, bound):
            what = f"{noun} {side.replace('_', ' ')}imum value"
            expected, code = f"a value {sign} {bound}", f"{noun}_{side}_value"
            raise out_of_bounds(where, what, expected, value, code)


def _name(kind: Any) -> str:
    """Return what OpenAI calls a value of this type."""
    if isinstance(kind, inspect.LiteralType):
        return f"one of {_listed(kind.values, 'or')}"
    if isinstance(kind, inspect.ListType) and type(kind.item_type) in _FITS:
        return f"an array of {_JSON[_FITS[type(kind.item_type)][-1]].split()[-1]}s"
    return "a decimal" if isinstance(kind, inspect.FloatType) else _JSON[_FITS[type(kind)][0]]


def _listed(values: Iterable[Any], link: str) -> str:
    """Return the values as a sentence lists them: 'a', 'b', and 'c'."""
    return _joined([f"'{value}'" for value in values], link)


def _joined(names: list[str], link: str) -> str:
    *most, last = names
    comma = "," if len(most) > 1 else ""
    return f"{', '.join(most)}{comma} {link} {last}" if most else last
