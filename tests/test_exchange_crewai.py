"""Crews as workflows, and workflows as scripts of CrewAI's own. On the real clock."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
import yaml

from agentlab import engines, lab
from agentlab.clock import run_virtual
from agentlab.convert import script
from agentlab.errors import ConfigError
from agentlab.trace import trace
from agentlab.workflow import Step, Workflow

pytestmark = pytest.mark.filterwarnings("ignore")  # CrewAI's and its libraries' own


@pytest.fixture(autouse=True)
def max_concurrency(fresh_lab):
    """Answers take no time: nothing here is about time."""
    with fresh_lab.configure(preset="instant"):
        yield


@pytest.fixture(scope="module")
def crewai():
    """The room, whose import takes seconds."""
    from agentlab.convert import crewai

    return crewai


def agent(role, *, llm=None, **options):
    from crewai import Agent

    llm = llm or {"temperature": 0, "max_tokens": 40}
    plain = {"goal": "Tell what matters", "backstory": 'You write {"json": 1} at times.'}
    return Agent(
        **(plain | options), role=role, llm=lab.crew_llm(agent=role, **llm), max_retry_limit=0
    )


def task(description, **options):
    from crewai import Task

    return Task(description=description, **({"expected_output": "A paragraph"} | options))


def crew_of(*tasks, **options):
    from crewai import Crew

    return Crew(agents=[one.agent for one in tasks if one.agent], tasks=list(tasks), **options)


def mixed():
    """Tasks at once, some with a context of their own, some with CrewAI's default."""
    notes = task('Describe {topic} as JSON {"a": 1}.', agent=agent("Senior Writer"))
    notes.async_execution = True
    costs = task("What does {topic} cost?", agent=agent("Costs"), async_execution=True, context=[])
    report = task("Sum up.", agent=agent("Editor"), name="report", context=[costs, notes])
    short = task("Say it in a line.", agent=agent("Senior-Writer"), expected_output="{words} words")
    alone = task("Name a river.", agent=agent("Costs of {{"), context=[])
    return crew_of(notes, costs, report, short, alone, name="mixed")


# From a crew


def test_a_crew_read_as_a_workflow_asks_the_same_words(crewai):
    """To the byte: answers of the crew and of an engine are equal, and so are all tokens."""
    given = {"topic": "tides", "words": "nine"}
    read = crewai.load(mixed())
    with trace() as crews:
        output = asyncio.run(mixed().akickoff(inputs=given))
    with trace() as steps:
        results = asyncio.run(engines.run(read, given))
    assert list(results.values()) == [one.raw for one in output.tasks_output]
    assert steps.requests == crews.requests == 5
    assert sorted(span.prompt_tokens for span in steps.spans) == sorted(
        span.prompt_tokens for span in crews.spans
    )


def capturing(sent):
    """An LLM that keeps the messages which CrewAI sends, and answers in a line."""
    from crewai import BaseLLM

    class Capturing(BaseLLM):
        def call(self, messages, *args, **options):
            sent.append([(message["role"], message["content"]) for message in messages])
            return " So it is.\n"

        async def acall(self, messages, *args, **options):
            return self.call(messages)

    return Capturing(model="none", temperature=0)


def of_two(llm, fields):
    """A crew of two tasks with these five fields; the second is given the first's answer."""
    from crewai import Agent, Crew, Task

    role, goal, backstory, description, expected_output = fields
    tasks = []
    for _ in range(2):
        one = Agent(role=role, goal=goal, backstory=backstory, llm=llm, max_retry_limit=0)
        given = {"description": description, "expected_output": expected_output}
        tasks.append(Task(**given, agent=one, context=list(tasks)))
    return Crew(agents=[task.agent for task in tasks], tasks=tasks)


def both_ask(crewai, fields, inputs):
    """What CrewAI sends for such a crew, and what the workflow read from it asks."""
    sent, asked = [], []
    llm = capturing(sent)
    of_two(llm, fields).kickoff(inputs=inputs)

    async def ask(prompt, *, system=None, **options):
        asked.append([("system", system), ("user", prompt)])
        return " So it is.\n"

    read = crewai.load(of_two(llm, fields))
    asyncio.run(engines.run(read, {name: inputs[name] for name in read.inputs}, ask=ask))
    return sent, asked


