"""What browser tests stand on: a browser is found, and a page that leaves loopback is noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import chromium
import pytest
from loopback import requests_beyond, stays_here
from playwright.sync_api import Browser, Page

find = chromium.TOOL["find"]


def program(path: Path) -> Path:
    """A file at `path` that may be executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_browser_that_is_named_wins(tmp_path: Path):
    """AGENTLAB_BROWSER comes before what is on the PATH."""
    named = program(tmp_path / "mine" / "browser")
    program(tmp_path / "bin" / "chromium")
    environ = {"AGENTLAB_BROWSER": str(named), "PATH": str(tmp_path / "bin")}
    assert find(environ) == str(named)


def test_a_name_that_leads_nowhere_is_an_error(tmp_path: Path):
    """No other browser takes its place."""
    program(tmp_path / "bin" / "chromium")
    environ = {"AGENTLAB_BROWSER": str(tmp_path / "none"), "PATH": str(tmp_path / "bin")}
    with pytest.raises(FileNotFoundError, match=r"AGENTLAB_BROWSER=.*/none: there is no such file"):
        find(environ)


@pytest.mark.parametrize("name", ["chromium", "google-chrome", "microsoft-edge"])
def test_one_on_the_path_is_found(name: str, tmp_path: Path):
    """Chromium, Chrome and Edge, by the names that their packages use."""
    installed = program(tmp_path / name)
    assert find({"PATH": str(tmp_path)}) == str(installed)


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("PROGRAMFILES", "Google/Chrome/Application/chrome.exe"),
        ("PROGRAMFILES(X86)", "Microsoft/Edge/Application/msedge.exe"),
        ("HOME", "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        ("HOME", ".cache/ms-playwright/chromium-1/chrome-linux64/chrome"),
    ],
)
def test_one_beside_the_path_is_found(variable: str, below: str, tmp_path: Path):
    """Installers of Windows and macOS, and Playwright, put nothing on the PATH."""
    installed = program(tmp_path / below)
    assert find({variable: str(tmp_path), "PATH": ""}) == str(installed)


@pytest.mark.parametrize(("root", "by"), [(0, "apt-get install"), (1000, "playwright install")])
def test_the_way_to_get_one(root: int, by: str, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    """From Debian where root may, else what Playwright fetches; a failure is no crash."""
    asked: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(" ".join(command))
        return subprocess.CompletedProcess(command, returncode=len(asked) - 1)

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: root)
    monkeypatch.setattr(subprocess, "run", run)
    chromium.TOOL["install"]()
    assert by in asked[-1]
    assert asked[-1] in capfd.readouterr().err


def test_none_is_none(tmp_path: Path):
    """An empty machine has no browser."""
    assert find({"PATH": str(tmp_path), "HOME": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:8888/lab", True),
        ("ws://localhost:8888/api", True),
        ("http://[::1]/", True),
        ("data:image/png;base64,xyz", True),
        ("blob:http://127.0.0.1/1", True),
        ("https://cdn.example/font.woff", False),
        ("http://127.0.0.1.example/", False),
        ("http://localhost@192.0.2.1/", False),
        ("ws://192.0.2.1/", False),
        ("ftp://", False),
    ],
)
def test_what_stays_on_this_machine(address: str, here: bool):
    """Loopback by name and number, and what a page itself holds; nothing else."""
    assert stays_here(address) is here


@pytest.mark.parametrize(
    ("markup", "asked"),
    [
        ("<img src='http://pictures.example/a.png'>", "http://pictures.example/a.png"),
        ("<script>fetch('https://192.0.2.1/x').catch(() => 0)</script>", "https://192.0.2.1/x"),
        ("<script>new WebSocket('ws://socket.example/')</script>", "ws://socket.example/"),
        ("<iframe src='http://frame.example/'></iframe>", "http://frame.example/"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", None),
    ],
)
def test_a_page_that_leaves_loopback_is_noticed(markup: str, asked: str | None, browser: Browser):
    """Pictures, scripts, sockets and frames; and only what leaves."""
    context = browser.new_context()
    beyond = requests_beyond(context)
    page = context.new_page()
    page.set_content(markup)
    for _ in range(200 if asked else 4):  # the browser reports a socket when it gets round to it
        if beyond:
            break
        page.wait_for_timeout(50)
    context.close()
    assert beyond == ([asked] if asked else [])


def test_a_page_runs_its_scripts(page: Page):
    """What `page` gives is a browser's page, not just a document."""
    page.set_content("<p id=p></p><script>p.textContent = 6 * 7</script>")
    assert page.inner_text("#p") == "42"


def test_without_a_browser(tmp_path: Path):
    """Tests are skipped, or fail where one is needed; either way it is said how to get one."""
    bare = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    if find(bare) is not None:
        pytest.skip("this system keeps its browser where no variable leads away from it")
    with pytest.raises(pytest.skip.Exception, match=r"tools/browser.py --install"):
        chromium.path_or_skip(bare)
    with pytest.raises(pytest.fail.Exception, match=r"tools/browser.py --install"):
        chromium.path_or_skip(bare | {"AGENTLAB_NEEDS_BROWSER": "1"})
