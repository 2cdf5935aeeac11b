"""Workflow files: what is wrong, and where; the published schema; any text is read as it stands."""

from __future__ import annotations

import json
import re
from graphlib import CycleError, TopologicalSorter

import jsonschema_rs
import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from agentlab import workflow
from agentlab._support.yaml_file import LocatedFile
from agentlab.commands.main import main
from agentlab.errors import ConfigError, FileError
from agentlab.settings import DATA
from agentlab.workflow import Step, Workflow, random_workflow
from agentlab.workflow._workflow import WorkflowFile

WORKFLOWS = DATA / "workflows"
SCHEMA = json.loads((WORKFLOWS / "schema.json").read_text())
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)


@pytest.fixture
def written(tmp_path):
    """Writes a text, or bytes, to a file; returns its path."""
    path = tmp_path / "mine.yaml"

    def write(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def problems(path):
    """Line, column, field and message of each problem in a file."""
    with pytest.raises(FileError) as caught:
        Workflow.load(path)
    return [tuple(problem) for problem in caught.value.problems]


SHAPE = """\
about: ''
input: [topic]
steps:
  - name: research
    promt: What is {topic}?
    max_tokens: many
  - name: two words
    prompt: Hello.
  - prompt: 3
    name: yes
    temperature: 3
  - just text
  - name: last
    prompt: |-
      A line,
      and {a brace.
"""


def test_every_wrong_field_is_named_with_its_place(written):
    """All that is wrong with a file's fields is said at once, each with line and column."""
    assert [problem[:3] for problem in problems(written(SHAPE))] == [
        (1, 8, "about"),
        (2, 1, "input"),
        (4, 5, "steps[0]"),
        (5, 5, "steps[0].promt"),
        (6, 17, "steps[0].max_tokens"),
        (7, 11, "steps[1].name"),
        (9, 13, "steps[2].prompt"),
        (10, 11, "steps[2].name"),
        (11, 18, "steps[2].temperature"),
        (12, 5, "steps[3]"),
        (14, 13, "steps[4].prompt"),
    ]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (1, r"no such field; did you mean `inputs`\?"),
        (2, "`prompt` is missing; add it"),
        (4, "should be a valid integer; got 'many'"),
        (5, "step 'two words'"),
        (7, "should be a valid string; got True"),
        (8, "should be less than or equal to 2; got 3"),
        (10, r"write \{name\} for what is to be filled in"),
    ],
)
def test_each_problem_says_the_way_out(written, number, says):
    """What is wrong, the value, and what to do."""
    assert re.search(says, problems(written(SHAPE))[number][3])


def test_a_key_that_yaml_reads_as_no_text_is_named_as_written(written):
    """YAML makes True of `yes`, and False of `off`."""
    text = SHAPE.replace("input:", "yes:", 1).replace("promt:", "off:", 1)
    named = [problem[:3] for problem in problems(written(text))]
    assert {(2, 1, "yes"), (5, 5, "steps[0].off")} <= set(named)


GRAPH = """\
about: A report.
inputs: [topic, data, topic]
steps:
  - name: research
    prompt: What is {topic}?
  - name: analysis
    prompt: |-
      Two lines before it names
      the wrong step, {{reserch}}:
      > {reserch} and {topic}
  - name: research
    prompt: "Once \\t more: {writer}"
  - name: topic
    prompt: Hello.
"""


def test_every_wrong_name_is_found_where_it_stands(written):
    """Names without a meaning are found at the prompts that have them."""
    found = problems(written(GRAPH))
    assert [problem[:3] for problem in found] == [
        (2, 17, "inputs[1]"),
        (2, 23, "inputs[2]"),
        (7, 13, "steps[1].prompt"),
        (11, 11, "steps[2].name"),
        (12, 13, "steps[2].prompt"),
        (13, 11, "steps[3].name"),
    ]
    assert "'reserch', which is no step and no input; there are 'research'," in found[2][3]


def test_names_are_checked_when_the_fields_are_right(written):
    """A step that cannot be read is no reason to blame the steps that name it."""
    text = "about: x\nsteps: [{nam: b, prompt: x}, {name: a, prompt: 'Of {b}'}]"
    assert [problem[2] for problem in problems(written(text))] == ["steps[0]", "steps[0].nam"]


