"""The doctor: each failure by bad facts, then the real thing from end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentlab import commands, content
from agentlab.commands import main as cli
from agentlab.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import doctor
from doctor import FAIL, OK, WARN

LOCK = """\
httpx==0.28.1 \\
    --hash=sha256:00
Typing.Extensions==4.15.0 ; python_full_version >= '3.8' \\
    --hash=sha256:00
pywin32==311 ; sys_platform == 'no such system' \\
    --hash=sha256:00
"""
THERE = {"httpx": "0.28.1", "typing-extensions": "4.15.0", "pip": "25"}
ASKED = [
    "httpx>=0.28",
    "typing-extensions>=4.9",
    "uvloop>=0.22; sys_platform != 'win32'",
    "pydantic-ai-slim[openai]>=2.31; extra == 'pydantic-ai'",
]
BASE = THERE | {"uvloop": "0.22.1"}
URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("finding", "verdict", "words"),
    [
        (doctor.python((3, 12, 1)), OK, "3.12.1"),
        (doctor.python((3, 10, 1)), FAIL, "install Python 3.12"),
        (doctor.python((3, 14, 0)), FAIL, "not 3.11 to 3.13"),
        (doctor.packages(LOCK, THERE), OK, "all 2 of the lock"),
        (doctor.packages(LOCK, {"httpx": "0.28.1"}), FAIL, "typing-extensions is missing"),
        (doctor.packages(LOCK, THERE | {"httpx": "1"}), WARN, "httpx 1, not 0.28.1"),
        (doctor.of_wheel(ASKED, BASE), OK, "all of the base install, and of the extras none"),
        (doctor.of_wheel(ASKED, BASE | {"pydantic-ai-slim": "3"}), OK, "extras pydantic-ai"),
        (doctor.of_wheel(ASKED, BASE | {"httpx": "0.9"}), FAIL, "httpx 0.9, not 0.28 or newer"),
        (doctor.of_wheel(ASKED, {"httpx": "1"}), FAIL, "typing-extensions is missing"),
    ],
)
def test_facts_decide(finding, verdict, words):
    """Each verdict follows from facts alone; whatever is not OK comes with a cure."""
    assert finding.verdict == verdict
    assert words in str(finding)
    assert bool(finding.cure) == (verdict != OK)


@pytest.mark.parametrize(
    ("environ", "verdict"),
    [
        ({}, OK),
        ({"HTTP_PROXY": ""}, OK),
        ({"HTTP_PROXY": "http://p:3128"}, WARN),
        ({"http_proxy": "http://p:3128", "no_proxy": "example.org"}, WARN),
        ({"all_proxy": "socks5://p:1080"}, WARN),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "localhost, 127.0.0.1"}, OK),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "*"}, OK),
        ({"HTTPS_PROXY": "http://p:3128"}, OK),
    ],
)
def test_a_proxy_must_spare_loopback(environ, verdict, monkeypatch):
    """The endpoint speaks http, so a proxy for https alone is no trouble."""
    for name in (f"{kind}_proxy" for kind in ("http", "https", "all", "no")):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert doctor.check_proxy().verdict == verdict


def test_a_wrong_setting_is_named(monkeypatch):
    """In the words of the setting's own error, with the variable."""
    monkeypatch.setenv("AGENTLAB_TIME_SCALE", "fast")
    monkeypatch.setattr(doctor, "CHECKS", {"settings": doctor.check_settings})
    (finding,) = doctor.examine()
    assert finding.verdict == FAIL and "AGENTLAB_TIME_SCALE" in str(finding)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("AGENTLAB_TIMESCALE", "AGENTLAB_TIME_SCALE"),
        ("AGENTLAB_PRESETS", "AGENTLAB_PRESET"),
        ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
        ("AGENTLAB_CONTENT_RETRIES_ATTEMPTS", "AGENTLAB_CONTENT_RETRY_ATTEMPTS"),
    ],
)
def test_a_misspelt_variable_is_named(name, near, monkeypatch):
    """What resembles a variable and is read by nothing would be overlooked in silence."""
    monkeypatch.setenv(name, "100")
    finding = doctor.check_settings()
    assert finding.verdict == WARN
    assert name in finding.found and near in finding.cure


