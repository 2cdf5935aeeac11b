"""Which tools the local model calls, in which round, with what arguments; and that loops end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from langchain_core.tools import tool
from langgraph.prebuilt import create_react_agent

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.endpoint.answers._rounds import things
from agentlab.endpoint.answers._schema import build
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract.seeded_random import generator
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import DATA, Settings
from agentlab.trace import trace

Results = dict[str, Any]  # of each tool, or a function of its arguments


def offered(name: str, description: str = "", /, **arguments: Any) -> dict[str, Any]:
    """A tool whose arguments are all required; each is a JSON type, or a schema."""
    properties = {n: t if isinstance(t, dict) else {"type": t} for n, t in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    about = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": about}


WEATHER = offered("get_weather", "The weather of a city", city="string")
TIDES = offered("tides", "High water", place="string")
FIND_USER = offered("find_user", "Find a user by name", name="string")
ORDERS = offered("get_orders", "The orders of a user", user_id="integer")
SHIPMENT = offered("get_shipment", "The shipment of an order", order_id="string")
LIST_USERS = offered("list_users", "All users")
ADD = offered("add", "Add two numbers", a="integer", b="integer")
MULTIPLY = offered("multiply", "Multiply two numbers", a="integer", b="integer")
FLIGHTS = offered("search_flights", "", origin="string", destination="string")
FINAL = offered("final_answer", "Ends the task", answer="string")
SHOP: Results = {
    "find_user": lambda name: {"id": {"Ana": 7, "Bob": 8}[name], "name": name},
    "get_orders": [{"id": "A1", "items": [{"id": 1}]}, {"id": "A2", "items": []}],
    "list_users": [{"id": 1}, {"id": 2}],
    "add": lambda a, b: a + b,
}


def answer(messages: list[dict[str, Any]], tools: list[dict[str, Any]], **fields: Any) -> Any:
    """The local model's message, through openai's client."""

    async def main() -> Any:
        app = local_app(Settings(preset="instant"), time_scale=1.0)
        http = httpx.AsyncClient(transport=InProcessTransport(app))
        client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="x", http_client=http)
        asked: Any = {"model": "m", "messages": messages, "tools": tools, **fields}
        return (await client.chat.completions.create(**asked)).choices[0].message

    return run_virtual(main()).result


def rounds(
    task: str | list[dict[str, Any]], tools: list[Any], results: Results = SHOP, **fields: Any
) -> tuple[list[str], str]:
    """The calls of each round as text, and the answer at the end; six rounds at most."""
    messages = [{"role": "user", "content": task}] if isinstance(task, str) else list(task)
    made = []
    for _ in range(6):
        said = answer(messages, tools, **fields)
        if not said.tool_calls:
            return made, said.content
        called = [
            (c.id, c.function.name, json.loads(c.function.arguments)) for c in said.tool_calls
        ]
        made.append(" ".join(f"{n}({','.join(map(str, a.values()))})" for _, n, a in called))
        if called[0][1] == "final_answer":
            return made, called[0][2]["answer"]
        messages.append(said.model_dump(exclude_none=True))
        for id, name, given in called:
            found = results.get(name, "done")
            found = found(**given) if callable(found) else found
            text = found if isinstance(found, str) else json.dumps(found)
            messages.append({"role": "tool", "tool_call_id": id, "content": text})
    return made, ""


@pytest.mark.parametrize(
    ("task", "tools", "expected"),
    [
        ("What is the weather in Seoul and in Busan?", [WEATHER, TIDES],
         ["get_weather(Seoul) get_weather(Busan)"]),
        ("서울과 부산의 날씨를 알려줘", [offered("get_weather", "도시의 날씨", city="string")],
         ["get_weather(서울) get_weather(부산)"]),
        ("Compare the stock of AAPL, MSFT and NVDA", [offered("stock_price", symbol="string")],
         ["stock_price(AAPL) stock_price(MSFT) stock_price(NVDA)"]),
        ("Weather for Seoul (Korea) and Tokyo (Japan), please", [WEATHER],
         ["get_weather(Seoul) get_weather(Tokyo)"]),
        ("Get the weather in:\n1. Seoul\n2. Busan", [WEATHER],
         ["get_weather(Seoul) get_weather(Busan)"]),
        ("Research 'solar power', 'wind' and 'tides'.", [offered("research", "", topic="string")],
         ["research(solar power) research(wind) research(tides)"]),
        ("Weather in Austin, TX and in Boston, MA?", [WEATHER],
         ["get_weather(Austin, TX) get_weather(Boston, MA)"]),
        ("Weather in Seoul? Reply in German.", [WEATHER], ["get_weather(Seoul)"]),
        ("Delete the files a.tmp and b.txt.", [offered("delete_file", path="string")],
         ["delete_file(a.tmp) delete_file(b.txt)"]),
        ("Book a table at Luigi's on 2026-12-24 at 19:30.",
         [offered("book_table", place="string", time="string", arrival_date="string")],
         ["book_table(Luigi,19:30,2026-12-24)"]),
        ("Send an email to bob@x.com from ana@y.com.",
         [offered("send_email", from_email="string", to_email="string")],
         ["send_email(ana@y.com,bob@x.com)"]),
        ("List bookings until 2026-01-09, from 2026-01-05.",
         [offered("list_bookings", start_date="string", end_date="string")],
         ["list_bookings(2026-01-05,2026-01-09)"]),
        ("Move the call with Ana to 19:30.", [offered("move_call", time="string", name="string")],
         ["move_call(19:30,Ana)"]),
        ("Weather in Seoul? Return a Markdown table with the columns Day and Sky.", [WEATHER],
         ["get_weather(Seoul)"]),
        ("The weather in these towns: oslo, bergen", [WEATHER],
         ["get_weather(oslo) get_weather(bergen)"]),
        ("Get the weather for:\n* oslo\n* bergen", [WEATHER],
         ["get_weather(oslo) get_weather(bergen)"]),
        ("Oslo, Bergen, Bodø: weather?", [WEATHER],
         ["get_weather(Oslo) get_weather(Bergen) get_weather(Bodø)"]),
        ("The tides of these places:\nOslo\nBergen", [TIDES], ["tides(Oslo) tides(Bergen)"]),
        ("Weather in Oslo and Bergen, but not in Bodø", [WEATHER],
         ["get_weather(Oslo) get_weather(Bergen)"]),
        ("Weather in Rome, Italy and Oslo, Norway?", [WEATHER],
         ["get_weather(Rome, Italy) get_weather(Oslo, Norway)"]),
        ("Weather in Italy, Norway and Spain?", [WEATHER],
         ["get_weather(Italy) get_weather(Norway) get_weather(Spain)"]),
        ("인천이랑 대전 날씨 어때?", [offered("get_weather", "도시의 날씨", city="string")],
         ["get_weather(인천) get_weather(대전)"]),
        ("인천 날씨와 대전 날씨를 비교해줘", [offered("get_weather", "도시의 날씨", city="string")],
         ["get_weather(인천) get_weather(대전)"]),
        ("인천, 대전 그리고 강릉의 날씨", [offered("get_weather", "도시의 날씨", city="string")],
         ["get_weather(인천) get_weather(대전) get_weather(강릉)"]),
        ("사용자 박영희를 찾아줘", [offered("get_user", "사용자를 찾는다", name="string")],
         ["get_user(박영희)"]),
        ("Weather in Seoul and tides in Busan?", [WEATHER, TIDES],
         ["get_weather(Seoul) tides(Busan)"]),
        ("flights to Tokyo and Osaka from Seoul", [FLIGHTS],
         ["search_flights(Seoul,Tokyo) search_flights(Seoul,Osaka)"]),
        ("weather in paris and rome", [WEATHER], ["get_weather(paris) get_weather(rome)"]),
        ("Turn on the lights in the kitchen and the living room.",
         [offered("light", room="string")], ["light(kitchen) light(living room)"]),
        ("What was the weather in the morning in Rome?", [WEATHER], ["get_weather(Rome)"]),
        ("Add milk, eggs and bread to my list", [offered("add_item", item="string")],
         ["add_item(milk) add_item(eggs) add_item(bread)"]),
        ("Rate the film 'Alien' with 4.5 stars", [offered("rate", title="string", stars="number")],
         ["rate(Alien,4.5)"]),
        ("Send an email to bob@x.com with the subject 'Tides', saying that we meet at 10:00.",
         [offered("send_email", to="string", subject="string", body="string")],
         ["send_email(bob@x.com,Tides,we meet at 10:00)"]),
        ("Email bob@x.com that the tide is high.",
         [offered("email", to="string", message="string")], ["email(bob@x.com,the tide is high)"]),
        ("the tides in new york, oslo, or in rome today?", [TIDES],
         ["tides(new york) tides(oslo) tides(rome)"]),
        ("find flights from paris to rome", [FLIGHTS], ["search_flights(paris,rome)"]),
        ("Add 2 and 3, and 10 and 20", [ADD], ["add(2,3) add(10,20)"]),
        ("Compare AAPL and MSFT", [offered("compare", "", names={
            "type": "array", "items": {"type": "string"}})], ["compare(['AAPL', 'MSFT'])"]),
        ("Email Ana and Bob about the tides", [offered("email", "", to="string", body="string")],
         ["email(Ana,the tides) email(Bob,the tides)"]),
    ],
)  # fmt: skip
def test_one_call_for_each_thing_that_the_task_names(task: str, tools: Any, expected: list[str]):
    """All in one round; of two arguments each gets its own, and a list gets them all."""
    assert rounds(task, tools)[0] == expected


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("Find the user id of Ana, then get the orders of that user.",
         ["find_user(Ana)", "get_orders(7)"]),
        ("Get the orders of Ana and Bob.",
         ["find_user(Ana) find_user(Bob)", "get_orders(7) get_orders(8)"]),
        ("Find the user Ana, get her orders and then the shipment of each order.",
         ["find_user(Ana)", "get_orders(7)", "get_shipment(A1) get_shipment(A2)"]),
        ("List the users and get the orders of each.",
         ["list_users()", "get_orders(1) get_orders(2)"]),
        ("Get the orders of user 42.", ["get_orders(42)"]),
        ("Get the orders of users 42 and 43.", ["get_orders(42) get_orders(43)"]),
        ("Get the orders of Ana for the last 7 days.", ["find_user(Ana)", "get_orders(7)"]),
    ],
)  # fmt: skip
def test_an_id_comes_from_the_task_or_from_the_result_that_holds_it(task: str, expected: Any):
    """Calls that need it wait a round; a result that lists several gives a call for each."""
    offers = [ORDERS, SHIPMENT, LIST_USERS, FIND_USER]
    offers = offers if "List" in task else [each for each in offers if each is not LIST_USERS]
    assert rounds(task, offers)[0] == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("And Bob's?", ["find_user(Bob)", "get_orders(8)"]),
        ("Now the same for Bob, please.", ["find_user(Bob)", "get_orders(8)"]),
        ("What about the weather in Busan?", ["get_weather(Busan)"]),
        ("And why is that?", []),
        ("Thanks, Bob!", []),
    ],
)
def test_a_task_goes_on_with_the_tools_of_the_one_before(said: str, expected: list[str]):
    """If it begins so, names things of its own, and no tool."""
    before = [{"role": "user", "content": "Get the orders of Ana."}]
    made = [("find_user", '{"name": "Ana"}', '{"id": 7}'), ("get_orders", '{"user_id": 7}', "[]")]
    for name, arguments, result in made:
        call = {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}
        before += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        before += [{"role": "tool", "tool_call_id": name, "content": result}]
    before += [{"role": "assistant", "content": "None."}, {"role": "user", "content": said}]
    assert rounds(before, [FIND_USER, ORDERS, WEATHER])[0] == expected


@pytest.mark.parametrize(
    ("schema", "id"),
    [
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 7),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "7"),
        ({"type": ["null", "string"]}, "7"),
        ({"$ref": "#/$defs/Id"}, 7),
        ({"allOf": [{"$ref": "#/$defs/Id"}], "description": "whose"}, 7),
        ({"type": "string", "format": "uuid"}, "7"),
    ],
)
def test_an_id_is_one_however_its_schema_says_its_type(schema: dict[str, Any], id: Any):
    """From the task or a result, and never invented: nullable, referred to, or of a format."""
    orders = offered("get_orders", "The orders of a user", user_id=schema)
    orders["function"]["parameters"]["$defs"] = {"Id": {"type": "integer"}}
    assert rounds("Get the orders of user 7.", [orders])[0] == [f"get_orders({id})"]
    assert rounds("Get the orders of Ana.", [orders])[0] == []
    chain = rounds("Find the user Ana and get her orders.", [FIND_USER, orders])[0]
    assert chain == ["find_user(Ana)", f"get_orders({id})"]


def made_up(task: str, tool: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the one call of a tool that `tool_choice` names."""
    choice = {"type": "function", "function": {"name": tool["function"]["name"]}}
    (call,) = answer([{"role": "user", "content": task}], [tool], tool_choice=choice).tool_calls
    return json.loads(call.function.arguments)


