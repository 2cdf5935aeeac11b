"""Dialects of agents that speak in text: ReAct's lines, DSPy's fields, code; every loop ends."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agentlab.endpoint.answers.answer import hear, take
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.settings import DATA

REPLIES = Replies(DATA / "replies")
Turn = tuple[str, str]

HUB = """Answer the question. You may use these tools:

get_weather(city: str) -> str - Look up the weather of a city.
get_price(product: str, days: int = 1) -> str - Look up what a product costs.

The format is:

Question: what is asked
Thought: what you think
Action: what to do, one of [get_weather, get_price]
Action Input: what goes into it
Observation: what came out
Thought: I know enough
Final Answer: the answer

Begin!

Question: {question}
Thought:{scratchpad}"""
LLAMA = """You have these tools:
> Tool Name: get_weather
Tool Description: get_weather(city: str) -> str
Look up the weather of a city.
Tool Args: {"properties": {"city": {"type": "string"}}, "required": ["city"], "type": "object"}

> Tool Name: multiply
Tool Description: multiply(a: int, b: int) -> int
Multiply two numbers.
Tool Args: {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "type": "object"}

Use this format:
Thought: what you need.
Action: a tool (one of get_weather, multiply)
Action Input: JSON, such as {"input": "x"}

When you know enough:
Thought: I can answer.
Answer: your answer
"""
CREW = """You have access to these tools:

Tool Name: get_weather
Tool Arguments: {"properties": {"city": {"type": "string"}}, "required": ["city"]}
Tool Description: Look up the weather of a city.

Thought: think
Action: only one name of [get_weather]
Action Input: a JSON object
Observation: the result

Thought: done
Final Answer: the answer
"""
CODE = """Solve the task in code, in steps of Thought, Code and Observation.
The code sequence must be opened with '%s', and closed with '%s'.
You only have these tools:
def get_weather(city: string) -> string:
    \"\"\"Look up the weather of a city.

    Args:
        city: which
    \"\"\"

def multiply(a: integer, b: integer) -> integer:
    \"\"\"Multiply two numbers.\"\"\"

def final_answer(answer: any) -> any:
    \"\"\"End the task.\"\"\"
"""


def say(turns: list[Turn], **fields: Any) -> str:
    """Return the answer to (role, text) pairs."""
    body = {"model": "m", "messages": [{"role": r, "content": t} for r, t in turns], **fields}
    request = msgspec.convert(body, ChatRequest)
    return take(hear(request, REPLIES), REPLIES, lambda: random.Random(3)).text


def action(text: str) -> tuple[str, str] | None:
    """Return the tool that ReAct's lines call, and its input."""
    found = re.search(r"^Action: (.+)\nAction Input: (.+)\Z", text, re.MULTILINE)
    return (found[1], found[2]) if found else None


def run_in_lines(begin: list[Turn], observe: Callable[[list[Turn], str, str], None]) -> Any:
    """Run a ReAct loop to its end; return the actions and the last text."""
    turns, actions = begin, []
    for _ in range(6):
        text = say(turns)
        if (call := action(text)) is None:
            return actions, text
        actions.append(call)
        observe(turns, text, f"sunny: {call[1]}")
    raise AssertionError(f"no end: {actions}")


def run_hub(question: str) -> Any:
    """Run LangChain's loop, whose one message grows."""
    pad = ""

    def observe(turns: list[Turn], text: str, result: str) -> None:
        nonlocal pad
        pad += f"{text.removeprefix('Thought:')}\nObservation: {result}\nThought: "
        turns[:] = [("user", HUB.format(question=question, scratchpad=pad))]

    return run_in_lines([("user", HUB.format(question=question, scratchpad=""))], observe)


def test_the_hub_prompts_input_is_the_argument_and_the_loop_ends():
    """Plain text for a tool of one argument; the observation is in the answer."""
    actions, text = run_hub("What is the weather in Seoul?")
    assert actions == [("get_weather", "Seoul")]
    assert text.startswith("Thought: ") and "Final Answer: What was found: sunny: Seoul" in text


