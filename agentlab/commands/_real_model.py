"""Ask a real model as lessons do, for one token, and say what stands in the way: for the doctor.

The key goes to no other host than the one that the user has named, and no part of it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import yaml

from agentlab import settings
from agentlab._support.upstream import key_from
from agentlab.commands.doctor import FAIL, OK, Finding
from agentlab.endpoint.contract.openai_json import refused, without
from agentlab.endpoint.middleware.server_timing import Clock, clock_of
from agentlab.errors import (
    AnswerTruncated,
    ConfigError,
    EndpointError,
    IncompleteAnswer,
    ModelError,
    ReasoningExhausted,
)
from agentlab.lab import read, real_retry_after_s
from agentlab.resilience import asked_to_wait_s

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 30.0
SHOWN = 300
ROUTE = "/chat/completions"


class Outcome(NamedTuple):
    """What came of the question.

    Attributes:
        problem: What kept it from being answered; None if nothing did.
        said: The endpoint's own words about it; they may repeat parts of the key.
        wait: How long it asks to wait, such as "20 s".
        moved: Where it sends the question instead.
        foreign: True if that is neither an error nor a completion, such as a web page.
        left_out: The parameters that it refused.
    """

    problem: Exception | None = None
    said: str = ""
    wait: str = ""
    moved: str = ""
    foreign: bool = False
    left_out: tuple[str, ...] = ()


def check() -> Finding:
    """Say whether the model that the environment names answers a lesson's question."""
    try:
        chosen = settings.from_environment()
        if chosen.upstream is None or not chosen.real:
            return Finding(OK, "none is set; the local one answers")
        url, model = chosen.upstream, chosen.model
        try:
            clock = clock_of(url)
        except EndpointError:  # the question that follows says what is the matter
            clock = None
        key = key_from(os.environ, learner=clock is not None)
        client = httpx.Client(timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
    except ConfigError as error:
        found, _, cure = str(error).partition("; ")
        return Finding(FAIL, found, cure)
    except (ValueError, ImportError, OSError):  # which may quote a proxy's password
        cure = "correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE, or unset them"
        return Finding(FAIL, "a variable for proxies or certificates cannot be used", cure)
    hi = {"role": "user", "content": "Hi"}
    body = {"model": model, "messages": [hi], "temperature": 0, "max_completion_tokens": 1}
    body = without(body, chosen.leave_out)
    with client:
        outcome = ask(client, url, key, body)
        found_at = ""
        if kind(outcome, model) == "address":
            for other in addresses(url, outcome.moved):
                met = kind(ask(client, other, key, body), model)
                if met not in ("address", "other", "down", "no connection"):
                    found_at = other
                    break
    return finding(outcome, url, model, key=key, found_at=found_at, clock=clock)


def ask(client: httpx.Client, url: str, key: str | None, body: dict[str, Any]) -> Outcome:
    """Ask one question; leave out what is refused, and ask it again."""
    # A class's key is a name in any language, which the lab sends as UTF-8, too.
    headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
    left_out: list[str] = []
    while True:
        sent = without(body, left_out)
        try:
            answer = client.post(url + ROUTE, json=sent, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Outcome(error)
        limit = sent.get("max_completion_tokens") or sent.get("max_tokens")
        try:
            # Its headers stay here: how long to wait is told in real seconds, not in the model's.
            read(httpx.Response(answer.status_code, content=answer.content), max_tokens=limit)
            return Outcome(left_out=tuple(left_out))
        except ModelError as error:
            gone = refused(answer.status_code, answer.content, sent)
            if not gone:
                return _outcome(error, answer, url)._replace(left_out=tuple(left_out))
            left_out += sorted(gone)


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
    wait, wait_s = "", real_retry_after_s(answer.headers) or asked_to_wait_s(said) or 0.0
    if 0 < wait_s < 60 * 86_400:
        unit, long_s = ("h", 3600) if wait_s > 7200 else ("min", 60) if wait_s > 120 else ("s", 1)
        wait = f"{ceil(wait_s / long_s)} {unit}"
    return Outcome(error, said, wait, to, foreign=not known)


_NO_LIMIT_LEFT = re.compile(r"could not finish the message|output limit was reached", re.I)
_NO_MODEL = re.compile(
    r"model_not_found|not a (chat|valid) model|no models? loaded|(no such|unknown|invalid) model"
    r"|\bmodel\b.{0,80}(not (found|exist|available)|is (not supported|invalid|unavailable))",
    re.I,
)
_NO_CREDIT = re.compile(
    r"insufficient.(quota|balance|credit|fund|user_quota)|exceeded.(your.)?(current|monthly).quota"
    r"|billing|credit|balance|recharge|top.?up|payment|spend|arrear|suspended|余额|欠费",
    re.I,
)
_A_DAY = re.compile(r"per.?day|daily|\b[rt]pd\b|today", re.I)
_NO_ROUTE = re.compile(r"(unexpected|unknown|invalid|no such) (endpoint|url|path|route)", re.I)


def kind(outcome: Outcome, model: str) -> str:
    """Say in a word what an outcome comes down to; all but "answers" are in data/doctor.yaml."""
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
    named_here = status == 404 and re.search(rf"(?<!\w){re.escape(model)}(?!\w)", said)
    if problem.code == "model_not_found" or _NO_MODEL.search(said) or named_here:
        return "model"
    if outcome.foreign or status in (404, 405) or _NO_ROUTE.search(said):
        return "address"
    return "other"


@cache
def _sentences() -> dict[str, Any]:
    return dict(yaml.safe_load((settings.DATA / "doctor.yaml").read_bytes()))


def finding(
    outcome: Outcome,
    url: str,
    model: str,
    *,
    key: str | None = None,
    found_at: str = "",
    clock: Clock | None = None,
) -> Finding:
    """Tell apart what looks alike in a notebook: key, credit, rate, model, parameter, way.

    Args:
        found_at: An address at which the question was understood; empty if there is none.
        clock: Another lab's, such as a class's; None where something else answers.
    """
    what, gone = kind(outcome, model), outcome.left_out
    if what == "no connection":
        why, cure = _no_way(outcome.problem, url)
        return Finding(FAIL, f"no connection to {url}: {why}", cure)
    said = _without(key, outcome.said)
    param = getattr(outcome.problem, "param", None)
    names = ("temperature", "max_completion_tokens", "max_tokens")
    ours = [name for name in names if re.search(rf"\b{name}\b", f"{param} {said}")]
    if what == "answers":
        what = "lab" if clock else "left out" if gone else what
    elif what == "other" and ours:
        what = "parameter"
    elif found_at:
        what = "found"
    facts = {
        "url": url,
        "model": model,
        "found_at": found_at,
        "said": _without(key, outcome.moved) or said if what == "address" else said,
        "status": getattr(outcome.problem, "status", 0),
        "wait": outcome.wait or ("until it begins again" if what == "day" else "a minute"),
        "blamed": f" ({_without(key, param)})" if param else "",
        "ours": ",".join(gone if what == "left out" else ours),
        "gone": " and no ".join(gone),
        "varies": ", so its answers vary" if "temperature" in gone else "",
        "no_key": "the key is not accepted" if key else f"{url} wants a key",
        "a_key": "your name in this class" if clock else "a key that this provider made",
        "local": "set AGENTLAB_LOCAL=1 for the local model",
        "scale": clock.time_scale if clock else 1,
        "price": "its answers may be paid for" if clock and clock.paid else "it costs nothing",
    }
    verdict, *sentences = _sentences()[what]
    return Finding(verdict, *(sentence.format(**facts) for sentence in sentences))


def addresses(url: str, moved: str = "") -> Iterator[str]:
    """Yield where else on the same host the questions may belong, likely ones first.

    Example:
        >>> list(addresses("http://localhost:11434/api"))[:2]
        ['http://localhost:11434/api/v1', 'http://localhost:11434/v1']
    """
    parts, to = urlsplit(url), urlsplit(moved)
    root = f"{parts.scheme}://{parts.netloc}"
    same_host = to.hostname == parts.hostname and to.scheme in ("https", parts.scheme)
    likely = [moved] if same_host else []
    likely += [] if url.endswith("/v1") else [f"{url}/v1"]
    likely += [root + path for path in ("/v1", "/api/v1", "/openai/v1")]
    return (other for other in dict.fromkeys(likely) if other != url)


def _no_way(error: Exception | None, url: str) -> tuple[str, str]:
    """Say why there is no connection, and what cures that."""
    causes: set[str] = set()  # the names of the errors' classes
    cause: BaseException | None = error
    while cause is not None:
        causes |= {each.__name__ for each in type(cause).__mro__}
        cause = cause.__cause__ or cause.__context__
    parts = urlsplit(url)
    facts = {
        "kind": type(error).__name__,
        "error": error,
        "connect_s": CONNECT_TIMEOUT_S,
        "answer_s": ANSWER_TIMEOUT_S,
        "tls": "" if parts.scheme == "https" else "; a server with TLS wants https://",
    }
    sentences = _sentences()["no connection"]
    why, cure = (
        each.format(**facts) for each in sentences[next(n for n in sentences if n in causes)]
    )
    proxies, host = getproxies(), parts.hostname or ""
    by = next((name for name in (parts.scheme, "all") if proxies.get(name)), "")
    if by and not proxy_bypass(host) and "SSLError" not in causes:
        variable = f"{by.upper()}_PROXY"
        cure = f"check the proxy in {variable}, or spare the host: NO_PROXY={host}"
        return f"the proxy of {variable}: {why}", cure
    return why, cure


_MASKED = re.compile(r"\S*(\*\*|\.\.\.|[\u2026\u2022\u25cf])\S*")


def _without(key: str | None, said: str) -> str:
    """Return an endpoint's words in one line, without any part of the key, and not too long."""
    key = key or ""
    said = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    if key:  # endpoints repeat its beginning and its end
        said = _MASKED.sub("[key]", said.replace(key, "[key]"))
    if len(key) >= 8:
        parts = {key[:4], key[-4:], *(key[n : n + 6] for n in range(len(key) - 5))}
        said = re.sub(rf"\S*({'|'.join(map(re.escape, sorted(parts)))})\S*", "[key]", said)
    return said if len(said) <= SHOWN else f"{said[: SHOWN - 3]}..."
