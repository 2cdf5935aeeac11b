"""What a request says, and its answer: what the model says or calls, and how many tokens that is.

The answer is a function of the endpoint's seed, the request, and its occurrence.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from itertools import islice

import msgspec

from agentlab.endpoint.answers import _tools
from agentlab.endpoint.answers._prompt import glance
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers.replies import Replies, Writer
from agentlab.endpoint.contract.json_schema import CannotFill, admits
from agentlab.endpoint.contract.openai_json import RequestError, invalid
from agentlab.endpoint.contract.request import ChatRequest, Custom, Form
from agentlab.endpoint.contract.seeded_random import generator
from agentlab.endpoint.contract.tokens import count_all, first_pieces
from agentlab.endpoint.physics.prefixes import Blocks

# Around each message, and around all of them, as OpenAI's cookbook counts. A call that is repeated
# has it twice, around its name and its arguments: 6, as hmarr/openai-chat-tokens found.
FRAME_TOKENS = 3
_LONGEST_TOKENS = 16_384  # of a choice, as with the models that the presets are for
_MOST_TOKENS = 8 * _LONGEST_TOKENS  # of all choices of a request
_SHORT_TOKENS = 1024  # of an answer that is kept, if its request is
_PARAGRAPH_TOKENS = 100  # more than most have, so that few too many are written


class Called(msgspec.Struct, frozen=True):
    """A call of a tool; its arguments are the pieces from `start` to `end` of its choice.

    Those of a `custom` tool are a text, and of others JSON.
    """

    id: str
    name: str
    start: int
    end: int
    custom: bool = False


class Choice(msgspec.Struct, frozen=True):
    """One answer, as the pieces of its text, or of the arguments of one call after the other."""

    pieces: Sequence[str]
    finish_reason: str
    calls: list[Called] = []
    text: str = ""  # of the pieces, unless they are of calls

    def arguments(self, call: Called) -> str:
        """Return the arguments of one of its calls, JSON in a string."""
        return "".join(self.pieces[call.start : call.end])


class Said(msgspec.Struct, frozen=True):
    """What is said in answer to a request; all choices are decoded in the time of the longest."""

    choices: list[Choice]
    prompt_tokens: int
    completion_tokens: int
    longest_tokens: int


class Answer(msgspec.Struct, frozen=True):
    """What is said, with an id, the jitter of its times, and the tokens thought before it."""

    id: str
    said: Said
    prefill_jitter: float = 1.0
    decode_jitter: float = 1.0
    blocks: Blocks = ()
    reasoning_tokens: int = 0


class Turn(msgspec.Struct, frozen=True):
    """What the model says, or the tools that it calls; `fixed` if the request alone decides it."""

    text: str
    calls: list[_tools.Call] = []
    fixed: bool = False


class Heard(msgspec.Struct):
    """A request, and what it decides of its answers before chance comes in."""

    request: ChatRequest
    key: bytes  # of requests with the same model, conversation, and seed of the client's own
    turns: list[tuple[str, str]]  # (role, text), oldest first
    said: _tools.Conversation
    in_words: bool  # it describes its tools, and how they are to be called
    task: str
    told: tuple[str, ...]  # by other messages, that may say in which form
    prepared: str | None  # the answer, if the course has one
    fixed: Said | None = None  # what is said every time, once it was said
    prompt_tokens: int = 0  # until they were counted


def hear(request: ChatRequest, replies: Replies) -> Heard:
    """Return what a request says, for all answers to it."""
    same = (request.model, request.messages, request.seed, request.tools, request.response_format)
    key = blake2b(msgspec.json.encode(same), digest_size=16).digest()
    turns, said = request.turns, _tools.conversation(request)
    task, in_words = said.task, _tools.describes_tools(turns)
    told: list[str] = []
    if in_words:
        task = _tools.split(turns)[0]
    elif len(turns) != 1 or turns[0][0] != "user":  # there is more than the task
        told = [glance(text) for role, text in turns if role in ("system", "developer")]
        earlier = [text for role, text in turns if role == "user"][-5:-1]
        told += [glance(text) for text in earlier if '"properties"' in text]  # their schemas hold
    return Heard(request, key, turns, said, in_words, task, tuple(told), replies.prepared(task))


async def say(heard: Heard, replies: Replies, seed: int, key: bytes, occurrence: int) -> Said:
    """Return the words of the answer to the `occurrence`-th request with this `key`, from 0."""
    if heard.fixed:
        return heard.fixed
    request, choices, fixed = heard.request, [], True
    said = 0 if request.temperature == 0 else occurrence
    least, most = lengths(request)
    for index in range(request.n or 1):
        if index:
            await asyncio.sleep(0)  # writing many choices takes long
        turn = take(heard, replies, partial(generator, seed, key, said, f"text {index}"), least)
        choices.append(_choice(turn, heard, index, most))
        fixed = fixed and (turn.fixed or request.temperature == 0)
    heard.prompt_tokens = heard.prompt_tokens or await _prompt_tokens(heard)
    words = said_in(choices, heard.prompt_tokens)
    if fixed and words.completion_tokens <= _SHORT_TOKENS:
        heard.fixed = words
    return words


def said_in(choices: list[Choice], prompt_tokens: int) -> Said:
    """Return what is said in all of the choices together."""
    sizes = [len(choice.pieces) for choice in choices]
    return Said(choices, prompt_tokens, sum(sizes), max(sizes))


async def _prompt_tokens(heard: Heard) -> int:
    """Count its tokens, those that frame it among them."""
    request, texts = heard.request, heard.request.texts
    return FRAME_TOKENS * (1 + len(texts)) + await count_all([*request.described, *texts])


def lengths(request: ChatRequest, prompts: int = 1) -> tuple[int, int]:
    """Return the fewest and the most tokens of a choice; a RequestError if they cannot be."""
    limit = request.limit_tokens or _LONGEST_TOKENS
    most = min(limit, _LONGEST_TOKENS)
    least = max(request.min_tokens or 0, limit if request.ignore_eos else 0)
    choices = prompts * (request.n or 1)
    if least > most or choices * least > _MOST_TOKENS:
        what = f"{choices} x {least} tokens are to be written; a choice has {most} at most"
        param = "min_tokens" if request.min_tokens else "ignore_eos"
        raise invalid(param, f"{what}, and a request {_MOST_TOKENS}.")
    return (most + 1 if request.ignore_eos else least), most


def _choice(turn: Turn, heard: Heard, index: int, limit: int) -> Choice:
    request, text = heard.request, turn.text
    pieces: list[str] = []  # one more than `limit` at least, if there are more
    calls: list[Called] = []
    for number, (name, arguments) in enumerate(turn.calls):
        start = len(pieces)
        pieces += first_pieces(arguments, limit + 1)
        custom = any(tool.name == name and isinstance(tool, Custom) for tool in request.offered)
        id = f"call_{heard.key.hex()[:10]}{index}{len(request.messages)}{number}"
        calls.append(Called(id, name, start, len(pieces), custom))
    if not calls:
        text = _before_stop(text, request) if request.stop else text
        pieces = first_pieces(text, limit + 1)
    if len(pieces) > limit:
        pieces, calls = pieces[:limit], [call for call in calls if call.start < limit]
        return Choice(pieces, "length", calls, "" if calls else "".join(pieces))
    return Choice(pieces, "tool_calls" if calls else "stop", calls, text)


def _before_stop(text: str, request: ChatRequest) -> str:
    """Return the text up to the first stop string that is not in the tokens there have to be."""
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    spared = sum(map(len, first_pieces(text, request.min_tokens or 0)))
    ends = [at for stop in stops if stop and (at := text.find(stop, spared)) >= 0]
    return text[: min(ends, default=None)]


def take(heard: Heard, replies: Replies, draw: Callable[[], random.Random], least: int = 0) -> Turn:
    """Take the model's turn, or raise a RequestError; chance decides what the request does not."""
    request, said, form = heard.request, heard.said, heard.request.response_format
    if (prepared := heard.prepared) and not (request.tools or form or least or heard.in_words):
        return Turn(prepared, fixed=True)
    as_json = form is not None and form.type == "json_object"
    writer = replies.writer(heard.task, draw(), heard.told, as_json)
    try:
        writer.form = _tools.with_call(heard.turns, said, writer)
        writer.heed(said.results)
        guide = glance("\n".join(heard.told))
        if request.offered and (calls := _tools.calls(request, said, guide, writer)):
            return Turn("", calls)
        known = ("" if writer.form else writer.found) or prepared
        if form is not None and form.type != "text":  # nothing may come after it
            return Turn(_structured(form, known, writer))
        text = _tools.speak(heard.turns, writer) if heard.in_words else known or writer.write()
        text = text if heard.in_words else text.join(writer.asked.around)
        return Turn(_written_on(text, writer, least) if least else text)
    except CannotFill as error:
        what = f"The local model cannot fill this schema: {error}; simplify it."
        param = "response_format" if form else "tools"
        raise RequestError(400, what, param=param, code="unsupported_schema") from None


def _written_on(text: str, writer: Writer, least: int) -> str:
    """Return the text with as many paragraphs after it as make it `least` tokens long."""
    more = writer.paragraphs()
    while (short := least - len(first_pieces(text, least))) > 0:
        text = "\n\n".join([text, *islice(more, 1 + short // _PARAGRAPH_TOKENS)])
    return text


def _structured(form: Form, known: str | None, writer: Writer) -> str:
    """Return JSON of the form: what is known, if it has that form."""
    schema = form.json_schema.schema if form.json_schema else {"type": "object"}
    with suppress(ValueError):  # it is prose
        if known and admits(schema, json.loads(known)):
            return known
    value = (
        writer.with_results(build(schema, writer), schema)
        if form.json_schema
        else writer.as_object()
    )
    return json.dumps(value, ensure_ascii=False)
