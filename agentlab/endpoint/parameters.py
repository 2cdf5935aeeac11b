"""Parameters that some models refuse: which one a refusal names, and the question without it.

It decides, and never waits. Only what leaves the question as it is may go: preferences of sampling
and of form. A limit on the answer's length is sent by its other name, and goes only where both
names are refused. An error that merely mentions a parameter, or calls its value wrong, is none
that refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, get_args

import msgspec

from agentlab.endpoint.wire import Json
from agentlab.settings import MayBeLeftOut

_LENGTHS = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
_KNOWN = {name.replace("_", ""): name for name in get_args(MayBeLeftOut)}
_REFUSALS = (400, 422)
_MOST_RESENDS = 4

_UNKNOWN_CODES = re.compile(r"(?:unsupported|unknown|unrecognized)_?(?:param|argument|field)", re.I)
_EXTRA = re.compile(r"extra_forbidden|value_error\.extra")
_INNER = ("message", "msg", "error", "errors", "detail", "metadata", "raw")

_NAME = r"""[`'"“\[({]*(?:body\.)?(\w+)[`'"”]?"""
_NOT = r"(?:does not|doesn't|do not|don't|cannot|can't)"
_KIND = r"(?:parameter|argument|property|field|input|name|key)(?:s|\(s\))?"
_END = r"(?= ?(?:[.,;!)\]}]|$))"
# In words: the parameter is not known here.
_UNKNOWN = (
    rf"\b(?:unsupported|unknown|unrecognized|unexpected)(?: request| keyword| query| body)? {_KIND}"
    rf"(?: supplied| provided)?:? {_NAME}",
    rf"\b{_KIND} not (?:supported|allowed|permitted)[^:.]*: {_NAME}",
    rf"{_NAME}:? (?:{_KIND} )?(?:is (?:unsupported|deprecated|unknown)|(?:is not|isn't) (?:a )?"
    rf"(?:valid {_KIND}|(?:supported|allowed|permitted|recognized)(?: {_KIND})?))"
    rf"(?:{_END}| (?:with|by|for|on|in|when) (?:this|the|that|model|using)\b)",
    rf"\b{_NOT} support (?:the )?{_KIND}:? {_NAME}",
    rf"\b{_NOT} support (?:setting |the )?{_NAME}(?: {_KIND})?{_END}",
    rf"{_NAME}: extra (?:inputs|fields) (?:are )?not permitted",
    rf"\bextra (?:inputs|fields) (?:are )?not permitted, field: {_NAME}",
    rf"\badditional properties are not allowed \({_NAME} was unexpected",
    rf"\bextra_forbidden', 'loc': \('body', {_NAME}\)",
)
# In words: it is known, but nobody may choose it. A limit so refused is only too long.
_FIXED = (
    rf"\bunsupported value: {_NAME} {_NOT} support",
    rf"{_NAME} {_NOT} support -?\d",
    rf"\b{_NOT} support {_NAME} ?[=:]",
    rf"\binvalid {_NAME}: only -?\d[\d.]* is allowed",
    rf"{_NAME} may only be (?:set to )?-?\d",
)
_FORMS = [(re.compile(form, re.I), form in _FIXED) for form in (*_UNKNOWN, *_FIXED)]


def refused(status: int, answer: bytes, asked: Collection[str]) -> set[str]:
    """Those of the parameters `asked` that an answer refuses, and that may be left out.

    Example:
        >>> body = b'{"error": {"param": "temperature", "code": "unsupported_value"}}'
        >>> refused(400, body, {"model": "m", "temperature": 0})
        {'temperature'}
        >>> refused(400, b'{"error": {"message": "max_tokens is too large"}}', {"max_tokens"})
        set()
    """
    if status not in _REFUSALS:
        return set()
    return set(_named(_json(answer))) & set(asked)


def without(asked: Json, names: Collection[str]) -> Json:
    """The question without these parameters, a limit by its other name if that may stay.

    Example:
        >>> without({"max_completion_tokens": 9, "seed": 1}, ["max_completion_tokens", "seed"])
        {'max_tokens': 9}
    """
    kept = {name: value for name, value in asked.items() if name not in names}
    for name, other in _LENGTHS.items():
        if name in asked and name in names and other not in names:
            kept.setdefault(other, asked[name])
    return kept


class LeftOut:
    """What requests to one endpoint are sent without: some always, some since a model refused them.

    Args:
        always: What no request is to have.
    """

    def __init__(self, always: Iterable[str] = ()):
        self._always = frozenset(always)
        self._learned: dict[str, frozenset[str]] = {}

    def asking(self, body: bytes) -> Asking:
        """The question that a request's body holds, as it is to be sent."""
        return Asking(body, self._always, self._learned)


class Asking:
    """One question, and what it is sent without.

    Attributes:
        body: What to send now.
        left_out: What the client asked and the model is not asked.
    """

    def __init__(self, body: bytes, always: frozenset[str], learned: dict[str, frozenset[str]]):
        self.body = body
        self.left_out: list[str] = []
        self._client_body, self._learned = body, learned
        self._gone = always
        self._resends = 0
        if always or learned:  # else nobody need read it
            self._leave_out(learned.get(self._model, frozenset()))

    def again(self, status: int, answer: bytes) -> bool:
        """Take the answer; True if `body` must be sent again, now without what this one refuses.

        What had to go is left out of the model's later questions, too, once it has answered.
        """
        if status < 400 and self._resends:
            self._learned[self._model] = self._learned.get(self._model, frozenset()) | self._gone
        if status not in _REFUSALS or self._resends == _MOST_RESENDS:
            return False
        new = refused(status, answer, _object(self.body))
        if new:
            self._resends += 1
            self._leave_out(new)
        return bool(new)

    @property
    def _model(self) -> str:
        return str(_object(self._client_body).get("model"))

    def _leave_out(self, names: Iterable[str]) -> None:
        self._gone = self._gone.union(names)
        asked = _object(self._client_body)
        known = [name for name in asked if name in self._gone]
        if known:
            self.body = msgspec.json.encode(without(asked, self._gone))
            renamed = (_LENGTHS.get(name) for name in known)
            self.left_out = sorted({*known, *(name for name in renamed if name in self._gone)})


def _named(told: Any) -> Iterator[str]:
    """The parameters that an error names as refused, as this file writes them."""
    if isinstance(told, list):
        for inner in told:
            yield from _named(inner)
    elif isinstance(told, dict):
        code, param = f"{told.get('code')} {told.get('type')}", told.get("param")
        at = [part for part in _list(told.get("loc")) if part != "body"]
        if at and _EXTRA.search(code):
            yield from _known(str(at[0]))
        named = {name for inner in _INNER for name in _named(told.get(inner))}
        if isinstance(param, str) and param:  # whatever else it mentions, it is about this one
            about = set(_known(re.split(r"[.\[]", param)[0]))
            fixed = "unsupported_value" in code and not about & _LENGTHS.keys()
            named = about if fixed or _UNKNOWN_CODES.search(code) else named & about
        yield from named
    elif isinstance(told, str):
        inner = _json(told.encode(errors="replace"))
        if isinstance(inner, (dict, list)):  # a provider's own error, quoted
            yield from _named(inner)
        else:
            yield from _in_words(told)


def _in_words(said: str) -> Iterator[str]:
    for form, fixed in _FORMS:
        for found in form.finditer(said[:2000]):
            yield from (name for name in _known(found[1]) if not (fixed and name in _LENGTHS))


def _known(word: str) -> Iterator[str]:
    """The parameter so called, be it in another spelling; nothing if it may not be left out."""
    name = _KNOWN.get(word.replace("_", "").casefold())
    if name is not None:
        yield name


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(body: bytes) -> Json:
    found = _json(body)
    return found if isinstance(found, dict) else {}


def _json(text: bytes) -> Any:
    """What the text holds; the text itself where it is no JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text.decode(errors="replace")
