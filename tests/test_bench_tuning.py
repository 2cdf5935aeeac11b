"""The experiment of the kind `tuning`: its file, its results, and that they come out again."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest

from agentlab.bench import results, self_tuning, trial
from agentlab.bench.experiment import found
from agentlab.bench.scenarios import JUDGING
from agentlab.commands.main import main
from agentlab.errors import ConfigError
from agentlab.learning import regret
from agentlab.resilience.limiters import Adaptive
from agentlab.settings import DATA

REFERENCE = DATA / "results" / "tuning.json"

SMALL = """
about: x
kind: tuning
limits: {limiters: [fixed 3], seeds: [1, 2]}
learning: {runs: 200, shift_at: 100, seeds: [1]}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that measures a little, in two scenarios."""
    monkeypatch.setattr(self_tuning, "JUDGING", [JUDGING[2], JUDGING[7]])
    (tmp_path / "small.yaml").write_text(SMALL)
    return ["bench", str(tmp_path / "small.yaml"), "--out", str(tmp_path)]


def test_two_runs_give_equal_files(fresh_lab, tmp_path, small, capsys):
    """Both parts, to the byte; a table of each, and a picture."""
    assert main(small) == 0
    first = (tmp_path / "small.json").read_bytes()
    assert main(small) == 0
    assert (tmp_path / "small.json").read_bytes() == first
    said = (tmp_path / "small.md").read_text(encoding="utf-8")
    for part in ("| fixed 3 | ", "| Thompson | "):
        assert part in said
    assert said in capsys.readouterr().out
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupt_keeps_whole_parts(fresh_lab, tmp_path, small, monkeypatch):
    """Stopped in the second part: the file is not overwritten, and can be gone on with."""
    scenario = regret.scenario

    def stopped(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(regret, "scenario", stopped)
    assert main(small) == 130
    kept = self_tuning.stored(tmp_path / "small.json")
    assert kept.limits is not None and kept.learning is None
    assert main(small) == 2
    monkeypatch.setattr(regret, "scenario", scenario)
    monkeypatch.setattr(trial, "judged", lambda *_, **__: pytest.fail("it was measured before"))
    assert main([*small, "--resume"]) == 0
    again = self_tuning.stored(tmp_path / "small.json")
    assert (again.limits, again.learning is not None) == (kept.limits, True)


def test_an_interrupt_keeps_whole_scenarios(fresh_lab, small, tmp_path, monkeypatch):
    """Stopped in the second of two: the first, with both seeds, is not measured again."""
    judged, seen = trial.judged, []

    def second_stops(scenarios: Any, *given: Any, **named: Any) -> Any:
        seen.append(scenarios[0].name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return judged(scenarios, *given, **named)

    monkeypatch.setattr(trial, "judged", second_stops)
    assert main(small) == 130
    kept = self_tuning.stored(tmp_path / "small.json")
    assert [(row.scenario, row.seed) for row in kept.limits or ()] == [(seen[0], 1), (seen[0], 2)]
    assert main(small) == 2  # it would be overwritten
    assert main([*small, "--resume"]) == 0
    assert seen == [JUDGING[2].name, JUDGING[7].name, JUDGING[7].name]
    assert len(self_tuning.stored(tmp_path / "small.json").limits or ()) == 4


def test_another_experiment_is_not_gone_on_with(fresh_lab, tmp_path, small):
    """The file is left as it is."""
    assert main(small) == 0
    before = (tmp_path / "small.json").read_bytes()
    (tmp_path / "small.yaml").write_text(SMALL.replace("runs: 200", "runs: 300"))
    assert main([*small, "--resume"]) == 2
    assert (tmp_path / "small.json").read_bytes() == before


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
        self_tuning.load(file)


def test_results_of_another_kind_are_refused():
    """A file of measurements has no such parts."""
    with pytest.raises(ConfigError, match="agentlab bench wrote"):
        self_tuning.stored(REFERENCE.with_name("article.json"))


def test_the_reference_is_of_the_experiment_as_it_is():
    """Whole, with its table and its picture."""
    kept = self_tuning.stored(REFERENCE)
    assert kept.experiment == self_tuning.load("tuning")
    assert self_tuning.is_tuning(found("tuning"))
    assert REFERENCE.with_suffix(".md").read_text(encoding="utf-8") == self_tuning.markdown(kept)
    assert REFERENCE.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert all(getattr(kept, part) is not None for part in ("limits", "learning"))


def test_the_reference_comes_out_again(fresh_lab):
    """A part of each of its parts, to the last digit; the whole takes some minutes.

    Of the limits small scenarios with all seeds, and one of 64 slots with one seed, whose best
    static limit is taken from there: to find it is most of the work.
    """
    kept = self_tuning.stored(REFERENCE)
    how = kept.experiment
    few = JUDGING[2:3] + JUDGING[7:9]
    rows = trial.judged(few, {"adaptive": Adaptive}, seeds=how.limits.seeds)
    names = {scenario.name for scenario in few}
    of = [row for row in kept.limits or () if row.limiter == "adaptive"]
    assert rows == [row for row in of if row.scenario in names]
    large = next(scenario for scenario in JUDGING if scenario.name == "64 slots, halved")
    row = next(row for row in of if row.scenario == large.name)
    outcome = trial.run(Adaptive(), msgspec.structs.replace(large, seed=row.seed))
    assert (row.goodput, row.p95_s) == (round(outcome.goodput, 3), round(outcome.p95_s, 3))
    steady, _ = kept.learning or ()
    again = regret.scenario("steady", runs=how.learning.runs, seeds=how.learning.seeds)
    assert again == steady


def test_the_pass_line_holds_where_it_must():
    """By the median over seeds: every preset, 4, 16 and 64 slots, halved, doubled, a rate limit.

    Heavy jitter over slots that change is beyond that: there it comes within a hair of the line.
    """
    kept = self_tuning.stored(REFERENCE)
    rows = [row for row in kept.limits or () if row.limiter == "adaptive"]
    assert len(rows) == len(JUDGING) * len(kept.experiment.limits.seeds)
    below = {}
    for scenario in JUDGING:
        of = [row for row in rows if row.scenario == scenario.name]
        goodput = median(row.of_best_goodput for row in of)
        assert median(row.of_best_p95 for row in of) <= trial.MOST_P95
        if goodput < trial.LEAST_GOODPUT:
            below[scenario.name] = goodput
    assert all("jitter" in name and goodput > 0.89 for name, goodput in below.items())
    assert len(below) == 3


def test_results_are_written_whole(tmp_path):
    """The folder is made, and no part of a file is left beside it."""
    kept = self_tuning.stored(REFERENCE)
    results.write(tmp_path / "new" / "a.json", kept)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert self_tuning.stored(tmp_path / "new" / "a.json") == kept


def test_what_differs_is_shown():
    """In virtual time any difference is one: the lines of both, or the part if its digits agree."""
    kept = self_tuning.stored(REFERENCE)
    rows = list(kept.limits or ())
    assert self_tuning.compared(kept, kept) == "the same"
    worse = msgspec.structs.replace(rows[0], of_best_p95=9.99)
    more = msgspec.structs.replace(kept, limits=[worse, *rows[1:]])
    old, new = self_tuning.compared(kept, more).splitlines()
    assert old.startswith("- | fixed 3 | 10 of 125 |")
    assert new.startswith("+ | fixed 3 | ") and "| 9.99 |" in new
    hair = msgspec.structs.replace(rows[0], goodput=rows[0].goodput + 1e-9)
    hidden = msgspec.structs.replace(kept, limits=[hair, *rows[1:]])
    assert "beyond the digits of the tables" in self_tuning.compared(kept, hidden)
    part = self_tuning.compared(msgspec.structs.replace(kept, learning=None), kept).splitlines()
    assert part[0] == "+ ## Which pattern for which task"