@pytest.mark.parametrize(
    ("task", "expected"),
    [("Multiply 12 by 34.", [12, 34]), ("Multiply -40 by 1,500.", [-40, 1500])],
)
def test_a_form_has_the_numbers_that_the_task_says(task: str, expected: list[int]):
    """However large or small: a range of our own binds only what is made up."""
    assert list(made_up(task, MULTIPLY).values()) == expected


@pytest.mark.parametrize(
    "form",
    ["JSON with the keys city and degrees", 'JSON: {"city": "...", "degrees": 0}',
     "JSON with degrees (number) and city"],
)  # fmt: skip
def test_keys_have_what_results_have_under_their_names(form: str):
    """Of the same type as in the result."""
    found = {"get_weather": {"data": {"city": "Oslo", "degrees": -3}}}
    _, text = rounds(f"Weather in Oslo? Answer with {form}.", [WEATHER], found)
    assert json.loads(text) == {"city": "Oslo", "degrees": -3}


def test_a_form_takes_each_field_s_kind_of_value():
    """An address for an e-mail, and nobody is called by it."""
    fields = {"name": "string", "age": "integer", "email": {"type": "string", "format": "email"}}
    made = made_up("Kim, 61 years old, kim@example.org", offered("Person", **fields))
    assert made == {"name": "Kim", "age": 61, "email": "kim@example.org"}


