"""What a page asks for, and whether that leaves this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext


def requests_beyond(context: BrowserContext) -> list[str]:
    """A list that fills with every address beyond loopback that a page of `context` asks for."""
    beyond: list[str] = []

    def note(address: str) -> None:
        if not stays_here(address):
            beyond.append(address)

    context.on("request", lambda request: note(request.url))
    context.on("page", lambda page: page.on("websocket", lambda socket: note(socket.url)))
    return beyond


def stays_here(address: str) -> bool:
    """True for loopback by name or number, and for what the page itself holds.

    Example:
        >>> stays_here("ws://127.0.0.1:8888/api"), stays_here("https://cdn.example/font.woff")
        (True, False)
    """
    parts = urlsplit(address)
    if parts.scheme in ("data", "blob", "about") or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False  # a name
