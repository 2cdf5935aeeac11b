"""A browser and a page, for every test that looks at something as a learner sees it.

`page` is a new page without cookies, and fails its test if anything on it asked for something
beyond loopback. The browser lives as long as one test module: Playwright's synchronous interface
keeps an event loop running in this thread, in which tests of other modules could not start theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import pytest
from playwright.sync_api import Browser, Page


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With workers, the tests of a lesson stay together, so that it is run once and not thrice.

    The tests of another file stay together, too: they share a browser, and the class it looks at.

    (`--dist loadgroup` would say that with marks, and does nothing under this version of pytest.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByLesson(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "test_jupyterlab.py" in nodeid:
                return nodeid.partition("[")[2] or nodeid
            return nodeid.partition("::")[0]

    return ByLesson(config, log)


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
    with chromium.new_page(browser) as (page, beyond):
        yield page
    assert not beyond, "the page asked beyond loopback:\n" + "\n".join(beyond)
