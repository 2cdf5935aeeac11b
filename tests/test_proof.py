"""A result proves itself: its digests, what it was made of, and that it comes out again."""

from __future__ import annotations

import dataclasses
import getpass
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from base64 import b64decode
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import yaml
from matplotlib.figure import Figure

from agentlab.bench import experiment, plots, proof, results
from agentlab.bench.experiment import Case, Experiment, Workload
from agentlab.bench.results import Measurement, Results
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.settings import DATA

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from verify import FAIL, NOTE, OK, measured, verify

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = DATA / "results"
SMALL = "about: Agents.\nworkloads: [{agents: 1}, {agents: 3}]\n"
PRESET = "".join(
    f"{name}: {{value: {value}, basis: chosen, source: here}}\n"
    for name, value in {
        "prefill_base_ms": 900,
        "prefill_per_token_ms": 0,
        "itl_base_ms": 100,
        "itl_per_active_ms": 0,
        "jitter_sigma": 0,
    }.items()
)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a second to draw, and a proof is of figures."""
    monkeypatch.setattr(plots, "figure", lambda _: Figure())


def bench(folder: Path, text: str = SMALL, *more: str) -> Path:
    """Measure an experiment as a user does; return its result."""
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["bench", str(path), "--out", str(folder / "out"), *more]) == 0
    return folder / "out" / "small.json"


def verdicts(file: Path, **options: Any) -> dict[str, list[str]]:
    """What is said of a file, by verdict."""
    found: dict[str, list[str]] = {OK: [], FAIL: [], NOTE: []}
    for finding in verify(file, **options):
        found[finding.verdict].append(f"{finding.name}: {finding.found}")
    return found


def rows(some: list[str]) -> list[str]:
    """What is said of rows, and not of the file of requests."""
    return [says for says in some if " row" in says]


def changed(file: Path, **values: Any) -> None:
    """Replace fields of a JSON file."""
    whole = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(whole | values), encoding="utf-8")


def edited(file: Path, number: int, **values: Any) -> None:
    """Replace fields of one measurement."""
    rows = json.loads(file.read_text(encoding="utf-8"))["measurements"]
    rows[number] |= values
    changed(file, measurements=rows)


def test_a_result_has_a_proof_beside_it(fresh_lab, tmp_path):
    """Digests as `sha256sum` has them, the checkout's commit as git has it, and the command."""
    file = bench(tmp_path)
    known = proof.read(file)
    assert known is not None
    for name, path in {
        "small.json": file,
        "file small.yaml": tmp_path / "small.yaml",
        "endpoints/course.yaml": DATA / "endpoints" / "course.yaml",
        "requirements.lock": ROOT / "requirements.lock",
    }.items():
        assert known.sha256[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert (known.commit or "") == head.stdout.strip()
    assert known.command == "agentlab bench small.yaml --out out"
    assert known.versions.keys() >= {"aiohttp", "httpx"}
    assert known.versions["langgraph"] == metadata.version("langgraph")
    assert known.processor


def test_files_of_the_course_s_data_are_found_by_name(tmp_path):
    """With or without the end of the name: a workflow, and what lies beside it as a table."""
    made = real([("asyncio", [1.0])])
    works = [Workload(workflow="report", inputs={"from": "nim.csv"})]
    asked = dataclasses.replace(made.experiment, workloads=works)
    file = tmp_path / "x.json"
    results.write(file, made)
    found = proof.digests(file, msgspec.structs.replace(made, experiment=asked))
    for name in ("workflows/report.yaml", "measured/nim.csv", "endpoints/course.yaml"):
        assert found[name] == hashlib.sha256((DATA / name).read_bytes()).hexdigest()


def test_nothing_private_is_in_a_proof(fresh_lab, tmp_path, monkeypatch):
    """No home, user, host or key, though the command line has all of them."""
    home = tmp_path / "home" / "alice-liddell"
    home.mkdir(parents=True)
    key = "sk-proj-0123456789abcdef"
    for name, value in {
        "HOME": str(home),
        "USER": "alice-liddell",
        "LOGNAME": "alice-liddell",
        "OPENAI_API_KEY": key,
        "AGENTLAB_LOCAL": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert getpass.getuser() == "alice-liddell"
    (home / "mine.yaml").write_text("about: x\n" + PRESET, encoding="utf-8")
    file = bench(home, SMALL + f"presets: [{home / 'mine.yaml'}]\n")
    given = ["agentlab", "bench", f"--out={home}/out/", f"--key={key}", "..\\alice-liddell\\x.yaml"]
    proof.write(file, given, began=(0.0, None))
    text = file.with_suffix(".proof.json").read_text(encoding="utf-8")
    for secret in ("alice-liddell", key, str(tmp_path), socket.gethostname()):
        assert secret not in text
    assert json.loads(text)["command"] == "agentlab bench --out=out --key=[key] x.yaml"
    assert "file mine.yaml" in json.loads(text)["sha256"]


def test_an_unchanged_result_is_verified(fresh_lab, tmp_path, capsys):
    """Its file, its rows and its requests, and exit code 0."""
    file = bench(tmp_path)
    capsys.readouterr()
    assert main(["verify", *map(str, sorted(file.parent.glob("*.json")))]) == 0  # its proof, too
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(file)
    assert "OK    small.json    as it was written" in lines
    assert "OK    measurements  4 rows again, equal to the byte" in lines
    assert lines[-1] == "OK    small.requests.csv.gz  again, all equal"


def test_an_edited_measurement_is_named(fresh_lab, tmp_path, capsys):
    """By its number and its field, from what comes out again."""
    file = bench(tmp_path)
    edited(file, 2, elapsed_s=5.9)
    whole, row = verdicts(file)[FAIL]
    assert whole.startswith("small.json: was ")
    assert row == "measurement 2: elapsed_s 5.9 comes out as 6.0"
    assert main(["verify", str(file)]) == 1


def test_a_measurement_taken_out_is_missed(fresh_lab, tmp_path):
    """Without a proof, too: the row comes out, and is not there."""
    file = bench(tmp_path)
    file.with_suffix(".proof.json").unlink()
    changed(file, measurements=json.loads(file.read_text())["measurements"][:3])
    found = verdicts(file)
    assert found[FAIL] == ["measurements: of 3 come out 4"]
    assert found[NOTE] == ["proof: there is none; agentlab bench writes one"]


def test_what_is_beside_the_measurements_is_told_apart(fresh_lab, tmp_path):
    """An edited machine leaves the rows right, and the file wrong."""
    file = bench(tmp_path)
    changed(file, machine=json.loads(file.read_text())["machine"] | {"cores": "96"})
    found = verdicts(file)
    assert [says.split(": was")[0] for says in found[FAIL]] == ["small.json"]
    assert len(rows(found[OK])) == 1
    assert f"cores: was 96, and is {os.cpu_count()}" in found[NOTE]


def test_a_preset_that_was_changed_since_is_named(fresh_lab, tmp_path):
    """A word in it is no matter; a figure is, and then the rows do not come out."""
    preset = tmp_path / "mine.yaml"
    preset.write_text("about: One.\n" + PRESET, encoding="utf-8")
    file = bench(tmp_path, SMALL + f"presets: [{preset}]\n")
    preset.write_text("about: Another.\n" + PRESET, encoding="utf-8")
    found = verdicts(file)
    assert any(says.startswith("file mine.yaml: was ") for says in found[NOTE])
    assert found[FAIL] == []
    preset.write_text("about: One.\n" + PRESET.replace("900", "901"), encoding="utf-8")
    assert verdicts(file)[FAIL][0].startswith("measurement 0: elapsed_s ")


def test_other_versions_are_said(fresh_lab, tmp_path):
    """They prove nothing either way, so the exit code stays 0."""
    file = bench(tmp_path)
    path = file.with_suffix(".proof.json")
    changed(path, versions=json.loads(path.read_text())["versions"] | {"httpx": "0.1"})
    found = verdicts(file)
    assert f"httpx: was 0.1, and is {metadata.version('httpx')}" in found[NOTE]
    assert main(["verify", str(file)]) == 0


def test_edited_requests_are_found(fresh_lab, tmp_path):
    """The rows of single requests belong to the result as its figures do."""
    file = bench(tmp_path)
    requests = file.with_suffix(".requests.csv.gz")
    *lines, _ = gzip.decompress(requests.read_bytes()).splitlines(keepends=True)
    requests.write_bytes(gzip.compress(b"".join(lines)))
    digest, rows = verdicts(file)[FAIL]
    assert digest.startswith("small.requests.csv.gz: was ")
    assert rows == "small.requests.csv.gz: come out otherwise"


def test_requests_that_another_python_compressed_are_equal(fresh_lab, tmp_path):
    """From 3.13 on gzip writes another header, so rows are compared, not bytes."""
    file = bench(tmp_path)
    requests = file.with_suffix(".requests.csv.gz")
    requests.write_bytes(gzip.compress(gzip.decompress(requests.read_bytes()), 1, mtime=1))
    proof.write(file, ["agentlab"], began=(0.0, None))
    assert "small.requests.csv.gz: again, all equal" in verdicts(file)[OK]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("took_s", "long"),
        ("took_s", -1),
        ("sha256", {"small.json": "abc"}),
        ("commit", "HEAD"),
        ("date", "yesterday"),
        ("date", "2026-11-29T12:00:00"),
        ("load", [1.0]),
        ("versions", {"httpx": 1}),
    ],
)
def test_a_proof_of_other_types_is_refused(fresh_lab, tmp_path, capsys, field, value):
    """Whatever a file says is checked before it is used."""
    file = tmp_path / "article.json"
    shutil.copy(REFERENCE / "article.json", file)
    proof.write(file, ["agentlab"], began=(0.0, None))
    changed(file.with_suffix(".proof.json"), **{field: value})
    with pytest.raises(ConfigError, match=f"(?s)Proof .*{field}"):
        proof.read(file)
    assert main(["verify", str(file)]) == 1
    assert " Proof " in capsys.readouterr().out