FORMS = [
    "{}\n", "{}\n\n\n", "  {}", "\n{}", "{}\nmore", "{}\r\nmore\r\n", "\t{}\t", "\xa0{}\xa0",
    "{}\u3000", "{}\x1f", "{}\u200b", "\ufeff{}", "{}  \n  ", '{} {{"a": 1}}\n', "{} {{}} \n", "{}",
]  # fmt: skip
FIELDS = ["Writer", "Tell it", "You write", "Of {topic}", "A line"]


@pytest.mark.parametrize("form", FORMS)
def test_white_space_is_sent_as_crewai_sends_it(crewai, form):
    """Of all five fields, byte by byte: kept inside of a message, and cut at its end."""
    fields = [form.format(text) for text in FIELDS]
    sent, asked = both_ask(crewai, fields, {"topic": 'tides {"high": 1}\n'})
    assert len(sent) == 2
    assert asked == sent


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("text", ["", " ", "\n"], ids=["empty", "blank", "newline"])
def test_a_field_without_words_is_sent_as_crewai_sends_it(crewai, place, text):
    """A goal of white space alone leaves the blank before it at the end of the message."""
    fields = [text if n == place else word for n, word in enumerate(FIELDS)]
    sent, asked = both_ask(crewai, fields, {"topic": "tides"})
    assert asked == sent


IN_YAML = """
role: >
  Senior writer
goal: >
  Tell what matters about the sea,
  and nothing else
backstory: |
  You write:
    - short sentences
description: >+
  Describe {topic}.

expected_output: |
  A post with
  ## a heading
"""


def test_a_crew_from_yaml_blocks_asks_the_same_words(crewai):
    """As public crews are written: each block leaves a line break at its end."""
    fields = yaml.safe_load(IN_YAML)
    assert all(text.endswith("\n") for text in fields.values())
    sent, asked = both_ask(crewai, fields.values(), {"topic": "tides"})
    assert asked == sent
    assert asked[0][0][1].endswith("and nothing else")


def test_a_file_that_a_task_writes_is_left_out(crewai):
    """It changes no question; nor does what CrewAI prints as it runs."""
    plain = crewai.load(crew_of(task("Of {topic}", agent=agent("a"))))
    loud = crew_of(task("Of {topic}", agent=agent("a", verbose=True), output_file="{topic}.md"))
    loud.verbose = True
    assert crewai.load(loud).steps == plain.steps


def test_what_needs_what_follows_from_the_contexts(crewai):
    """Those given, in their order; else all tasks before, but none for an asynchronous one."""
    read = crewai.load(mixed())
    assert read.needs == {
        "Senior_Writer": (),
        "Costs": (),
        "report": ("Costs", "Senior_Writer"),
        "task_4": ("Senior_Writer", "Costs", "report"),
        "Costs_of": (),
    }
    assert (read.name, set(read.inputs)) == ("mixed", {"topic", "words"})
    assert {step.max_tokens for step in read.steps} == {40}


def test_a_crew_that_has_run_is_read_as_it_was_written(crewai):
    """A run fills inputs in; the workflow has the names."""
    crew = mixed()
    before = crewai.load(crew)
    asyncio.run(crew.akickoff(inputs={"topic": "tides", "words": "nine"}))
    assert crewai.load(crew).steps == before.steps


def test_a_step_never_has_the_name_of_an_input(crewai):
    """Else a prompt would mean the other."""
    read = crewai.load(crew_of(task("Describe {topic}.", agent=agent("topic"))))
    assert (read.inputs, [step.name for step in read.steps]) == (("topic",), ["task_1"])


def hierarchical():
    from crewai import Process

    return crew_of(task("x"), process=Process.hierarchical, manager_llm=lab.crew_llm())


