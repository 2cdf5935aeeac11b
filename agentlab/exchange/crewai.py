"""A crew as a workflow, and a workflow as a crew, or as a script of CrewAI's own.

A crew asks in words of its own: CrewAI puts a role before each question, an expectation behind it,
and the answers that a task needs at its end, without their names.

- From a crew to a workflow nothing is lost: its steps ask the very words that CrewAI would send.
- From a workflow to a crew the questions are the same, their wording is not: where a prompt names
  a step, the crew's says `[text 1 of the context]`. So the answers are others. The way back finds
  the prompts again, to the letter.
- As a Flow (`engines.crewai.flow`, `flow_script`) a workflow asks in its own words.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Callable, Iterator
from string import Formatter, Template
from typing import Any, NamedTuple

# isort: off
from agentlab import crews  # noqa: F401 (before CrewAI, which it makes silent)
from crewai import Agent, BaseLLM, Crew, Process, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.tasks.conditional_task import ConditionalTask
from crewai.utilities.constants import NOT_SPECIFIED
from crewai.utilities.formatter import DIVIDERS
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import format_message_for_llm
# isort: on

from agentlab import lab
from agentlab.errors import ConfigError
from agentlab.exchange import source
from agentlab.graph import listed
from agentlab.step import Step
from agentlab.workflow import Workflow

GOAL = "Answer what the task asks."
BACKSTORY = "You do one of several tasks."
EXPECTED = "The answer to the task, and nothing else."

_TEXT = re.compile(r"\[text (\d+) of the context\]")
_FILLED_IN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")  # what CrewAI replaces by an input
_RESERVED = {"crewai_trigger_payload", "crew_chat_messages"}  # inputs that mean something to it


class Place(NamedTuple):
    """A step's place in a crew's row."""

    step: Step
    async_execution: bool


def row(workflow: Workflow) -> list[Place]:
    """The steps in a row of tasks in which what may run at once does, as far as a crew's rules let.

    A crew starts its asynchronous tasks one behind the other; a synchronous one waits for all of
    them, and then runs alone. An asynchronous task cannot use another's answer before a synchronous
    one has stood between them, and the crew must not end with two of them. So of each level of the
    graph one step runs alone.

    Example:
        >>> [place.async_execution for place in row(Workflow.load("report"))]
        [True, True, False]
    """
    waiting = {step.name: step for step in workflow.steps}
    ended: set[str] = set()
    places: list[Place] = []
    while waiting:
        ready = [s for s in waiting.values() if ended.issuperset(workflow.needs[s.name])]
        freed = ended | {step.name for step in ready}
        after = [
            step
            for step in waiting.values()
            if step not in ready and freed.issuperset(workflow.needs[step.name])
        ]
        # Several start at once, and behind them runs the first step that they make possible.
        alone = after[0] if after and len(ready) > 1 else ready.pop()
        places += [Place(step, True) for step in ready]
        places.append(Place(alone, False))
        ended |= {step.name for step in (*ready, alone)}
        waiting = {name: step for name, step in waiting.items() if name not in ended}
    return places


def crew(workflow: Workflow, *, llm: Callable[[Step], BaseLLM] | None = None) -> Crew:
    """The workflow as a crew: an agent and a task a step, in a `row`.

    Args:
        llm: Makes the LLM of a step's agent; `lab.crew_llm` with the step's settings, unless given.

    Raises:
        ConfigError: If CrewAI would fill in something else than the workflow: it knows only names
            of ASCII letters, and fills in `{words}` that were meant as they stand.

    Example:
        report = crew(Workflow.load("report"))
        output = await report.akickoff(inputs={"topic": "tides", "data": "heights"})
        output.raw, output.tasks_output
    """
    make = llm or _lab_llm
    tasks: dict[str, Task] = {}
    agents: list[BaseAgent] = []
    for step, async_execution in row(workflow):
        words = _words(workflow, step)
        agents.append(
            Agent(
                role=words.role,
                goal=GOAL,
                backstory=words.backstory,
                llm=make(step),
                max_retry_limit=0,
                allow_delegation=False,
            )
        )
        tasks[step.name] = Task(
            name=step.name,
            description=words.description,
            expected_output=EXPECTED,
            agent=agents[-1],
            context=[tasks[need] for need in workflow.needs[step.name]],
            async_execution=async_execution,
        )
    return Crew(name=workflow.name, agents=agents, tasks=list(tasks.values()))


def load(crew: Crew, *, name: str | None = None) -> Workflow:
    """Read a crew: a step a task, which asks in the words that CrewAI would send.

    A task that `crew` made becomes the step that it was. The names are the tasks', or their agents'
    roles; `{names}` in a description are the workflow's inputs. What CrewAI (1.15) does to words
    that come later, a workflow does not do: it fills in inputs inside of other inputs' values, and
    cuts `{tools}` from them and a "Final Answer:" from answers. A file that a task writes is left
    out, with a warning: the workflow's results have its text.

    Args:
        name: What the workflow is called; as the crew, unless given.

    Raises:
        ConfigError: If a crew has what no workflow has, such as a manager, tools, memory or
            guardrails, naming it.

    Example:
        report = Crew(agents=[writer, editor], tasks=[draft, edited])
        await engines.run(load(report), {"topic": "tides"})
    """
    if crew.process != Process.sequential:
        raise ConfigError(
            f"the crew's process is {crew.process.value}: its manager decides who is asked what; "
            "a workflow's steps are known before it runs, so only a sequential crew can be read"
        )
    _check_plain(crew, "the crew", _OF_CREW)
    names = _names(crew)
    steps = [_step(crew, number, names) for number in range(len(crew.tasks))]
    inputs = dict.fromkeys(n for step in steps for n in step.mentions if n not in names)
    return Workflow(steps, inputs=list(inputs), name=name or crew.name or "crew")


# To a crew


class _Words(NamedTuple):
    role: str
    backstory: str
    description: str


def _words(workflow: Workflow, step: Step) -> _Words:
    """A step in a crew's words."""
    needs = workflow.needs[step.name]
    parts, filled_in = [], []
    for literal, name, _, _ in Formatter().parse(step.prompt):
        if taken := _TEXT.search(literal):
            raise ConfigError(
                f"the prompt of step {step.name!r} has {taken[0]!r}, which is how a crew is told "
                "where an answer belongs; word it differently"
            )
        parts.append(literal)
        if name in needs:
            parts.append(f"[text {needs.index(name) + 1} of the context]")
        elif name is not None:
            parts.append(f"{{{name}}}")
            filled_in.append(name)
    words = _Words(step.name, BACKSTORY if step.system is None else step.system, "".join(parts))
    if bad := [name for name in filled_in if not name.isascii() or name in _RESERVED]:
        raise ConfigError(
            f"the input {listed(bad)} of step {step.name!r} cannot be a crew's: CrewAI fills in "
            "names of ASCII letters, and some mean something of its own; rename it"
        )
    if _FILLED_IN.findall(words.description) != filled_in or _FILLED_IN.search(words.backstory):
        raise ConfigError(
            f"step {step.name!r} has a word in braces that is to stand as it is; CrewAI would take "
            "it for an input, so write it without braces"
        )
    return words


