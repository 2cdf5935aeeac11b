"""What a prompt asks for: language, topic, outline, shape and length.

The form asked for is what follows the last instruction about form ("Answer in this format:");
headings before it are of earlier results. The patterns take time in proportion to a text's length.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Unit = Literal["sentences", "bullets", "paragraphs", "words", "characters"]

_LONGEST_TOPIC = 200
_READ = 12_000  # characters

_CUE = re.compile(
    r"\b(format|structure|sections?|headings?|outline|cover|include|following|should|respond"
    r"|answer|for|on|keys?|json)\b",
    re.IGNORECASE,
)
_KOREAN_CUE = re.compile("형식|구성|항목|포함|응답|답변|작성|다음")
_HEADING = re.compile(r"^[ \t]*(#{1,6})[ \t]+(.+)$", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(.+)$", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(.+)$", re.MULTILINE)
_KEY = re.compile(r'"([^"\n]+)"\s*:')
_JSON_KEYS = re.compile(r"\bkeys?\b[: ]+([\w ,`'\"-]+)", re.IGNORECASE)
_WORDS = {
    "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "ten": 10, "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5,
}  # fmt: skip
_DIGITS = r"(?<!\d)\d{1,9}"
_MANY = rf"({_DIGITS}|{'|'.join(_WORDS)})"
_LENGTHS: list[tuple[Unit, str]] = [
    ("sentences", rf"(?i:{_MANY}[ -](?:\w+ )?sentences?\b)"),
    ("bullets", rf"(?i:{_MANY}[ -](?:\w+ )?(?:bullets?|points?|items?)\b)"),
    ("paragraphs", rf"(?i:{_MANY}[ -](?:\w+ )?paragraphs?\b)"),
    ("words", rf"(?i:{_MANY}[ -](?:\w+ )?words?\b)"),
    ("sentences", rf"{_MANY}\s*(?:개의\s*)?문장"),
    ("bullets", rf"{_MANY}\s*(?:개의\s*|개\s*)(?:항목|요점|글머리)"),
    ("paragraphs", rf"{_MANY}\s*(?:개의\s*)?(?:문단|단락)"),
    ("characters", rf"({_DIGITS})\s*자\b"),
]
_PHRASE = (  # up to the end of the clause, or to words about its length
    r"(.+?)(?:[.:;?!\n]|, (?:in|with|as)\b| (?:in|as) JSON\b"
    r"| in (?:\w+ )?\w+ (?:sentences?|words?|bullets?|points?|paragraphs?)\b|$)"
)
_TOPIC = [
    re.compile(r"^[^\S\n]*+(?:topic|subject|theme|주제|토픽)\s*[:=]\s*(.+)$", re.IGNORECASE | re.M),
    re.compile(r"^[^\S\n]*+(.+?)(?:에 대해|에 대하여|에 대한|을 |를 )", re.M),
    re.compile(r"\b(?:about|regarding)[ :]+(?!\d|this\b|the following)" + _PHRASE, re.IGNORECASE),
    re.compile(
        r"\b(?:describe|explain|analy[sz]e|research|summari[sz]e|compare|review|name|list|discuss)"
        r"[ :]+(?!this\b|the following)" + _PHRASE,
        re.IGNORECASE,
    ),
    re.compile(r"^[^\S\n]*+(.+?)[.:?!\n]", re.M),
]

# How CrewAI frames a task; others do not.
_FRAME = "Current Task: "
_EXPECTED = "\nThis is the expected criteria for your final answer: "
_COMPLETE = "\nyou MUST return the actual complete content"
_CONTEXT = "\nThis is the context you're working with:\n"
_END = re.compile(r"\n\n(?:Provide your complete response:|Begin! )")


def glance(text: str) -> str:
    """Return the text, or the beginning and the end of one that is too long to be read whole."""
    half = _READ // 2
    return text if len(text) <= _READ else f"{text[:half]}\n{text[-half:]}"


class Framed(NamedTuple):
    """A prompt taken apart."""

    task: str
    expected: str = ""
    context: str = ""


def unframe(prompt: str) -> Framed:
    """Take a framework's words about the task away; a plain prompt is all task."""
    framed = prompt.strip()
    if not framed.startswith(_FRAME):
        return Framed(prompt)
    framed = _END.split(framed.removeprefix(_FRAME), maxsplit=1)[0]
    framed, _, context = framed.partition(_CONTEXT)
    task, _, expected = framed.partition(_EXPECTED)
    return Framed(task.strip(), expected.partition(_COMPLETE)[0].strip(), context.strip())