def test_the_hub_prompts_tools_are_called_once_each():
    """Two that suit the question, and the input of two arguments as JSON."""
    actions, text = run_hub("What is the weather in Seoul, and what price has 'tea' for 3 days?")
    assert [name for name, _ in actions] == ["get_weather", "get_price"]
    assert json.loads(actions[1][1])["days"] == 3
    assert "Final Answer:" in text


SHOP = HUB.replace("[get_weather", "[find_user, get_orders, get_weather").replace(
    "get_price(product",
    "find_user(name: str) -> str - Find a user by name.\n"
    "get_orders(user_id: int) -> str - The orders of a user.\n"
    "get_price(product",
)
CHAT = SHOP.replace("\nQuestion: {question}", "\nHistory:\nHuman: Hi.\n\nNew input: {question}")


@pytest.mark.parametrize("template", [SHOP, CHAT], ids=["hub", "chat"])
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What are Bob's orders?", ["find_user Bob", "get_orders 7"]),
        ("Find the user Ana and get her orders.", ["find_user Ana", "get_orders 7"]),
        ("Get the orders of users 42 and 43.", ["get_orders 42", "get_orders 43"]),
        ("What is the weather in Oslo and in Rome?", ["get_weather Oslo", "get_weather Rome"]),
    ],
)
def test_lines_follow_the_rule_of_tool_calls(template: str, question: str, expected: list[str]):
    """One call a turn: for each thing that is named, with ids of results, and none invented."""
    pad, made = "", list[str]()
    for _ in range(6):
        prompt = template.format(question=question, scratchpad=pad)
        text = say([("user", prompt)])
        if (call := action(text)) is None:
            break
        made.append(" ".join(call))
        pad += f"{text.removeprefix('Thought:')}\nObservation: {{'id': 7}}\nThought: "
    assert made == expected


def test_a_question_that_no_tool_suits_is_answered():
    """In the same lines."""
    actions, text = run_hub("Who was Ada Lovelace?")
    assert not actions and re.match(r"Thought: .+\nFinal Answer: .{20,}", text)


def test_the_form_of_the_question_is_obeyed_in_the_final_answer():
    """And the format's own words are no form."""
    text = run_hub("Who was Ada Lovelace? Answer in JSON with the keys name and born.")[1]
    assert list(json.loads(text.partition("Final Answer: ")[2])) == ["name", "born"]


def observe_apart(turns: list[Turn], text: str, result: str) -> None:
    turns += [("assistant", text), ("user", f"Observation: {result}")]


@pytest.mark.parametrize(
    ("question", "call"),
    [
        ("What is the weather in Seoul?", ("get_weather", '{"city": "Seoul"}')),
        ("Multiply 6 by 7.", ("multiply", '{"a": 6, "b": 7}')),
    ],
)
@pytest.mark.parametrize("role", ["system", "developer"])
def test_llama_indexs_lines_end_with_answer(role: str, question: str, call: Turn):
    """Observations come as user messages; the last line is "Answer:", and not "Final Answer:"."""
    actions, text = run_in_lines([(role, LLAMA), ("user", question)], observe_apart)
    assert actions == [call]
    assert re.match(r"Thought: .+\nAnswer: What was found: sunny", text)


def test_a_second_question_of_a_conversation_calls_anew():
    """What was observed before it belongs to the first."""
    begin = [("system", LLAMA), ("user", "What is the weather in Seoul?")]
    _, text = run_in_lines(begin, observe_apart)
    begin += [("assistant", text), ("user", "And what is the weather in Busan?")]
    actions, text = run_in_lines(begin, observe_apart)
    assert actions == [("get_weather", '{"city": "Busan"}')] and "Busan" in text


def test_crewais_lines_are_as_before():
    """A tool is called once, and the observation stands in the assistant's own text."""

    def observe(turns: list[Turn], text: str, result: str) -> None:
        turns.append(("assistant", f"{text}\nObservation: {result}"))

    task = (
        "\nCurrent Task: Find out about the weather in 'Seoul'.\n\nBegin! It matters.\n\nThought:"
    )
    actions, text = run_in_lines([("system", CREW), ("user", task)], observe)
    assert actions == [("get_weather", '{"city": "Seoul"}')]
    assert text.endswith('Final Answer: What was found: sunny: {"city": "Seoul"}.')


