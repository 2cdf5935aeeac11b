"""Agents that use tools: the loop, the same on every engine, and what the trace sees of it."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import threading
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import httpx
import msgspec
import pytest
from langchain_core.tools import tool as langchain_tool
from langgraph.prebuilt import ToolNode, create_react_agent
from langgraph.warnings import LangGraphDeprecatedSinceV10
from recipes import recipe

from agentlab import engines, lab
from agentlab.clock import run_virtual
from agentlab.engines import langgraph
from agentlab.errors import ConfigError, ModelError, StepError, TurnsExhausted
from agentlab.lab import Reply, ToolCall
from agentlab.lab._read import _Function as Function
from agentlab.resilience import Guard, Retry, size_tokens
from agentlab.trace import AGENT, Span, ToolSpan, Trace, agent, tool, trace
from agentlab.workflow import Step, Workflow, with_tools
from agentlab.workflow._tools import LONGEST

VIRTUAL = [e for e in engines.ENGINES if e not in ("crewai", "dask")]  # which have their own files


def sleeping(name: str, seconds: float, doc: str = "") -> Any:
    """An async tool that takes so many seconds and says so."""

    async def function(place: str) -> str:
        await lab.sleep(seconds)
        return f"{name} of {place}"

    function.__name__, function.__doc__ = name, doc or f"The {name} of a place."
    return function


TOOLS = {"weather": sleeping("weather", 5), "tides": sleeping("tides", 7)}
TASK = "Tell the weather and the tides in Busan."


def guide(**facts: Any) -> Workflow:
    return Workflow([Step("guide", TASK, tools=["weather", "tides"], **facts)])


# What the trace sees


def call(arrived_s: float, end_s: float, agent: str = "a") -> Span:
    return Span(
        request_id="r", agent=agent, arrived_s=arrived_s, started_s=arrived_s, end_s=end_s,
        status=200,
    )  # fmt: skip


def ran(id: str, started_s: float, end_s: float | None, **facts: Any) -> ToolSpan:
    facts = {"agent": "a", "name": "search", "arrived_s": started_s} | facts
    return ToolSpan(request_id=id, started_s=started_s, end_s=end_s, **facts)


def test_a_tool_is_noted_where_it_ran():
    """In virtual time: from 3 to 8 s, with its name and its agent, on the axis of the requests."""

    async def main():
        await asyncio.sleep(100)
        await lab.ask("Name a river.", agent="writer", max_tokens=20)
        with tool("search", agent="writer"):
            await asyncio.sleep(5)
        await lab.ask("Name a lake.", agent="writer", max_tokens=20)

    _, t = lab.simulate(main())
    (search,) = t.tools
    first, second = t.spans
    assert (search.name, search.agent, search.operation) == ("search", "writer", "execute_tool")
    assert (search.started_s, search.end_s) == (first.end_s, second.arrived_s)
    assert (search.service_s, first.arrived_s) == (5, 0)


def test_clients_and_endpoints_clock_are_one_axis(fresh_lab):
    """In real time, with the endpoint in a process of its own: the tool is between its requests."""

    async def main():
        await lab.ask("Name a river.", max_tokens=2)
        with tool("search"):
            await lab.sleep(5)
        await lab.ask("Name a lake.", max_tokens=2)

    with trace() as t:
        asyncio.run(main())
    (search,), (first, second) = t.tools, t.spans
    assert first.arrived_s == 0
    assert first.first_token_s < search.started_s < search.end_s < second.arrived_s + 0.01
    assert search.service_s >= 5


def test_what_runs_inside_knows_what_is_around_it():
    """Parent, agent and session follow the nesting, through tasks and threads."""

    def blocking():
        with tool("inner"):
            pass

    async def main():
        with agent("boss", session="chat-7"), tool("delegate"), agent("helper"):
            with tool("search"):
                pass
            await asyncio.gather(asyncio.to_thread(blocking))
        with tool("alone"):
            pass

    with trace() as t:
        run_virtual(main())
    names = {s.request_id: s.name for s in t.tools}
    seen = [(s.name, s.agent, names.get(s.parent), s.session) for s in t.tools]
    assert seen == [
        ("boss", "", None, "chat-7"),
        ("delegate", "boss", "boss", "chat-7"),
        ("helper", "boss", "delegate", "chat-7"),
        ("search", "helper", "helper", "chat-7"),
        ("inner", "helper", "helper", "chat-7"),
        ("alone", "", None, None),
    ]
    assert [s.name for s in t.tools if s.operation == AGENT] == ["boss", "helper"]


def test_each_open_trace_has_its_own_tools():
    """The inner block sees one, the outer one both; what runs outside is in none."""
    with tool("before"):
        pass
    with trace() as outer:
        with tool("one"), trace() as inner, tool("two"):
            pass
        assert [s.name for s in outer.tools] == ["one", "two"]
    with tool("after"):
        pass
    assert [s.name for s in inner.tools] == ["two"]
    assert [s.name for s in outer.tools] == ["one", "two"]


def test_a_tool_on_another_clock_is_refused():
    """A tool in real time and a virtual run, or two virtual runs, have no axis in common."""

    async def searched():
        with tool("search"):
            await asyncio.sleep(1)

    for first in (lambda: asyncio.run(searched()), lambda: run_virtual(searched())):
        with pytest.raises(ConfigError, match="2 clocks"), trace():
            first()
            run_virtual(searched())
    with pytest.raises(ConfigError, match="2 clocks"), trace():
        run_virtual(lab.ask("Name a river."))
        with tool("search"):
            pass


def test_a_tool_that_fails_is_noted_with_its_error():
    """And the error goes on as it is."""
    with trace() as t, pytest.raises(ValueError, match="no river"), tool("search"):
        raise ValueError("no river")
    assert t.tools[0].fault == "ValueError: no river"
    assert t.tools[0].end_s is not None


def test_a_stream_that_is_left_early_ends_its_tool():
    """asyncio closes the generator in a task of its own, which must not complain."""

    async def stream() -> AsyncIterator[int]:
        with tool("stream"):
            yield 1
            yield 2

    async def program() -> list[object]:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async for _ in stream():
            break
        gc.collect()
        await asyncio.sleep(1)
        gc.collect()
        return complaints

    complaints, t = lab.simulate(program())
    assert [span.fault for span in t.tools] == ["GeneratorExit"] and complaints == []


def test_a_tool_that_still_runs_has_no_end():
    """An open trace shows it; it counts for no time yet."""
    with trace() as t, tool("search"):
        assert [(s.end_s, s.service_s) for s in t.tools] == [(None, 0)]
        assert (t.makespan_s, t.work_s) == (0, 0)


BUSY = Trace(
    # Requests of two agents; tools, of which the third ran inside of the first.
    [
        call(10, 12),
        call(17, 19),
        call(11, 15, "b"),
        ran("1", 12, 17),
        ran("2", 12, 15),
        ran("3", 13, 14, parent="1"),
        ran("4", 19, 22, agent="b"),
    ],
)


def test_work_and_makespan_count_tools():
    """Requests 2 + 2 + 4; tools 3 + 3, and of the one of 5 s the second inside of it."""
    assert (BUSY.work_s, BUSY.makespan_s, BUSY.peak, BUSY.requests) == (15, 12, 2, 3)


def test_turns_are_requests_with_the_tools_after_them():
    """Agent a: 2 s, then 5 and 3 s of tools; then 2 s. Agent b: 4 s, and a tool of 3 s."""
    bounds = {who: [turn.bound_s() for turn in turns] for who, turns in BUSY.turns.items()}
    assert bounds == {"a": [7, 2], "b": [7]}
    assert BUSY.turns["a"][0].bound_s(serial=True) == 10
    assert BUSY.seconds == {"a": 9, "b": 7}


def test_a_tool_before_the_first_request_is_a_turn_of_its_own():
    """As where documents are fetched first: the trace begins with it."""
    t = Trace([call(14, 16), *[ran("1", 10, 13)]])
    assert [(turn.call is None, turn.bound_s()) for turn in t.turns["a"]] == [(True, 3), (False, 2)]
    assert (t.seconds, t.tools[0].started_s, t.spans[0].arrived_s) == ({"a": 5}, 0, 4)


def test_gaps_are_inferred_and_say_so():
    """Between two requests of an agent, where nothing was noted, and not where they overlap."""
    spans = [call(0, 5), call(1, 2), call(7, 8), call(9, 10), call(10.05, 11), call(3, 4, "b")]
    t = Trace([*spans, ran("1", 8, 9)]).inferred()
    gaps = [(s.started_s, s.end_s, s.agent) for s in t.tools if s.inferred]
    assert gaps == [(5, 7, "a")]
    assert [(s.name, s.inferred) for s in t.tools] == [("gap", True), ("search", False)]


def test_tools_come_back_from_a_file(tmp_path):
    """Spans and tools, equal; and a file of before, without tools, is read as it was."""
    t = Trace([*BUSY.spans, *BUSY.tools, ran("9", 30, None, fault="KeyError: 'x'", session="s")])
    t.save(tmp_path / "run.jsonl")
    again = Trace.load(tmp_path / "run.jsonl")
    assert (again.spans, again.tools) == (t.spans, t.tools)
    (tmp_path / "bad.jsonl").write_text('{"operation": "execute_tool", "name": 3}')
    with pytest.raises(ConfigError, match="give one that was saved"):
        Trace.load(tmp_path / "bad.jsonl")


# The loop


class Scripted:
    """A model that gives prepared replies, and keeps what it was asked."""

    def __init__(self, *turns: Any) -> None:
        self.turns, self.asked = list(turns), []

    async def reply(self, prompt: str, **options: Any) -> Reply:
        self.asked.append({"prompt": prompt, **options})
        said = self.turns.pop(0)
        if isinstance(said, str):
            return Reply(said, 1, 1)
        calls = [
            ToolCall(f"call_{n}", Function(name, arguments))
            for n, (name, arguments) in enumerate(said)
        ]
        return Reply("", 1, 1, "tool_calls", tuple(calls))

    @property
    def told(self) -> list[str]:
        """What the last request says that the tools returned."""
        return [turn["content"] for turn in self.asked[-1]["turns"] if turn["role"] == "tool"]


def once(function: Any, *arguments: str, **options: Any) -> list[str]:
    """What the model is told of calls of one tool with these arguments, in one turn."""
    model = Scripted([("f", each) for each in arguments], "Done.")
    ask = with_tools(model.reply, {"f": function})
    assert run_virtual(ask("Go.", tools=["f"], **options)).result == "Done."
    return model.told


@pytest.mark.parametrize("engine", VIRTUAL)
@pytest.mark.parametrize("seed", range(12))
def test_a_loop_takes_its_calls_and_the_longest_tool_of_each_turn(fresh_lab, engine, seed):
    """1.00 of the bound, by hand: two calls of the model, and the longest of the tools between."""
    draw = random.Random(seed)
    took = {name: draw.randint(1, 40) / 4 for name in ("weather", "tides", "winds")}
    tools = {name: sleeping(name, seconds) for name, seconds in took.items()}
    step = Step("guide", "Tell weather, tides and winds in Busan.", tools=[*took])
    _, t = lab.simulate(engines.run(Workflow([step]), tools=tools, engine=engine))
    first, second = t.spans
    bound_s = round(first.service_s + max(took.values()) + second.service_s, 9)
    assert (t.makespan_s, t.seconds) == (bound_s, {"guide": bound_s})
    assert {s.name: s.service_s for s in t.tools if s.operation != AGENT} == took
    serial_s = sum(turn.bound_s(serial=True) for turn in t.turns["guide"])
    assert (
        t.work_s
        == pytest.approx(serial_s)
        == first.service_s + sum(took.values()) + (second.service_s)
    )


@pytest.mark.parametrize("engine", VIRTUAL[1:])
def test_a_workflow_with_tools_takes_its_span(fresh_lab, engine):
    """The plan made of the trace's seconds is exact: 1.00, with and without tools beside it."""
    w = Workflow(
        [
            Step("guide", TASK, tools=["weather", "tides"]),
            Step("history", "Describe Busan in ten paragraphs.", max_tokens=60),
            Step("page", "Join {guide} and {history}.", max_tokens=30),
        ]
    )
    expected, one_by_one = lab.simulate(engines.run(w, tools=TOOLS, engine="sequential"))
    plan = w.plan(one_by_one.seconds)
    results, t = lab.simulate(engines.run(w, tools=TOOLS, engine=engine))
    assert json.dumps(results) == json.dumps(expected)
    assert (t.makespan_s, t.requests) == (plan.span_s, 4)
    assert one_by_one.makespan_s == plan.work_s


