"""A crew as a workflow, and a workflow as a script of CrewAI's own.

A crew asks in words of its own: CrewAI puts a role before each question, an expectation behind it,
and the answers that a task needs at its end, without their names. The steps that `load` reads ask
the very words that CrewAI would send. As a Flow (`engines.crewai.flow`, `flow_script`) a workflow
asks in its own words.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from typing import Any

# isort: off
from agentlab.lab import crews  # noqa: F401 (before CrewAI, which it makes silent)
from crewai import Agent, Crew, Process, Task
from crewai.tasks.conditional_task import ConditionalTask
from crewai.utilities.constants import NOT_SPECIFIED
from crewai.utilities.formatter import DIVIDERS
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import format_message_for_llm
# isort: on

from agentlab.convert import _script
from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, listed

_FILLED_IN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")  # what CrewAI replaces by an input

# What is not in these lists, of a crew, a task or an agent, must be as CrewAI makes it by default:
# fields that are yet to come are then refused, not ignored.
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


def load(crew: Crew, *, name: str | None = None) -> Workflow:
    """Read a crew: each task becomes a step that asks in the words that CrewAI would send.

    The names are the tasks', or their agents' roles; `{names}` in a description are the workflow's
    inputs. What CrewAI (1.15) does to words that come later, a workflow does not do: it fills in
    inputs inside of other inputs' values, and cuts `{tools}` from them and a "Final Answer:" from
    answers. A file that a task writes is left out, with a warning: the workflow's results have its
    text.

    Args:
        name: What the workflow is called; the crew's name by default.

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
    """Return a name for each task, which no other task and no input has."""
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
    agent: Any = task.agent
    if not isinstance(agent, Agent):
        raise ConfigError(f"{what} has no agent of CrewAI's own kind; got {type(agent).__name__}")
    prompt = _prompt(task, [names[place] for place in _context(crew, number, what)])
    if bad := [n for n in _FILLED_IN.findall(prompt) if not n.isidentifier()]:
        raise ConfigError(f"{what} has the input {listed(bad)}; a name is one word, without dashes")
    llm: Any = agent.llm
    return Step(
        names[number],
        prompt,
        system=_system(agent),
        max_tokens=getattr(llm, "max_tokens", None) or getattr(llm, "max_completion_tokens", None),
        temperature=llm.temperature,
    )


def _system(agent: Any) -> str:
    """Return the system message that CrewAI makes of an agent without tools."""
    whose = f"the agent {agent.role!r}"
    _check_plain(agent, whose, _OF_AGENT)
    _check_plain(agent.llm, f"the LLM of {whose}", _OF_LLM)
    written = {  # before a run filled something in
        part: getattr(agent, f"_original_{part}") or getattr(agent, part)
        for part in ("role", "goal", "backstory")
    }
    if filled_in := _FILLED_IN.findall("".join(written.values())):
        raise ConfigError(
            f"{whose} has the input {listed(filled_in)} in role, goal or backstory; a step's "
            "system message takes none, so move it into the task"
        )
    return _sent(I18N_DEFAULT.slice("role_playing").format(**written))


def _context(crew: Crew, number: int, what: str) -> list[int]:
    """Return the numbers of the tasks whose answers a task is given."""
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


def _prompt(task: Task, needs: list[str]) -> str:
    """Return the words that CrewAI's executor sends for a task without tools."""
    said = I18N_DEFAULT.slice
    expected = task._original_expected_output or task.expected_output
    asked = _description(task) + "\n" + said("expected_output").format(expected_output=expected)
    asked = _escaped(asked)
    if needs:
        given = _escaped(DIVIDERS).join(f"{{{name}}}" for name in needs)
        asked = said("task_with_context").format(task=asked, context=given)
    return _sent(said("task_no_tools").format(input=asked))


def _escaped(text: str) -> str:
    """Double the braces, except those that CrewAI fills in."""
    parts = _FILLED_IN.split(text)
    return "".join(
        f"{{{part}}}" if number % 2 else part.replace("{", "{{").replace("}", "}}")
        for number, part in enumerate(parts)
    )


def _sent(text: str) -> str:
    """Return a message as CrewAI sends it: YAML's blocks leave white space at the end."""
    return str(format_message_for_llm(text)["content"])


def flow_script(workflow: Workflow) -> str:
    """Write the workflow as a Python script that needs only CrewAI: a Flow.

    Example:
        Path("report.py").write_text(flow_script(Workflow.load("report")), encoding="utf-8")
    """
    # Python folds some letters of an identifier into others; a number has none.
    names = {
        step.name: f"ask_{step.name if step.name.isascii() else number}"
        for number, step in enumerate(workflow.steps, start=1)
    }
    methods = []
    for step in workflow.steps:
        needs = [repr(names[need]) for need in workflow.needs[step.name]]
        heard = f"and_({', '.join(needs)})" if len(needs) > 1 else "".join(needs)
        methods.append(
            f"\n    @{f'listen({heard})' if needs else 'start()'}\n"
            f"    async def {names[step.name]}(self):\n"
            f"        return await ask(self.state, {step.name!r})\n"
        )
    return _script.script(workflow, "flow", needs="crewai", methods="\n".join(methods))