DATE, LEVELS = {"type": "string", "format": "date"}, {"enum": ["low", "medium", "high"]}
MODES = {"type": "string", "enum": ["active", "inactive"]}
CITIES = {"type": "string", "enum": ["Oslo", "Rome", "Paris"]}


@pytest.mark.parametrize(
    ("task", "arguments", "expected"),
    [
        ("Plan from 2024-03-05 to 2024-03-09.", {"start_date": DATE, "end_date": DATE},
         "plan(2024-03-05,2024-03-09)"),
        ("Plan it for 2025-01-02T08:00:00Z.", {"at": {"type": "string", "format": "date-time"}},
         "plan(2025-01-02T08:00:00Z)"),
        ("Plan with https://a.org/x.", {"link": {"type": "string", "format": "uri"}},
         "plan(https://a.org/x)"),
        ("Plan with Ana on 2024-03-05.", {"day": DATE, "who": "string"}, "plan(2024-03-05,Ana)"),
        ("Plan the inactive mode.", {"mode": MODES}, "plan(inactive)"),
        ("Plan ticket 12 as high and ticket 13 as low.", {"ticket_id": "integer", "level": LEVELS},
         "plan(12,high) plan(13,low)"),
        ("Plan Paris and Rome.", {"city": CITIES}, "plan(Paris) plan(Rome)"),
        ("Plan Rome, not Paris.", {"city": CITIES}, "plan(Rome)"),
        ("Plan Paris and Oslo.", {"cities": {"type": "array", "items": CITIES}},
         "plan(['Paris', 'Oslo'])"),
        ("Plan with the lamp turned off.", {"lamp": "boolean"}, "plan(False)"),
    ],
)  # fmt: skip
def test_formats_options_and_switches_come_from_the_task(task: str, arguments: Any, expected: str):
    """Only what has the format; options as whole words, a call for each."""
    assert rounds(task, [offered("plan", **arguments)])[0] == [expected]