def test_all_engines_send_the_same_requests(fresh_lab):
    """Byte for byte, whatever the order in which the tools end."""

    async def asked(engine):
        seen = []

        async def ask(prompt, **options):
            seen.append(msgspec.json.encode([prompt, options]))
            return await lab.reply(prompt, **options)

        await engines.run(guide(), tools=TOOLS, engine=engine, ask=ask)
        return seen

    first, *others = [lab.simulate(asked(engine))[0] for engine in VIRTUAL]
    assert len(first) == 2
    assert all(other == first for other in others)
    _, options = msgspec.json.decode(first[0])
    assert [each["function"]["name"] for each in options["tools"]] == ["weather", "tides"]


def test_results_are_told_in_the_order_of_the_calls():
    """Though the second tool ends first."""

    async def nap(seconds: int) -> str:
        await asyncio.sleep(seconds)
        return f"slept {seconds}"

    assert once(nap, '{"seconds": 9}', '{"seconds": 2}') == ["slept 9", "slept 2"]


def test_a_failing_tool_ends_nothing_else():
    """Its error is its result; the sibling that takes longer is told whole."""

    async def river(length: int) -> str:
        await asyncio.sleep(length)
        if length < 5:
            raise ValueError("too short")
        return "Elbe"

    with trace() as t:
        assert once(river, '{"length": 2}', '{"length": 9}') == ["ValueError: too short", "Elbe"]
    assert [(s.service_s, s.fault) for s in t.tools[1:]] == [
        (2, "ValueError: too short"),
        (9, None),
    ]


