"""What a prompt asks for: language, topic, outline, shape and length.

The form asked for is what follows the last instruction about form ("Answer in this format:");
headings before it are of earlier results. The patterns take time in proportion to a text's length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from agentlab.endpoint.answers._form import Form, asks, example_in, form_of, marked, schema_in
from agentlab.endpoint.answers._listed import MANY, listed, number

Unit = Literal["sentences", "bullets", "paragraphs", "words", "characters"]

_LONGEST_TOPIC = 200
_READ = 12_000  # characters
_MOST_HEADINGS = 50

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
_NAMED = (  # headings that a sentence names
    r"(?:with|under|using|into|ha(?:s|ve|ving)|contain\w*|includ\w*|follow\w*|these|use)(?: [\w-]+){0,3}?"
    r" (?:sub)?(?:headings?|sections?)|섹션|제목|소제목"
)
_HEADINGS = re.compile(rf"\b{MANY} (?:[\w-]+ )?(?:headings|sections)\b", re.IGNORECASE)
_LISTED = re.compile(
    r"\b(?:(numbered|ordered)|bullet\w*) list|\b(?:in|as|with|use|using) (?:\w+ )?bullet|글머리|(번호)",
    re.IGNORECASE,
)
_BOUNDS = {
    "less": r"(?<!no )(?:less than|fewer than|under|below)\W*$",
    "most": r"(?:no (?:more|longer) than|at most|up to|within|max(?:imum)?(?: of)?|exceed\w*|limit\w*(?: \w+)? to"
    r"|최대)\W*$|^\W*(?:or (?:less|fewer)|이내|이하)",
    "least": r"(?:at least|minimum(?: of)?|no (?:less|fewer) than|최소)\W*$|^\W*(?:or more|이상)",
    "exactly": r"(?:exactly|precisely|정확히)\W*$",
}
_SAYS = re.compile(
    r"answer|repl[yi]|respon|write|keep|limit|\buse|summar|output|return|\bsay|답|작성|쓰|설명",
    re.IGNORECASE,
)
_OUTLINE = re.compile(
    r"^.*(?:format|structure|sections|headings|outline|형식|구성).*:[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_LENGTHS: list[tuple[Unit, str]] = [
    ("sentences", rf"(?i:{MANY}[ -](?:\w+ )?sentences?\b)"),
    ("bullets", rf"(?i:{MANY}[ -](?:\w+ )?(?:bullets?|points?|items?)\b)"),
    ("paragraphs", rf"(?i:{MANY}[ -](?:\w+ )?paragraphs?\b)"),
    ("words", rf"(?i:{MANY}[ -](?:\w+ )?words?\b)"),
    ("sentences", rf"{MANY}\s*(?:개의\s*)?문장"),
    ("bullets", rf"{MANY}\s*(?:개의\s*|개\s*)(?:항목|요점|글머리)"),
    ("paragraphs", rf"{MANY}\s*(?:개의\s*)?(?:문단|단락)"),
    ("words", rf"{MANY}\s*(?:개의\s*|개\s*)?(?:단어|낱말)"),
    ("bullets", rf"(?i:\blist (?:of|with) (?:exactly )?{MANY}\b)"),
    ("bullets", rf"{MANY}\s*(?:개의?|가지)\s*(?:를|을)?\s*(?:번호|글머리)|목록\S*\s*{MANY}\s*개"),
    ("characters", r"((?<!\d)\d{1,9})\s*자\b"),
]
_PHRASE = (  # up to the end of the clause, or to words about its length
    r"(.+?)(?:[.:;?!\n]|, (?:in|with|as)\b| (?:in|as) JSON\b"
    r"| in (?:[\w-]+ ){1,5}(?:sentences?|words?|bullets?|points?|paragraphs?)\b"
    r"| (?:with|under) (?:[\w-]+ ){0,2}(?:sections?|headings?|columns?|keys?|fields?)\b|$)"
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
_FIELDS = re.compile(r"^\[\[ ## \w+ ## \]\]\n|\n+Respond with [^\n]*\Z", re.MULTILINE)  # DSPy's
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
    topic: str
    headings: list[
        tuple[int, str]
    ]  # (level, title), in order; no title if it is the model's choice
    items: list[str]  # bullets, or numbered aspects
    numbered: bool
    form: Form | None  # None for prose
    length: tuple[int, Unit] | None  # how many, of what
    bound: str  # of a length in words: "most", "least", "exactly", or nothing for about
    listed: bool  # in bullets, or numbered
    given: list[str]


@lru_cache(maxsize=256)  # the same prompt comes again and again
def read(
    prompt: str,
    system: tuple[str, ...] = (),
    earlier: tuple[str, ...] = (),
    as_json: bool = False,
) -> Asked:
    """Read the form that `prompt` asks for, or else what the system and earlier prompts ask for.

    With `as_json`, an answer in JSON is wanted, whatever they say.

    Example:
        >>> asked = read("Describe tides in two sentences.")
        >>> asked.topic, asked.length
        ('tides', (2, 'sentences'))
    """
    framed = unframe(prompt)
    task = f"{framed.task}\n\n{framed.expected}".rstrip()
    start = _form_start(task)
    before, shown = task[:start], task[start:]
    form = _form(prompt, task, shown, system, earlier, as_json)
    about = (
        re.sub(r"\{.*\}|</?[\w-]+>", " ", task, flags=re.S) if form and not form.example else task
    )
    asked = _prose(task, shown)._replace(
        topic=_topic(about),
        form=form,
        given=[title.rstrip(" \t") for _, title in _HEADING.findall(framed.context + before)],
    )
    if system and not (asked.headings or asked.items or asked.length or asked.listed):
        told = "\n\n".join(system)
        outline = list(_OUTLINE.finditer(told))[-1:]
        said = " ".join(each for each in re.split(r"(?<=[.!?\n])\s", told) if _SAYS.search(each))
        general = _prose(said, told[outline[0].end() :] if outline else "")
        kept = {name: getattr(asked, name) for name in ("korean", "topic", "form", "given")}
        asked = general._replace(**kept)
    return asked


def _prose(text: str, shown: str) -> Asked:
    """Read what a text says of prose; headings and items stand in `shown`."""
    bullets, numbered = (
        [title.strip("*_` \t").rstrip(".:;") for title in pattern.findall(shown)]
        for pattern in (_BULLET, _NUMBERED)
    )
    hangul = len(re.findall(r"[\uac00-\ud7a3]", text))
    headings = [(len(marks), title.rstrip(" \t")) for marks, title in _HEADING.findall(shown)]
    if not headings and not bullets and not numbered:
        headings = [(2, title) for title in listed(text, _NAMED)]
        if not headings and (many := _HEADINGS.search(text)):
            headings = [(2, "")] * min(number(many[1]), _MOST_HEADINGS)
    length, bound = _length(text)
    kind = _LISTED.search(text)
    return Asked(
        korean=hangul > 0 and hangul * 2 > len(re.findall("[A-Za-z]", text)),
        topic="",
        headings=headings,
        items=bullets or numbered,
        numbered=(not bullets and bool(numbered)) or bool(kind and kind.lastindex),
        form=None,
        length=length,
        bound=bound,
        listed=kind is not None,
        given=[],
    )


def _form(
    prompt: str,
    task: str,
    shown: str,
    system: tuple[str, ...],
    earlier: tuple[str, ...],
    as_json: bool,
) -> Form | None:
    """Return the form that the last of the texts asks for, or the system; a schema in any of them."""
    texts = [*system, *earlier, prompt]
    if in_fields := "[[ ## " in prompt:
        task = prompt
    if any("[[ ## " in text for text in texts) and not as_json:
        return marked(prompt, "\n".join(texts))
    if form := form_of(task, shown, as_json=as_json):
        return form
    for text in reversed(system):
        if form := form_of(text, text):
            return form
    for text in reversed(earlier):
        if schema := schema_in(text):
            return Form("json", schema)
    if form := example_in(shown):
        return form
    return Form("json") if any(asks(text.lower(), "json") for text in (task, *system)) else None


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
    """Return how many of what a text asks for, and whether it is the most, the least or exact."""
    for unit, pattern in _LENGTHS:
        if found := re.search(pattern, text):
            many = number(found[found.lastindex or 1])
            around = (text[max(0, found.start() - 30) : found.start()], text[found.end() :][:15])
            bound = next((name for name, words in _BOUNDS.items() if _says(words, around)), "")
            return (max(1, many - (bound == "less")), unit), bound.replace("less", "most")
    return None, ""


def _says(words: str, around: tuple[str, str]) -> bool:
    before, _, after = words.partition("|^")
    return bool(
        re.search(before, around[0], re.IGNORECASE)
        or (after and re.search("^" + after, around[1], re.IGNORECASE))
    )