HAND_ON = offered("delegate_task", "Hand a task on.", member_id="string", task="string")


@pytest.mark.parametrize(
    "listed",
    [
        '<member id="researcher" name="Ann">\n  Role: finds sources\n</member>\n'
        '<member id="writer" name="Bob">\n  Role: writes reports\n</member>',
        "- id: researcher\n  role: finds sources\n- id: writer\n  role: writes reports",
        '[{"member_id": "researcher", "role": "finds sources"}, '
        '{"member_id": "writer", "role": "writes reports"}]',
    ],
)
@pytest.mark.parametrize(
    ("task", "ids"),
    [
        ("Delegate to the researcher: tides", ["researcher"]),
        ("Delegate to the writer, and to the researcher", ["researcher", "writer"]),
        ("Delegate the reports about tides", ["writer"]),
    ],
)
def test_an_id_may_be_one_that_the_instructions_list(listed: str, task: str, ids: list[str]):
    """Those that the task names, or else the one of which most of its words are said."""
    told = [{"role": "system", "content": listed}, {"role": "user", "content": task}]
    assert rounds(told, [HAND_ON])[0] == [" ".join(f"delegate_task({id},{task})" for id in ids)]


def test_an_id_of_something_else_is_not_taken_from_the_instructions():
    """The id of a session is no user's."""
    told = [{"role": "system", "content": "The session id: s-1"}]
    told.append({"role": "user", "content": "Get the orders of Ana."})
    assert rounds(told, [ORDERS])[0] == []


