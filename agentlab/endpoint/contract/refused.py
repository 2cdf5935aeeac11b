"""Which parameters of a question an error refuses, and how the question is asked without them.

Only preferences of sampling and of form may be left out if a model refuses them. A limit on the
length is sent by its other name first. An error that merely mentions a parameter refuses nothing.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, get_args

import msgspec

from agentlab._support import DATA
from agentlab._support.patterns import Patterns
from agentlab.endpoint.contract.openai_json import Json, read_json, read_object
from agentlab.settings import MayBeLeftOut

_LENGTHS = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
_KNOWN: dict[str, str] = {name.replace("_", ""): name for name in get_args(MayBeLeftOut)}
_MOST_RESENDS = 4
_RE = Patterns(DATA / "patterns" / "refused.yaml")
_INNER = ("message", "msg", "error", "errors", "detail", "metadata", "raw")


def refused(status: int, answer: bytes, asked: Collection[str]) -> set[str]:
    """Return those of the parameters `asked` that an answer refuses, and that may be left out."""
    if status not in (400, 422):
        return set()
    return _named(answer.decode(errors="replace")) & set(asked)


def without(asked: Json, names: Collection[str]) -> Json:
    """Return the question without these parameters, a limit by its other name if that may stay."""
    kept = {name: value for name, value in asked.items() if name not in names}
    for name, other in _LENGTHS.items():
        if name in asked and name in names and other not in names:
            kept.setdefault(other, asked[name])
    return kept


class Asking:
    """One question: `body` is to be sent now; `left_out` is what the model is not asked.

    That is `always`, and what its model has refused before; all questions share `learned`.
    """

    def __init__(self, body: bytes, always: Iterable[str], learned: dict[str, set[str]]):
        self.body, self.left_out = body, list[str]()
        self._asked = self._sent = read_object(body)
        self._model = str(self._asked.get("model"))
        self._learned, self._gone, self._resends = learned, set(always), 0
        self._leave_out(learned.get(self._model, ()))

    def again(self, status: int, answer: bytes) -> bool:
        """Take the answer; return True if `body` must be sent again, without what this one refuses.

        What had to go is left out of the model's later questions, too, once it has answered.
        """
        if status < 400 and self._resends:
            self._learned.setdefault(self._model, set()).update(self._gone)
        new = refused(status, answer, self._sent)
        if not new or self._resends == _MOST_RESENDS:
            return False
        self._resends += 1
        self._leave_out(new)
        return True

    def _leave_out(self, names: Iterable[str]) -> None:
        self._gone.update(names)
        if known := self._asked.keys() & self._gone:
            self._sent = without(self._asked, self._gone)
            self.body = msgspec.json.encode(self._sent)
            others = {_LENGTHS[name] for name in known & _LENGTHS.keys()}
            self.left_out = sorted(known | others & self._gone)


def _named(told: Any) -> set[str]:
    """Return the parameters that an error names as refused; "" is one that may not be left out."""
    if isinstance(told, list):
        return set().union(*map(_named, told))
    if isinstance(told, str):
        inner = read_json(told.encode(errors="replace"))
        if isinstance(inner, (dict, list)):  # a provider's own error may be quoted
            return _named(inner)
        said = told[:2000]
        named = {_known(found[1]) for form in _RE.each("unknown") for found in form.finditer(said)}
        fixed = {_known(found[1]) for form in _RE.each("fixed") for found in form.finditer(said)}
        return named | fixed - _LENGTHS.keys()
    if not isinstance(told, dict):
        return set()
    code, param, at = f"{told.get('code')} {told.get('type')}", told.get("param"), told.get("loc")
    named = set().union(*(_named(told.get(inner)) for inner in _INNER))
    if isinstance(param, str) and param:  # whatever else it mentions, it is about this one
        about = {_known(re.split(r"[.\[]", param)[0])}
        fixed = about - _LENGTHS.keys() if "unsupported_value" in code else set()
        named = about if fixed or _RE.unknown_code.search(code) else named & about
    if isinstance(at, list) and _RE.extra_code.search(code):
        named |= {_known(str(part)) for part in [part for part in at if part != "body"][:1]}
    return named


def _known(word: str) -> str:
    """Return the parameter so called, in any spelling; "" if it may not be left out."""
    return _KNOWN.get(word.replace("_", "").casefold(), "")
