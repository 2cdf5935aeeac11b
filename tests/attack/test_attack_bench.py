"""Result files and experiments that are not what they seem, and two runs that write one file."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentlab.bench import experiment, measure, results, self_tuning
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.settings import DATA

SMALL = "about: Two agents.\nworkloads: [{agents: 2}]\nrepeats: 2\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment and its results, all of virtual time."""
    folder = tmp_path_factory.mktemp("measured")
    file = folder / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    measure.run(experiment.load(file), folder / "small.json")
    return folder


def with_changes(measured: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """The same results after somebody changed them."""
    raw = json.loads((measured / "small.json").read_bytes())
    change(raw)
    file = folder / "small.json"
    file.write_text(json.dumps(raw), encoding="utf-8")
    return file


def refused(measured: Path, file: Path, says: str) -> None:
    """By whoever reads it, to go on with it, to compare or to show it; and it stays as it is."""
    before = file.read_bytes()
    chosen = experiment.load(measured / "small.yaml")
    readers: list[Callable[[], object]] = [
        partial(measure.run, chosen, file, resume=True),
        partial(results.load, file),
    ]
    for read in readers:
        with pytest.raises(ConfigError, match=says) as error:
            read()
        assert str(file) in str(error.value)
        assert len(str(error.value)) < 1000
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


FIGURES = ("elapsed_s", "bound_s", "p50_s", "p95_s", "cpu_ms", "busy", "endpoint_busy")
COUNTS = ("repeat", "steps", "requests", "answered", "peak", "tokens")
NO_FIGURE = {
    "negative": -99,
    "a hair below 0": -1e-9,
    "1e300": 1e300,
    "nan": float("nan"),
    "inf": float("inf"),
    "text": "3",
    "a bool": True,
    "a list": [1],
}


@pytest.mark.parametrize("field", FIGURES)
@pytest.mark.parametrize("wrong", NO_FIGURE)
def test_a_figure_that_is_none_is_refused(measured: Path, tmp_path: Path, field: str, wrong: str):
    """Negative, absurd or no time at all: no median may be made of it."""

    def change(raw: Any) -> None:
        raw["measurements"][2][field] = NO_FIGURE[wrong]

    refused(measured, with_changes(measured, tmp_path, change), "small.json")


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("wrong", ["negative", "a hair below 0", "1e300", "nan", "text", "a bool"])
def test_a_count_that_is_none_is_refused(measured: Path, tmp_path: Path, field: str, wrong: str):
    """Minus five requests, or half an answer."""

    def change(raw: Any) -> None:
        raw["measurements"][1][field] = NO_FIGURE[wrong]

    refused(measured, with_changes(measured, tmp_path, change), "small.json")


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("again", range(4))
def test_a_measurement_that_is_there_twice_is_refused(
    measured: Path, tmp_path: Path, first: int, again: int
):
    """In place of another one, or on top: whoever takes it counts it double."""

    def change(raw: Any) -> None:
        if first == again:
            raw["measurements"].append({**raw["measurements"][first], "elapsed_s": 77.0})
        else:
            raw["measurements"][again] = raw["measurements"][first]

    refused(
        measured,
        with_changes(measured, tmp_path, change),
        "is there twice, or not of its experiment; take it",
    )


@pytest.mark.parametrize("many", [1, 2, 10])
def test_all_that_is_there_twice_is_refused(measured: Path, tmp_path: Path, many: int):
    """Two files put together."""
    file = with_changes(
        measured, tmp_path, lambda raw: raw["measurements"].extend(raw["measurements"] * many)
    )
    refused(measured, file, "take it out of the file, or measure again")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workload", "3 agents"),
        ("workload", ""),
        ("engine", "langgraph"),
        ("engine", "nothing"),
        ("preset", "nim-8b"),
        ("max_concurrency", 7),
        ("seed", 8),
        ("seed", -1),
        ("strategy", "pace"),
    ],
)
def test_another_experiments_measurement_is_refused(
    measured: Path, tmp_path: Path, field: str, value: Any
):
    """A line that was copied from another file is not this experiment's."""

    def change(raw: Any) -> None:
        raw["measurements"][0]["case"][field] = value

    refused(
        measured,
        with_changes(measured, tmp_path, change),
        "is there twice, or not of its experiment; take it",
    )