def test_a_tool_that_cancels_itself_is_told_as_a_failure():
    """A task group would take it for a quiet end, and the model would miss a result."""

    async def gone(place: str) -> str:
        raise asyncio.CancelledError

    (told,) = once(gone, '{"place": "x"}')
    assert told.startswith("EndpointError: the call was cancelled")


def typed(query: str, limit: int = 5, since: date | None = None) -> dict[str, Any]:
    """Search the corpus."""
    return {"query": query, "limit": limit, "year": since and since.year}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("{not json", "Invalid JSON"),
        ("[", "Invalid JSON"),
        ("3", "must be an array or an object"),
        ("", "query: Missing required argument"),
        ('{"limit": 2}', "query: Missing required argument"),
        ('{"query": "a", "limit": "many"}', "limit: Input should be a valid integer"),
        ('{"query": "a", "more": 1}', "more: Unexpected keyword argument"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(arguments, says):
    """What is wrong with them, and where; the tool does not run."""
    (told,) = once(typed, arguments)
    assert says in told
    assert "\n" not in told


def test_an_unknown_tool_is_told_with_those_there_are():
    """The model may have made its name up."""
    model = Scripted([("serach", "{}"), ("f", '{"query": "a"}')], "Done.")
    ask = with_tools(model.reply, {"f": typed, "hidden": typed})
    run_virtual(ask("Go.", tools=["f"]))
    assert "no tool 'serach'; call one of f" in model.told[0]
    assert json.loads(model.told[1]) == {"query": "a", "limit": 5, "year": None}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ([1, {"a": "é"}], '[1,{"a":"é"}]'),
        (date(2026, 11, 29), '"2026-11-29"'),
    ],
)
def test_a_result_that_is_no_text_is_json(result, text):
    """As pydantic writes it."""
    assert once(lambda: result, "{}") == [text]