def _lab_llm(step: Step) -> BaseLLM:
    return lab.crew_llm(agent=step.name, max_tokens=step.max_tokens, temperature=step.temperature)


# From a crew. What is not in these lists, of a crew, a task or an agent, must be as CrewAI makes it
# when nobody says otherwise: fields that are yet to come are thereby refused, not ignored.

_COMMON = {"id", "name", "security_config", "entity_type", "verbose", "cache", "checkpoint"}
_RUN = {"usage_metrics", "token_usage", "execution_logs", "used_tools", "tools_errors", "output"}
_RUN |= {"delegations", "prompt_context", "processed_by_agents", "retry_count", "start_time"}
_RUN |= {"end_time", "agent_executor", "crew", "cache_handler", "tools_handler", "tools_results"}
_OF_CREW = _COMMON | _RUN | {"tasks", "agents", "process", "max_rpm", "share_crew", "tracing"}
_OF_TASK = _COMMON | _RUN | {"description", "expected_output", "agent", "context"}
_OF_TASK |= {"async_execution", "output_file", "create_directory", "guardrail_max_retries"}
_OF_AGENT = _COMMON | _RUN | {"role", "goal", "backstory", "llm", "max_rpm", "max_retry_limit"}
_OF_AGENT |= {"i18n", "max_iter", "executor_class"}
_OF_LLM = {"llm_type", "model", "temperature", "max_tokens", "max_completion_tokens", "stream"}
_OF_LLM |= {"api_key", "base_url", "api_base", "provider", "organization", "project", "timeout"}
_OF_LLM |= {"max_retries", "default_headers", "default_query", "is_o1_model", "is_gpt4_model"}


def _check_plain(part: Any, what: str, known: set[str]) -> None:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        plain = field.get_default(call_default_factory=True)
        if name not in known and value != plain and (value or plain):
            raise ConfigError(
                f"{what} has {name}={reprlib.repr(value)}, which a workflow does not know; take it "
                "away, or keep the crew"
            )


