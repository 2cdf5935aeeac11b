"""The address and the key of a real model, checked; no message repeats what may be a secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from pydantic import HttpUrl, TypeAdapter, ValidationError

from agentlab.errors import ConfigError

# How text that is not a key looks, and what to say; a learner's name may look as the last does.
_NOT_A_KEY = (
    (r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
     "has a line break or another control character inside; copy the key again, and nothing else"),
    (r"^[\"'`]|[\"'`]$|\bbearer\b|key\W*=.",
     "has quotes, a `Bearer` or the variable's name in it; set it to the key alone"),
    (r"\.\.\.|\*\*|[\u2022\u2026\u25cf]|^[<{[$%]|your[-_ ]|^(sk-)?(proj-)?x[x-]{2,}$",
     "is a placeholder, or a key with its middle hidden, as web pages show it; set it to your "
     "whole key, or unset it for the local model"),
    (r"[^!-~]",
     "has a blank or a letter outside of ASCII inside, which only a class of Agent Lab takes; "
     "copy the key again, or check that the class is running"),
)  # fmt: skip


def key_from(environ: Mapping[str, str] = os.environ, *, learner: bool = False) -> str | None:
    """Return the key in `OPENAI_API_KEY`, without white space around it, or None.

    What cannot be a key is a ConfigError. A `learner`'s may be a name in any language: another
    lab's endpoint takes it for a key.
    """
    key = environ.get("OPENAI_API_KEY", "").strip()
    may_be_a_name = learner and not key.startswith("sk-")
    for looks, wrong in _NOT_A_KEY[:-1] if may_be_a_name else _NOT_A_KEY:
        if re.search(looks, key, re.IGNORECASE):
            raise ConfigError(f"OPENAI_API_KEY {wrong}")
    return key or None


def account_from(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the headers that choose the account which pays, as OpenAI's client reads them."""
    account = {}
    for header, kind in (("organization", "ORG"), ("project", "PROJECT")):
        value = environ.get(f"OPENAI_{kind}_ID", "").strip()
        if not re.fullmatch(r"[!-~]{0,200}", value):
            raise ConfigError(f"OPENAI_{kind}_ID can be no {header}; set it again, or unset it")
        if value:
            account[f"openai-{header}"] = value
    return account


_ROUTE = re.compile(r"/((chat/)?completions|responses|models|embeddings|messages)/*$")
_URL = TypeAdapter(HttpUrl)


def checked_address(text: str) -> str:
    """Return the address of a real model, checked, and without slashes at its end."""
    whole = re.fullmatch(r"https?://[\w\[]\S*", text, re.IGNORECASE)  # a key may follow a blank
    try:
        url = _URL.validate_python(text if whole else "")
    except ValidationError:
        wrong = "is no http:// or https:// address"
    else:
        route = _ROUTE.search(url.path or "")
        if url.username or url.password:
            wrong = "has a user or a password in it, which would be shown"
        elif url.query is not None or url.fragment is not None:
            wrong = "has a query in it, before which no route can be put"
        elif route:
            wrong = f"ends in {route[0]}, which is put behind it for each question"
        else:
            return str(url).rstrip("/")
    cure = "set it to an address such as http://localhost:11434/v1"
    raise ConfigError(f"OPENAI_BASE_URL (the setting upstream) {wrong}; {cure}")