def test_a_result_that_cannot_be_written_is_told():
    """The model hears of what kind it was."""
    (told,) = once(lambda: object(), "{}")
    assert told.startswith("PydanticSerializationError: ")


def test_a_long_result_is_cut_and_says_so():
    """The model is told how much it does not see."""
    whole, cut = once(lambda n: "x" * n, f'{{"n": {LONGEST}}}', f'{{"n": {LONGEST + 1234}}}')
    assert len(whole) == LONGEST
    assert cut == "x" * LONGEST + "\n[cut: 1,234 more characters]"


def test_arguments_become_what_the_parameters_say():
    """A date is a date, as the types of the function ask."""
    (told,) = once(typed, '{"query": "a", "since": "2026-01-02"}')
    assert json.loads(told)["year"] == 2026


def test_the_model_is_told_names_types_and_the_docstring():
    """In OpenAI's form, made from the function itself."""
    model = Scripted("Done.")
    run_virtual(with_tools(model.reply, {"find": typed})("Go.", tools=["find"]))
    (offered,) = model.asked[0]["tools"]
    assert offered["type"] == "function"
    about = offered["function"]
    assert (about["name"], about["description"]) == ("find", "Search the corpus.")
    assert about["parameters"]["required"] == ["query"]
    assert about["parameters"]["properties"]["limit"]["type"] == "integer"