class Asked(NamedTuple):
    """The form of the answer that a prompt asks for; `given` are headings of earlier results."""

    korean: bool  # otherwise English
    topic: str
    headings: list[tuple[int, str]]  # (level, title), in order
    items: list[str]  # bullets, or numbered aspects
    numbered: bool
    shape: Any  # the JSON value to imitate, or None for prose
    length: tuple[int, Unit] | None  # how many, of what
    given: list[str]


@lru_cache(maxsize=256)  # the same prompt comes again and again
def read(prompt: str) -> Asked:
    """Read the form that `prompt` asks for.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences'))
    """
    framed = unframe(prompt)
    prompt = f"{framed.task}\n\n{framed.expected}".rstrip()
    form_start = _form_start(prompt)
    before, form = prompt[:form_start], prompt[form_start:]
    bullets, numbered = (
        [title.strip("*_` \t").rstrip(".:;") for title in pattern.findall(form)]
        for pattern in (_BULLET, _NUMBERED)
    )
    hangul = len(re.findall(r"[\uac00-\ud7a3]", prompt))
    return Asked(
        korean=hangul > 0 and hangul * 2 > len(re.findall("[A-Za-z]", prompt)),
        topic=_topic(prompt),
        headings=[(len(marks), title.rstrip(" \t")) for marks, title in _HEADING.findall(form)],
        items=bullets or numbered,
        numbered=not bullets and bool(numbered),
        shape=_shape(prompt, form),
        length=_length(prompt),
        given=[title.rstrip(" \t") for _, title in _HEADING.findall(framed.context + before)],
    )


def _form_start(prompt: str) -> int:
    """Return where the last instruction about form begins that a heading, item or key follows."""
    marks = (_HEADING, _BULLET, _NUMBERED, _KEY)
    last = max((found.start() for mark in marks for found in mark.finditer(prompt)), default=-1)
    start = at = 0
    for line in prompt[: max(last, 0)].split("\n")[:-1]:
        said = line.rstrip()
        english = said.endswith(":") and _CUE.search(said)
        if english or (said.endswith((":", ".")) and _KOREAN_CUE.search(said)):
            start = at
        at += len(line) + 1
    return start


def _topic(prompt: str) -> str:
    words = prompt.split()[:6]
    for pattern in _TOPIC:
        found = pattern.search(prompt)
        if found and (topic := found[1].strip(" \"'`*#-")):
            words = topic.split()[:9]
            break
    return " ".join(words)[:_LONGEST_TOPIC] or "this"


def _length(prompt: str) -> tuple[int, Unit] | None:
    for unit, pattern in _LENGTHS:
        if found := re.search(pattern, prompt):
            number = found[1].lower()
            return (_WORDS.get(number) or int(number), unit)
    return None


def _shape(prompt: str, form: str) -> Any:
    """Return the JSON value that the prompt shows, or names the keys of; None if it wants prose."""
    start, end = form.find("{"), form.rfind("}")
    if 0 <= start < end and _KEY.search(form[start:end]):
        text = form[start : end + 1]
        for candidate in (text, text.replace("{{", "{").replace("}}", "}")):
            with suppress(ValueError, RecursionError):  # numbers of thousands of digits, too
                return json.loads(candidate)
        return dict.fromkeys(_KEY.findall(text), "")  # one with comments, or an unfinished one
    named = _JSON_KEYS.search(prompt) if "json" in prompt.lower() else None
    if named:
        keys = re.split(r",|\band\b", re.split(r"\b(?:about|for|on|in|with)\b", named[1])[0])
        return {key.strip(" `'\""): "" for key in keys if key.strip(" `'\"")}
    return None