# Code


def run_in_code(system: str, task: str, opening: str, closing: str) -> Any:
    """Run a code agent's loop to its end; return what it called, and its last text."""
    turns: list[Turn] = [("system", system), ("user", task)]
    called: list[str] = []
    for _ in range(5):
        text = say(turns)
        block = re.search(f"{re.escape(opening)}\n(.+?)\n{re.escape(closing)}", text, re.DOTALL)
        if block is None:
            return called, text
        ast.parse(block[1])
        called.append(block[1].splitlines()[0])
        if called[-1].startswith("final_answer("):
            return called, ast.literal_eval(called[-1][len("final_answer(answer=") : -1])
        turns += [
            ("assistant", text),
            ("user", "Observation:\nExecution logs:\n42\nLast output: 0"),
        ]
    raise AssertionError(f"no end: {called}")


@pytest.mark.parametrize(
    ("system", "opening", "closing"),
    [
        (CODE % ("<code>", "</code>"), "<code>", "</code>"),
        (CODE % ("```python", "```"), "```python", "```"),
    ],
)
@pytest.mark.parametrize("lead", ["", "New task:\n"])
def test_code_calls_the_tool_and_then_ends(lead: str, system: str, opening: str, closing: str):
    """In the block that the system asks for; the result is in the final answer."""
    task = f"{lead}What is the weather in Seoul?"
    called, answer = run_in_code(system, task, opening, closing)
    assert called[0] == "print(get_weather(city='Seoul'))"
    assert len(called) == 2 and "42" in answer


def test_code_ends_at_once_if_no_tool_suits():
    """With an answer in words."""
    called, answer = run_in_code(CODE % ("<code>", "</code>"), "Tell a story.", "<code>", "</code>")
    assert len(called) == 1 and len(answer) > 40


# DSPy

FIELDS = """Your input fields are:
1. `question` (str):
Your output fields are:
1. `reasoning` (str): why
2. `count` (int): how many
3. `kind` (Literal['few', 'many']):
All interactions have this structure.

[[ ## question ## ]]
{question}

[[ ## reasoning ## ]]
{reasoning}

[[ ## count ## ]]
{count}        # note: an int

[[ ## kind ## ]]
{kind}

[[ ## completed ## ]]
"""
ASKED = """[[ ## question ## ]]
How many legs has a spider?

Respond with the fields, starting with `[[ ## reasoning ## ]]`, then `[[ ## count ## ]]`, then \
`[[ ## kind ## ]]`, and then ending with `[[ ## completed ## ]]`."""
STEPS = """Your input fields are:
1. `question` (str):
2. `trajectory` (str):
Your output fields are:
1. `next_thought` (str):
2. `next_tool_name` (Literal['get_weather', 'finish']):
3. `next_tool_args` (dict[str, Any]):
The tool must be one of:

(1) get_weather, whose description is <desc>Look up the weather.</desc>. It takes arguments \
{'city': {'type': 'string'}}.
(2) finish, whose description is <desc>End the task.</desc>. It takes arguments {}.
"""
STEP = """[[ ## question ## ]]
%s

[[ ## trajectory ## ]]
%s

Respond with the fields, starting with `[[ ## next_thought ## ]]`, then \
`[[ ## next_tool_name ## ]]`, then `[[ ## next_tool_args ## ]]`, and then ending with \
`[[ ## completed ## ]]`."""


