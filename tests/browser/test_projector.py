"""The class on the projector, as the room sees it and as the teacher works it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from classroom_process import TOKEN, Class, small_preset
from playwright.sync_api import Browser, Page, expect

from agentlab.classroom.app import in_a_notebook

NAMES = (
    "Ada Bo Cleo Dan Elif Farid Greta Hana Ines Jun Kofi Lena Mina Noor Olga Pia Quinn Ravi Sven "
    "Tariq Uma Vera Wim Xin Yara Zoe 김민준 이서연 박지호 José"
).split()
AGENTS = ["writer", "editor", "critic"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    """A class of twelve slots, twice as fast as real: slow enough to be seen."""
    preset = small_preset(tmp_path_factory.mktemp("preset"), slots=12)
    with Class("--preset", preset, "--time-scale", "2") as running:
        yield running


@pytest.fixture
def board(served: Class, page: Page) -> Iterator[Page]:
    """The page, opened, with nothing counted; it may complain of nothing."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    served.clear()
    page.goto(f"{served.url}/classroom")
    yield page
    served.teach(learner_requests_per_minute=0, faults=[], paused=False)
    assert complaints == []


def request(served: Class, who: str, agent: str, tokens: int) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Describe a river at length."}]}
    headers = {"authorization": f"Bearer {who}".encode(), b"x-agent": agent.encode()}
    url = f"{served.url}/v1/chat/completions"
    return {"url": url, "json": body | {"max_tokens": tokens}, "headers": headers, "timeout": 120}


def ask(served: Class, who: str) -> int:
    return httpx.post(**request(served, who, "writer", 1), trust_env=False).status_code


@contextmanager
def asking(
    served: Class, *questions: tuple[str, str], answered_s: float | None = None
) -> Iterator[None]:
    """Those questions (who, agent) in flight; at the end of the block their clients hang up.

    So they are in flight for as long as a busy machine takes to look at them. With `answered_s`
    the answers take so many seconds, and at the end of the block all are there.
    """
    tokens = 2000 if answered_s is None else round(20 * answered_s)

    async def all_ask() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
            asked = (client.post(**request(served, *each, tokens)) for each in questions)
            await asyncio.gather(*asked)

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    loop = asyncio.new_event_loop()
    task = loop.create_task(all_ask())
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        if answered_s is None:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def lane(board: Page, learner: str) -> Any:
    return board.locator("#lanes > li").filter(has=board.get_by_text(learner, exact=True))


def enter(board: Page) -> None:
    board.get_by_text("For the teacher").click()
    board.get_by_label("Token").fill(TOKEN)
    board.get_by_role("button", name="Enter").click()
    expect(board.get_by_role("button", name="Apply")).to_be_visible()


# ---------------------------------------------------------------- what the room sees


def test_an_empty_class_says_how_to_join(served: Class, board: Page):
    """The lines for a notebook, in large letters, each on a line of its own."""
    expect(board.get_by_text("Nobody has asked yet")).to_be_visible()
    expect(board.locator("#join code")).to_have_text(in_a_notebook(f"{served.url}/v1"))
    tops = board.locator("#join code").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().top)"
    )
    assert tops == sorted(set(tops))
    assert size_px(board) >= 24


def size_px(page: Page) -> float:
    """Of the letters that say how to join."""
    return page.locator("#join code").first.evaluate(
        "code => parseFloat(getComputedStyle(code).fontSize)"
    )


