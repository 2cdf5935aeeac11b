"""A browser and a page, for every test that looks at something as a learner sees it.

`page` is a new page without cookies, and fails its test if anything on it asked for something
beyond loopback. The browser lives as long as one test module: Playwright's synchronous interface
keeps an event loop running in this thread, in which tests of other modules could not start theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
from loopback import requests_beyond
from playwright.sync_api import Browser, Page

ACTION_TIMEOUT_S = 30.0
"""How long Playwright waits for what it is to click on: long, for two busy cores."""


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of pages are kept, for people to look at; git ignores it."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium, or what else this machine has; without any, the test is skipped."""
    with chromium.started(chromium.path_or_skip()) as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page, the size of a laptop's window, that asks for nothing beyond loopback."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(ACTION_TIMEOUT_S * 1000)
    beyond = requests_beyond(context)
    yield context.new_page()
    context.close()
    assert not beyond, "the page asked beyond loopback:\n" + "\n".join(beyond)