def test_what_is_no_result_is_refused(tmp_path, capsys):
    """And the files after it are verified nevertheless."""
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    assert main(["verify", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 1
    assert capsys.readouterr().out.count("give a file that agentlab bench wrote") == 2


def test_a_kept_result_keeps_its_proof(fresh_lab, tmp_path):
    """The second run on the real clock leaves the first beside it, and what proves it."""
    text = SMALL + "clock: real\nengines: [asyncio]\npresets: [instant]\n"
    first = bench(tmp_path, text).with_suffix(".proof.json").read_bytes()
    bench(tmp_path, text)
    kept = tmp_path / "out" / "small.before.proof.json"
    assert kept.read_bytes() == first
    now = proof.read(tmp_path / "out" / "small.json")
    assert now is not None and msgspec.json.decode(first, type=proof.Proof).sha256 != now.sha256


def test_a_broken_proof_is_replaced(fresh_lab, tmp_path):
    """What an earlier run left does not take away what this one measured."""
    file = bench(tmp_path)
    file.with_suffix(".proof.json").write_text("{", encoding="utf-8")
    bench(tmp_path)
    assert proof.read(file) is not None


def test_a_reference_result_is_verified(fresh_lab):
    """The smallest, here; `agentlab verify data/results/*.json` verifies all."""
    found = verdicts(REFERENCE / "article.json")
    assert found[FAIL] == []
    assert len(rows(found[OK])) == 1


def test_the_study_names_the_tool_that_derives_it(capsys):
    """In one line, which is no failure."""
    file = REFERENCE / "tuning.json"
    assert main(["verify", str(file)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said[1:]] == [
        ["NOTE", "tuning", "tools/tuning.py", "derives", "it"]
    ]


def test_a_real_model_is_not_asked_again(tmp_path):
    """That costs money; the digests are still checked."""
    made = real([("sequential", [2.0]), ("asyncio", [1.0])])
    said = [{"finish_reason": "stop", "tokens": 9, "limit_tokens": 11}]
    file = tmp_path / "x.json"
    results.write(file, made)
    for number in (0, 1):
        edited(file, number, real=said)
    found = verdicts(file)
    assert found[NOTE][-1] == ": a real model answered, which costs money"
    assert found[OK] == []


def real(times_s: list[tuple[str, list[float]]], answers: str = "a") -> Results:
    """A result on the real clock: engine -> the times of its rounds."""
    asked: dict[str, Any] = {"engines": [engine for engine, _ in times_s], "clock": "real"}
    asked |= {"about": "x", "workloads": [Workload(agents=4)], "repeats": len(times_s[0][1])}
    rows = [
        Measurement(
            case=Case("4 agents", engine, "course", None, 7),
            repeat=number,
            steps=4,
            elapsed_s=one_s,
            bound_s=1.0,
            requests=4,
            answered=4,
            peak=4,
            tokens=100,
            answers=answers,
        )
        for engine, rounds in times_s
        for number, one_s in enumerate(rounds)
    ]
    return Results(name="x", experiment=Experiment(**asked), machine={}, measurements=rows)


STORED = real([("sequential", [8.0, 8.1, 7.9]), ("asyncio", [2.0, 2.02, 1.98])])


@pytest.mark.parametrize(
    ("sequential", "asyncio", "verdict"),
    [
        ([8.0, 8.0, 8.0], [2.0, 2.0, 2.0], OK),
        ([24.0, 24.1, 23.9], [6.0, 6.1, 5.9], OK),  # a slower machine
        ([8.0, 8.0, 8.0], [2.1, 2.1, 2.1], OK),  # 5% is as good as equal
        ([8.0, 8.0, 8.0], [2.6, 2.6, 2.6], FAIL),
        ([24.0, 24.0, 24.0], [4.0, 4.0, 4.0], FAIL),  # faster than it was, as a share
        ([8.0, 8.0, 8.0], [2.0, 9.0, 2.0], OK),  # one round that was disturbed
    ],
)
def test_real_cases_agree_in_their_proportions(sequential, asyncio, verdict):
    """As shares of the median of the same round, for machines differ in speed."""
    again = real([("sequential", sequential), ("asyncio", asyncio)])
    _, other = measured(STORED, again)
    assert other.verdict == verdict, other.found


def test_the_interval_is_what_was_stored_and_a_tenth():
    """By hand: 2 of 6, 2 of 5 and 3 of 6.5 leave room from 1/3 / 1.1 to 3/6.5 * 1.1."""
    stored = real([("sequential", [10.0, 8.0, 10.0]), ("asyncio", [2.0, 2.0, 3.0])])
    again = real([("sequential", [8.0]), ("asyncio", [2.0])])
    _, line = measured(stored, again)
    assert line.found == "0.400 of its round's median time, for 0.303 to 0.508"


def test_presets_have_medians_of_their_own():
    """On one the processor is the limit, on the other the model's time, so they scale apart."""

    def two(instant_s: float) -> Results:
        slow, quick = (real([("sequential", [of]), ("asyncio", [of / 4])]) for of in (8, instant_s))
        rows = [
            msgspec.structs.replace(m, case=msgspec.structs.replace(m.case, preset="instant"))
            for m in quick.measurements
        ]
        asked = dataclasses.replace(slow.experiment, presets=["course", "instant"])
        every = [*slow.measurements, *rows]
        return msgspec.structs.replace(slow, experiment=asked, measurements=every)

    assert [line.verdict for line in measured(two(0.1), two(0.3))] == [OK] * 4


def test_other_answers_and_no_result_are_failures():
    """However near the times are."""
    others = real([("sequential", [8.0, 8.1, 7.9]), ("asyncio", [2.0, 2.02, 1.98])], answers="b")
    assert [line.verdict for line in measured(STORED, others)] == [FAIL, FAIL]
    nothing = msgspec.structs.replace(STORED, measurements=STORED.measurements[:3])
    assert [line.found for line in measured(STORED, nothing)][1] == "no result, or other answers"


def test_few_unchanged_cases_fail_and_few_changed_ones_do_not():
    """Of 200 draws with 5% noise: 1 in 100 at most, where nothing changed, and where 40% did."""
    draw = Random(7)

    def drawn(share: float) -> Results:
        machine = draw.uniform(0.5, 2)  # one is faster than another
        rounds = [machine * draw.uniform(0.8, 1.2) for _ in range(5)]  # and drifts
        noisy = [[r * share * (1 + draw.gauss(0, 0.05)) for r in rounds] for share in (8, share)]
        return real([("sequential", noisy[0]), ("asyncio", noisy[1])])

    verdicts_of = {
        share: [list(measured(drawn(2.0), drawn(share)))[1].verdict for _ in range(200)]
        for share in (2.0, 2.8)
    }
    assert verdicts_of[2.0].count(FAIL) <= 2
    assert verdicts_of[2.8].count(FAIL) >= 198


def test_real_cases_are_measured_again(fresh_lab, tmp_path, monkeypatch):
    """Through the local model, though the environment names a real one."""
    text = SMALL + "clock: real\nrepeats: 2\nsettings: {time_scale: 100}\n"
    file = bench(tmp_path, text)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(proof, "now", lambda: (0.0, 1000.0))
    found = verdicts(file, rounds=2)
    assert any("a load average of 1000.0" in says for says in found[NOTE])
    lines = [says for says in found[OK] + found[FAIL] if "of its round's median time" in says]
    assert len(lines) == 4


@pytest.mark.parametrize("clock", ["virtual", "real"])
@pytest.mark.parametrize("rounds", ["0", "-1", "1001"])
def test_rounds_that_cannot_be_are_refused(fresh_lab, tmp_path, capsys, clock, rounds):
    """Of any result, under the option's own name, before anything is read or measured."""
    file = tmp_path / f"{clock}.json"
    shutil.copy(REFERENCE / {"virtual": "knee.json", "real": "article-real.json"}[clock], file)
    assert main(["verify", str(file), "--rounds", rounds]) == 2
    said = capsys.readouterr()
    assert (
        f"--rounds must be a whole number, at least 1 and at most 1,000; got {rounds}" in said.err
    )
    assert said.out == ""


def test_a_page_has_all_that_is_cited(fresh_lab, tmp_path, capsys):
    """The table, the machine, each digest, the commands, and an entry for a bibliography."""
    file = bench(tmp_path)
    assert main(["bench", "report", str(file)]) == 0
    text = file.with_suffix(".report.md").read_text(encoding="utf-8")
    known = proof.read(file)
    assert known is not None
    assert text.startswith("# small\n\nAgents.\n\n| workload | engine |")
    assert all(f"| {name} | `{digest}` |" in text for name, digest in known.sha256.items())
    assert f"git checkout {known.commit}\nmake setup\n.venv/bin/{known.command}\n" in text
    entry = text.split("```bibtex\n")[1].split("```")[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", entry, re.MULTILINE))
    assert entry.startswith("@software{agentlab-small,\n") and entry.endswith("\n}\n")
    assert (fields["title"], fields["license"]) == (citation["title"], citation["license"])
    assert [{"name": fields["author"]}] == citation["authors"]
    assert fields["date"] == f"{known.date:%Y-%m-%d}"
    assert known.sha256["small.json"] in fields["note"] and str(known.commit) in fields["note"]


def test_a_page_loads_and_runs_nothing(fresh_lab, tmp_path):
    """The picture is inside; what somebody wrote into an experiment is text."""
    evil = "about: '<script>alert(1)</script> ![x](https://example.com/x.png)'\n"
    file = bench(tmp_path, SMALL.replace("about: Agents.\n", evil))
    main(["bench", "report", str(file)])
    page = file.with_suffix(".report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'; img-src data:;" in page  # so the image from elsewhere stays there
    picture = file.with_suffix(".png").read_bytes()
    (inside,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert b64decode(inside) == picture
    assert not re.findall(r'(?:href|src)="(?!data:|https://example)', page)


@pytest.mark.parametrize("name", ["knee", "article-real"])
def test_a_page_without_a_proof_says_so(fresh_lab, tmp_path, name, capsys):
    """First, on the page and in the terminal, of either kind of result; and no picture is there."""
    file = tmp_path / f"{name}.json"
    shutil.copy(REFERENCE / f"{name}.json", file)
    assert main(["bench", "report", str(file)]) == 0
    text = file.with_suffix(".report.md").read_text(encoding="utf-8")
    assert text.split("\n\n")[1].startswith("**This result has no proof**: neither date")
    assert capsys.readouterr().out.startswith(f"{file} has no proof, and its pages say so first")
    assert f".venv/bin/agentlab bench {name}\n" in text
    assert "![" not in text and "  date = " not in text


def test_a_page_that_cannot_be_written_says_where(fresh_lab, tmp_path, capsys):
    """A folder stands where the page would; the way out is a folder of one's own."""
    file = bench(tmp_path)
    file.with_suffix(".report.md").mkdir()
    assert main(["bench", "report", str(file)]) == 2
    assert "to a folder of yours" in capsys.readouterr().err


def test_no_page_vouches_for_an_edited_result(fresh_lab, tmp_path, capsys):
    """Nothing is written then."""
    file = bench(tmp_path)
    edited(file, 0, elapsed_s=1.0)
    assert main(["bench", "report", str(file)]) == 2
    assert "is not as its proof has it" in capsys.readouterr().err
    assert not file.with_suffix(".report.md").exists()


def test_experiments_are_listed(capsys):
    """Each with its clock and its question."""
    assert main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == experiment.names()
    for line in lines:
        name, clock = line.split()[:2]
        whole = json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))
        assert line.endswith(whole["experiment"]["about"])
        assert clock == whole["experiment"]["clock"]


def test_an_experiment_says_what_it_measures(capsys):
    """Its file, whose words are those of the documentation."""
    assert main(["bench", "--list", "knee"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == experiment.found("knee").read_text(encoding="utf-8").strip()