def test_variables_that_are_read_are_not_taken_for_each_other():
    """None of the course's or the test's own, nor OpenAI's, resembles another so much."""
    own = [*Settings.variables().values(), *content.Settings.variables().values()]
    others = ("LOCAL", "PROGRESS", "LANGUAGE", "BROWSER", "NEEDS_BROWSER", "SCHEDULES", "KILLS")
    theirs = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_BASE")
    assert doctor.misspelt([*own, *(f"AGENTLAB_{each}" for each in others), *theirs]) == []


def test_a_foreign_package_of_the_same_name_is_named(monkeypatch, tmp_path):
    """PyPI's `agentlab` is somebody else's; it is found beside ours, with the cure."""
    foreign = tmp_path / "agentlab-0.4.0.dist-info"
    foreign.mkdir()
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: agentlab\nVersion: 0.4.0\n")
    assert doctor.check_agentlab().verdict == OK
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor.check_agentlab()
    assert (finding.verdict, "agentlab 0.4.0 is another" in finding.found) == (FAIL, True)
    assert finding.cure.startswith("`pip uninstall agentlab`, then run `make setup`")


def test_a_wheel_is_told_apart_from_a_checkout(monkeypatch, tmp_path):
    """It has no lock and needs no kernel, and what it asks for is read from its own metadata."""
    monkeypatch.setattr(doctor, "LOCK", tmp_path / "requirements.lock")
    assert doctor.check_packages().verdict == OK
    monkeypatch.setattr(doctor, "installed", dict)
    assert doctor.check_packages().verdict == FAIL
    assert (doctor.check_kernel().verdict, "`course`" in doctor.check_kernel().found) == (OK, True)


@pytest.fixture
def quick(monkeypatch):
    """Without the checks that start something."""
    for name in ("kernel", "endpoint"):
        monkeypatch.setitem(doctor.CHECKS, name, lambda: doctor.Finding(OK, "x"))


def test_offline_asks_no_real_model(monkeypatch, quick):
    """Nothing is sent to whatever OPENAI_BASE_URL names."""
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    names = [finding.name for finding in doctor.examine(offline=True)]
    assert names == [name for name in doctor.CHECKS if name != "real model"]


def test_a_check_that_breaks_is_a_line(monkeypatch, quick, capsys):
    """And the others go on; the exit code says that one failed."""

    def broken() -> doctor.Finding:
        raise RuntimeError("no such drive")

    monkeypatch.setitem(doctor.CHECKS, "settings", broken)
    assert cli.main(["doctor", "--offline"]) == 1
    printed = capsys.readouterr().out
    assert "FAIL  settings" in printed
    assert "RuntimeError: no such drive" in printed
    assert "OK    proxy" in printed


def test_a_missing_package_is_a_line():
    """With the packages gone that most things need, each check says so and nothing raises."""
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['msgspec', 'packaging', 'httpx', 'jupyter_client']))\n"
        "from agentlab.commands.main import main\n"
        "raise SystemExit(main(['doctor', '--offline']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["packages", "settings", "kernel", "endpoint"]
    cures = ("; run `make setup`", "is not installed; in the checkout: pip install '.[")
    assert all(any(cure in line for cure in cures) for line in failed)


def test_the_command_line_needs_no_package():
    """Else the doctor could not say which one is missing."""
    program = (
        "import sys\nbefore = set(sys.modules)\nfrom agentlab.commands import main\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    assert (done.stderr, loaded) == ("", {"agentlab"})
    files = {path.stem for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    here = {name.split()[0] for name, about in cli.COMMANDS.items() if "tool" not in about}
    assert here == files - {"main"}


def test_the_doctor_finds_this_machine_in_order():
    """From end to end, as typed: exit code 0, and no process is left behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", "doctor"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Ready: open notebooks/.")
    assert "kernel        1+1 is 2" in done.stdout
    assert "it gives the known answer" in done.stdout and "FAIL" not in done.stdout
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before
