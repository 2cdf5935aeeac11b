"""Presets: every figure with its source, and a clear error for every mistake."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import msgspec
import pytest
import yaml

from agentlab.clock import run_virtual
from agentlab.endpoint import presets
from agentlab.endpoint.physics.batch import Job
from agentlab.endpoint.physics.live import LiveBatch
from agentlab.errors import ConfigError, FileError
from agentlab.settings import DATA


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_loads_and_gives_each_figure_a_source(name: str):
    """Basis and source stand beside each value, and no source is a mere word."""
    loaded = presets.load(name)
    figures = [loaded.prefill_base_ms, loaded.itl_base_ms, loaded.jitter_sigma, loaded.slots]
    assert all(len(figure.source) > 10 for figure in figures if figure is not None)


@pytest.mark.parametrize(("tokens", "seconds"), [(91, 10.0), (141, 15.0), (111, 12.0)])
def test_the_course_preset_gives_round_numbers(tokens: int, seconds: float):
    """The first token after 1 s, then ten a second."""
    assert presets.load("course").physics.service_s(0, tokens) == seconds


def test_the_class_preset_is_the_courses_with_slots_to_share():
    """The lessons' figures, and 128 slots: thirty learners with four in flight each fit at once."""
    of_a_class, course = presets.load("class").physics, presets.load("course").physics
    assert of_a_class == msgspec.structs.replace(course, slots=128)
    assert of_a_class.slots is not None and of_a_class.slots >= 30 * 4


def test_the_vllm_preset_agrees_with_the_published_table():
    """NIM's fit gives 15.1 ms a token at n = 250; the preset is within 20% there."""
    physics = presets.load("vllm-1gpu").physics
    assert physics.itl_s(250) == pytest.approx(0.00396 + 0.0000445 * 250, rel=0.2)


def test_the_laptop_preset_generates_as_fast_as_was_measured():
    """20.9 tokens a second, one request at a time."""
    physics = presets.load("laptop-ollama").physics
    assert 1 / physics.itl_s(1) == pytest.approx(20.9, rel=0.01)
    assert (physics.slots, physics.queue) == (1, 512)


def course(**changes: object) -> str:
    return yaml.safe_dump(yaml.safe_load((DATA / "endpoints/course.yaml").read_text()) | changes)


FIGURE = {"value": 1, "basis": "chosen", "source": "for this test"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            course(itl_base_ms=FIGURE | {"value": -5}),
            ["greater than or equal to 0", "itl_base_ms.value"],
        ),
        (course(slots=FIGURE | {"value": 0}), ["greater than or equal to 1", "slots.value"]),
        (course(slots=FIGURE | {"value": 1.5}), ["integer", "slots.value"]),
        (course(itl_base_ms=FIGURE | {"value": "fast"}), ["number", "itl_base_ms.value"]),
        (course(itl_base_ms={"value": 1, "basis": "chosen"}), ["source", "itl_base_ms"]),
        (course(itl_base_ms=FIGURE | {"basis": "guessed"}), ["guessed", "itl_base_ms.basis"]),
        (course(itl_bse_ms=FIGURE), ["itl_bse_ms"]),
        ("about: nothing else", ["prefill_base_ms"]),
        ("{", ["mine.yaml:1:2: ", "not YAML in UTF-8"]),
        ("", ["dictionary", "None"]),
        ("about: 2026-13-45", ["mine.yaml:1:8: ", "month must be in 1..12"]),
        (course(faults=[{"kind": "reset"}]), ["faults[0]: give either probability or calls"]),
    ],
)
def test_a_mistake_in_a_preset_names_file_and_field(text: str, words: list[str], tmp_path: Path):
    """A negative figure, a wrong type, a missing source, a misspelt field, no YAML at all."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        presets.load(str(path))
    assert all(word in str(error.value) for word in ["mine.yaml", *words])


def test_every_mistake_in_a_preset_is_named_at_once(tmp_path: Path):
    """Also inside a figure, with line and column."""
    path = tmp_path / "mine.yaml"
    path.write_text(course(about=1, slots={"value": 0, "basis": "chosen", "sorce": "for a test"}))
    with pytest.raises(FileError) as error:
        presets.load(str(path))
    lines = path.read_text().splitlines()
    named = {problem.field: lines[problem.line - 1].strip() for problem in error.value.problems}
    assert named == {
        "about": "about: 1",
        "slots": "basis: chosen",  # the first line of the figure, where `source` is missing
        "slots.value": "value: 0",
        "slots.sorce": "sorce: for a test",
    }


def test_a_preset_that_was_changed_is_read_anew(tmp_path: Path):
    """What is kept in memory is the file as it is."""
    path = tmp_path / "mine.yaml"
    for slots in (7, 11):
        path.write_text(course(slots=FIGURE | {"value": slots}))
        assert presets.load(str(path)).physics.slots == slots


def test_an_unknown_preset_lists_those_that_there_are():
    """So that a typing error is mended at once."""
    with pytest.raises(ConfigError, match="no preset 'curse'; choose one of class, course"):
        presets.load("curse")


def closed_loop(preset: str, clients: int, tokens: int = 500) -> tuple[float, float]:
    """The mean (TTFT, ITL) in seconds of `clients` that ask again whenever they are answered."""
    jobs: list[Job] = []

    async def client(live: LiveBatch, number: int) -> None:
        await asyncio.sleep(number * 0.1)
        for turn in range(9):
            job = Job(0, tokens)
            live.submit(job)
            await live.finished(job)
            if turn >= 4:  # the load is steady by then
                jobs.append(job)

    async def main() -> None:
        live = LiveBatch(presets.load(preset).physics)
        await asyncio.gather(*(client(live, number) for number in range(clients)))

    run_virtual(main())
    jobs.sort(key=lambda job: job.end_s)
    steady = jobs[: -2 * clients]  # before the first clients go home
    ttft_s = [job.first_token_s - job.arrived_s for job in steady]
    itl_s = [(job.end_s - job.first_token_s) / (tokens - 1) for job in steady]
    return statistics.mean(ttft_s), statistics.mean(itl_s)


@pytest.mark.parametrize("clients", [1, 10, 50, 100, 250])
def test_the_8b_preset_reproduces_nvidias_table(clients: int):
    """ITL 3.96 + .0445 n ms; TTFT 10.2 + 1.1 n ms up to 100; each within 15%."""
    ttft_s, itl_s = closed_loop("nim-8b", clients)
    assert itl_s == pytest.approx((3.96 + 0.0445 * clients) / 1000, rel=0.15)
    if clients <= 100:
        assert ttft_s == pytest.approx((10.2 + 1.1 * clients) / 1000, rel=0.15)


@pytest.mark.parametrize(
    ("clients", "ttft_s"), [(50, 0.8), (100, 8.0), (150, 35.0), (200, 62.0), (250, 89.0)]
)
def test_the_70b_preset_reproduces_nvidias_knee(clients: int, ttft_s: float):
    """The first token after .8, 8, 35, 62, 89 s, ITL at most 93 ms; each within 15%."""
    measured_ttft_s, itl_s = closed_loop("nim-70b-2gpu", clients)
    assert measured_ttft_s == pytest.approx(ttft_s, rel=0.15)
    assert itl_s == pytest.approx(min(0.019 + 0.000755 * clients, 0.093), rel=0.15)