@pytest.mark.parametrize(
    ("found", "id"),
    [
        ("55", 55), ("User found: Ana (user id: 55)", 55), ("The user's id is 55.", 55),
        ("{'id': 55, 'name': 'Ana'}", 55), ("User(id=55, name='Ana')", 55),
        ('{"data": {"users": [{"userId": "55"}]}, "id": "req"}', 55),
        ('{"error": "no such user"}', None), ("No user is called Ana.", None),
        ("id=55", 55), ("Ana's ID is 55.", 55), ("Ana has the ID '55'.", 55),
        ('{"result": "Ana has the id 55"}', 55), ("Company ID: 3\nID: 55", 55),
        ('[{"type": "text", "text": "{\\"id\\": 55}"}]', 55),
        ('{"id": 1, "user": {"id": 55}}', 55), ("Error 500: try again", None),
        ("Failed with code 7", None), ("User 9 not found", None),
    ],
)  # fmt: skip
def test_an_id_is_read_from_any_usual_result_and_never_invented(found: str, id: int | None):
    """JSON, Python's printing, or words; without an id there is no second call."""
    made, _ = rounds(
        "Find the user Ana, then get the orders.", [FIND_USER, ORDERS], {"find_user": found}
    )
    assert made == ["find_user(Ana)", *([f"get_orders({id})"] if id else [])]


@pytest.mark.parametrize(
    "found", ["Forbidden", "unauthorized", "timeout", "OK", "Error: code E12", "aborted", "none"]
)
def test_what_became_of_a_call_is_no_id(found: str):
    """Though it is one word, as an id is."""
    orders = offered("get_orders", "The orders of a user", user_id="string")
    made, _ = rounds("Find the user Ana, then get the orders.", [FIND_USER, orders],
                     {"find_user": found})  # fmt: skip
    assert made == ["find_user(Ana)"]


@pytest.mark.parametrize(
    ("made", "expected"),
    [(["Rome"], "Paris Oslo"), (["Oslo", "Paris"], "Rome"), (["Bern"], "Paris Rome Oslo"),
     (["Rome", "Oslo", "Paris"], "")],
)  # fmt: skip
def test_calls_that_were_made_are_compared_by_their_arguments(made: list[str], expected: str):
    """In whatever order they were made: what is left is called, and nothing again."""
    calls = [{"id": city, "type": "function", "function": {"name": "get_weather",
              "arguments": json.dumps({"city": city})}} for city in made]  # fmt: skip
    said: list[Any] = [{"role": "user", "content": "Weather in Paris, Rome and Oslo?"}]
    said.append({"role": "assistant", "content": None, "tool_calls": calls})
    said += [{"role": "tool", "tool_call_id": city, "content": "sunny"} for city in made]
    calls = answer(said, [WEATHER]).tool_calls or []
    assert [json.loads(c.function.arguments)["city"] for c in calls] == expected.split()


@pytest.mark.parametrize(
    ("task", "tools", "results", "expected"),
    [
        ("Add 2 and 3, then multiply the result by 4.", [MULTIPLY, ADD], SHOP,
         ["add(2,3)", "multiply(5,4)"]),
        ("What is the capital of France? Then tell me the weather there.",
         [offered("get_capital", "", country="string"), WEATHER], {"get_capital": "Paris"},
         ["get_capital(France)", "get_weather(Paris)"]),
        ("Find a flight from Seoul to Tokyo, then book it for Ana.",
         [offered("book_flight", "", flight_id="string", passenger="string"), FLIGHTS],
         {"search_flights": {"flight_id": "KE1"}},
         ["search_flights(Seoul,Tokyo)", "book_flight(KE1,Ana)"]),
        ("Read notes.txt and summarize it.",
         [offered("read", "", path="string"), offered("summarize", "", text="string")],
         {"read": "Tides rise."}, ["read(notes.txt)", "summarize(Tides rise.)"]),
        ("Get the price of AAPL and convert it to EUR.",
         [offered("get_price", "", symbol="string"),
          offered("convert", "", amount="number", to="string")],
         {"get_price": "AAPL: 189.3 USD"}, ["get_price(AAPL)", "convert(189.3,EUR)"]),
    ],
)  # fmt: skip
def test_what_comes_later_uses_what_was_found(task: str, tools: Any, results: Any, expected: Any):
    """Numbers, names and whole texts; "then" holds back what would not have to wait."""
    assert rounds(task, tools, results)[0] == expected


