"""A crew as a workflow that asks in the very words that CrewAI would send.

CrewAI puts a role before each question, an expectation behind it, and the answers that a task needs
at its end, without their names.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

# isort: off
from agentlab.lab import crews  # noqa: F401 (before CrewAI, which it makes silent)
from crewai import Agent, Crew, Task
from crewai.utilities.constants import NOT_SPECIFIED
from crewai.utilities.formatter import DIVIDERS
from crewai.utilities.i18n import I18N_DEFAULT
from crewai.utilities.message_utils import format_message_for_llm
# isort: on

from agentlab.errors import ConfigError
from agentlab.workflow import Step, Workflow, listed

_FILLED_IN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)\}")  # what CrewAI replaces by an input

# What a crew, task, agent or LLM may have: it is read, or it changes no words. All else must be
# as CrewAI makes it by default; fields that are yet to come are then refused, not ignored.
_KNOWN = frozenset(
    "agent agent_executor agents api_base api_key async_execution backstory base_url cache "
    "cache_handler checkpoint context create_directory crew default_headers default_query "
    "delegations description end_time entity_type execution_logs executor_class expected_output "
    "goal guardrail_max_retries i18n id is_gpt4_model is_o1_model llm llm_type "
    "max_completion_tokens max_iter max_retries max_retry_limit max_rpm max_tokens model name "
    "organization output output_file processed_by_agents project prompt_context provider "
    "retry_count role security_config share_crew start_time stream tasks temperature timeout "
    "token_usage tools_errors tools_handler tools_results tracing usage_metrics used_tools "
    "verbose".split()
)


def load(crew: Crew, *, name: str | None = None) -> Workflow:
    """Read a crew: each task becomes a step that asks in the words that CrewAI would send.

    A step is called as its task, or as the agent's role, or `task_N`; `{names}` in a description
    are the workflow's inputs. A file that a task writes is left out. What CrewAI (1.15) does to
    words inside of inputs and answers, a workflow does not do.

    Raises:
        ConfigError: If a crew has what no workflow has, such as a manager, tools, memory or
            guardrails, naming it.

    Example:
        report = Crew(agents=[writer, editor], tasks=[draft, edited])
        await engines.run(load(report), {"topic": "tides"})
    """
    _check_plain(crew, "the crew")
    names = _names(crew)
    steps = [_step(crew, number, names) for number in range(len(crew.tasks))]
    inputs = dict.fromkeys(n for step in steps for n in step.mentions if n not in names)
    return Workflow(steps, inputs=list(inputs), name=name or crew.name or "crew")


def _check_plain(part: Any, what: str) -> None:
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        plain = field.get_default(call_default_factory=True)
        if name not in _KNOWN and value != plain and (value or plain):
            has = f"{what} has {name}={reprlib.repr(value)}, which no workflow has"
            raise ConfigError(f"{has}; take it away, or keep the crew")


def _names(crew: Crew) -> list[str]:
    """Return a name for each task, which no other task and no input has."""
    taken = {name for task in crew.tasks for name in _FILLED_IN.findall(_description(task))}
    names: list[str] = []
    for number, task in enumerate(crew.tasks, start=1):
        word = re.sub(r"\W+", "_", task.name or str(getattr(task.agent, "role", ""))).strip("_")
        free = word.isidentifier() and word not in taken
        names.append(word if free else f"task_{number}")
        taken.add(names[-1])
    return names


def _step(crew: Crew, number: int, names: list[str]) -> Step:
    task = crew.tasks[number]
    what = f"task {names[number]!r}"
    _check_plain(task, what)
    agent: Any = task.agent
    if not isinstance(agent, Agent):
        raise ConfigError(f"{what} has no agent of CrewAI's own kind; got {type(agent).__name__}")
    llm: Any = agent.llm
    return Step(
        names[number],
        _prompt(task, [names[place] for place in _context(crew, number, what)]),
        system=_system(agent),
        max_tokens=getattr(llm, "max_tokens", None) or getattr(llm, "max_completion_tokens", None),
        temperature=llm.temperature,
    )


def _system(agent: Any) -> str:
    whose = f"the agent {agent.role!r}"
    _check_plain(agent, whose)
    _check_plain(agent.llm, f"the LLM of {whose}")
    written = {  # before a run filled something in
        part: getattr(agent, f"_original_{part}") or getattr(agent, part)
        for part in ("role", "goal", "backstory")
    }
    if filled_in := _FILLED_IN.findall("".join(written.values())):
        has = f"{whose} has the input {listed(filled_in)} in role, goal or backstory"
        raise ConfigError(f"{has}; a step's system message takes none, so move it into the task")
    return _sent(I18N_DEFAULT.slice("role_playing").format(**written))


def _context(crew: Crew, number: int, what: str) -> list[int]:
    task = crew.tasks[number]
    if task.context is NOT_SPECIFIED:  # all before it, but an asynchronous one is given none
        return [] if task.async_execution else list(range(number))
    places = {id(other): place for place, other in enumerate(crew.tasks)}
    context: Any = task.context or []
    if any(id(other) not in places for other in context):
        raise ConfigError(f"{what} takes the answer of a task that is not in the crew; add it")
    return [places[id(other)] for other in context]


def _description(task: Task) -> str:
    return str(task._original_description or task.description)


def _prompt(task: Task, needs: list[str]) -> str:
    """Return the words that CrewAI's executor sends for a task without tools."""
    said = I18N_DEFAULT.slice
    expected = task._original_expected_output or task.expected_output
    asked = said("expected_output").format(expected_output=expected)
    asked = _escaped(f"{_description(task)}\n{asked}")
    if needs:
        given = _escaped(DIVIDERS).join(f"{{{name}}}" for name in needs)
        asked = said("task_with_context").format(task=asked, context=given)
    return _sent(said("task_no_tools").format(input=asked))


def _escaped(text: str) -> str:
    parts = _FILLED_IN.split(text)
    return "".join(
        f"{{{part}}}" if number % 2 else part.replace("{", "{{").replace("}", "}}")
        for number, part in enumerate(parts)
    )


def _sent(text: str) -> str:
    """Return a message as CrewAI sends it: YAML's blocks leave white space at the end."""
    return str(format_message_for_llm(text)["content"])