@pytest.mark.parametrize("function", [3, object, len, lambda *names: names])
def test_what_cannot_be_called_by_names_is_refused(function):
    """Before anything is asked, with the tool's name."""
    with pytest.raises(ConfigError, match=r"tool 'f' is .*; give a function"):
        with_tools(lab.reply, {"f": function})


def test_tools_that_block_run_at_the_same_time(fresh_lab):
    """Forty threads meet: none of them would come back if one had to wait for another's end."""
    fresh_lab.configure(preset="instant")
    meeting = threading.Barrier(40, timeout=60)

    def meet(number: int) -> int:
        with tool("inside"):
            return meeting.wait() * 0 + number

    model = Scripted([("meet", f'{{"number": {n}}}') for n in range(40)], "Done.")
    ask = with_tools(model.reply, {"meet": meet})
    with trace() as t:
        asyncio.run(ask("Go.", tools=["meet"], agent="crowd"))
    assert model.told == [str(n) for n in range(40)]
    inside = [s for s in t.tools if s.name == "inside"]
    names = {s.request_id: s.name for s in t.tools}
    assert {(s.agent, names[s.parent]) for s in inside} == {("crowd", "meet")}


def test_a_tool_may_return_what_is_awaited():
    """As a plain function does that hands on to an async one."""

    async def later(n: int) -> int:
        await asyncio.sleep(3)
        return n

    def hands_on(n: int) -> Any:
        return later(n)

    assert once(hands_on, '{"n": 4}') == ["4"]


@pytest.mark.parametrize("engine", VIRTUAL)
def test_a_loop_without_end_ends(fresh_lab, engine):
    """After `max_turns` requests; the error names the step, and has what was done."""
    model = Scripted(*[[("weather", '{"place": "Busan"}')]] * 3)
    with pytest.raises(
        StepError, match=r"'guide'.*TurnsExhausted.* each of its 3 answers"
    ) as error:
        run_virtual(engines.run(guide(max_turns=3), tools=TOOLS, engine=engine, ask=model.reply))
    assert len(model.asked) == 3
    assert isinstance(error.value.__cause__, TurnsExhausted)
    assert len(error.value.__cause__.turns) == 6


