"""Ask a real model as lessons do, for one token, and say what stands in the way: for the doctor.

The key goes to no other host than the one that the user has named, and no part of it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from math import ceil
from typing import Any

import httpx
import yaml

from agentlab import errors, settings
from agentlab.endpoint.contract.refused import refused, without
from agentlab.endpoint.middleware.server_timing import Clock, clock_of
from agentlab.errors import ConfigError, EndpointError, IncompleteAnswer, ModelError
from agentlab.lab import read, real_retry_after_s
from agentlab.resilience import asked_to_wait_s, classify
from agentlab.settings import key_from


def check() -> list[str]:
    """Ask the model that the environment names; return verdict, finding and cure."""
    try:
        chosen = settings.from_environment()
        if chosen.upstream is None or not chosen.real:
            return ["OK", "none is set; the local one answers"]
        url, model = chosen.upstream, chosen.model
        try:
            clock = clock_of(url)
        except EndpointError:  # the question that follows says what is the matter
            clock = None
        key = key_from(os.environ, learner=clock is not None)
        client = httpx.Client(timeout=httpx.Timeout(30.0, connect=10.0))
    except ConfigError as error:
        found, _, cure = str(error).partition("; ")
        return ["FAIL", found, cure]
    except (ValueError, ImportError, OSError):  # which may quote a proxy's password
        cure = "correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE, or unset them"
        return ["FAIL", "a variable for proxies or certificates cannot be used", cure]
    hi = {"role": "user", "content": "Hi"}
    body = {"model": model, "messages": [hi], "temperature": 0, "max_completion_tokens": 1}
    with client:
        problem, gone = ask(client, url, key, without(body, chosen.leave_out))
    return finding(problem, url, model, left_out=gone, key=key, clock=clock)


def ask(
    client: httpx.Client, url: str, key: str | None, body: dict[str, Any]
) -> tuple[Exception | None, list[str]]:
    """Ask, again without what is refused; return what went wrong, and what was left out."""
    # A class's key is a name in any language, which the lab sends as UTF-8, too.
    headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
    left_out: list[str] = []
    while True:
        sent = without(body, left_out)
        try:
            answer = client.post(f"{url}/chat/completions", json=sent, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return error, left_out
        try:
            # Its headers stay here: how long to wait is told in real seconds, not in the model's.
            read(httpx.Response(answer.status_code, content=answer.content), max_tokens=1)
            return None, left_out
        except ModelError as error:
            gone = refused(answer.status_code, answer.content, sent)
            if not gone:
                asked_s = real_retry_after_s(answer.headers)
                error.retry_after_s = asked_s or asked_to_wait_s(str(error))
                return error, left_out
            left_out += sorted(gone)


_NO_LIMIT_LEFT = re.compile(r"could not finish the message|output limit was reached", re.I)
_NO_MODEL = re.compile(
    r"model_not_found|not a (chat|valid) model|no models? loaded|(no such|unknown|invalid) model"
    r"|\bmodel\b.{0,80}(not (found|exist|available)|is (not supported|invalid|unavailable))",
    re.I,
)
_A_DAY = re.compile(r"per.?day|daily|\b[rt]pd\b|today", re.I)
_NO_ROUTE = re.compile(
    r"no chat completion|(unexpected|unknown|invalid|no such) (endpoint|url|path|route)", re.I
)


def kind(problem: Exception | None, model: str) -> str:
    """Say in a word what a problem comes down to; each is in data/doctor.yaml."""
    if problem is None or isinstance(problem, errors.ReasoningExhausted):
        return "answers"
    if isinstance(problem, IncompleteAnswer):
        return "no text"
    if not isinstance(problem, ModelError):
        return "no connection"
    status, spent = problem.status, classify(problem).exhausted
    said = str(problem).partition(": ")[2]  # without "the model answered 404"
    if status == 400 and _NO_LIMIT_LEFT.search(said):  # so a reasoning model may say it
        return "answers"
    if status == 429 and ((problem.retry_after_s or 0) > 7200 or _A_DAY.search(said)):
        return "day"
    if spent or status == 429:
        return "credit" if spent else "rate"
    if status in (401, 403):
        return "key" if status == 401 else "access"
    if status >= 500:
        return "down"
    named = status == 404 and re.search(rf"(?<!\w){re.escape(model)}(?!\w)", said)
    if problem.code == "model_not_found" or _NO_MODEL.search(said) or named:
        return "model"
    return "address" if status in (404, 405) or _NO_ROUTE.search(said) else "other"


def finding(
    problem: Exception | None,
    url: str,
    model: str,
    *,
    left_out: Sequence[str] = (),
    key: str | None = None,
    clock: Clock | None = None,
) -> list[str]:
    """Tell apart what looks alike in a notebook; `clock` is another lab's, such as a class's."""
    sentences = yaml.safe_load((settings.DATA / "doctor.yaml").read_bytes())
    what, wait_s = kind(problem, model), getattr(problem, "retry_after_s", None) or 60
    said = _without(key or "", str(problem).partition(": ")[2])
    ours = re.findall(r"\b(?:temperature|max_completion_tokens|max_tokens)\b", said)[:1]
    if what == "answers":
        what = "lab" if clock else "left out" if left_out else what
    elif what == "other" and ours:
        what = "parameter"
    said_of_it = sentences[what]
    if what == "no connection":
        said_of_it = ["FAIL", *_why(problem, said_of_it)]
    facts = {
        "url": url,
        "model": model,
        "said": said,
        "status": getattr(problem, "status", 0),
        "wait": f"{ceil(wait_s)} s" if wait_s <= 120 else f"{ceil(wait_s / 60)} min",
        "ours": ",".join(left_out or ours),
        "gone": " and no ".join(left_out),
        "scale": clock.time_scale if clock else 1,
        "price": "its answers may be paid for" if clock and clock.paid else "it costs nothing",
    }
    return [each.format(**facts) for each in said_of_it]


def _why(error: BaseException | None, ways: dict[str, list[str]]) -> list[str]:
    """Return why there is no connection, and what cures that."""
    causes: set[str] = set()  # names of errors' classes
    while error is not None:
        causes |= {each.__name__ for each in type(error).__mro__}
        error = error.__cause__ or error.__context__
    return next(ways[name] for name in ways if name in causes)


_MASKED = re.compile(r"\S*(\*\*|\.\.\.|[\u2026\u2022\u25cf])\S*")


def _without(key: str, said: str) -> str:
    """Return an endpoint's words in one line, without any part of the key, and not too long."""
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    if key:  # endpoints repeat its beginning and its end
        said = _MASKED.sub("[key]", said.replace(key, "[key]"))
    if len(key) >= 8:
        parts = {key[:4], key[-4:], *(key[n : n + 6] for n in range(len(key) - 5))}
        said = re.sub(rf"\S*({'|'.join(map(re.escape, sorted(parts)))})\S*", "[key]", said)
    return said if len(said) <= 300 else f"{said[:297]}..."
