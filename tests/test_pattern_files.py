"""The files of patterns: each pattern compiles, and the code and the files name the same ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import agentlab
from agentlab._support.patterns import Patterns
from agentlab.endpoint.answers._patterns import RE
from agentlab.endpoint.contract import openai_json, refused, tokens
from agentlab.endpoint.server import _forward
from agentlab.resilience import _classify
from agentlab.settings import DATA

PACKAGE = Path(agentlab.__file__).parent
ENDPOINT = PACKAGE / "endpoint"
READERS = {
    "answers": (RE, sorted((ENDPOINT / "answers").glob("*.py"))),
    "forwarded": (_forward._RE, [ENDPOINT / "server" / "_forward.py"]),
    "openai": (openai_json._RE, [ENDPOINT / "contract" / "openai_json.py"]),
    "refused": (refused._RE, [ENDPOINT / "contract" / "refused.py"]),
    "refusals": (_classify._RE, [PACKAGE / "resilience" / "_classify.py"]),
    "tokens": (tokens._RE, [ENDPOINT / "contract" / "tokens.py"]),
}


def test_every_file_has_its_reader():
    """No file of patterns is left that nobody reads."""
    assert {path.stem for path in (DATA / "patterns").glob("*.yaml")} == set(READERS)


@pytest.mark.parametrize("file", READERS)
def test_every_pattern_compiles(file: str):
    """Written out, none holds a name any more, and each is a regular expression."""
    patterns, _ = READERS[file]
    for name, written in patterns._written.items():
        if isinstance(written, dict):
            assert patterns.mapping(name) == written
        else:
            found = patterns.each(name) if isinstance(written, list) else [getattr(patterns, name)]
            assert not [each.pattern for each in found if "(?&" in each.pattern]


@pytest.mark.parametrize("file", READERS)
def test_the_code_and_the_file_name_the_same_patterns(file: str):
    """What the code asks for is there, and what is there is asked for, or part of what is."""
    patterns, paths = READERS[file]
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    asked = {*re.findall(r'\b_?RE\.(?:each|mapping)\("(\w+)"\)', code)}
    asked |= {*re.findall(r"\b_?RE\.(\w+)", code)} - {"each", "mapping"}
    if file == "answers":
        lengths = RE.mapping("lengths")
        asked |= {*lengths} | {before for _, before, _ in lengths.values() if before}
    parts = {*re.findall(r"\(\?&(\w+)\)", repr(patterns._written))}
    assert asked <= patterns._written.keys() <= asked | parts


def test_lines_are_joined_and_names_written_out(tmp_path: Path):
    """A name stands for its pattern, for the keys of a mapping, or for the patterns of a list."""
    file = tmp_path / "some.yaml"
    file.write_text(
        "counts: {one: 1, two: 2}\n"
        "many: (\\d+|(?&counts))\n"
        "rivers: |\n  (?i)(?&many)\n  [ ]rivers?\n"
        "all: ['(?&many)', '(?&lakes)']\n"
        "waters: (?i)(?&all)\n"
        "lakes: lakes?\n"
    )
    some = Patterns(file)
    assert some.rivers.pattern == r"(?i)(\d+|one|two)[ ]rivers?"
    assert [each.pattern for each in some.each("all")] == [r"(\d+|one|two)", "lakes?"]
    assert some.rivers is some.rivers
    assert some.each("all") is some.each("all")
    assert some.waters.pattern == r"(?i)(\d+|one|two)|lakes?"
    with pytest.raises(AttributeError, match="no pattern 'seas'"):
        _ = some.seas