@pytest.mark.parametrize("repeat", [2, 3, 10**6, 2**62])
def test_a_repeat_too_many_is_refused(measured: Path, tmp_path: Path, repeat: int):
    """The experiment has two of each."""

    def change(raw: Any) -> None:
        raw["measurements"][0]["repeat"] = repeat

    refused(
        measured,
        with_changes(measured, tmp_path, change),
        "is there twice, or not of its experiment",
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("tail", [b"", b"\n", b"\0" * 512, b"\xff", b"}]}"], ids=repr)
def test_a_file_that_is_cut_off_is_refused(
    measured: Path, tmp_path: Path, share: float, tail: bytes
):
    """By a full disk or a crash, anywhere, and whatever stands there instead."""
    whole = (measured / "small.json").read_bytes()
    file = tmp_path / "small.json"
    file.write_bytes(whole[: int(share * len(whole)) - 1 if share else 0] + tail)
    refused(measured, file, "give a file that agentlab bench wrote")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b"null", b"[]", b"{}", b"\xef\xbb\xbf{}", b"NaN", b"1e999",
     b'{"name": "\\ud800"}', b'{"name": 1}', b"\0", b"about: x"],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_what_is_no_result_is_refused(measured: Path, tmp_path: Path, content: bytes):
    """With the file's name and the way out, and without a traceback."""
    file = tmp_path / "small.json"
    file.write_bytes(content)
    refused(measured, file, "give a file that agentlab bench wrote")


@pytest.mark.parametrize("field", ["about", "repeats", "seeds", "clock", "engines", "settings"])
def test_another_experiments_file_is_not_gone_on_with(measured: Path, tmp_path: Path, field: str):
    """Its measurements are sound, and of something else."""
    other = {
        "about": "Other.", "repeats": 3, "seeds": [7, 8], "clock": "real",
        "engines": ["sequential", "asyncio", "langgraph"], "settings": {"time_scale": 3},
    }  # fmt: skip

    def change(raw: Any) -> None:
        raw["experiment"][field] = other[field]

    file = with_changes(measured, tmp_path, change)
    with pytest.raises(ConfigError, match="is of another experiment; choose another folder"):
        measure.run(experiment.load(measured / "small.yaml"), file, resume=True)


# ------------------------------------------------------------------------- two writers


@pytest.fixture
def while_another_runs(measured: Path, tmp_path: Path) -> Iterator[Path]:
    """A result file, unfinished, that another run writes to."""
    file = tmp_path / "out" / "small.json"
    file.parent.mkdir()
    shutil.copy(measured / "small.yaml", tmp_path / "small.yaml")
    begun, over = threading.Event(), threading.Event()

    def write() -> None:
        with results.one_writer(file):
            begun.set()
            over.wait(60)

    other = threading.Thread(target=write)
    other.start()
    begun.wait(60)
    yield file
    over.set()
    other.join()
    assert [p.name for p in file.parent.glob("*.lock")] == []