def conditional():
    from crewai.tasks.conditional_task import ConditionalTask

    maybe = ConditionalTask(
        description="y", expected_output="z", agent=agent("b"), condition=lambda output: True
    )
    return crew_of(task("x", agent=agent("a")), maybe)


def with_tool():
    from crewai.tools import BaseTool

    class Clock(BaseTool):
        name: str = "clock"
        description: str = "Tells the time."

        def _run(self) -> str:
            return "noon"

    return Clock()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (hierarchical, "the crew has process=<Process.hier"),
        (conditional, "task 'b' has condition="),
        (lambda: crew_of(task("x", agent=agent("a", tools=[with_tool()]))), "'a' has tools="),
        (lambda: crew_of(task("x", agent=agent("a"), tools=[with_tool()])), "task 'a' has tools="),
        (lambda: crew_of(task("x", agent=agent("a", allow_delegation=True))), "allow_delegation"),
        (lambda: crew_of(task("x", agent=agent("a", inject_date=True))), "has inject_date=True"),
        (lambda: crew_of(task("x", agent=agent("a"), markdown=True)), "task 'a' has markdown=True"),
        (lambda: crew_of(task("x", agent=agent("a"), human_input=True)), "has human_input=True"),
        (
            lambda: crew_of(task("x", agent=agent("a"), guardrail=lambda output: (True, output))),
            "task 'a' has guardrail=",
        ),
        (lambda: crew_of(task("x", agent=agent("a")), planning=True), "the crew has planning=True"),
        (
            lambda: crew_of(task("x", agent=agent("a")), task_callback=print),
            "the crew has task_callback=",
        ),
        (
            lambda: crew_of(task("x", agent=agent("a", llm={"top_p": 0.5}))),
            "LLM of the agent 'a' has top_p=0.5",
        ),
        (
            lambda: crew_of(task("x", agent=agent("a", backstory="A {topic} expert"))),
            "agent 'a' has the input 'topic' in role, goal or backstory",
        ),
        (
            lambda: crew_of(task("Of {the-topic}", agent=agent("a"))),
            r"\{the-topic\} is not the name of a step or an input",
        ),
        (
            lambda: crew_of(task("x", agent=agent("a"), context=[task("y", agent=agent("b"))])),
            "takes the answer of a task that is not in the crew",
        ),
    ],
)
def test_what_no_workflow_says_is_refused(crewai, made, says):
    """The error names what was met; nothing is left out in silence."""
    with pytest.raises(ConfigError, match=says):
        crewai.load(made())


# Scripts

AWKWARD = Workflow(
    [
        Step("연구", 'Say "why" of {topic},\nin C:\\new\\lines and {{"a": 1}}.', max_tokens=20),
        Step("state", 'Name a river,\nand quote it: "', max_tokens=20),
        Step("last", 'Join {연구} and """{state}""".\n', system="You are\n'terse'.", max_tokens=20),
    ],
    inputs=["topic"],
)


@pytest.fixture
def connected(monkeypatch, tmp_path):
    """The environment by which a script finds the lab's endpoint."""
    known = {
        "OPENAI_BASE_URL": lab.base_url(),
        "OPENAI_API_KEY": lab.api_key(),
        "CREWAI_STORAGE_DIR": str(tmp_path),
        "HOME": str(tmp_path),
    }
    for name, value in known.items():
        monkeypatch.setenv(name, value)


def test_a_flow_script_answers_as_the_engines_do(connected, tmp_path):
    """Without Agent Lab, in a process of its own: equal answers, one request a step."""
    written = script.crewai(AWKWARD)
    assert "agentlab" not in written
    (tmp_path / "script.py").write_text(written, encoding="utf-8")
    with trace() as t:
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "script.py", "topic=tides"],
            cwd=tmp_path,
            capture_output=True,
            timeout=180,
        )
    assert run.returncode == 0, run.stderr.decode()
    assert json.loads(run.stdout) == run_virtual(engines.run(AWKWARD, {"topic": "tides"})).result
    assert t.requests == 3
