"""A secret, hidden in whatever passes: as it is, escaped character by character, or in base64."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode

HIDDEN = b"..."
_ESCAPES = (b"\\", b"%", b"&#")
_SHORTEST_IN_BASE64_BYTES = 12
_LONGEST_LINE_BYTES = 2**16
"""A stream's line is kept until its end, so that no key is cut in two; of a longer one, its end."""


class Secret:
    """Replaces a key, in bytes that somebody else may read.

    Found are the key itself, its characters escaped, each in any way that URLs, JSON (in JSON) or
    HTML know, and its base64 form within any other text.

    Example:
        >>> secret = Secret("sk-0123456789")
        >>> secret.hide(b'{"error": "not sk-0123456789, nor \\\\u0073k%2D0123456789"}')
        b'{"error": "not ..., nor ..."}'
    """

    def __init__(self, key: str):
        data = key.encode()
        self._whole = [data, *_in_base64(data)]
        self._forms = re.compile(
            b"|".join([b"".join(map(_escaped, data)), *map(re.escape, self._whole)])
        )
        self._longest_bytes = 12 * len(data)

    def hide(self, text: bytes) -> bytes:
        """The text, without the key."""
        # Megabytes of figures, such as embeddings, are not worth a regular expression.
        if any(mark in text for mark in (*_ESCAPES, *self._whole)):
            return self._forms.sub(HIDDEN, text)
        return text

    def stream(self) -> HidingStream:
        """The same for a text that comes in pieces."""
        return HidingStream(self, self._longest_bytes)


class HidingStream:
    """Hides a key that may be cut in two by the pieces in which a text comes.

    A line is passed on when it has ended; before that no client of a stream of events can use it.
    """

    def __init__(self, secret: Secret, longest_bytes: int):
        self._secret, self._longest_bytes = secret, longest_bytes
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; returns what may be passed on by now."""
        text = self._kept + piece
        end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if not end and len(text) > _LONGEST_LINE_BYTES:
            text = self._secret.hide(text)
            end = len(text) - self._longest_bytes
        self._kept = text[end:]
        return self._secret.hide(text[:end])

    def end(self) -> bytes:
        """What is left when no more pieces come."""
        return self._secret.hide(self._kept)


def _escaped(code: int) -> bytes:
    r"""Matches one character: `s`, `%73`, `%2573`, `\u0073`, `\\u0073`, `\x73`, `&#115;`, `&#x73;`.

    Repetitions are bounded, so that no text takes long to read.
    """
    return (
        rb"(?:\\{0,4}%b|(?i:%%(?:25){0,3}%02x|\\{1,4}(?:u00|x)%02x|&#0{0,4}%d;|&#x0{0,4}%x;))"
    ) % (re.escape(bytes([code])), code, code, code, code)


def _in_base64(data: bytes) -> set[bytes]:
    """What every base64 text with `data` in it has in common, by where it begins in three bytes."""
    found = set()
    for shift in range(3 if len(data) >= _SHORTEST_IN_BASE64_BYTES else 0):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * shift + data)
            # The first and the last characters also depend on what stands around.
            found.add(whole[(0, 2, 3)[shift] : len(data + b"\0" * shift) // 3 * 4])
    return found
