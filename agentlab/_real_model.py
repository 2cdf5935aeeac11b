"""Ask a real model as lessons do, for one token, and say what stands in the way: for the doctor.

The key goes to no other host than the one that the user has named, and no part of it is shown.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from agentlab import settings
from agentlab.doctor import FAIL, OK, WARN, Finding
from agentlab.endpoint.times import Clock, clock_of
from agentlab.endpoint.wire import refused, without
from agentlab.errors import (
    AnswerTruncated,
    ConfigError,
    EndpointError,
    IncompleteAnswer,
    ModelError,
    ReasoningExhausted,
)
from agentlab.lab import Answer, read
from agentlab.model_time import real_retry_after_s
from agentlab.resilience.verdict import asked_to_wait_s

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 30.0
SHOWN = 300
NAME = "real model"
ROUTE = "/chat/completions"
LOCAL = "set AGENTLAB_LOCAL=1 for the local model"


class Outcome(NamedTuple):
    """What came of the question.

    Attributes:
        problem: What kept it from being answered; None if nothing did.
        said: The endpoint's own words about it; they may repeat parts of the key.
        wait: How long it asks to wait, such as "20 s"; empty if it does not say.
        moved: Where it sends the question instead; empty if nowhere.
        foreign: True if that is neither an error nor a completion, such as a web page.
        refused: The parameters that are to be left out.
        left_out: What was left out, in the end.
    """

    problem: Exception | None = None
    said: str = ""
    wait: str = ""
    moved: str = ""
    foreign: bool = False
    refused: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def check() -> Finding:
    """Whether the model that the environment names answers a lesson's question."""
    try:
        chosen = settings.from_environment()
        if chosen.upstream is None or not chosen.real:
            return Finding(NAME, OK, "none is set; the local one answers")
        url, model = chosen.upstream, chosen.model
        clock = _clock(url)
        key = settings.key_from(os.environ, learner=clock is not None)
        client = httpx.Client(timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
    except ConfigError as error:
        found, _, cure = str(error).partition("; ")
        return Finding(NAME, FAIL, found, cure)
    except (ValueError, ImportError, OSError):  # which may quote a proxy's password
        cure = "correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE, or unset them"
        return Finding(NAME, FAIL, "a variable for proxies or certificates cannot be used", cure)
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0,
        "max_completion_tokens": 1,
    }
    body = without(body, chosen.leave_out)
    with client:
        outcome = ask(client, url, key, body)
        found_at = ""
        if kind(outcome, model) == "address":
            tried = addresses(url, outcome.moved)
            there = (other for other in tried if _understood(client, other, key, body))
            found_at = next(there, "")
    return finding(outcome, url, model, key=key, found_at=found_at, clock=clock)


def _clock(url: str) -> Clock | None:
    try:
        return clock_of(url)
    except EndpointError:  # the question that follows says what is the matter
        return None


def ask(client: httpx.Client, url: str, key: str | None, body: dict[str, Any]) -> Outcome:
    """What comes of one question; what it refuses is left out, and the question asked again."""
    left_out: list[str] = []
    while True:
        outcome = _asked(client, url, key, without(body, left_out))
        if not outcome.refused:
            return outcome._replace(left_out=tuple(left_out))
        left_out += outcome.refused


def _understood(client: httpx.Client, url: str, key: str | None, body: dict[str, Any]) -> bool:
    outcome = ask(client, url, key, body)
    return kind(outcome, body["model"]) not in ("address", "other", "down", "no connection")


