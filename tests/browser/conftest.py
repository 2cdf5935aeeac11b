"""A browser and a page, for every test that looks at something as a learner sees it.

`page` is a new page without cookies, and fails its test if anything on it asked for something
beyond loopback. The browser lives as long as one test module: Playwright's synchronous interface
keeps an event loop running in this thread, in which tests of other modules could not start theirs.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import NO_NAMES, requests_beyond
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "browser.py"), run_name="browser")

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    NO_NAMES,
]

ACTION_TIMEOUT_S = 30.0
"""How long Playwright waits for what it is to click on: long, for two busy cores."""


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of pages are kept, for people to look at; git ignores it."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, with a profile of its own that goes with it."""
    path = TOOL["find"]()
    if path is None:
        assert "AGENTLAB_NEEDS_BROWSER" not in os.environ, TOOL["GET_ONE"]
        pytest.skip(TOOL["GET_ONE"])
    # Chromium's own sandbox refuses to run as root, as in a container.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, headless=True, chromium_sandbox=not as_root, args=FLAGS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page, the size of a laptop's window, that asks for nothing beyond loopback."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(ACTION_TIMEOUT_S * 1000)
    beyond = requests_beyond(context)
    yield context.new_page()
    context.close()
    assert not beyond, "the page asked beyond loopback:\n" + "\n".join(beyond)