def test_a_circle_is_found_at_one_of_its_prompts(written):
    """With the whole circle in the message."""
    steps = [("a", "{c}"), ("b", "Of {a}."), ("c", "{b}"), ("d", "{a}")]
    text = yaml.safe_dump(
        {"about": "x", "steps": [{"name": n, "prompt": p} for n, p in steps]}, sort_keys=False
    )
    [(line, column, field, says)] = problems(written(text))
    circle = re.search(r"forever: (.+);", says)[1].split(" -> ")
    assert len(circle) == 4 and circle[0] == circle[-1]
    assert set(circle) == set("abc")
    prompt = steps["abc".index(circle[0])][1]
    assert text.splitlines()[line - 1][column - 1 :].strip("'") == prompt
    assert field == f"steps[{'abc'.index(circle[0])}].prompt"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("about: x\nsteps: [", (2, 9), "cannot read YAML in UTF-8"),
        ("about: x\n  steps: 3", (2, 8), "mapping values are not allowed here"),
        ("about: x\nsteps:\n\t- name: a", (3, 1), "cannot start any token"),
        ("about: *who", (1, 8), "undefined alias"),
        ("about: x\n---\nabout: y", (2, 1), "expected a single document"),
        ("about: x\nabout: y", (2, 1), "`about` is given twice"),
        ("about: x\nsteps:\n- name: a\n  prompt: b\n  name: c", (5, 3), "`name` is given twice"),
        (b"about: x\nsteps: caf\xe9", (2, 11), "UTF-8: special characters are not allowed"),
        ("about: x\nsteps: a\x00b", (2, 9), "special characters are not allowed"),
        ("about: 2024-13-45", (1, 8), "month must be in 1..12"),
        ("", (1, 1), "an instance of WorkflowFile; got None"),
        ("[]", (1, 1), "an instance of WorkflowFile; got []"),
        ("about: x\nsteps: []", (2, 8), "at least 1 item"),
        ("about: x\nsteps: &all\n- *all", (2, 8), "an instance of Step; got [["),
        (
            "about: x\nsteps: " + "[" * 2000,
            (1, 1),
            "cannot read YAML in UTF-8: maximum recursion",
        ),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_no_yaml_is_found(written, text, place, says):
    """Syntax, double keys, encodings and strange documents are problems with a place, too."""
    [(line, column, _, said)] = problems(written(text))
    assert (line, column) == place
    assert says in said


def test_a_file_that_is_not_there_or_too_long_is_named(tmp_path):
    """What is wrong with a file is not said of its text; a long one is refused unread."""
    with pytest.raises(ConfigError, match=r"UTF-8: No such file or directory$"):
        LocatedFile(tmp_path / "nope.yaml", what="plan")
    (tmp_path / "long.yaml").write_text("workloads:\n" + "- {agents: 3}\n" * 200_000)
    with pytest.raises(ConfigError, match="more than 2,000,000 bytes; shorten or split it"):
        LocatedFile(tmp_path / "long.yaml", what="experiment")


def test_one_problem_takes_one_line(written):
    """As a compiler would write it, so that editors and terminals lead to the place."""
    path = written("about: x\nsteps: [{name: a, prompt: '{b}'}]")
    with pytest.raises(ConfigError) as caught:
        Workflow.load(path)
    assert str(caught.value) == (
        f"workflow {path}:2:27: steps[0].prompt: step 'a' needs 'b', which is no step and no "
        "input; there are 'a'"
    )


def test_what_is_merged_in_is_checked_too(written):
    """YAML's anchors and merge keys work, and a wrong value is found where it was written."""
    text = "about: x\nsteps:\n- &a {name: a, prompt: hello, max_tokens: 3}\n- {<<: *a, name: b}"
    assert Workflow.load(written(text)).step("b").max_tokens == 3
    found = problems(written(text.replace("3}", "0}")))
    assert [problem[:3] for problem in found] == [
        (3, 43, "steps[0].max_tokens"),
        (3, 43, "steps[1].max_tokens"),
    ]


def test_a_byte_order_mark_and_other_line_ends_are_no_problem(written):
    """As Windows' editors write files."""
    text = "\ufeffabout: x\r\nsteps:\r\n- name: a\r\n  prompt: |-\r\n    b\r\n    c\r\n"
    assert Workflow.load(written(text)).steps == (Step("a", "b\nc"),)


# The schema