@pytest.mark.parametrize("engine", VIRTUAL)
def test_a_missing_tool_asks_nothing(fresh_lab, engine):
    """It is refused before anything is paid for, with the way to give it."""
    with trace() as t, pytest.raises(ConfigError, match="no functions for the tools 'tides' of"):
        some = {"weather": TOOLS["weather"]}
        run_virtual(engines.run(guide(), tools=some, engine=engine))
    assert t.requests == 0


def test_a_turn_that_fails_is_repeated_without_its_tools(fresh_lab):
    """A guard around `reply` guards each request; a tool that ran is not run again."""
    ran = []

    async def weather(place: str) -> str:
        ran.append(place)
        return "rain"

    faults = [{"kind": "error", "status": 503, "calls": [2]}]
    fresh_lab.configure(faults=faults)
    w = Workflow([Step("guide", "Tell the weather in Busan.", tools=["weather"])])
    guard = Guard(retry=Retry(attempts=3))
    asking = engines.run(w, tools={"weather": weather}, ask=guard.around(lab.reply))
    results, t = lab.simulate(asking)
    assert [span.status for span in t.spans] == [200, 503, 200]
    assert len(ran) == 1
    assert "rain" in results["guide"]


def test_a_limit_of_tokens_counts_tools_and_turns(fresh_lab):
    """What a guard takes out of its bucket grows with the context, as the model counts it."""
    sizes = []

    async def ask(prompt, **options):
        reply = await lab.reply(prompt, **options)
        sizes.append(size_tokens(prompt, **options) / reply.prompt_tokens)
        return reply

    long = {"weather": sleeping("weather" * 200, 1), "tides": TOOLS["tides"]}
    run_virtual(with_tools(ask, long)(TASK, tools=[*long]))
    assert len(sizes) == 2
    assert all(0.75 < size < 1.5 for size in sizes)


def test_a_failure_of_one_step_ends_the_tools_of_another(fresh_lab):
    """When a step fails, what runs beside it is cancelled, and noted as cancelled."""

    async def ask(prompt, *, agent, **options):
        if agent == "bad":
            await asyncio.sleep(4)
            raise ModelError("refused", status=400)
        return await lab.reply(prompt, agent=agent, **options)

    w = Workflow([Step("guide", TASK, tools=["weather", "tides"]), Step("bad", "Name a lake.")])
    with trace() as t, pytest.raises(StepError, match="'bad'"):
        run_virtual(engines.run(w, tools=TOOLS, ask=ask))
    ended = {s.name: s.fault for s in t.tools}
    assert ended.pop("bad") == "ModelError: refused"
    assert ended == dict.fromkeys(["guide", "weather", "tides"], "CancelledError")


def test_a_reply_cut_in_its_calls_is_no_answer(fresh_lab):
    """Arguments that stop in the middle would be no JSON: the error says that a limit did it."""
    body = {"finish_reason": "length", "message": {"tool_calls": [{"id": "1", "function": {
        "name": "weather", "arguments": '{"pla'}}]}}  # fmt: skip
    answer = httpx.Response(200, json={"choices": [body]})
    with pytest.raises(ModelError, match="cut it off"):
        lab.read(answer, max_tokens=9)
    whole = httpx.Response(200, json={"choices": [body | {"finish_reason": "stop"}]})
    (called,) = lab.read(whole).tool_calls
    assert (called.id, called.function.arguments) == ("1", '{"pla')


@pytest.mark.parametrize(("sent", "read"), [({"city": "Busan"}, '{"city":"Busan"}'), (None, "{}")])
def test_arguments_that_are_no_text_become_text(sent: Any, read: str, fresh_lab):
    """Some servers send an object, or null, where OpenAI has JSON in a text."""
    call = {"id": "1", "function": {"name": "weather", "arguments": sent}}
    body = {"finish_reason": "tool_calls", "message": {"tool_calls": [call]}}
    (called,) = lab.read(httpx.Response(200, json={"choices": [body]})).tool_calls
    assert called.function.arguments == read


