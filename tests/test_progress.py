"""The progress bar."""

from __future__ import annotations

import subprocess
import sys

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


def test_outside_of_a_notebook_it_imports_no_widgets():
    """They are slow to import, and every process that runs an engine would pay for them."""
    code = "import sys, agentlab.engines; print({'IPython', 'ipywidgets'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