def _names(crew: Crew) -> list[str]:
    """A name for each task, which no other task and no input has."""
    taken = {name for task in crew.tasks for name in _FILLED_IN.findall(_description(task))}
    names: list[str] = []
    for number, task in enumerate(crew.tasks, start=1):
        word = task.name or str(getattr(task.agent, "role", ""))
        if not word.isidentifier():
            word = re.sub(r"\W+", "_", word).strip("_")
        first = word if word.isidentifier() else f"task_{number}"
        free = (f"{first}_{n}" if n > 1 else first for n in range(1, len(taken) + 2))
        names.append(next(name for name in free if name not in taken))
        taken.add(names[-1])
    return names


def _step(crew: Crew, number: int, names: list[str]) -> Step:
    task = crew.tasks[number]
    what = f"task {names[number]!r}"
    if isinstance(task, ConditionalTask):
        raise ConfigError(f"{what} is conditional; a workflow asks all of its steps")
    _check_plain(task, what, _OF_TASK)
    if task.output_file:
        warnings.warn(
            f"{what} writes to {task.output_file!r}, and a workflow writes no file; its results "
            "have the text",
            stacklevel=3,
        )
    agent = _agent(task, what)
    needs = [names[place] for place in _context(crew, number, what)]
    made_here = agent.goal == GOAL and task.expected_output == EXPECTED
    prompt = (_asked_here if made_here else _asked_by_crewai)(task, needs)
    if bad := [n for n in _FILLED_IN.findall(prompt) if not n.isidentifier()]:
        raise ConfigError(f"{what} has the input {listed(bad)}; a name is one word, without dashes")
    return Step(
        names[number],
        prompt,
        system=_system(agent, made_here=made_here),
        max_tokens=getattr(agent.llm, "max_tokens", None)
        or getattr(agent.llm, "max_completion_tokens", None),
        temperature=agent.llm.temperature,
    )


def _agent(task: Task, what: str) -> Any:
    agent: Any = task.agent
    if not isinstance(agent, Agent):
        raise ConfigError(f"{what} has no agent of CrewAI's own kind; got {type(agent).__name__}")
    whose = f"the agent {agent.role!r}"
    _check_plain(agent, whose, _OF_AGENT)
    _check_plain(agent.llm, f"the LLM of {whose}", _OF_LLM)
    role, goal, backstory = _self(agent)
    if filled_in := _FILLED_IN.findall(role + goal + backstory):
        raise ConfigError(
            f"{whose} has the input {listed(filled_in)} in role, goal or backstory; a step's "
            "system message takes none, so move it into the task"
        )
    return agent


def _self(agent: Any) -> tuple[str, str, str]:
    """Role, goal and backstory as written, before a run filled something in."""
    return (
        agent._original_role or agent.role,
        agent._original_goal or agent.goal,
        agent._original_backstory or agent.backstory,
    )


def _context(crew: Crew, number: int, what: str) -> list[int]:
    """The numbers of the tasks whose answers a task is given."""
    task = crew.tasks[number]
    if task.context is NOT_SPECIFIED:  # all before it, but an asynchronous one is given none
        return [] if task.async_execution else list(range(number))
    places = {id(other): place for place, other in enumerate(crew.tasks)}
    context: Any = task.context or []
    if any(id(other) not in places for other in context):
        raise ConfigError(f"{what} takes the answer of a task that is not in the crew; add it")
    return [places[id(other)] for other in context]


def _description(task: Task) -> str:
    text: str = task._original_description or task.description
    return text


def _asked_here(task: Task, needs: list[str]) -> str:
    """The prompt that `_words` made a description of."""
    parts: list[str] = []
    for number, text in enumerate(_TEXT.split(_description(task))):
        parts.append(f"{{{needs[int(text) - 1]}}}" if number % 2 else _escaped(text))
    return "".join(parts)


def _asked_by_crewai(task: Task, needs: list[str]) -> str:
    """The prompt in the words that CrewAI's executor sends for a task without tools."""
    said = I18N_DEFAULT.slice
    expected = task._original_expected_output or task.expected_output
    asked = _description(task) + "\n" + said("expected_output").format(expected_output=expected)
    asked = _escaped(asked)
    if needs:
        given = _escaped(DIVIDERS).join(f"{{{name}}}" for name in needs)
        asked = said("task_with_context").format(task=asked, context=given)
    return _sent(said("task_no_tools").format(input=asked))


def _escaped(text: str) -> str:
    """Braces doubled, but for those that CrewAI fills in."""
    parts = _FILLED_IN.split(text)
    return "".join(
        f"{{{part}}}" if number % 2 else part.replace("{", "{{").replace("}", "}}")
        for number, part in enumerate(parts)
    )