# Against the frameworks' own loops


def prebuilt(*functions: Any, **options: Any) -> Any:
    """LangGraph's own loop, with these tools."""
    with pytest.warns(LangGraphDeprecatedSinceV10):
        return create_react_agent(
            lab.chat_model(agent="guide", temperature=0),
            ToolNode([langchain_tool(function) for function in functions], **options),
        )


def test_langgraphs_own_agent_takes_the_same_bound(fresh_lab):
    """Its prebuilt agent, with the same tools: as many requests, and 1.00 of its bound.

    The handler of docs/module.md hears of the tools what the loop of workflows notes by itself.
    """
    heard = {"callbacks": [recipe("ToolEvents")("guide")]}
    asking = prebuilt(*TOOLS.values()).ainvoke({"messages": [("user", TASK)]}, heard)
    _, t = lab.simulate(asking)
    first, second = t.spans
    assert [(s.name, s.agent, s.started_s, s.service_s) for s in t.tools] == [
        ("weather", "guide", first.end_s, 5),
        ("tides", "guide", first.end_s, 7),
    ]
    bound_s = round(first.service_s + 7 + second.service_s, 9)
    assert (t.makespan_s, t.seconds) == (bound_s, {"guide": bound_s})
    assert t.requests == lab.simulate(engines.run(guide(), tools=TOOLS))[1].requests


def test_langgraphs_tools_are_inferred_where_nobody_listens(fresh_lab):
    """One gap from the answer to the next request, as long as the longest tool."""
    _, t = lab.simulate(prebuilt(*TOOLS.values()).ainvoke({"messages": [("user", TASK)]}))
    assert t.tools == []
    (gap,) = t.inferred().tools
    assert (gap.agent, gap.started_s, gap.service_s) == ("guide", t.spans[0].end_s, 7)


@pytest.mark.parametrize("handled", [False, True])
def test_langgraphs_default_lets_one_failing_tool_end_the_run(fresh_lab, handled):
    """LangGraph 1.2: its error cancels the sibling and the paid turn is lost, unless handled.

    The loop of workflows is as if it were handled.
    """

    async def tides(place: str) -> str:
        """The tides of a place."""
        await asyncio.sleep(2)
        raise ValueError("no tides")

    agent = prebuilt(TOOLS["weather"], tides, handle_tool_errors=handled)
    heard = {"callbacks": [recipe("ToolEvents")("guide")]}
    said, t = lab.simulate(agent.ainvoke({"messages": [("user", TASK)]}, heard), catch=ValueError)
    weather, failed = t.tools
    assert (failed.name, failed.fault) == ("tides", "ValueError: no tides")
    # langchain-core 1.7 tells nobody of a tool that is cancelled; 1.8 does.
    ends = [(False, None)] if handled else [(True, None), (False, "CancelledError")]
    assert (weather.end_s is None, weather.fault) in ends
    assert (isinstance(said, ValueError), t.requests) == ((False, 2) if handled else (True, 1))
    tools = TOOLS | {"tides": tides}
    _, ours = lab.simulate(engines.run(guide(), tools=tools, engine="langgraph"))
    assert [s.fault for s in ours.tools if s.operation != AGENT] == [None, "ValueError: no tides"]
    assert ours.requests == 2


def test_a_graph_of_ones_own_takes_tools(fresh_lab):
    """The plain graph, and the functional one, with the same loop as their `ask`."""
    ask = with_tools(lab.reply, TOOLS)
    state, t = lab.simulate(langgraph.graph(guide(), ask=ask).compile().ainvoke({"inputs": {}}))
    results, _ = lab.simulate(engines.run(guide(), tools=TOOLS))
    assert (state["results"], t.requests) == (results, 2)
