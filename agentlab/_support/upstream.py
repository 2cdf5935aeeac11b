"""The address and the key of a real model, as somebody has typed or copied them.

What is around them by accident is taken away; what then cannot work is refused with the way out.
No message repeats a key, or a part of an address that may hold a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from agentlab.errors import ConfigError

_UNSEEN = "\ufeff\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064"  # a copied text brings them along
_AROUND = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$")
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"


def bare(text: str, *, quoted: bool = False) -> str:
    """Return the text without white space, unseen marks and, if `quoted`, quotes around it."""
    text = _AROUND.sub("", text)
    return bare(text.strip(_QUOTES)) if quoted else text


# How text that is not a key looks, what is wrong, and the way out. Only the last two may be names.
_NOT_A_KEY = (
    (r"^(export |set |\$env:)?\s*\w*(key|token)\s*=",
     "has a whole line in it, with the variable's name; set it to what stands behind the equals "
     "sign"),
    (rf"^[{_QUOTES}]|[{_QUOTES}]$", "has quotes around it; set it without them"),
    (r"^(authorization\W*)?bearer\b", 'begins with "Bearer"; set it to the key alone'),
    (r"^[<{[].*[>}\]]$|^\$[\w{(]|^%\w+%$|^(sk-)?(proj-)?x[x_-]{2,}$|^(sk-)?\.+$"
     r"|^([a-z0-9]+[-_ ]+)*your[-_ a-z]*?(key|token)|\bkey[-_ ]here$",
     "is the placeholder of some instructions; set it to your own key, or unset it for the local "
     "model"),
    (r"\.\.\.|\*\*|[\u2026\u2022\u2023\u2027\u2219\u22c5\u25aa\u25cf\u00b7]",
     "is a key with its middle hidden, as web pages show it; copy the whole key, or make a new "
     "one"),
    (r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
     "has a line break or another control character inside; copy the key again, and nothing else"),
    (r"\s", "has a blank inside; copy the key again, and nothing else"),
    (r"[^!-~]",
     "has a character outside of ASCII, which only a class of Agent Lab takes; copy the key again, "
     "or check that the class is running"),
)  # fmt: skip


def key_from(environ: Mapping[str, str] = os.environ, *, learner: bool = False) -> str | None:
    """Return the key in `OPENAI_API_KEY`, without white space around it, or None.

    Args:
        learner: Take a name in any language, too: another lab's endpoint takes it for a key.

    Raises:
        ConfigError: If it cannot be a key; the message says why, and does not repeat it.

    Example:
        >>> key_from({"OPENAI_API_KEY": "Bearer sk-abc"})
        Traceback (most recent call last):
        agentlab.errors.ConfigError: OPENAI_API_KEY begins with "Bearer"; set it to the key alone
    """
    key = bare(environ.get("OPENAI_API_KEY", ""))
    may_be_a_name = learner and not key.startswith("sk-")
    for looks, wrong in _NOT_A_KEY[:-2] if may_be_a_name else _NOT_A_KEY:
        if re.search(looks, key, re.IGNORECASE):
            raise ConfigError(f"OPENAI_API_KEY {wrong}")
    return key or None


def account_from(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the headers that choose the account which pays, as OpenAI's client reads them.

    Raises:
        ConfigError: If a value cannot be an organization or a project.
    """
    found = {}
    variables = {"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"}
    for name, header in variables.items():
        value = bare(environ.get(name, ""))
        if not re.fullmatch(r"[!-~]{0,200}", value):
            raise ConfigError(
                f"{name} can be no organization or project; set it again, or unset it"
            )
        if value:
            found[header] = value
    return found


_HOST = re.compile(
    r"(?!sk-|eyJ)(localhost|\d+\.\d+\.\d+\.\d+|\[[\da-f:.]+\]|[\w-]+(?=:\d)|[\w.-]+\.[a-z]{2,24})"
    r"(?=[:/?#]|$)",
    re.IGNORECASE,
)
_NEAR = re.compile(r"(localhost|[\d.]+|\[.*\]|[^.]+|.*\.local)(:\d+)?$", re.IGNORECASE)
_ROUTE = re.compile(r"/((chat/)?completions|responses|models|embeddings|messages)$")


def address(text: str) -> str:
    """Return the address of a real model, checked, and without slashes at its end.

    Raises:
        ConfigError: If it cannot be one, with the address to set wherever that is known.

    Example:
        >>> address("http://localhost:11434/v1/")
        'http://localhost:11434/v1'
        >>> address("localhost:11434/v1")
        Traceback (most recent call last):
        agentlab.errors.ConfigError: OPENAI_BASE_URL (the setting upstream) does not begin with \
http:// or https://; set it to http://localhost:11434/v1
    """
    wrong, better = _flaw(text)
    if wrong:
        cure = f"set it to {better or 'an address such as http://localhost:11434/v1'}"
        raise ConfigError(f"OPENAI_BASE_URL (the setting upstream) {wrong}; {cure}")
    scheme, _, rest = text.partition("://")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def _flaw(text: str) -> tuple[str, str]:
    """Return what is wrong with an address, and the right one; each empty if there is none."""
    schemed = re.match(r"https?://", text, re.IGNORECASE)
    rest = text[schemed.end() :] if schemed else re.sub(r"(?i)^https?[:/]+", "", text)
    _, user, rest = rest.rpartition("@")
    before, query, asked = rest.partition("?")
    before, fragment, _ = before.partition("#")
    if not schemed and not _HOST.match(before):
        return "is no http:// or https:// address", ""  # perhaps the key, so it is not shown
    if not text.isprintable() or re.search(rf"[\s<>{{}}|\\^{_QUOTES}]", text):
        return "has a character that no address has", ""
    near = _NEAR.match(before.partition("/")[0])
    scheme = schemed[0].lower() if schemed else "http://" if near else "https://"
    try:
        parts = urlsplit(scheme + before)
        (parts.hostname or "").encode("idna")
        possible = bool(parts.hostname) and "$" not in parts.netloc and parts.port != 0
    except ValueError:  # of the host or of the port
        possible = False
    if not possible:
        return "has a host or a port that cannot be", ""
    azure = "api-version=" in asked
    path = "/openai/v1" if azure else parts.path.rstrip("/")
    route = _ROUTE.search(path)
    better = f"{scheme}{parts.netloc}{path[: route.start()] if route else path}"
    if user:
        return "has a user or a password in it, which would be shown", better
    if azure:
        return "has Azure's older form, whose ?api-version=... would be lost", better
    if query or fragment:
        return f"has a {query or fragment} in it, and what follows would be lost", better
    if route:
        return f"ends in {route[0]}, which is put behind it for each question", better
    return ("" if schemed else "does not begin with http:// or https://"), better