def test_the_schema_is_that_of_the_models():
    """It is a valid JSON Schema, says what steps and files are, and follows from what is read."""
    jsonschema_rs.meta.validate(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "max_tokens: The most tokens" in SCHEMA["$defs"]["Step"]["description"]
    made = TypeAdapter(WorkflowFile).json_schema()  # to be written there when it changes
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": "urn:agentlab:workflow"}
    assert head | made == SCHEMA


@pytest.mark.parametrize("name", workflow.names())
def test_the_courses_files_fit_the_schema(name):
    """And name it, so that an editor checks them."""
    text = (WORKFLOWS / f"{name}.yaml").read_text()
    assert VALIDATOR.is_valid(yaml.safe_load(text))
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


NAMES = st.sampled_from(
    ["a", "b", "c", "topic", "연구", "_", "a1", "ﬁn", "1a", "two words", "a-b", ""]
)
PROMPTS = "x|{a}|{b} {{c}}|{topic}|{연구}\n{a}|{|}|}}|{}|{a.b}|{a!r}|{{a}|{{{a}}}|{a:}|{a:>3}|{a b}"
TEXTS = st.sampled_from([*PROMPTS.split("|"), "", "{0}", "{1a}", "\n", "null"])
WRONG = st.sampled_from([None, True, 0, -1, 1, 2.5, 2.0, "x", "", [], {}, ["a"], {"name": "a"}])
STEPS = st.fixed_dictionaries(
    {"name": NAMES, "prompt": TEXTS},
    optional={
        "system": TEXTS | st.none(),
        "max_tokens": st.sampled_from([1, 2, 0, -1, None, 1.5, "3"]),
        "temperature": st.sampled_from([0, 0.0, 1, 2.0, 2.1, -0.1, None, "0"]),
        "tools": st.sampled_from([[], ["search"], ["a", "b_2"], ["a b"], ["1"], [""], ["a", "a"]])
        | st.none(),
        "max_turns": st.sampled_from([1, 0, None, "3"]),
        "agent": WRONG,
    },
)
FILES = st.fixed_dictionaries(
    {"about": st.just("x") | TEXTS, "steps": st.lists(STEPS | WRONG, max_size=4)},
    optional={"inputs": st.lists(NAMES, max_size=3) | WRONG, "version": WRONG},
)


def written_out(step):
    """A step of a file, without tools."""
    fields = ("name", "prompt", "system", "max_tokens", "temperature")
    return {field: getattr(step, field) for field in fields}


@st.composite
def mutated(draw):
    """A right file in which a few values were replaced, removed or added."""
    w = random_workflow(draw(st.integers(0, 99)), most=4)
    file = {"about": "x", "inputs": [], "steps": [written_out(step) for step in w.steps]}
    for _ in range(draw(st.integers(0, 2))):
        part = draw(st.sampled_from([file, *(s for s in file["steps"] if isinstance(s, dict))]))
        key = draw(st.sampled_from([*part, "inputs", "system", "nonsense"]))
        if draw(st.booleans()):
            part.pop(key, None)
        else:
            part[key] = draw(WRONG | TEXTS)
        if not isinstance(file.get("steps"), list):
            break
    return file


def makes_a_graph(file):
    """What no schema can say, found without the loader: names that fit, and no circle."""
    steps, inputs = file["steps"], file.get("inputs", [])
    names = [step["name"] for step in steps]
    needs = {}
    for step in steps:
        plain = step["prompt"].replace("{{", "").replace("}}", "")
        needs[step["name"]] = set(re.findall(r"\{(\w+):?\}", plain))
    mentioned = set().union(*needs.values())
    if len({*names, *inputs}) < len(names) + len(inputs):
        return False
    if not set(inputs) <= mentioned <= {*names, *inputs}:
        return False
    try:
        TopologicalSorter({name: needs[name] - set(inputs) for name in names}).prepare()
    except CycleError:
        return False
    return True


def _has_a_whole_float(steps):
    limits = [step.get("max_tokens") for step in steps if isinstance(step, dict)]
    return any(isinstance(limit, float) and limit.is_integer() for limit in limits)


@settings(max_examples=300)
@given(FILES | mutated())
@example(
    {"about": "x", "steps": [{"name": "a", "prompt": "{{{b}}}"}, {"name": "b", "prompt": "x"}]}
)
@example({"about": "x", "steps": [{"name": "a", "prompt": "x", "max_tokens": True}]})
def test_schema_and_loader_agree(tmp_path_factory, file):
    """Of good and bad files the loader takes those that fit the schema and make a graph.

    But for 2.0, which to a JSON Schema is an integer, and to a loader that keeps YAML's types not.
    """
    steps = file.get("steps")
    assume(not (isinstance(steps, list) and _has_a_whole_float(steps)))
    path = tmp_path_factory.getbasetemp() / "agree.yaml"
    path.write_text(yaml.safe_dump(file, allow_unicode=True), encoding="utf-8")
    fits = VALIDATOR.is_valid(file)
    try:
        Workflow.load(str(path))
        loaded = True
    except FileError:
        loaded = False
    assert loaded == (fits and makes_a_graph(file))


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t\r'\"#:-|>\x85")
)


@settings(max_examples=200)
@given(
    text=ANY_TEXT.filter(bool),
    system=ANY_TEXT | st.none(),
    temperature=st.floats(0, 2) | st.none(),
    max_tokens=st.integers(1, 10**9) | st.none(),
)
@example(text="\n  a\n b", system=" x\n", temperature=1e-05, max_tokens=1)
@example(text="a \nb", system="yes", temperature=None, max_tokens=None)
@example(text="a\x85b", system="\x85", temperature=None, max_tokens=None)
@example(text="\ta\n", system="", temperature=0.0, max_tokens=None)
def test_any_text_is_read(tmp_path_factory, text, system, temperature, max_tokens):
    """Whatever a prompt holds, and to the last bit of a number."""
    prompt = text.replace("{", "{{").replace("}", "}}")
    step = Step("a", prompt, system=system, temperature=temperature, max_tokens=max_tokens)
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(yaml.safe_dump({"about": "x", "steps": [written_out(step)]}))
    assert Workflow.load(str(path)).steps == (step,)


# The command


def test_check_names_all_and_fails(written, capsys):
    """Right files get a line, wrong ones their problems, and the exit code is 1."""
    assert main(["workflow", "check", "report", "blog"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "report: right; steps: 3, inputs: 'topic', 'data'",
        "blog: right; steps: 4, inputs: 'topic'",
    ]
    assert main(["workflow", "check", written(GRAPH), "report", "raport"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "workflow file with 6 problems:"
    assert lines[7].startswith("report: right")
    assert lines[8].startswith("no workflow 'raport'")
