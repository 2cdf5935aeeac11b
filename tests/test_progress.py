"""The progress bar."""

from __future__ import annotations

from agentlab._support.progress_bar import bar


def test_shows_how_far_it_is(monkeypatch, capsys):
    """It passes the steps on, counts them on stderr, and wipes itself away at the end."""
    monkeypatch.setenv("AGENTLAB_PROGRESS", "1")
    assert list(bar(range(3), name="steps")) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "steps" in shown
    assert "0/3" in shown
    assert shown.endswith("\r")


def test_can_be_hidden(monkeypatch, capsys):
    """With AGENTLAB_PROGRESS=0 the steps pass and nothing is shown."""
    monkeypatch.setenv("AGENTLAB_PROGRESS", "0")
    assert list(bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