def test_a_class_with_a_list_says_how_to_join_until_somebody_asks(
    browser: Browser, tmp_path: Path, screenshots: Path
):
    """Large while the listed names have asked nothing; then small, and the names have lanes."""
    names = tmp_path / "class.txt"
    names.write_text("\n".join(NAMES), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    with Class("--learners", str(names), "--time-scale", "1000") as listed:
        page.goto(f"{listed.url}/classroom")
        expect(page.get_by_text("Nobody has asked yet")).to_be_visible()
        expect(page.locator("#lanes")).to_be_hidden()
        large = size_px(page)
        page.screenshot(path=screenshots / "classroom-nobody-yet.png")
        assert ask(listed, "Ada") == 200
        expect(page.get_by_text("Nobody has asked yet")).to_be_hidden()
        expect(page.locator("#lanes > li")).to_have_count(30)
        expect(page.locator("#lanes > li.absent")).to_have_count(29)
        expect(page.locator("#join")).to_contain_text("Join, in a notebook:")
        assert size_px(page) < large
    context.close()


def test_throughput_is_labelled_as_the_models_minute(board: Page):
    """A model minute is six seconds by the watch at the usual time scale."""
    expect(board.locator(".tile.rate dt")).to_have_text("answers a model minute")


def test_requests_are_seen_in_flight_and_then_counted(served: Class, board: Page):
    """Two of Ada's, one of 김민준's: blocks by agent; afterwards none, and the answers' number."""
    with asking(served, ("Ada", "writer"), ("Ada", "editor"), ("김민준", "critic"), answered_s=8):
        expect(lane(board, "Ada").locator(".agent")).to_have_count(2)
        expect(lane(board, "김민준").locator(".agent")).to_have_attribute("title", "critic")
        expect(board.locator("#answering")).to_have_text("3")
        expect(lane(board, "Ada").locator(".hidden-text")).to_contain_text("2 being answered")
    expect(lane(board, "Ada").locator(".agent")).to_have_count(0)
    expect(lane(board, "Ada").locator(".done")).to_have_text("2")
    expect(board.locator("#answering")).to_have_text("0")
    expect(board.locator("#rate")).not_to_have_text("0")


def test_an_agent_without_a_name_is_a_plain_bar_with_a_number(served: Class, board: Page):
    """Two requests whose client names no agent: "2", and no word that stands for none."""
    with asking(served, ("Ada", ""), ("Ada", "")):
        expect(lane(board, "Ada").locator(".label .whole")).to_have_text("2")
        expect(lane(board, "Ada").locator(".label .initial")).to_have_text("")


def test_what_waits_looks_different_and_is_counted(served: Class, board: Page):
    """Twelve slots, fifteen requests: three wait, hatched."""
    with asking(served, *[("Ada", "writer")] * 15):
        expect(board.locator("#answering")).to_have_text("12")
        expect(board.locator("#waiting")).to_have_text("3")
        expect(lane(board, "Ada").locator(".part.waiting")).to_be_visible()
        hatch = (
            lane(board, "Ada")
            .locator(".part.waiting")
            .evaluate("part => getComputedStyle(part).backgroundImage")
        )
        assert "repeating-linear-gradient" in hatch


def test_a_lane_moves_while_the_class_runs(served: Class, board: Page):
    """The bar of one who has more in flight is longer, by as much."""
    with asking(served, ("Ada", "writer"), *[("Bo", "writer")] * 4):
        expect(lane(board, "Bo").locator(".whole")).to_have_text("writer 4")
        board.wait_for_timeout(500)  # the bars grow for a quarter of a second
        one, four = (
            lane(board, who).locator(".agent").bounding_box()["width"] for who in ("Ada", "Bo")
        )
        assert four == pytest.approx(4 * one, rel=0.05)


def test_refusals_and_errors_are_counted(served: Class, board: Page):
    """One request a minute for each: the second is a 429; on purpose, a 503."""
    served.teach(learner_requests_per_minute=1)
    assert [ask(served, "Ada") for _ in range(2)] == [200, 429]
    expect(board.locator("#refused")).to_have_text("1")
    expect(lane(board, "Ada").locator(".no")).to_have_text("1")
    served.teach(
        learner_requests_per_minute=0, faults=[{"kind": "error", "status": 503, "probability": 1}]
    )
    assert ask(served, "Ada") == 503
    expect(board.locator("#errors")).to_have_text("1")


def test_a_name_is_text_whatever_it_says(served: Class, board: Page):
    """An agent called as a tag is shown as it is written, and runs nothing."""
    tag = "<img src=x onerror=boom()>"
    with asking(served, ("Ada", tag)):
        expect(lane(board, "Ada").locator(".agent")).to_have_attribute("title", re.compile("^<img"))
        assert board.locator("#lanes img").count() == 0


def test_the_table_says_the_same_in_words(served: Class, board: Page):
    """A row for each learner, with the agents in flight by name."""
    board.get_by_text("As a table").click()
    with asking(served, ("Ada", "writer"), ("Ada", "writer"), answered_s=8):
        row = board.locator("#rows tr").filter(has_text="Ada")
        expect(row.locator("td").first).to_have_text("writer 2")
    expect(row.locator("td").nth(3)).to_have_text("2")


def test_an_endpoint_that_is_gone_is_said(browser: Browser):
    """The page says that it tries again, and keeps the last numbers."""
    context = browser.new_context()
    page = context.new_page()
    with Class() as short_lived:
        page.goto(f"{short_lived.url}/classroom")
        expect(page.locator("#model")).to_contain_text("preset class")
    expect(page.locator("#state")).to_have_text(
        "The endpoint does not answer; trying again", timeout=30_000
    )
    context.close()


def test_a_korean_class_reads_korean(browser: Browser, monkeypatch: pytest.MonkeyPatch):
    """What the page shows while a learner asks, all of it open, and what it answers the teacher."""
    monkeypatch.setenv("AGENTLAB_LANGUAGE", "ko")
    context = browser.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    with Class() as korean:
        page.goto(f"{korean.url}/classroom")
        expect(page.locator("#nobody")).to_contain_text("아직 아무도 묻지 않았습니다")
        assert ask(korean, "김민준") == 200
        page.get_by_text("표로 보기").click()
        page.get_by_text("강사용").click()
        page.get_by_label("토큰").fill(TOKEN)
        page.get_by_role("button", name="들어가기").click()
        expect(page.locator("#answer")).to_have_text("이제 설정을 바꿀 수 있습니다.")
        # By its key: a click is lost where a new count moves the button under the mouse.
        page.get_by_role("button", name="일시 정지").press("Enter")
        expect(page.locator("#state")).to_contain_text("일시 정지")
        expect(page.locator("#more")).to_have_text(
            "전체: 처리 중 0, 연결을 끊음 0, 이 반의 이름이 아님 0."
        )
        expect(lane(page, "김민준").locator(".hidden-text")).to_have_text(
            ": 답하는 중 0, 대기 중 0, 답을 받음 1, 거절됨 0, 그 밖의 오류 0"
        )
        words = page.evaluate("document.body.innerText").replace(
            page.locator("#join .lines").inner_text(), ""
        )
        assert set(re.findall("[A-Za-z]+", words)) <= {"class"}  # the preset's name
    assert complaints == []
    context.close()


# ---------------------------------------------------------------- the teacher


def test_without_the_token_nothing_can_be_changed(board: Page):
    """The controls are hidden, and the numbers that anybody sees hold no token."""
    board.get_by_text("For the teacher").click()
    for control in ("Pause", "Reset counts", "Apply", "Remove"):
        expect(board.get_by_role("button", name=control)).to_be_hidden()
    answer = board.evaluate("fetch('/classroom/board').then(answer => answer.json())")
    assert TOKEN not in str(answer)


def test_a_wrong_token_is_told_so(browser: Browser, served: Class):
    """In words, beside the field, which is there to try again."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/classroom")
    page.get_by_text("For the teacher").click()
    page.get_by_label("Token").fill("not-the-token")
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#answer")).to_contain_text("takes the token that `agentlab serve` printed")
    expect(page.get_by_label("Token")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    context.close()


def test_the_teacher_pauses_and_goes_on(served: Class, board: Page):
    """Everybody sees that it is paused; who asks meanwhile waits, and is answered after."""
    enter(board)
    board.get_by_role("button", name="Pause").click()
    expect(board.locator("#state")).to_contain_text("Paused")
    with asking(served, ("Ada", "writer"), answered_s=0.5):
        expect(board.locator("#waiting")).to_have_text("1")
        board.get_by_role("button", name="Go on").click()
    expect(lane(board, "Ada").locator(".done")).to_have_text("1")
    expect(board.locator("#state")).to_have_text("")


def test_the_teacher_sets_a_limit(served: Class, board: Page):
    """Applied, said, and in force; a value that cannot be is refused in words."""
    enter(board)
    board.get_by_label("Requests a minute, each learner").fill("1")
    board.get_by_role("button", name="Apply").click()
    expect(board.locator("#answer")).to_have_text("Applied to whatever comes from now on.")
    assert [ask(served, "Ada") for _ in range(2)] == [200, 429]


def test_the_teacher_chooses_errors(served: Class, board: Page):
    """From a list."""
    enter(board)
    board.get_by_label("Errors on purpose").select_option(label="one in ten: cut off half-way")
    board.get_by_role("button", name="Apply").click()
    expect(board.locator("#answer")).to_contain_text("Applied")
    settings = served.get("/classroom/settings")["settings"]
    assert [(fault["kind"], fault["probability"]) for fault in settings["faults"]] == [("cut", 0.1)]


def tell(served: Class, who: str, *told: str) -> None:
    """What the checks of a learner tell: `solved/01.1`, `tried/01.2`."""
    for each in told:
        headers = {b"authorization": f"Bearer {who}".encode()}
        url = f"{served.url}/classroom/{each}"
        assert httpx.post(url, headers=headers, trust_env=False).status_code == 200


SOLVED = {
    "Ada": ["solved/02b.1", "tried/02b.2", "tried/02b.2", "solved/02b.2", "solved/01.1"],
    "김민준": ["solved/01.1", "solved/01.2", *["tried/01.3"] * 4],
    "constructor": ["tried/00.1"],
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_teacher_reads_who_has_solved_what(
    browser: Browser, scheme: str, screenshots: Path, tmp_path: Path
):
    """A line for each lesson, beside the answers; hidden until the token is given, and after."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    board = context.new_page()
    with Class("--preset", "instant") as served:
        board.goto(f"{served.url}/classroom")
        assert ask(served, "Ada") == 200
        for who, told in SOLVED.items():
            tell(served, who, *told)
        board.get_by_text("For the teacher").click()
        expect(board.locator("#exercises")).to_be_hidden()
        board.get_by_text("For the teacher").click()
        enter(board)
        board.get_by_text("Exercises, by learner").click()
        rows = board.locator("#tried tr")
        expect(rows).to_have_text(
            [
                "Ada101: 102b: 1 · 2 after 3 tries",
                "constructor000: 1 not yet, tries: 1",
                "김민준001: 1 · 2 · 3 not yet, tries: 4",
            ]
        )
        board.locator("#exercises").scroll_into_view_if_needed()
        board.screenshot(path=screenshots / f"classroom-exercises-{scheme}.png", full_page=True)
        tell(served, "Ada", "solved/05.1")
        expect(rows.first).to_contain_text("05: 1")
        board.get_by_role("button", name="Forget the token").click()
        expect(board.locator("#exercises")).to_be_hidden()
        expect(rows).to_have_count(0)
    context.close()


def test_the_teacher_removes_a_name(served: Class, board: Page):
    """Its lane goes, what happens if it comes again is said, and it is refused; the other stays."""
    assert [ask(served, who) for who in ("Ada", "Mallory")] == [200, 200]
    enter(board)
    board.get_by_label("Remove a name").select_option("Mallory")
    board.get_by_role("button", name="Remove").click()
    expect(board.locator("#answer")).to_contain_text("Mallory is removed, and refused")
    expect(lane(board, "Mallory")).to_have_count(0)
    expect(lane(board, "Ada")).to_have_count(1)
    assert [ask(served, who) for who in ("Ada", "Mallory")] == [200, 401]


def test_the_token_is_kept_for_this_tab_only(served: Class, board: Page):
    """It survives a reload, is in no address and no other storage, and can be forgotten."""
    enter(board)
    board.reload()
    board.get_by_text("For the teacher").click()
    expect(board.get_by_role("button", name="Pause")).to_be_visible()
    assert board.evaluate("localStorage.length + document.cookie.length") == 0
    assert TOKEN not in board.url and TOKEN not in board.content()
    board.get_by_role("button", name="Forget the token").click()
    assert board.evaluate("sessionStorage.length") == 0
    expect(board.get_by_label("Token")).to_be_focused()


def test_the_keyboard_is_enough(served: Class, board: Page):
    """From the top of the page to a pause and back, with Tab, Enter and letters alone."""

    def tab_to(described: Callable[[str], bool]) -> None:
        for _ in range(40):
            board.keyboard.press("Tab")
            focused = board.evaluate(
                "(document.activeElement.textContent + ' ' + document.activeElement.id).trim()"
            )
            if described(focused):
                return
        raise AssertionError("no key leads there")

    expect(board.locator("#model")).to_contain_text("preset")
    tab_to(lambda focused: "Skip to the learners" in focused)
    tab_to(lambda focused: focused == "For the teacher")
    board.keyboard.press("Enter")
    tab_to(lambda focused: focused == "token")
    outline = board.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    board.keyboard.type(TOKEN)
    board.keyboard.press("Enter")
    expect(board.get_by_role("button", name="Pause")).to_be_focused()
    board.keyboard.press("Enter")
    expect(board.locator("#state")).to_contain_text("Paused")
    board.keyboard.press("Enter")
    expect(board.locator("#state")).to_have_text("")


# ---------------------------------------------------------------- for everybody's eyes


def test_landmarks_and_names(board: Page):
    """One banner, main and footer; one h1; every control has a name; the language is said."""
    for role in ("banner", "main", "contentinfo"):
        expect(board.get_by_role(role)).to_have_count(1)
    assert board.locator("h1").count() == 1
    assert board.locator("html").get_attribute("lang") == "en"
    enter(board)
    nameless = board.evaluate(
        """[...document.querySelectorAll('button, input, select, summary')].filter(control =>
            !(control.labels?.length || control.textContent.trim())).length"""
    )
    assert nameless == 0
    assert board.locator("[aria-live], [role=status]").count() <= 2
    repeated = board.evaluate(
        """[...document.querySelectorAll('[id]')].map(each => each.id).filter(
            (id, index, all) => all.indexOf(id) !== index)"""
    )
    assert repeated == []


CONTRASTS = """() => {
  const colour = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (css) => {
    colour.clearRect(0, 0, 1, 1);
    colour.fillStyle = css;
    colour.fillRect(0, 0, 1, 1);
    return [...colour.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255).map((part) =>
    part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4).reduce(
    (sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const under = each.classList.contains('label')
        ? each.parentElement.querySelector('.part.answering') : each;
      const found = rgba(getComputedStyle(under).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest('.hidden-text, noscript, script, option')) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${texts.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_text_has_a_contrast_of_4_5(served: Class, board: Page, theme: str):
    """Computed from the styles in force, in both themes, with everything open."""
    if board.locator("html").get_attribute("data-theme") != theme:
        board.locator("#theme").click()
    enter(board)
    board.get_by_text("As a table").click()
    served.teach(learner_requests_per_minute=1)
    assert [ask(served, "Zoe") for _ in range(2)] == [200, 429]
    served.teach(learner_requests_per_minute=0)
    with asking(served, *[(who, "writer") for who in NAMES[:14]]):
        expect(board.locator("#waiting")).to_have_text("2")
        board.wait_for_timeout(500)
        assert board.evaluate(CONTRASTS) == []


def test_nothing_glides_for_those_who_asked_for_stillness(browser: Browser, served: Class):
    """prefers-reduced-motion: no transition is left."""
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{served.url}/classroom")
    with asking(served, ("Ada", "writer")):
        expect(lane(page, "Ada").locator(".agent")).to_have_count(1)
        moving = page.locator(".agent").evaluate(
            "each => getComputedStyle(each).transitionDuration"
        )
    assert moving in ("0s", "")
    context.close()


def test_thirty_learners_fit_on_a_projector(browser: Browser, served: Class, screenshots: Path):
    """All lanes are on the screen, no word under 18 px there, and nothing must be scrolled."""
    served.clear()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/classroom")
    questions = [
        (who, agent)
        for number, who in enumerate(NAMES)
        for agent in AGENTS[: 1 + number % 3]
        for _ in range(6 if who == "Dan" else 1)
    ]
    with asking(served, *questions):
        expect(page.locator("#answering")).to_have_text("12")
        expect(page.locator("#lanes > li")).to_have_count(30)
        for width, height in [(1280, 720), (1920, 1080)]:
            page.set_viewport_size({"width": width, "height": height})
            for _ in ("dark", "light"):
                page.locator("#theme").click()
                page.wait_for_timeout(500)
                theme = page.locator("html").get_attribute("data-theme")
                page.screenshot(path=screenshots / f"classroom-{width}x{height}-{theme}.png")
                assert page.evaluate(SIZES) == {"width": width, "height": height, "words": True}
    context.close()


SIZES = """() => ({
  width: document.documentElement.scrollWidth,
  height: Math.max(document.documentElement.scrollHeight, Math.ceil(Math.max(
    ...[...document.querySelectorAll('#lanes > li, summary')].map(
      (each) => each.getBoundingClientRect().bottom)))),
  words: [...document.querySelectorAll('#lanes .name, #lanes .done')].every(
    (each) => parseFloat(getComputedStyle(each).fontSize) >= 18),
})"""