def fields(text: str) -> dict[str, str]:
    """Return the contents behind DSPy's markers."""
    parts = re.split(r"^\[\[ ## (\w+) ## \]\]$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def test_marked_fields_are_filled_by_their_types():
    """In the order asked for; the topic is what the input field says."""
    answer = fields(say([("system", FIELDS), ("user", ASKED)]))
    assert list(answer) == ["reasoning", "count", "kind", "completed"]
    assert answer["count"].isdigit() and answer["kind"] in ("few", "many")
    assert "[[" not in answer["reasoning"]


def test_fields_in_json_mode_are_named_in_words():
    """As the adapter asks that falls back to JSON."""
    asked = (
        "[[ ## question ## ]]\nWhat are tides?\n\nRespond with a JSON object in the following "
        "order of fields: `answer`, then `score` (must be formatted as a valid Python float)."
    )
    answer = json.loads(say([("user", asked)], response_format={"type": "json_object"}))
    assert list(answer) == ["answer", "score"] and isinstance(answer["score"], float)


def test_fields_of_a_react_loop_call_a_tool_and_then_finish():
    """The call that the trajectory shows is not made again."""
    question = "What is the weather in Seoul?"
    first = fields(say([("system", STEPS), ("user", STEP % (question, ""))]))
    assert (first["next_tool_name"], first["next_tool_args"]) == (
        "get_weather",
        '{"city": "Seoul"}',
    )
    trajectory = "[[ ## tool_name_0 ## ]]\nget_weather\n\n[[ ## observation_0 ## ]]\nsunny"
    second = fields(say([("system", STEPS), ("user", STEP % (question, trajectory))]))
    assert (second["next_tool_name"], second["next_tool_args"]) == ("finish", "{}")


def test_fields_of_a_react_loop_finish_if_no_tool_suits():
    """At the first step."""
    first = fields(say([("system", STEPS), ("user", STEP % ("Who was Ada Lovelace?", ""))]))
    assert first["next_tool_name"] == "finish"


@pytest.mark.parametrize(
    "text",
    ["Tool Name: f\nTool Arguments: {" * 500, 'def f(a):\n"""' * 900, "[[ ## a ## ]]\n" * 1500,
     "opened with '" * 1500, "- f: x\n  Takes inputs: {" * 700, "code " * 3000 + "<a>",
     "Question:\nAction Input: Answer:\n" * 500, "one of [" + "a," * 6000],
)  # fmt: skip
def test_hostile_dialects_get_an_answer(text: str):
    """In any role; that it does not take long, the whole suite's time limit shows."""
    assert say([("system", text), ("user", f"Action Input: Answer: {text}")])


@pytest.mark.parametrize(
    ("name", "mark"),
    [("markers", "[[ ## {0} ## ]]\n{1}"), ("tags", "<{0}>\n{1}\n</{0}>")],
)
def test_what_a_trajectory_observed_is_in_the_answer_field(name: str, mark: str):
    """And not in the reasoning before it; inputs say nothing of the form, though they hold JSON."""
    past = {"tool_name_0": "get_weather", "tool_args_0": '{"city": "Seoul"}'}
    past |= {
        "observation_0": "sunny, 24 degrees",
        "tool_name_1": "finish",
        "observation_1": "Done.",
    }
    trajectory = "\n\n".join(mark.format(*each) for each in past.items())
    inputs = {"question": "What is the weather in Seoul?", "trajectory": trajectory}
    given = "\n\n".join(mark.format(*each) for each in inputs.items())
    wanted = "[[ ## {} ## ]]" if name == "markers" else "<{}>"
    fields = ", then ".join(f"`{wanted.format(each)}`" for each in ("reasoning", "answer"))
    text = say([("user", f"{given}\n\nRespond with the fields in XML tags or markers, {fields}.")])
    reasoning, _, answer = text.partition(wanted.format("answer"))
    assert "What was found: sunny, 24 degrees." in answer and "Done" not in answer
    assert "reasoning" in reasoning and "sunny" not in reasoning


def test_a_trajectory_in_tags_is_gone_on_with_in_tags():
    """The tool that it shows is not called again."""
    asks = (
        "<question>\nWhat is the weather in Seoul?\n</question>\n\n<trajectory>\n{}\n</trajectory>"
    )
    asks += "\n\nRespond with XML tags `<next_tool_name>`, then `<next_tool_args>`."
    made = "<tool_name_0>\nget_weather\n</tool_name_0>\n<observation_0>\nsunny\n</observation_0>"
    first, second = (say([("system", STEPS), ("user", asks.format(past))]) for past in ("", made))
    name, arguments = re.findall(r"<next_tool_\w+>(.*)</", first)
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Seoul"})
    assert "<next_tool_name>finish</next_tool_name>" in second
