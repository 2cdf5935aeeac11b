"""The browser that tests drive, and how it is started."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopback import requests_beyond
from playwright.sync_api import Browser, Page, expect, sync_playwright

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "browser.py"
TOOL = runpy.run_path(str(_TOOL), run_name="browser")

ACTION_TIMEOUT_S = 120.0
"""How long Playwright waits for what it is to click on, or to see: long, for two busy cores."""

expect.set_options(timeout=ACTION_TIMEOUT_S * 1000)

_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name resolves: neither a page nor the browser itself finds the way out.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


def path_or_skip(environ: Mapping[str, str] = os.environ) -> str:
    """The browser's path; without one the test is skipped, or fails if AGENTLAB_NEEDS_BROWSER."""
    if path := TOOL["find"](environ):
        return str(path)
    if "AGENTLAB_NEEDS_BROWSER" in environ:
        pytest.fail(TOOL["GET_ONE"])
    pytest.skip(TOOL["GET_ONE"])


@contextmanager
def started(path: str) -> Iterator[Browser]:
    """The browser at `path`, headless, with a profile of its own that goes with it."""
    # Chromium's own sandbox refuses to run as root, as in a container.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, chromium_sandbox=not as_root, args=_FLAGS
        )
        yield browser
        browser.close()


@contextmanager
def new_page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page the size of a laptop's window, and a list: what it asks for beyond loopback."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(ACTION_TIMEOUT_S * 1000)
    beyond = requests_beyond(context)
    yield context.new_page(), beyond
    context.close()