@pytest.mark.parametrize("way", ["itself", "dots", "a link to the folder", "a link to the file"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_may_not_write_the_same_file(
    while_another_runs: Path, tmp_path: Path, way: str, resume: bool
):
    """By whatever name it goes; nothing is measured, and nothing is written."""
    file = while_another_runs
    ways = {
        "itself": file,
        "dots": tmp_path / "out" / ".." / "out" / "small.json",
        "a link to the folder": tmp_path / "linked" / "small.json",
        "a link to the file": tmp_path / "link.json",
    }
    (tmp_path / "linked").symlink_to(file.parent, target_is_directory=True)
    (tmp_path / "link.json").symlink_to(file)
    with pytest.raises(ConfigError, match=r"another run writes .*; wait until it has ended"):
        measure.run(experiment.load(tmp_path / "small.yaml"), ways[way], resume=resume)
    assert not file.exists()


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=str)
def test_the_command_says_that_another_run_writes(
    while_another_runs: Path, capsys: pytest.CaptureFixture[str], options: list[str]
):
    """One line, and the exit code of a mistake."""
    folder = while_another_runs.parent
    named = str(folder.parent / "small.yaml")
    assert main(["bench", named, "--out", str(folder), *options]) == 2
    assert "another run writes" in capsys.readouterr().err
    assert list(folder.glob("small.*")) == [folder / "small.json.lock"]


@pytest.mark.parametrize("left", [b"", b"1234", b"\0" * 100], ids=repr)
def test_a_lock_that_a_dead_run_left_does_not_matter(measured: Path, tmp_path: Path, left: bytes):
    """After kill -9 its file is still there, and nobody holds it."""
    (tmp_path / "small.json.lock").write_bytes(left)
    done = measure.run(experiment.load(measured / "small.yaml"), tmp_path / "small.json")
    assert len(done.measurements) == 4
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["small.json", "small.requests.csv.gz"]


# ------------------------------------------------------------------------- experiments

NONSENSE = [
    "seeds: [-1]", "seeds: [1.5]", "seeds: [.nan]", "seeds: [true]", "seeds: ['7']", "seeds: []",
    "seeds: [99999999999999999999999999]", "seeds: [null]", "repeats: 0", "repeats: -1",
    "repeats: 1.5", "repeats: .inf", "repeats: 1000000000000", "repeats: 50001", "warmups: -1",
    "warmups: 99999999999", "warmups: .nan", "max_concurrency: [0]", "max_concurrency: [-5]",
    "max_concurrency: [.inf]", "max_concurrency: [1.5]", "max_concurrency: [true]",
    "max_concurrency: [99999999999999]", "max_concurrency: []",
    "settings: {requests_per_minute: .nan}", "settings: {requests_per_minute: .inf}",
    "settings: {requests_per_minute: -5}", "settings: {requests_per_minute: 1.5}",
    "settings: {tokens_per_minute: .nan}", "settings: {tokens_per_minute: -1}",
    "settings: {time_scale: .nan}", "settings: {time_scale: .inf}", "settings: {time_scale: 0}",
    "settings: {time_scale: -3}", "settings: {time_scale: 1.0e-300}", "settings: {nonsense: 3}",
    "settings: {capacity: [{from_s: .nan, slots: 3}]}", "settings: {model: ''}",
    "settings: {capacity: [{from_s: -1, slots: 3}]}", "settings: {1: 2}", "settings: [1]",
    "settings: {capacity: [{from_s: 0, slots: 0}]}", "settings: {leave_out: [everything]}",
]  # fmt: skip
WORKLOADS = [
    "{agents: 0}", "{agents: -1}", "{agents: .nan}", "{agents: .inf}", "{agents: 1.5}",
    "{agents: true}", "{agents: '2'}", "{agents: 1000000000}", "{agents: 9999999999999999999999}",
    "{agents: 2, tokens: 0}", "{agents: 2, tokens: -1}", "{agents: 2, tokens: .inf}",
    "{agents: 2, tokens: 99999999999}", "{agents: null}", "{}", "7", "null",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        *(f"about: x\nworkloads: [{{agents: 2}}]\n{line}\n" for line in NONSENSE),
        *(f"about: x\nworkloads: [{one}]\n" for one in WORKLOADS),
        f"about: x\nworkloads: [{{agents: 2}}]\nrepeats: 60\nseeds: {list(range(1000))}\n",
        "about: x\nworkloads: [{agents: 2}]\nrepeats: 300\n"
        f"seeds: {list(range(30))}\nmax_concurrency: {list(range(1, 30))}\n",
    ],
    ids=lambda text: text[9:][-40:].strip(),
)
def test_an_experiment_of_nonsense_is_refused(tmp_path: Path, text: str):
    """Before anything is built of it, with the line and the column."""
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^experiment .*x\.yaml[: ]"):
        experiment.load(file)


# ------------------------------------------------------------------------------ tuning


def rows(raw: Any) -> Any:
    return raw["limits"]


TAMPERED: dict[str, Callable[[Any], object]] = {
    "a figure of text": lambda raw: rows(raw)[0].update(of_best_p95="x"),
    "nan": lambda raw: rows(raw)[0].update(of_best_p95=float("nan")),
    "no rows": lambda raw: raw.update(limits="x"),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_a_tuning_that_was_changed_is_refused(tmp_path: Path, change: str):
    """Each figure is read with its type and range."""
    raw = json.loads((DATA / "results" / "tuning.json").read_bytes())
    TAMPERED[change](raw)
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match="TuningResults"):
        self_tuning.stored(file)
