"""The doctor: each failure by bad facts, then the real thing from end to end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from classroom_process import Class

from agentlab import cli, commands, doctor
from agentlab.doctor import FAIL, OK, WARN, Reply, Trip
from agentlab.endpoint.process import EndpointProcess
from agentlab.settings import Settings

LOCK = """\
httpx==0.28.1 \\
    --hash=sha256:00
Typing.Extensions==4.15.0 ; python_full_version >= '3.8' \\
    --hash=sha256:00
pywin32==311 ; sys_platform == 'no such system' \\
    --hash=sha256:00
"""
THERE = {"httpx": "0.28.1", "typing-extensions": "4.15.0", "pip": "25"}
TRIP = Trip("Elbe", "Elbe", took_s=0.105, least_s=0.1)
URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("finding", "verdict", "words"),
    [
        (doctor.python((3, 12, 1), True), OK, "3.12.1"),
        (doctor.python((3, 10, 1), True), FAIL, "install Python 3.12"),
        (doctor.python((3, 14, 0), True), FAIL, "not 3.11 to 3.13"),
        (doctor.python((3, 12, 1), False), WARN, ".venv/bin/python"),
        (doctor.packages(LOCK, THERE), OK, "all 2 of the lock"),
        (doctor.packages(LOCK, {"httpx": "0.28.1"}), FAIL, "missing: typing-extensions; run"),
        (doctor.packages(LOCK, THERE | {"httpx": "1"}), WARN, "httpx 1 in place of 0.28.1"),
        (doctor.writing({"/a": "", "/b": ""}), OK, "checkout"),
        (doctor.writing({"/a": "Read-only file system", "/b": ""}), FAIL, "/a: Read-only"),
        (doctor.disk({"/a": 2**40, "/b": 2**33}), OK, "8,589 MB free at /b"),
        (doctor.disk({"/a": 500_000_000}), WARN, "500 MB free"),
        (doctor.disk({"/a": 2**40, "/b": 0}), FAIL, "make room"),
        (doctor.files(None), OK, "no limit"),
        (doctor.files(1024), OK, "1,024"),
        (doctor.files(256), WARN, "ulimit"),
        (doctor.loop("asyncio.windows_events.ProactorEventLoop"), OK, "Proactor"),
        (doctor.loop("uvloop.Loop"), WARN, "policy"),
        (doctor.loopback(""), OK, "answers"),
        (doctor.loopback("Permission denied"), FAIL, "firewall"),
        (doctor.jupyter_port(False), OK, "free"),
        (doctor.jupyter_port(True), WARN, "the next"),
        (doctor.kernel("2", 1.5), OK, "after 1.5 s"),
        (doctor.kernel("3", 1.5), FAIL, "1+1 is 3"),
        (doctor.kernel("", 10), FAIL, "no answer within 10 s"),
        (doctor.endpoint(TRIP), OK, "0.10 s"),
        (doctor.endpoint(TRIP._replace(answer="Rhine")), FAIL, "not 'Elbe'"),
        (doctor.endpoint(TRIP._replace(took_s=0.01)), FAIL, "clock"),
        (doctor.endpoint(TRIP._replace(took_s=1)), WARN, "busy"),
        (doctor.real_model(Reply(200), URL, "m"), OK, "fraction of a cent"),
        (doctor.real_model(Reply(200, time_scale=10.0), URL, "m"), OK, "costs nothing"),
        (doctor.real_model(Reply(200, said="without a completion"), URL, "m"), FAIL, "without"),
        (doctor.real_model(Reply(403), URL, "m"), FAIL, "access"),
        (doctor.real_model(Reply(500, said="Oops"), URL, "m"), FAIL, "answers 500 Oops"),
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
def test_a_proxy_must_spare_loopback(environ, verdict):
    """The endpoint speaks http, so a proxy for https alone is no trouble."""
    assert doctor.proxy(environ).verdict == verdict


def test_a_wrong_setting_is_named(monkeypatch):
    """In the words of the setting's own error, with the variable."""
    monkeypatch.setenv("AGENTLAB_TIME_SCALE", "fast")
    finding = doctor.check_settings()
    assert finding.verdict == FAIL
    assert "AGENTLAB_TIME_SCALE" in str(finding)


@contextmanager
def upstream(*faults: dict[str, object]) -> Iterator[EndpointProcess]:
    """What stands in for a real model: the local one, in another process."""
    process = EndpointProcess(Settings(faults=[fault | {"probability": 1.0} for fault in faults]))
    try:
        yield process
    finally:
        process.stop()