@pytest.mark.parametrize(("parallel", "requests"), [(True, 4), (False, 5)])
def test_the_worked_example_of_the_docs(parallel: bool, requests: int):
    """Four calls; the last request gets the answer."""
    task = "Find the user Ana, get her orders and then the shipment of each order."
    offers = [FIND_USER, ORDERS, SHIPMENT]
    made, text = rounds(task, offers, parallel_tool_calls=parallel)
    assert (len(made) + 1, sum(each.count("(") for each in made)) == (requests, 4)
    assert text


@pytest.mark.parametrize("words", ["in the morning", "in detail", "in general and in short"])
def test_not_everything_after_a_preposition_is_a_place(words: str):
    """An article, and the words of common phrases, name none."""
    assert things(f"What is the weather like {words}?").places == []


def test_no_more_than_sixteen_calls_of_one_tool():
    """However many things the task names."""
    cities = ", ".join(f"City{number}" for number in range(40))
    made, _ = rounds(f"What is the weather in {cities}?", [WEATHER])
    assert [each.count("get_weather") for each in made] == [16]


def test_a_call_that_nothing_supplies_an_id_for_is_not_made():
    """The model speaks instead."""
    tools = [offered("cancel_booking", "", booking_id="integer")]
    assert rounds("Cancel the booking.", tools)[0] == []


def test_the_answer_passes_on_all_that_was_found_since_the_task():
    """Of each round, in order."""
    _, text = rounds("Find the user Ana, then get her orders.", [FIND_USER, ORDERS])
    assert text.index('"name": "Ana"') < text.index('"id": "A1"')


def test_one_call_a_round_if_parallel_calls_are_not_wanted():
    """The same calls, one after the other."""
    made, _ = rounds(
        "Get the orders of Ana and Bob.", [FIND_USER, ORDERS], parallel_tool_calls=False
    )
    assert made == ["find_user(Ana)", "find_user(Bob)", "get_orders(7)", "get_orders(8)"]


def test_a_loop_that_must_call_ends_with_the_tool_that_ends_it():
    """Required; results come as messages, or as the user's words, as smolagents sends them."""
    made, text = rounds("Weather in Seoul?", [FINAL, WEATHER], tool_choice="required")
    assert made[0] == "get_weather(Seoul)" and made[1].startswith("final_answer")
    assert "done" in text
    said = [
        {"role": "user", "content": "Weather in Seoul?"},
        {"role": "assistant", "content": "Calling tools:\n[{'function': {'name': 'get_weather'}}]"},
        {"role": "user", "content": "Observation:\nsunny"},
    ]
    made, text = rounds(said, [WEATHER, FINAL], tool_choice="required")
    assert (len(made), text) == (1, "What was found: sunny.")


@pytest.mark.parametrize("found", ["No relevant memories found.", "[]", "관련 기록이 없습니다."])
def test_a_result_that_says_nothing_was_found_is_not_passed_on(found: str):
    """The model answers the task itself."""
    _, text = rounds("Search memory for tides.", [offered("search_memory", "", query="string")],
                     {"search_memory": found})  # fmt: skip
    assert len(text) > 100 and found not in text


def test_after_a_hand_over_the_answer_is_to_the_task():
    """Not that somebody else speaks from now on."""
    tools = [offered("transfer_to_poet", "A poet")]
    _, text = rounds(
        "Let the poet describe tides.", tools, {"transfer_to_poet": '{"assistant": "P"}'}
    )
    assert "assistant" not in text


def test_allowed_tools_narrow_what_may_be_called():
    """Modes auto and required."""
    allowed = [{"type": "function", "function": {"name": "tides"}}]
    for mode, called in (("auto", []), ("required", ["tides"])):
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
        said = answer([{"role": "user", "content": "Weather in Seoul?"}], [WEATHER, TIDES],
                      tool_choice=choice)  # fmt: skip
        assert [call.function.name for call in said.tool_calls or []] == called


