"""The page that says where the time went, as Chromium shows it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from agentlab.bench.account import account
from agentlab.bench.account import page as where
from agentlab.bench.requests import Request


def written() -> str:
    """A page of two cases, one of which has every cause's colour on its chain."""
    times = {"asked_s": 1.0, "sent_s": 2.0, "arrived_s": 3.0, "started_s": 4.0}
    times |= {"first_token_s": 5.0, "end_s": 6.0, "returned_s": 8.0}
    row = Request(run=0, call="a", attempt=1, due_s=0.0, late_ms=1000.0, status=200, **times)
    long = Request(run=0, call="name" * 40, attempt=1, due_s=0.0, status=200, **times)
    cases = {"asyncio": [row], "a case with a name of many words, on a telephone": [row, long]}
    needs: dict[str, tuple[str, ...]] = {"a": (), "name" * 40: ()}
    return where("x", {name: account(rows, needs, 9, 2) for name, rows in cases.items()})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_says_nothing_to_the_console(page: Page, screenshots, width, scheme):
    """On a telephone as on a laptop nothing is beside the page; its own policy blocks nothing."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.set_viewport_size({"width": width, "height": 720})
    page.emulate_media(color_scheme=scheme)
    page.set_content(written())
    page.screenshot(path=screenshots / f"where-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert complaints == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


def test_it_is_read_by_keyboard(page: Page):
    """Chains open with the keyboard, one at a time, and the table can be scrolled."""
    page.set_content(written())
    opened = page.locator("details[open] summary")
    before = opened.inner_text()
    page.locator("details:not([open]) summary").press("Enter")
    assert opened.count() == 1
    assert opened.inner_text() != before
    for _ in range(len(page.locator("details").all())):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "scroll":
            break
    assert page.evaluate("document.activeElement.className") == "scroll"


def test_colours_of_causes_can_be_told_apart(page: Page):
    """In the legend no two causes have the same colour and the same pattern."""
    page.set_content(written())
    looks = page.locator(".legend i").evaluate_all(
        "all => all.map(i => { const s = getComputedStyle(i);"
        " return s.backgroundColor + s.backgroundImage; })"
    )
    assert len(looks) == len(set(looks)) > 10