def _system(agent: Any, *, made_here: bool) -> str | None:
    role, goal, backstory = _self(agent)
    if made_here:
        return None if backstory == BACKSTORY else backstory
    text: str = I18N_DEFAULT.slice("role_playing")
    return _sent(text.format(role=role, goal=goal, backstory=backstory))


def _sent(text: str) -> str:
    """As CrewAI sends a message: without the white space at its end, which YAML's blocks leave."""
    return str(format_message_for_llm(text)["content"])


# Scripts

_SILENT = """\
import asyncio
import json
import os
import sys

# By default CrewAI reports to its makers what it does, and waits for that at the end.
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
os.environ.setdefault("CREWAI_DISABLE_VERSION_CHECK", "true")

"""

_LLM = """\
def llm(max_tokens, temperature):
    return LLM(
        model=os.environ.get("OPENAI_MODEL") or "gpt-4o-mini",
        provider="openai",
        base_url=os.environ.get("OPENAI_BASE_URL"),
        api_key=os.environ["OPENAI_API_KEY"],
        max_tokens=max_tokens,
        temperature=temperature,
    )
"""

_FLOW = Template("""\
from crewai import LLM
from crewai.flow.flow import Flow, and_, listen, start

INPUTS = $inputs

STEPS = $steps


$llm

async def ask(values, name):
    step = STEPS[name]
    messages = [{"role": "system", "content": step["system"]}] if step["system"] else []
    messages.append({"role": "user", "content": step["prompt"].format_map(values)})
    values[name] = await llm(step["max_tokens"], step["temperature"]).acall(messages)
    return values[name]


class Steps(Flow):
    suppress_flow_events: bool = True
$methods

async def run(given):
    flow = Steps()
    await flow.kickoff_async(inputs=given)
    return flow.state
""")

_CREW = Template("""\
from crewai import LLM, Agent, Crew, Task

INPUTS = $inputs


$llm

def agent(role, backstory, llm):
    return Agent(role=role, goal=$goal, backstory=backstory, llm=llm)


def crew():
    tasks = {}
$tasks
    return Crew(agents=[task.agent for task in tasks.values()], tasks=list(tasks.values()))


async def run(given):
    output = await crew().akickoff(inputs=given)
    return {task.name: task.raw for task in output.tasks_output}
""")

_TASK = Template("""\
    tasks[$name] = Task(
        name=$name,
        description=$description,
        expected_output=$expected,
        agent=agent($name, $backstory, llm($max_tokens, $temperature)),
        context=[$context],
        async_execution=$async_execution,
    )""")


def flow_script(workflow: Workflow) -> str:
    """The workflow as a Python script that needs CrewAI only: a Flow, which asks in its own words.

    Example:
        Path("report.py").write_text(flow_script(Workflow.load("report")), encoding="utf-8")
    """
    methods = "\n".join(_methods(workflow))
    body = _SILENT + _FLOW.substitute(
        inputs=repr(list(workflow.inputs)),
        steps=source.steps(workflow),
        llm=_LLM,
        methods=methods,
    )
    return source.script(workflow, body, needs="crewai", order="STEPS")


def crew_script(workflow: Workflow) -> str:
    """The workflow as a Python script that needs CrewAI only: the tasks and agents of `crew`."""
    tasks = []
    for step, async_execution in row(workflow):
        words = _words(workflow, step)
        tasks.append(
            _TASK.substitute(
                name=repr(step.name),
                description=source.literal(words.description),
                expected=repr(EXPECTED),
                backstory=source.literal(words.backstory),
                max_tokens=step.max_tokens,
                temperature=step.temperature,
                context=", ".join(f"tasks[{need!r}]" for need in workflow.needs[step.name]),
                async_execution=async_execution,
            )
        )
    body = _SILENT + _CREW.substitute(
        inputs=repr(list(workflow.inputs)), llm=_LLM, goal=repr(GOAL), tasks="\n".join(tasks)
    )
    return source.script(workflow, body, needs="crewai", order="results")


def _methods(workflow: Workflow) -> Iterator[str]:
    # Python folds some letters of an identifier into others; a number has none.
    methods = {
        step.name: f"ask_{step.name if step.name.isascii() else number}"
        for number, step in enumerate(workflow.steps, start=1)
    }
    for step in workflow.steps:
        needs = [repr(methods[need]) for need in workflow.needs[step.name]]
        heard = f"and_({', '.join(needs)})" if len(needs) > 1 else "".join(needs)
        yield (
            f"\n    @{f'listen({heard})' if needs else 'start()'}\n"
            f"    async def {methods[step.name]}(self):\n"
            f"        return await ask(self.state, {step.name!r})\n"
        )
