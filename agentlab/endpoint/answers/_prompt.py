"""What a prompt asks for: language, topic, outline, shape and length.

The form asked for is what follows the last instruction about form ("Answer in this format:");
headings before it are of earlier results. The patterns take time in proportion to a text's length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from agentlab.endpoint.answers._form import MANY, Form, form_of, listed, number

Unit = Literal["sentences", "bullets", "paragraphs", "words", "characters"]

_LONGEST_TOPIC = 200
_READ = 12_000  # characters

_CUE = re.compile(
    r"(?i)\b(format|structure|sections?|headings?|outline|cover|include|following|should|respond"
    r"|answer|for|on|keys?|json)\b"
)
_KOREAN_CUE = re.compile("형식|구성|항목|포함|응답|답변|작성|다음")
_HEADING = re.compile(r"^[ \t]*(#{1,6})[ \t]+(.+)$", re.M)
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+(.+)$", re.M)
_NUMBERED = re.compile(r"^[ \t]*\d{1,2}[.)][ \t]+(.+)$", re.M)
_KEY = re.compile(r'"([^"\n]+)"\s*:')
_NAMED = (  # headings that a sentence names
    r"(?:with|under|using|into|ha(?:s|ve|ving)|contain\w*|includ\w*|follow\w*|these|use)"
    r"(?: [\w-]+){0,3}? (?:sub)?(?:headings?|sections?)|(?:headings|sections)(?= ?:)|섹션|제목"
)
_LISTED = re.compile(r"(?i)\b(?:(numbered)|bullet\w*) list|\b(?:in|as|with) bullet|글머리|(번호)")
_BOUND = re.compile(r"(?i)(?:(no more than|at most|up to|within|under)|at least|minimum of) $")
_LENGTHS: list[tuple[Unit, str]] = [
    ("sentences", rf"(?i:{MANY}[ -](?:\w+ )?sentences?\b)"),
    ("bullets", rf"(?i:{MANY}[ -](?:\w+ )?(?:bullets?|points?|items?)\b)"),
    ("paragraphs", rf"(?i:{MANY}[ -](?:\w+ )?paragraphs?\b)"),
    ("words", rf"(?i:{MANY}[ -](?:\w+ )?words?\b)"),
    ("sentences", rf"{MANY}\s*(?:개의\s*)?문장"),
    ("bullets", rf"{MANY}\s*(?:개의\s*|개\s*)(?:항목|요점|글머리|번호)"),
    ("paragraphs", rf"{MANY}\s*(?:개의\s*)?(?:문단|단락)"),
    ("bullets", rf"(?i:\blist (?:of|with) (?:exactly )?{MANY}\b)"),
    ("characters", r"((?<!\d)\d{1,9})\s*자\b"),
]
_PHRASE = (  # up to the end of the clause, or to words about its length
    r"(.+?)(?:[.:;?!\n]|, (?:in|with|as)\b| (?:in|as) JSON\b"
    r"| in (?:[\w-]+ ){1,5}(?:sentences?|words?|bullets?|points?|paragraphs?)\b"
    r"| (?:with|under) (?:[\w-]+ ){0,2}(?:sections?|headings?|columns?|keys?|fields?)\b|$)"
)
_TOPIC = [
    re.compile(r"^[^\S\n]*+(?:topic|subject|theme|주제|토픽)\s*[:=]\s*(.+)$", re.I | re.M),
    re.compile(r"^[^\S\n]*+(.+?)(?:에 대해|에 대하여|에 대한|을 |를 )", re.M),
    re.compile(r"\b(?:about|regarding)[ :]+(?!\d|this\b|the following)" + _PHRASE, re.I),
    re.compile(
        r"(?i)\b(?:describe|explain|analy[sz]e|research|summari[sz]e|compare|review|name|list"
        r"|discuss)[ :]+(?!this\b|the following)" + _PHRASE
    ),
    re.compile(r"^[^\S\n]*+(.+?)[.:?!\n]", re.M),
]

# How CrewAI frames a task; others do not.
_FRAME = "Current Task: "
_EXPECTED = "\nThis is the expected criteria for your final answer: "
_COMPLETE = "\nyou MUST return the actual complete content"
_CONTEXT = "\nThis is the context you're working with:\n"
_FIELDS = re.compile(r"^\[\[ ## \w+ ## \]\]\n|\nRespond with [^\n]*\Z", re.M)  # DSPy's
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
    framed = prompt.strip().removeprefix("New task:\n")
    if framed.startswith("[[ ## "):
        return Framed(_FIELDS.sub("", framed).strip())
    if not framed.startswith(_FRAME):
        return Framed(prompt.removeprefix("New task:\n"))
    framed = _END.split(framed.removeprefix(_FRAME), maxsplit=1)[0]
    framed, _, context = framed.partition(_CONTEXT)
    task, _, expected = framed.partition(_EXPECTED)
    return Framed(task.strip(), expected.partition(_COMPLETE)[0].strip(), context.strip())


class Asked(NamedTuple):
    """The form of the answer that a prompt asks for; `given` are headings of earlier results."""

    korean: bool  # otherwise English
    headings: list[tuple[int, str]]  # (level, title), in order
    items: list[str]  # bullets, or numbered aspects
    numbered: bool
    length: tuple[int, Unit] | None  # how many, of what; 0 if the model is to choose
    bound: str  # of a length in words: "most", "least", or nothing for about
    form: Form | None = None  # None for prose
    topic: str = ""
    given: tuple[str, ...] = ()


@lru_cache(maxsize=256)  # the same prompt comes again and again
def read(prompt: str, told: tuple[str, ...] = (), as_json: bool = False) -> Asked:
    """Read the form that `prompt` asks for, or else what other messages have `told`.

    With `as_json`, an answer in JSON is wanted, whatever they say.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences'))
    """
    if re.search(r'\{\{\s*"', prompt):  # a template's braces, that nobody has filled in
        prompt = prompt.replace("{{", "{").replace("}}", "}")
    framed = unframe(prompt)
    task = f"{framed.task}\n\n{framed.expected}".rstrip()
    start = _form_start(task)
    before, shown = task[:start], task[start:]
    form = form_of(prompt if "[[ ## " in prompt else task, shown, told, as_json=as_json)
    asked = _prose(task, shown)
    if told and not (asked.headings or asked.items or asked.length):
        asked = _prose("\n".join(told), "")._replace(korean=asked.korean)
    about = re.sub(r"\{.*\}|</?[\w-]+>", " ", task, flags=re.S) if form and form.schema else task
    given = tuple(title.rstrip(" \t") for _, title in _HEADING.findall(framed.context + before))
    return asked._replace(topic=_topic(about), form=form, given=given)


def _prose(text: str, shown: str) -> Asked:
    bullets, numbered = (
        [title.strip("*_` \t").rstrip(".:;") for title in pattern.findall(shown)]
        for pattern in (_BULLET, _NUMBERED)
    )
    hangul = len(re.findall(r"[\uac00-\ud7a3]", text))
    headings = [(len(marks), title.rstrip(" \t")) for marks, title in _HEADING.findall(shown)]
    if not (headings or bullets or numbered):
        headings = [(2, title) for title in listed(text, _NAMED)]
    length, bound = _length(text)
    kind = _LISTED.search(text) if length and length[1] == "bullets" else None
    return Asked(
        korean=hangul > 0 and hangul * 2 > len(re.findall("[A-Za-z]", text)),
        headings=headings,
        items=bullets or numbered,
        numbered=(not bullets and bool(numbered)) or bool(kind and kind.lastindex),
        length=length,
        bound=bound,
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


def _length(text: str) -> tuple[tuple[int, Unit] | None, str]:
    for unit, pattern in _LENGTHS:
        if found := re.search(pattern, text):
            bound = _BOUND.search(text[: found.start()][-30:])
            said = ("most" if bound[1] else "least") if bound else ""
            return (number(found[1]), unit), said
    return (0, "bullets") if _LISTED.search(text) else None, ""
