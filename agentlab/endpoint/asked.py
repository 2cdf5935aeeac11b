"""What a prompt asks for: language, topic, outline, shape and length. It reads; it does not write.

A stand-in cannot understand a prompt, but it can obey its form. Where a prompt carries the results
of earlier steps, only what follows its last instruction about form ("Answer in this format:") is
taken as the form asked for; headings before that belong to what was given.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["sentences", "bullets", "paragraphs", "words", "characters"]

_CUE = re.compile(
    r"^.*\b(format|structure|sections?|headings?|outline|cover|include|following|should|respond"
    r"|answer|for|on|keys?|json)\b.*:\s*$|^.*(형식|구성|항목|포함|응답|답변|작성|다음).*[:.]\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_HEADING = re.compile(r"^[ \t]*(#{1,6})[ \t]+(.+?)[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(.+?)[ \t]*$", re.MULTILINE)
_NUMBERED = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(.+?)[ \t]*$", re.MULTILINE)
_KEY = re.compile(r'"([^"\n]+)"\s*:')
_JSON_KEYS = re.compile(r"\bkeys?\b[: ]+([\w ,`'\"-]+)", re.IGNORECASE)
_WORDS = {
    "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "ten": 10, "한": 1, "두": 2, "세": 3, "네": 4, "다섯": 5,
}  # fmt: skip
_NUMBER = r"(\d+|" + "|".join(_WORDS) + r")"
# (unit, words of which one must be there, how the length is put): looking for a word costs far
# less than for a pattern, and most prompts have none of them.
_LENGTHS: list[tuple[Unit, str, re.Pattern[str]]] = [
    ("sentences", "sentence", re.compile(_NUMBER + r"[ -](?:\w+ )?sentences?\b", re.I)),
    (
        "bullets",
        "bullet point item",
        re.compile(_NUMBER + r"[ -](?:\w+ )?(?:bullets?|points?|items?)\b", re.I),
    ),
    ("paragraphs", "paragraph", re.compile(_NUMBER + r"[ -](?:\w+ )?paragraphs?\b", re.I)),
    ("words", "word", re.compile(_NUMBER + r"[ -](?:\w+ )?words?\b", re.I)),
    ("sentences", "문장", re.compile(_NUMBER + r"\s*(?:개의\s*)?문장")),
    (
        "bullets",
        "항목 요점 글머리",
        re.compile(_NUMBER + r"\s*(?:개의\s*|개\s*)(?:항목|요점|글머리)"),
    ),
    ("paragraphs", "문단 단락", re.compile(_NUMBER + r"\s*(?:개의\s*)?(?:문단|단락)")),
    ("characters", "자", re.compile(r"(\d+)\s*자\b")),
]
_PHRASE = (  # up to the end of the clause, or to words about its length
    r"(.+?)(?:[.:;?!\n]|, (?:in|with|as)\b| (?:in|as) JSON\b"
    r"| in (?:\w+ )?\w+ (?:sentences?|words?|bullets?|points?|paragraphs?)\b|$)"
)
_TOPIC = [
    re.compile(r"^\s*(?:topic|subject|theme|주제|토픽)\s*[:=]\s*(.+?)\s*$", re.IGNORECASE | re.M),
    re.compile(r"(?:^|[.\n])\s*(.+?)(?:에 대해|에 대하여|에 대한|을 |를 )", re.M),
    re.compile(r"\b(?:about|regarding)[ :]+(?!\d|this\b|the following)" + _PHRASE, re.IGNORECASE),
    re.compile(
        r"\b(?:describe|explain|analy[sz]e|research|summari[sz]e|compare|review|name|list|discuss)"
        r"[ :]+(?!this\b|the following)" + _PHRASE,
        re.IGNORECASE,
    ),
    re.compile(r"^\s*(.+?)[.:?!\n]", re.M),
]

# How CrewAI frames a task; the article's prompts and everybody else's have no frame.
_FRAMED = re.compile(
    r"\s*Current Task: (?P<task>.+?)"
    r"(?:\n+This is the expected criteria for your final answer: (?P<expected>.+?)"
    r"\nyou MUST return the actual complete content[^\n]*)?"
    r"(?:\n+This is the context you're working with:\n(?P<context>.+?))?"
    r"(?:\n\n(?:Provide your complete response:|Begin! ).*)?\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Framed:
    """A prompt taken apart: the task itself, what is expected of its answer, what was given."""

    task: str
    expected: str = ""
    context: str = ""


def unframe(prompt: str) -> Framed:
    """Take a framework's words about the task away; a plain prompt is all task.

    Example:
        >>> unframe("\\nCurrent Task: Describe tides.\\n\\nProvide your complete response:").task
        'Describe tides.'
    """
    found = _FRAMED.fullmatch(prompt) if "Current Task: " in prompt else None
    if found is None:
        return Framed(prompt)
    parts = {name: (text or "").strip() for name, text in found.groupdict().items()}
    return Framed(**parts)


@dataclass(frozen=True)
class Asked:
    """The form of the answer that a prompt asks for.

    Attributes:
        korean: True if the answer is to be in Korean, else English.
        topic: What it is about, a phrase of a few words.
        headings: (level, title) of the headings asked for, in order.
        items: The bullet items or numbered aspects asked for, in order.
        numbered: True if `items` were numbered.
        shape: The JSON value to imitate, or None for prose.
        length: (how many, of what), or None where no length is asked for.
        given: Headings of earlier results that the prompt carries.
    """

    korean: bool
    topic: str
    headings: list[tuple[int, str]] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    numbered: bool = False
    shape: Any = None
    length: tuple[int, Unit] | None = None
    given: list[str] = field(default_factory=list)


def read(prompt: str) -> Asked:
    """Read the form that `prompt` asks for.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences'))
    """
    framed = unframe(prompt)
    prompt = f"{framed.task}\n\n{framed.expected}".rstrip()
    before, form = _split_at_last_cue(prompt)
    bullets, numbered = _titles(_BULLET, form), _titles(_NUMBERED, form)
    return Asked(
        korean=_is_korean(prompt),
        topic=_topic(prompt),
        headings=[(len(marks), title) for marks, title in _HEADING.findall(form)],
        items=bullets or numbered,
        numbered=not bullets and bool(numbered),
        shape=_shape(prompt, form),
        length=_length(prompt),
        given=[title for _, title in _HEADING.findall(framed.context + before)],
    )


def _split_at_last_cue(prompt: str) -> tuple[str, str]:
    if not _has_form(prompt):
        return "", prompt
    cues = [cue for cue in _CUE.finditer(prompt) if _has_form(prompt[cue.end() :])]
    at = cues[-1].start() if cues else 0
    return prompt[:at], prompt[at:]


def _has_form(text: str) -> bool:
    return any(
        any(mark in text for mark in marks) and pattern.search(text)
        for marks, pattern in (
            ("#", _HEADING),
            ("-*•", _BULLET),
            ("1234567890", _NUMBERED),
            ('"', _KEY),
        )
    )


def _titles(pattern: re.Pattern[str], form: str) -> list[str]:
    return [title.strip("*_` ").rstrip(".:;") for title in pattern.findall(form)]


def _is_korean(prompt: str) -> bool:
    if prompt.isascii():
        return False
    hangul = len(re.findall(r"[\uac00-\ud7a3]", prompt))
    latin = len(re.findall(r"[A-Za-z]", prompt))
    return hangul * 2 > latin


def _topic(prompt: str) -> str:
    for pattern in _TOPIC:
        found = pattern.search(prompt)
        if found and (topic := found[1].strip(" \"'`*#-")):
            return " ".join(topic.split()[:9])
    return " ".join(prompt.split()[:6]) or "this"


def _length(prompt: str) -> tuple[int, Unit] | None:
    lowered = prompt.lower()
    for unit, words, pattern in _LENGTHS:
        if any(word in lowered for word in words.split()) and (found := pattern.search(prompt)):
            number = found[1].lower()
            return (_WORDS.get(number) or int(number), unit)
    return None


def _shape(prompt: str, form: str) -> Any:
    """The JSON value that the prompt shows, or names the keys of; None if it wants prose."""
    start, end = form.find("{"), form.rfind("}")
    if 0 <= start < end and _KEY.search(form[start:end]):
        return _example(form[start : end + 1])
    named = _JSON_KEYS.search(prompt) if "json" in prompt.lower() else None
    if named:
        keys = re.split(r",|\band\b", re.split(r"\b(?:about|for|on|in|with)\b", named[1])[0])
        return {key.strip(" `'\""): "" for key in keys if key.strip(" `'\"")}
    return None


def _example(text: str) -> Any:
    for candidate in (text, text.replace("{{", "{").replace("}}", "}")):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return dict.fromkeys(_KEY.findall(text), "")  # an example with comments, or an unfinished one
