"""Presets: every figure with its source, and a clear error for every mistake."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
import yaml

from agentlab import lab
from agentlab.endpoint import presets
from agentlab.endpoint.physics.formulas import Physics
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


def test_the_laptop_preset_generates_as_fast_as_was_measured():
    """14 tokens a second, one request at a time."""
    physics = presets.load("laptop-ollama").physics
    assert 1 / physics.itl_s(1) == pytest.approx(14, rel=0.01)
    assert (physics.slots, physics.queue) == (1, 512)


def test_what_is_estimated_says_so():
    """No table of vLLM's agrees with itself, so no figure of its preset claims to be measured."""
    loaded = presets.load("vllm-1gpu")
    figures = [loaded.itl_base_ms, loaded.itl_per_active_ms, loaded.prefill_per_token_ms]
    assert {figure.basis for figure in figures} == {"estimated"}


@pytest.mark.parametrize("name", ["nim-8b", "nim-70b-2gpu"])
def test_a_fitted_preset_names_what_it_was_fitted_to_and_judged_on(name: str):
    """Shapes and errors, in words."""
    loaded = presets.load(name)
    assert "200/200" in (loaded.fitted_to or "") and "median error" in (loaded.judged_on or "")


def test_a_fitted_preset_is_written_and_read_again(tmp_path: Path):
    """To four digits, with its source."""
    physics = Physics(
        prefill_base_s=0.01, itl_base_s=0.0123456, batched_tokens=512, kv_tokens=9000, preempts=True
    )
    path = tmp_path / "mine.yaml"
    presets.save(physics, path, source="a test", about="Mine.", judged_on="nothing")
    read = presets.load(str(path))
    assert read.physics == msgspec.structs.replace(physics, itl_base_s=0.01235)
    assert (read.itl_base_ms.basis, read.judged_on) == ("fitted", "nothing")


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
        ("{", ["mine.yaml:1:2: ", "cannot read YAML in UTF-8"]),
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


def test_answers_that_reason_are_of_two_lengths(tmp_path: Path):
    """A third or so think for 200 tokens first, which take time and are counted."""
    path = tmp_path / "thinks.yaml"
    share, tokens = FIGURE | {"value": 0.33}, FIGURE | {"value": 200}
    path.write_text(course(reasoning_share=share, reasoning_tokens=tokens))

    async def ask(many: int) -> None:
        await asyncio.gather(*(lab.ask(f"Name river {n}.") for n in range(many)))

    with lab.configure(preset=str(path)):
        _, thinking = lab.simulate(ask(60))
    _, plain = lab.simulate(ask(60))
    both = list(zip(thinking.spans, plain.spans, strict=True))
    more = [a.completion_tokens - b.completion_tokens for a, b in both]
    assert set(more) == {0, 200} and 10 < more.count(200) < 30
    took = [round(a.service_s - b.service_s, 6) for a, b in both]
    assert took == [n / 10 for n in more]


def test_a_limit_leaves_no_room_for_reasoning(tmp_path: Path):
    """Who asks for at most 20 tokens gets an answer of 20, and no thoughts."""
    path = tmp_path / "thinks.yaml"
    share, tokens = FIGURE | {"value": 1}, FIGURE | {"value": 200}
    path.write_text(course(reasoning_share=share, reasoning_tokens=tokens))
    with lab.configure(preset=str(path)):
        reply, _ = lab.simulate(lab.reply("Describe river 1 in ten paragraphs.", max_tokens=20))
    assert reply.completion_tokens == 20
