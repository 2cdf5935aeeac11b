"""The study of what tunes itself: its file, its results, and that they come out again."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

import msgspec
import pytest

from agentlab.bench import results, self_tuning, trial
from agentlab.bench.trial import JUDGING
from agentlab.errors import ConfigError
from agentlab.resilience.limiters import Adaptive
from agentlab.settings import DATA

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import tuning
from tuning_limits import judged
from tuning_policies import against_oracle

REFERENCE = DATA / "results" / "tuning.json"
LARGE = {"16 slots, halved", "16 slots, long answers", "64 slots, halved"}

SMALL = """
about: x
kind: tuning
limits: {limiters: [fixed 3], seeds: [1, 2]}
learning: {runs: 200, shift_at: 100, seeds: [1]}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that measures a little, in two short scenarios."""
    short = [msgspec.structs.replace(JUDGING[number], run_s=60) for number in (2, 7)]
    monkeypatch.setattr(tuning, "JUDGING", short)
    (tmp_path / "small.yaml").write_text(SMALL)
    return ["--study", str(tmp_path / "small.yaml"), "--out", str(tmp_path)]


def test_two_runs_give_equal_files(fresh_lab, tmp_path, small, capsys):
    """Both parts, to the byte; a table of each, and a picture."""
    assert tuning.main(small) == 0
    tuning.run(tuning.load(tmp_path / "small.yaml"), tmp_path / "again" / "tuning.json")
    again = (tmp_path / "again" / "tuning.json").read_bytes()
    assert (tmp_path / "tuning.json").read_bytes() == again
    said = (tmp_path / "tuning.md").read_text(encoding="utf-8")
    for part in ("| fixed 3 | ", "| Thompson | "):
        assert part in said
    assert said in capsys.readouterr().out
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[fixed 3]", "[fixed 4]"), r"there is no 'fixed 4'; there are fixed 3"),
        (("learning: {runs: 200", "learning: {runs: 0"), r"runs"),
        (("kind: tuning", "kind: tuning\nwork: 2"), r"work: there is no such field"),
        (("seeds: [1]", "seeds: []"), r"learning.seeds"),
        (("seeds: [1, 2]", "seeds: []"), r"limits.seeds"),
        (("shift_at: 100", "shift_at: 5000"), r"multiple of 100 below runs \(200\); got 5000"),
        (("shift_at: 100", "shift_at: 150"), r"multiple of 100 below runs \(200\); got 150"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, change, words):
    """With the field."""
    file = tmp_path / "wrong.yaml"
    file.write_text(SMALL.replace(*change))
    with pytest.raises(ConfigError, match=rf"(?s)wrong\.yaml.*{words}"):
        tuning.load(file)


def test_results_of_another_kind_are_refused():
    """A file of measurements has no such parts."""
    with pytest.raises(ConfigError, match="agentlab bench wrote"):
        self_tuning.stored(REFERENCE.with_name("article.json"))


def test_the_reference_is_of_the_experiment_as_it_is():
    """Whole, with its table and its picture."""
    kept = self_tuning.stored(REFERENCE)
    assert kept.experiment == msgspec.to_builtins(tuning.load())
    assert REFERENCE.with_suffix(".md").read_text(encoding="utf-8") == tuning.markdown(kept)
    assert REFERENCE.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_reference_comes_out_again(fresh_lab):
    """A part of each of its parts, to the last digit; the whole takes some minutes.

    Of the limits a small scenario with two seeds, and three larger ones, whose best static limit is
    taken from there. Of the bandit the last world, in which it earns the least.
    """
    kept = self_tuning.stored(REFERENCE)
    how = tuning.load()
    small, seeds = JUDGING[2], how.limits.seeds[:2]
    of = [row for row in kept.limits if row.limiter == "adaptive"]
    rows = judged([small], {"adaptive": Adaptive}, seeds=seeds)
    assert rows == [row for row in of if row.scenario == small.name and row.seed in seeds]
    for large in JUDGING:
        if large.name in LARGE:
            row = next(row for row in of if row.scenario == large.name)
            outcome = trial.run(Adaptive(), msgspec.structs.replace(large, seed=row.seed))
            assert (row.goodput, row.p95_s) == (round(outcome.goodput, 3), round(outcome.p95_s, 3))
    seed = how.learning.seeds[-1]
    world = against_oracle("steady", runs=how.learning.runs, seeds=[seed])
    for name in ("Thompson", "Thompson, forgets nothing", "Thompson, no context"):
        least = kept.learning[0].policies[name].least_share
        assert world.policies[name].share == least


def test_the_pass_line_holds_where_it_must():
    """By the median over seeds, in every scenario; by all, at .92, for long answers and drift."""
    kept = self_tuning.stored(REFERENCE)
    rows = [row for row in kept.limits if row.limiter == "adaptive"]
    assert len(rows) == len(JUDGING) * len(kept.experiment["limits"]["seeds"])
    for scenario in JUDGING:
        of = [row for row in rows if row.scenario == scenario.name]
        assert median(row.of_best_goodput for row in of) >= trial.LEAST_GOODPUT
        assert median(row.of_best_p95 for row in of) <= trial.MOST_P95
        if scenario.long_share or "drifting" in scenario.name:
            assert min(row.of_best_goodput for row in of) >= 0.92


def test_results_are_written_whole(tmp_path):
    """The folder is made, and no part of a file is left beside it."""
    kept = self_tuning.stored(REFERENCE)
    results.write(tmp_path / "new" / "a.json", kept)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert self_tuning.stored(tmp_path / "new" / "a.json") == kept