def _asked(client: httpx.Client, url: str, key: str | None, body: dict[str, Any]) -> Outcome:
    # A class's key is a name in any language, which the lab sends as UTF-8, too.
    headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
    try:
        answer = client.post(url + ROUTE, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Outcome(error)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    try:
        # Its headers stay here: how long to wait is told in real seconds, not in the model's.
        read(Answer(answer.status_code, {}, answer.content), max_tokens=limit)
        return Outcome()
    except ModelError as error:
        gone = refused(answer.status_code, answer.content, body)
        return _outcome(error, answer, url)._replace(refused=tuple(sorted(gone)))


def _outcome(error: ModelError, answer: httpx.Response, url: str) -> Outcome:
    said = re.sub(r"^the model answered \d+: ", "", str(error))
    known = re.search(rb'"(error|detail|message|choices)"', answer.content)
    start = answer.content.lstrip()[:1]
    if start not in (b"{", b"["):
        known, said = None, "a web page" if start == b"<" else answer.text or "nothing"
    moved = answer.next_request.url if answer.next_request else httpx.URL("")
    if re.search(rb"HTTP request .*to (an )?HTTPS", answer.content):
        moved = httpx.URL(url).copy_with(scheme="https")
    to = str(moved.copy_with(userinfo=b"", query=None, fragment=None)).removesuffix(ROUTE)
    return Outcome(error, said, _wait(answer.headers, said), to, foreign=not known)


# What an endpoint means

_OURS = ("temperature", "max_completion_tokens", "max_tokens")


_NO_LIMIT_LEFT = re.compile(r"could not finish the message|output limit was reached", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"model_not_found|not a (chat|valid) model|no models? loaded|(no such|unknown|invalid) model"
    r"|\bmodel\b.{0,80}(not (found|exist|available)|is (not supported|invalid|unavailable))",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(
    r"insufficient.(quota|balance|credit|fund|user_quota)|exceeded.(your.)?(current|monthly).quota"
    r"|billing|credit|balance|recharge|top.?up|payment|spend|arrear|suspended|余额|欠费",
    re.IGNORECASE,
)
_A_DAY = re.compile(r"per.?day|daily|\b[rt]pd\b|today", re.IGNORECASE)
_NO_ROUTE = re.compile(
    r"(unexpected|unknown|invalid|no such) (endpoint|url|path|route)", re.IGNORECASE
)


def kind(outcome: Outcome, model: str) -> str:
    """What an outcome comes down to, in a word."""
    problem, said = outcome.problem, outcome.said
    if problem is None or isinstance(problem, (ReasoningExhausted, AnswerTruncated)):
        return "answers"
    if isinstance(problem, IncompleteAnswer):
        return "no text"
    if not isinstance(problem, ModelError):
        return "no connection"
    status, named = problem.status, f"{problem.code} {problem.kind}"
    if status == 400 and _NO_LIMIT_LEFT.search(said):  # so a reasoning model may say it
        return "answers"
    if status == 401:
        return "key"
    if status in (429, 402, 403, 400) and _NO_CREDIT.search(named):
        return "credit"
    if status == 429 and (outcome.wait or _A_DAY.search(said) or not _NO_CREDIT.search(said)):
        return "day" if _A_DAY.search(said) or outcome.wait.endswith(" h") else "rate"
    if status == 402 or (status in (429, 403, 400) and _NO_CREDIT.search(said)):
        return "credit"
    if status == 403:
        return "access"
    if status >= 500:
        return "down"
    named_here = re.search(rf"(?<!\w){re.escape(model)}(?!\w)", said)
    if (
        problem.code == "model_not_found"
        or _NO_MODEL.search(said)
        or (status == 404 and named_here)
    ):
        return "model"
    if outcome.foreign or status in (404, 405) or _NO_ROUTE.search(said):
        return "address"
    return "other"


def finding(
    outcome: Outcome,
    url: str,
    model: str,
    *,
    key: str | None = None,
    found_at: str = "",
    clock: Clock | None = None,
) -> Finding:
    """Tells apart what looks alike in a notebook: key, credit, rate, model, parameter, way.

    Args:
        found_at: An address at which the question was understood; empty if there is none.
        clock: Another lab's, such as a class's; None where something else answers.
    """
    what = kind(outcome, model)
    if what == "answers":
        return _answers(outcome, url, model, clock)
    if what == "no connection":
        why, cure = _no_way(outcome.problem, url)
        return Finding(NAME, FAIL, f"no connection to {url}: {why}", cure)
    said, moved = _without(key, outcome.said), _without(key, outcome.moved)
    status, wait = getattr(outcome.problem, "status", 0), outcome.wait
    if found_at:
        found = f"{url} answers {status} to a question, and {found_at} understands it"
        return Finding(NAME, FAIL, found, f"set OPENAI_BASE_URL={found_at}")
    param = getattr(outcome.problem, "param", None)
    blamed = f" ({_without(key, param)})" if param else ""
    ours = [name for name in _OURS if re.search(rf"\b{name}\b", f"{param} {said}")]
    a_key = "a key that this provider made" if clock is None else "your name in this class"
    verdict, found, cure = {
        "no text": (
            WARN,
            f"{model} at {url} answers, but: {said}",
            "ask it for more than a token in a notebook",
        ),
        "key": (
            FAIL,
            "the key is not accepted" if key else f"{url} wants a key",
            f"set OPENAI_API_KEY to {a_key}",
        ),
        "access": (
            FAIL,
            f"the key may not use this: {said}",
            "give the key's project access to the model, or see whether a firewall says so",
        ),
        "credit": (
            FAIL,
            f"the key is right, but its account has no credit: {said}",
            f"add credit, or {LOCAL}; waiting does not help",
        ),
        "rate": (
            WARN,
            f"the key works, but its rate limit is reached: {said}",
            f"wait {wait or 'a minute'}",
        ),
        "day": (
            WARN,
            f"the key works, but its limit for a day is reached: {said}",
            f"wait {wait or 'until it begins anew'}, or {LOCAL}",
        ),
        "model": (
            FAIL,
            f"no model {model!r} for chat at {url}: {said}",
            "set OPENAI_MODEL to one that it has",
        ),
        "address": (
            FAIL,
            f"nothing for chat at {url}: it answers {status}: {moved or said}",
            "check OPENAI_BASE_URL; for most servers it ends in /v1",
        ),
        "down": (
            FAIL,
            f"{url} answers {status}: {said}",
            "try again in a minute; if it stays, look at the server's log or status page",
        ),
        "other": (
            FAIL,
            f"{url} answers {status}{blamed}: {said}",
            f"set AGENTLAB_LEAVE_OUT={','.join(ours)}"
            if ours
            else "check OPENAI_BASE_URL and OPENAI_MODEL",
        ),
    }[what]
    return Finding(NAME, verdict, found, cure)


def _answers(outcome: Outcome, url: str, model: str, clock: Clock | None) -> Finding:
    if clock is not None:
        scale = f"{clock.time_scale:g} model seconds per second"
        price = "its answers may be paid for" if clock.paid else "it costs nothing"
        found = f"Agent Lab's endpoint at {url} answers, {scale}; {price}"
        return Finding(NAME, OK, found)
    found = f"{model} at {url} answers (1 token asked: a fraction of a cent)"
    if not outcome.left_out:
        return Finding(NAME, OK, found)
    names = ",".join(outcome.left_out)
    varies = ", so its answers vary" if "temperature" in outcome.left_out else ""
    return Finding(
        NAME,
        WARN,
        f"{found}; this model takes no {names.replace(',', ' and no ')}: the lab leaves it out"
        f"{varies}",
        f"set AGENTLAB_LEAVE_OUT={names} to leave it out from the start",
    )


def addresses(url: str, moved: str = "") -> Iterator[str]:
    """Where else on the same host the questions may belong, likely ones first.

    Example:
        >>> list(addresses("http://localhost:11434/api"))[:2]
        ['http://localhost:11434/api/v1', 'http://localhost:11434/v1']
    """
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}"
    to = urlsplit(moved)
    likely = (
        [moved] if to.hostname == parts.hostname and to.scheme in ("https", parts.scheme) else []
    )
    likely += [] if url.endswith("/v1") else [f"{url}/v1"]
    likely += [root + path for path in ("/v1", "/api/v1", "/openai/v1")]
    return (other for other in dict.fromkeys(likely) if other != url)


# The way there


def _no_way(error: Exception | None, url: str) -> tuple[str, str]:
    """Why there is no connection, and what cures that."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    by = next((name for name in (parts.scheme, "all") if proxies.get(name)), "")
    proxied = bool(by) and not proxy_bypass(host)
    causes = list(_causes(error))
    why, cure = type(error).__name__, "check OPENAI_BASE_URL, network and proxy"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        why = "its certificate is not trusted"
        cure = "set SSL_CERT_FILE to the certificate of whoever signs here, such as your company"
        proxied = False
    elif any(isinstance(cause, ssl.SSLError) for cause in causes):
        why = "it does not speak TLS as this machine does"
        cure = "begin OPENAI_BASE_URL with http:// if it is a server of your own"
        proxied = False
    elif any(isinstance(cause, socket.gaierror) for cause in causes):
        why = "no such host is known (DNS)"
        cure = "check the host in OPENAI_BASE_URL, and that this machine is online"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        why = "nothing listens there"
        cure = "start the server, or correct the port in OPENAI_BASE_URL"
    elif isinstance(error, httpx.ConnectTimeout):
        why = f"no connection within {CONNECT_TIMEOUT_S:g} s"
        cure = "check OPENAI_BASE_URL, and whether the network needs a proxy (HTTPS_PROXY)"
    elif isinstance(error, httpx.TimeoutException):
        why = f"no answer within {ANSWER_TIMEOUT_S:g} s"
        cure = "try again: a server may load its model first; else look at its log"
    elif isinstance(error, httpx.ProxyError):
        why = f"it refuses ({error})"
    elif isinstance(error, httpx.TransportError):
        why = f"it breaks off ({why})"
        cure += "" if parts.scheme == "https" else "; a server with TLS wants https://"
    if proxied:
        variable = f"{by.upper()}_PROXY"
        cure = f"check the proxy in {variable}, or spare the host: NO_PROXY={host}"
        return f"the proxy of {variable}: {why}", cure
    return why, cure


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _wait(headers: httpx.Headers, said: str) -> str:
    """How long an answer asks to wait, by its headers or else in words; empty if it does not."""
    wait_s = real_retry_after_s(headers) or asked_to_wait_s(said) or 0.0
    if not 0 < wait_s < 60 * 86_400:
        return ""
    unit, long_s = ("h", 3600) if wait_s > 7200 else ("min", 60) if wait_s > 120 else ("s", 1)
    return f"{ceil(wait_s / long_s)} {unit}"


# What is shown

_MASKED = re.compile(r"\S*(\*\*|\.\.\.|[\u2026\u2022\u25cf])\S*")


def _without(key: str | None, said: str) -> str:
    """An endpoint's words in one line, without any part of the key, and not too long."""
    key = key or ""
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    if key:  # endpoints repeat its beginning and its end
        said = _MASKED.sub("[key]", said.replace(key, "[key]"))
    if len(key) >= 8:
        parts = {key[:4], key[-4:], *(key[n : n + 6] for n in range(len(key) - 5))}
        said = re.sub(rf"\S*({'|'.join(map(re.escape, sorted(parts)))})\S*", "[key]", said)
    return said if len(said) <= SHOWN else f"{said[: SHOWN - 3]}..."