KEY = "a-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("fault", "verdict", "cure"),
    [
        ({"kind": "error", "status": 401}, FAIL, "set OPENAI_API_KEY"),
        ({"kind": "quota"}, FAIL, "add credit"),
        ({"kind": "error", "status": 429}, WARN, "wait a minute"),
        ({"kind": "error", "status": 404}, FAIL, "set OPENAI_MODEL"),
        ({"kind": "reset"}, FAIL, "check OPENAI_BASE_URL, network"),
        ({"kind": "html"}, FAIL, "check OPENAI_BASE_URL"),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_a_real_model_that_fails(monkeypatch, fault, verdict, cure):
    """Key, credit, rate, model and way are told apart, each with its own cure."""
    with upstream(fault) as process:
        monkeypatch.setenv("OPENAI_BASE_URL", process.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        finding = doctor.check_real_model()
    assert finding.verdict == verdict
    assert cure in finding.cure
    assert KEY not in str(finding)


def test_a_real_model_is_asked_for_one_token(monkeypatch):
    """One request, one token of an answer: no more than it takes to know."""
    with upstream() as process:
        monkeypatch.setenv("OPENAI_BASE_URL", process.url)
        assert doctor.check_real_model().verdict == OK
        (span,) = process.since(0)
    assert (span.completion_tokens, span.status) == (1, 200)


def test_a_class_is_told_from_a_real_model(monkeypatch):
    """With a name for a key, in any language: the endpoint is Agent Lab's, and costs nothing."""
    with Class("--time-scale", "25") as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "김민준")
        finding = doctor.check_real_model()
        (span,) = served.get("/lab/spans")["spans"]
    assert finding.verdict == OK
    assert "25 model seconds a second; a local model there costs nothing" in finding.found
    assert "cent" not in finding.found
    assert (span["learner"], span["completion_tokens"]) == ("김민준", 1)


def test_a_conda_environment_is_one(tmp_path):
    """Its Python is its own base, and a folder conda-meta tells it from the system's."""
    plain, conda = tmp_path / "plain", tmp_path / "conda"
    plain.mkdir()
    (conda / "conda-meta").mkdir(parents=True)
    assert doctor.in_environment(str(conda), str(conda))
    assert doctor.in_environment(str(plain), "/usr")
    assert not doctor.in_environment(str(plain), str(plain))


def test_nobody_there_is_no_connection(monkeypatch):
    """An address where nothing listens."""
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    assert "no connection" in doctor.check_real_model().found


def test_a_key_with_a_line_break_is_not_shown(monkeypatch):
    """httpx refuses it, quoting it; the doctor does not."""
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    finding = doctor.check_real_model()
    assert finding.verdict == FAIL
    assert KEY not in str(finding)


def test_offline_asks_no_real_model(monkeypatch):
    """Nothing is sent to whatever OPENAI_BASE_URL names."""
    monkeypatch.setenv("OPENAI_BASE_URL", URL)
    for name in ("check_kernel", "check_endpoint"):
        monkeypatch.setattr(doctor, name, lambda: doctor.Finding("x", OK, "x"))
    assert "real model" not in [finding.name for finding in doctor.examine(offline=True)]


def test_a_check_that_breaks_is_a_line(monkeypatch, capsys):
    """And the others go on; the exit code says that one failed."""

    def check_disk() -> doctor.Finding:
        raise RuntimeError("no such drive")

    for name in ("check_kernel", "check_endpoint"):
        monkeypatch.setattr(doctor, name, lambda: doctor.Finding("x", OK, "x"))
    monkeypatch.setattr(doctor, "check_disk", check_disk)
    assert doctor.report(offline=True) == 1
    printed = capsys.readouterr().out
    assert "FAIL  disk" in printed
    assert "RuntimeError: no such drive" in printed
    assert "open files" in printed


def test_a_missing_package_is_a_line():
    """With the packages gone that most things need, each check says so and nothing raises."""
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['msgspec', 'packaging', 'httpx', 'jupyter_client']))\n"
        "from agentlab.cli import main\n"
        "raise SystemExit(main(['doctor', '--offline']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["packages", "settings", "kernel", "endpoint"]
    assert all("is not there; run `make setup`" in line for line in failed)


def test_the_command_line_needs_no_package():
    """Else the doctor could not say which one is missing."""
    program = (
        "import sys\nbefore = set(sys.modules)\nfrom agentlab import cli\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    assert (done.stderr, loaded) == ("", {"agentlab"})
    files = {path.stem for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    assert set(cli.COMMANDS) == files


def test_the_doctor_finds_this_machine_in_order():
    """From end to end, as typed: exit code 0, and no process is left behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    done = subprocess.run(
        [sys.executable, "-m", "agentlab", "doctor"], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Ready: open notebooks/.")
    assert "kernel        1+1 is 2" in done.stdout
    assert "endpoint      the known answer" in done.stdout
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before