def test_a_custom_tool_is_called_with_a_text():
    """The task; its result is taken."""
    run = {"type": "custom", "custom": {"name": "run_code", "description": "Runs code"}}
    asked: Any = [{"role": "user", "content": "Run print(1)"}]
    (call,) = answer(asked, [run]).tool_calls
    assert (call.type, call.custom.name, call.custom.input) == (
        "custom",
        "run_code",
        "Run print(1)",
    )
    told = {"role": "tool", "tool_call_id": call.id, "content": "1"}
    made = {"role": "assistant", "tool_calls": [call.model_dump(exclude_none=True)]}
    assert "1" in answer([*asked, made, told], [run]).content


@pytest.mark.parametrize("kind", ["web_search", "mcp", "file_search"])
def test_a_tool_of_the_provider_is_refused(kind: str):
    """Also beside a function; the error names the place."""
    with pytest.raises(openai.BadRequestError) as error:
        answer([{"role": "user", "content": "x"}], [WEATHER, {"type": kind}])
    assert error.value.param == "tools[1].type"


@pytest.mark.parametrize(
    "schema",
    [
        {"additionalProperties": {"type": "number"}},
        {"additionalProperties": {"type": "number"}, "minProperties": 3},
    ],
)
def test_a_map_has_entries(schema: dict[str, Any]):
    """One that has no properties of its own is not left empty."""
    draw = generator(1, b"", 0, "")
    writer = Replies(DATA / "replies").writer("Prices of fruit", draw, (), False)
    assert build({"type": "object", **schema}, writer)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_agents_rounds_in_time(fresh_lab: Any):
    """LangGraph's agent: 3 requests, and three sub-agents that start together after the first.

    The second request begins when the last of them has ended.
    """

    @tool
    async def research(topic: str) -> str:
        """Research a topic."""
        return await lab.ask(f"Describe {topic} in one sentence.", agent="sub-agent")

    @tool
    async def compare(text: str) -> str:
        """Compare what was found."""
        return f"compared: {len(text.splitlines())}"

    agent: Callable[..., Any] = create_react_agent(
        lab.chat_model(agent="lead"), [research, compare]
    )
    asked = {"messages": [("user", "Research 'tides', 'waves' and 'winds', then compare them.")]}
    with trace() as t:
        last = run_virtual(agent.ainvoke(asked)).result["messages"][-1].content  # type: ignore[attr-defined]
    lead = [span for span in t.spans if span.agent == "lead"]
    team = [span for span in t.spans if span.agent == "sub-agent"]
    assert (len(lead), len(team), t.peak) == (3, 3, 3)
    assert {span.arrived_s for span in team} == {lead[0].end_s}
    assert lead[1].arrived_s == max(span.end_s or 0 for span in team)
    assert "compared: 3" in last


@pytest.mark.parametrize(
    ("result", "answered"),
    [("No. 5 Main Street is free.", True), ("No flights, but 3 trains were found at 9 and 12 and "
      "at 15 o'clock, one of them slow.", True), ("No match was found.", False), ("None", False)],
)  # fmt: skip
def test_a_result_is_left_out_only_if_it_is_all_that_was_said(result: str, answered: bool):
    """Nothing was found: not merely a text that begins with "No"."""
    _, text = rounds("Check the street.", [offered("check_street")], {"check_street": result})
    assert (result.rstrip(".") in text) is answered


@pytest.mark.parametrize("name", ["find_user", "find_person", "lookup"])
def test_who_looks_an_id_up_says_so_in_its_name_or_description(name: str):
    """And is called first, although the task does not name it."""
    tools = [offered(name, "Find a user by name", name="string"), ORDERS]
    made, _ = rounds("Get the orders of Ana.", tools, {name: {"id": 7}})
    assert made == [f"{name}(Ana)", "get_orders(7)"]


def test_tools_that_wait_for_each_other_are_not_called():
    """The loop ends immediately instead of hanging."""
    one = offered("find_ship", "", port_id="string")
    other = offered("find_port", "", ship_id="string")
    assert rounds("Find the ship and the port.", [one, other])[0] == []


@pytest.mark.parametrize("piece", ["A", "a ", "1", "A, ", "'", "a@", "/", "1,000", "in a, "])
def test_awkward_texts_are_read(piece: str):
    """As long as a prompt may be: each character is looked at a bounded number of times."""
    assert things((piece * 12_000)[:12_000])
