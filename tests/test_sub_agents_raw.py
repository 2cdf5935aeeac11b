"""What lesson 09b says of agents that start agents, counted by the endpoint with raw frameworks.

LangGraph runs in virtual time. CrewAI runs in real time, with answers so unlike in length that no
machine is slow enough to mix them up.
"""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, create_react_agent
from langgraph.types import Command, Send, interrupt
from lessons import NOTEBOOKS, Lesson, run

from agentlab import lab
from agentlab.trace import Trace, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # CrewAI's, its libraries', and LangGraph's own

CUT = [{"kind": "cut", "agent": "broken", "probability": 1.0}]
EMPTY: dict[str, Any] = {"notes": []}
THREAD: Any = {"configurable": {"thread_id": "one"}}
TRIO = {"quick": 3, "broken": 5, "slow": 8}


class State(MessagesState):
    notes: Annotated[list, operator.add]


async def describe(name, seconds):
    words = {"agent": name, "max_tokens": 10 * seconds - 9, "temperature": 0}
    return await lab.ask(f"Describe {name} in ten paragraphs.", **words)


def member(name, seconds, then=()):
    async def node(state):
        return Command(update={"notes": [f"{name}: {await describe(name, seconds)}"]}, goto=then)

    return node


def parallel(nodes, saver=None):
    graph = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, node).add_edge(START, name)
    return graph.compile(checkpointer=saver)


def asked(t):
    return Counter(span.agent for span in t.spans)


# Agents as tools, and hand-offs


def as_tool(name):
    @tool(f"ask_{name}")
    async def ask(city: str) -> str:
        """Ask a colleague about a city."""
        return await lab.ask(f"Describe the {name} of {city}.", agent=name)

    return ask


@pytest.mark.parametrize(
    ("task", "turns"),
    [
        ("Ask the harbour and the market about Busan.", 2),
        ("Ask the harbour about Busan, and then ask the market about Busan.", 3),
    ],
)
def test_a_boss_costs_a_turn_before_the_work_and_one_after_it(task, turns):
    """Two agents are asked once each; with "then", the boss is asked in between, too."""
    boss = create_react_agent(lab.chat_model(agent="boss"), [as_tool("harbour"), as_tool("market")])
    state, t = lab.simulate(boss.ainvoke({"messages": [("user", task)]}))
    assert asked(t) == {"boss": turns, "harbour": 1, "market": 1}
    told = [message.text for message in state["messages"] if message.type == "tool"]
    assert len(told) == 2 and all(text in state["messages"][-1].text for text in told)


def by_name(name):
    return name


def by_send(name):
    return [Send(name, {})]


def hand_over(name, goto):
    @tool(f"hand_to_{name}")
    async def hand(task: str):
        """Hand the task over to a colleague."""
        return Command(goto=goto(name), graph=Command.PARENT)

    return hand


@pytest.mark.parametrize(
    ("version", "goto", "colleagues"),
    [("v1", by_name, 1), ("v1", by_send, 2), ("v2", by_name, 1), ("v2", by_send, 1)],
)
def test_two_hand_offs_in_one_answer_lose_a_colleague(version, goto, colleagues):
    """Only one tool node for all calls, with `Send`, asks both; no other way raises an error."""
    pair = ["cook", "baker"]
    tools = [hand_over(name, goto) for name in pair]
    boss = create_react_agent(lab.chat_model(agent="boss"), tools, version=version)
    graph = StateGraph(State).add_node("boss", boss).add_edge(START, "boss")
    for name in pair:
        graph.add_node(name, member(name, 5))
    order = {"messages": [("user", "Hand to the cook and to the baker.")], "notes": []}
    state, t = lab.simulate(graph.compile().ainvoke(order))
    assert (asked(t)["boss"], t.requests - 1, len(state["notes"])) == (1, colleagues, colleagues)


def test_a_lost_hand_off_that_takes_the_messages_along_is_refused():
    """Two calls and one result are no conversation: the colleague's request gets 400."""

    def hand(name):
        @tool(f"hand_to_{name}")
        async def over(task: str, state: Annotated[dict, InjectedState]):
            """Hand the task over to a colleague."""
            call = state["messages"][-1].tool_calls[0]
            told = ToolMessage(f"{name} takes over", tool_call_id=call["id"])
            return Command(
                goto=name,
                graph=Command.PARENT,
                update={"messages": [*state["messages"], told]},
            )

        return over

    async def colleague(state):
        model = lab.chat_model(agent="colleague")
        return {"messages": [await model.ainvoke(state["messages"])]}

    boss = create_react_agent(lab.chat_model(agent="boss"), [hand("cook"), hand("baker")])
    graph = StateGraph(State).add_node("boss", boss).add_edge(START, "boss")
    graph.add_node("cook", colleague).add_node("baker", colleague)
    order = {"messages": [("user", "Hand to the cook and to the baker.")]}
    error, t = lab.simulate(graph.compile().ainvoke(order), catch=Exception)
    assert "400" in str(error) and "tool" in str(error)
    assert [(span.agent, span.status) for span in t.spans] == [("boss", 200), ("colleague", 400)]


def test_one_command_that_names_both_asks_both():
    """Calls that the program collects itself, in a node of the same graph, lose nobody."""
    graph = StateGraph(State).add_node("guide", member("guide", 2, ["cook", "baker"]))
    graph.add_node("cook", member("cook", 5)).add_node("baker", member("baker", 5))
    _, t = lab.simulate(graph.add_edge(START, "guide").compile().ainvoke(EMPTY))
    assert (asked(t), t.peak, t.makespan_s) == ({"guide": 1, "cook": 1, "baker": 1}, 2, 7)


def test_a_goto_to_a_node_that_is_not_there_raises_nothing():
    """The update is kept, and the run ends."""
    graph = StateGraph(State).add_node("guide", member("guide", 2, "nobody"))
    state, t = lab.simulate(graph.add_edge(START, "guide").compile().ainvoke(EMPTY))
    assert (t.requests, len(state["notes"])) == (1, 1)


# Map-reduce

JOBS = [Send("scout", {"name": name, "seconds": s}) for name, s in {"ant": 3, "bee": 5}.items()]


def mapped(first):
    async def scout(job):
        return {"notes": [await describe(job["name"], job["seconds"])]}

    graph = StateGraph(State).add_node("scout", scout).add_edge("scout", "report")
    return first(graph.add_node("report", member("report", 2))).compile()


def from_an_edge(graph):
    return graph.add_conditional_edges(START, lambda state: JOBS, ["scout"])


async def plan(state):
    return Command(goto=JOBS)


def from_a_node(graph):
    return graph.add_node("plan", plan).add_edge(START, "plan")


def test_a_list_from_an_edge_and_from_a_node_are_one():
    """The same requests at the same times, and the same notes."""
    states, traces = zip(
        *[lab.simulate(mapped(first).ainvoke(EMPTY)) for first in (from_an_edge, from_a_node)],
        strict=True,
    )
    one, two = [[(s.agent, s.arrived_s, s.end_s) for s in t.spans] for t in traces]
    assert one == two and states[0] == states[1]
    assert (traces[0].peak, traces[0].makespan_s) == (2, 7)


def test_a_goto_comes_on_top_of_the_edges_of_its_node():
    """The report is asked beside the scouts, and again after them."""
    both = mapped(lambda graph: from_a_node(graph).add_edge("plan", "report"))
    _, t = lab.simulate(both.ainvoke(EMPTY))
    assert asked(t) == {"ant": 1, "bee": 1, "report": 2}
    assert [span.arrived_s for span in t.spans if span.agent == "report"] == [0, 5]


# The first k of n

SCOUTS = {"ant": 3, "bee": 5, "crow": 8, "dog": 13}


async def first(k, cancels):
    tasks = [asyncio.create_task(describe(*one)) for one in SCOUTS.items()]
    answers = []
    for done in asyncio.as_completed(tasks):
        answers.append(await done)
        if len(answers) == k:
            break
    for task in tasks if cancels else []:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


@pytest.mark.parametrize(
    ("cancels", "written", "ends_s"), [(True, [21, 41, 41, 41], 5), (False, [21, 41, 71, 121], 13)]
)
def test_the_cancelled_cost_what_they_had_done(cancels, written, ends_s):
    """Ten tokens a second after the first: 41 at 5 s, and the whole prompt."""
    answers, t = lab.simulate(first(2, cancels))
    assert len(answers) == 2 and t.makespan_s == ends_s
    assert [span.completion_tokens for span in t.spans] == written
    assert {span.prompt_tokens for span in t.spans} == {13}
    assert [span.status for span in t.spans][2:] == ([499, 499] if cancels else [200, 200])


# A sub-agent fails


def fails_and_is_run_again(app, given):
    with lab.configure(faults=CUT):
        _, failed = lab.simulate(app.ainvoke(EMPTY, THREAD), catch=Exception)
    _, again = lab.simulate(app.ainvoke(given, THREAD))
    return asked(failed), asked(again)


TRIO_NODES = {name: member(name, seconds) for name, seconds in TRIO.items()}


def test_without_a_checkpointer_all_are_paid_for_again(fresh_lab):
    """Six requests for three answers."""
    failed, again = fails_and_is_run_again(parallel(TRIO_NODES), EMPTY)
    assert failed == again == dict.fromkeys(TRIO, 1)


def test_with_one_what_had_ended_is_not(fresh_lab):
    """A pending write is kept: five requests."""
    failed, again = fails_and_is_run_again(parallel(TRIO_NODES, InMemorySaver()), None)
    assert failed == dict.fromkeys(TRIO, 1)
    assert again == {"broken": 1, "slow": 1}


def test_a_failure_that_is_handled_cancels_nobody(fresh_lab):
    """Three requests, and one for what is missing."""

    def handled(name, seconds):
        async def node(state):
            try:
                return {"notes": [await describe(name, seconds)]}
            except Exception:
                return {"notes": []}

        return node

    app = parallel({name: handled(name, seconds) for name, seconds in TRIO.items()})
    with lab.configure(faults=CUT):
        state, t = lab.simulate(app.ainvoke(EMPTY))
    assert asked(t) == dict.fromkeys(TRIO, 1) and len(state["notes"]) == 2
    assert {span.status for span in t.spans} == {200}


def test_a_graph_of_its_own_resumes_inside(fresh_lab):
    """Of a sub-agent with two steps only the one that failed is asked again."""

    def two_steps(one, other):
        graph = StateGraph(State).add_sequence([(one, member(one, 2)), (other, member(other, 2))])
        return graph.add_edge(START, one).compile()

    branches = {"a": two_steps("a1", "a2"), "b": two_steps("b1", "broken")}
    failed, again = fails_and_is_run_again(parallel(branches, InMemorySaver()), None)
    assert failed == {"a1": 1, "a2": 1, "b1": 1, "broken": 1}
    assert again == {"broken": 1}


# Whose token?


async def speak(job):
    model = lab.chat_model(agent=job["topic"], max_tokens=21)
    answer = await model.ainvoke(f"Describe {job['topic']}.", {"metadata": job})
    return {"notes": [answer.text]}


def speaker(node):
    return StateGraph(dict).add_node("speak", node).add_edge(START, "speak").compile()


async def pieces(app, key, **options):
    words = {"stream_mode": "messages", "version": "v2"} | options
    found = [part["data"] async for part in app.astream(EMPTY, **words)]
    return Counter(about[key] for piece, about in found if piece.content)


def sent(node):
    jobs = [Send("speaker", {"topic": topic}) for topic in ["tides", "winds"]]
    graph = StateGraph(State).add_node("speaker", node)
    return graph.add_conditional_edges(START, lambda state: jobs, ["speaker"]).compile()


@pytest.mark.parametrize(
    ("node", "options", "key", "counted"),
    [
        (speaker(speak), {}, "topic", {}),
        (speaker(speak), {"subgraphs": True}, "langgraph_node", {"speak": 42}),
        (speaker(speak), {"subgraphs": True}, "topic", {"tides": 21, "winds": 21}),
        (speak, {}, "langgraph_node", {"speaker": 42}),
        (speak, {}, "topic", {"tides": 21, "winds": 21}),
    ],
)
def test_pieces_of_branches_that_were_sent(node, options, key, counted):
    """Sub-graphs are silent without `subgraphs`, and one node's branches have one name."""
    found, t = lab.simulate(pieces(sent(node), key, **options))
    assert found == counted
    assert asked(t) == {"tides": 1, "winds": 1}
    assert {span.completion_tokens for span in t.spans} == {21}


def test_pieces_of_nodes_of_their_own():
    """Then `langgraph_node` is enough."""

    def on(topic):
        async def node(state):
            return await speak({"topic": topic})

        return node

    app = parallel({topic: on(topic) for topic in ["tides", "winds"]})
    found, _ = lab.simulate(pieces(app, "langgraph_node"))
    assert found == {"tides": 21, "winds": 21}


def test_a_sub_graph_hands_out_its_whole_state():
    """Two of them with the same plain key are refused, after they were paid for."""

    class Job(State):
        topic: str

    graph = StateGraph(Job).add_node("speak", speak).add_edge(START, "speak").compile()
    jobs = [Send("speaker", {"topic": topic}) for topic in ["tides", "winds"]]
    outer = StateGraph(Job).add_node("speaker", graph)
    app = outer.add_conditional_edges(START, lambda state: jobs, ["speaker"]).compile()
    error, t = lab.simulate(app.ainvoke(EMPTY), catch=Exception)
    assert isinstance(error, InvalidUpdateError) and t.requests == 2


# A person is asked


def asks(name):
    async def node(state):
        await describe(name, 5)
        return {"notes": [f"{name}: {interrupt(f'Publish {name}?')}"]}

    return node


def approval():
    return parallel({name: asks(name) for name in ["tides", "winds"]}, InMemorySaver())


def open_questions(state):
    return {each.value: each.id for each in state["__interrupt__"]}


def test_a_node_that_asks_a_person_runs_twice():
    """Two answers in one resume: each gets to its draft, which is paid for again."""
    app = approval()
    state, today = lab.simulate(app.ainvoke(EMPTY, THREAD))
    ids = open_questions(state)
    says = {ids["Publish tides?"]: "yes", ids["Publish winds?"]: "no"}
    state, tomorrow = lab.simulate(app.ainvoke(Command(resume=says), THREAD))
    assert state["notes"] == ["tides: yes", "winds: no"]
    assert asked(today) == asked(tomorrow) == {"tides": 1, "winds": 1}


def test_answers_one_at_a_time_run_the_other_node_thrice():
    """Five requests for two drafts; but nobody is asked the same question under another id."""
    app = approval()
    state, one = lab.simulate(app.ainvoke(EMPTY, THREAD))
    ids = open_questions(state)
    resume = Command(resume={ids["Publish tides?"]: "yes"})
    state, two = lab.simulate(app.ainvoke(resume, THREAD))
    assert open_questions(state) == {"Publish winds?": ids["Publish winds?"]}
    resume = Command(resume={ids["Publish winds?"]: "no"})
    state, three = lab.simulate(app.ainvoke(resume, THREAD))
    assert state["notes"] == ["tides: yes", "winds: no"]
    assert asked(one) + asked(two) + asked(three) == {"tides": 2, "winds": 3}


def test_one_answer_without_an_id_is_refused():
    """Two questions are open, so whose answer would it be? Nothing is asked."""
    app = approval()
    lab.simulate(app.ainvoke(EMPTY, THREAD))
    error, t = lab.simulate(app.ainvoke(Command(resume="yes"), THREAD), catch=RuntimeError)
    assert "must specify the interrupt id" in str(error) and t.requests == 0


def test_branches_that_have_ended_do_not_run_again():
    """Only the one that asked does."""
    nodes = {name: member(name, 2) for name in ["a", "b", "c"]} | {"tides": asks("tides")}
    app = parallel(nodes, InMemorySaver())
    lab.simulate(app.ainvoke(EMPTY, THREAD))
    _, t = lab.simulate(app.ainvoke(Command(resume="yes"), THREAD))
    assert asked(t) == {"tides": 1}


def test_a_question_in_a_node_of_its_own_costs_nothing():
    """The draft is in the node before it: two requests, whatever the order of the answers."""

    async def question(state):
        return {"notes": [interrupt("Publish?")]}

    graph = StateGraph(State)
    for name in ["tides", "winds"]:
        graph.add_node(name, member(name, 5)).add_edge(START, name)
        graph.add_node(f"ask {name}", question).add_edge(name, f"ask {name}")
    app = graph.compile(checkpointer=InMemorySaver())
    state, t = lab.simulate(app.ainvoke(EMPTY, THREAD))
    assert asked(t) == {"tides": 1, "winds": 1}
    for each in state["__interrupt__"]:
        _, t = lab.simulate(app.ainvoke(Command(resume={each.id: "yes"}), THREAD))
        assert t.requests == 0


def test_the_person_answers_another_process(tmp_path):
    """The lesson's own file: one process asks and ends, and another finds the questions in it."""
    *cells, resume = Lesson.load(NOTEBOOKS / "09b_sub_agents.ipynb").up_to("get_state(THREAD)")
    file = repr((tmp_path / "runs.pickle").as_posix())
    *others, today = [cell.replace('f"{mkdtemp()}/runs.pickle"', file) for cell in cells]
    assert "ainvoke" in today and any(file in cell for cell in others)
    run(NOTEBOOKS, [*others, today])
    *_, printed = run(NOTEBOOKS, [*others, resume.replace("today.requests, ", "")])
    assert printed == "2 ['tides: yes', 'winds: yes']\n"


def test_tools_of_one_graph_hand_over_to_both():
    """A hand-off inside the graph is no exception, so it is not lost."""

    def hand(name):
        @tool(f"hand_to_{name}")
        async def over(task: str):
            """Hand the task over to a colleague."""
            return Command(goto=name)

        return over

    tools = [hand("cook"), hand("baker")]

    async def boss(state):
        model = lab.chat_model(agent="boss").bind_tools(tools)
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(State).add_sequence([("boss", boss), ("tools", ToolNode(tools))])
    graph.add_node("cook", member("cook", 5)).add_node("baker", member("baker", 5))
    order = {"messages": [("user", "Hand to the cook and to the baker.")], "notes": []}
    _, t = lab.simulate(graph.add_edge(START, "boss").compile().ainvoke(order))
    assert asked(t) == {"boss": 1, "cook": 1, "baker": 1}


# CrewAI, on the real clock


def in_real_time(fresh_lab, program):
    fresh_lab.configure(time_scale=20)

    async def main():
        with trace() as t:
            result = await program
            # Until this is answered the endpoint learns of each connection that was closed.
            await describe("later", 20)
        own = Trace([span for span in t.spans if span.agent != "later"])
        return result, {span.agent: span.status for span in own.spans}, own

    return asyncio.run(main())


@pytest.fixture(scope="module")
def flows():
    from agentlab.lab import crews  # noqa: F401  # before crewai

    # isort: split
    from crewai.flow import flow

    return flow


def race(flow, report_s, winds_s):
    class Race(flow.Flow):
        @flow.start()
        async def begin(self): ...

        @flow.listen(begin)
        async def tides(self):
            return await describe("tides", 2)

        @flow.listen(begin)
        async def winds(self):
            return await describe("winds", winds_s)

        @flow.listen(flow.or_(tides, winds))
        async def report(self):
            return await describe("report", report_s)

    return Race(suppress_flow_events=True).kickoff_async()


@pytest.mark.parametrize(
    ("report_s", "winds_s", "statuses"),
    [
        (60, 4, {"tides": 200, "winds": 200, "report": 499}),
        (2, 60, {"tides": 200, "winds": 499, "report": 200}),
    ],
)
def test_an_or_cancels_what_ends_last(fresh_lab, flows, report_s, winds_s, statuses):
    """A runner of the race has ended when all that follows it has; its words are the result."""
    result, seen, _ = in_real_time(fresh_lab, race(flows, report_s, winds_s))
    assert seen == statuses
    last = ("report", report_s) if seen["report"] == 200 else ("winds", winds_s)
    assert result == asyncio.run(describe(*last))


def test_starts_do_not_race(fresh_lab, flows):
    """The report is made once, and both answers are paid for in full."""

    class Starts(flows.Flow):
        @flows.start()
        async def tides(self):
            return await describe("tides", 2)

        @flows.start()
        async def winds(self):
            return await describe("winds", 20)

        @flows.listen(flows.or_(tides, winds))
        async def report(self):
            return await describe("report", 2)

    _, seen, t = in_real_time(fresh_lab, Starts(suppress_flow_events=True).kickoff_async())
    assert (seen, t.requests) == ({"tides": 200, "winds": 200, "report": 200}, 3)


@pytest.mark.parametrize(("word", "requests"), [("good", 2), ("Good", 1)])
def test_a_word_that_nobody_listens_to_ends_a_flow(fresh_lab, flows, word, requests):
    """Without an error, and the word is what it returns."""

    class Checked(flows.Flow):
        @flows.start()
        async def draft(self):
            return await describe("draft", 2)

        @flows.router(draft)
        def verdict(self):
            return word

        @flows.listen("good")
        async def publish(self):
            return await describe("publish", 2)

    run = Checked(suppress_flow_events=True).kickoff_async()
    result, _, t = in_real_time(fresh_lab, run)
    assert t.requests == requests
    assert (result == word) == (word == "Good")


def test_a_manager_is_asked_around_each_task(fresh_lab, flows):
    """Two tasks: six requests instead of two, and more than ten times the tokens."""
    from crewai import Agent, Crew, Process, Task

    async def bill(**options):
        words = {"goal": "Help", "backstory": "You check facts."}
        llms = {r: lab.crew_llm(agent=r, max_tokens=41) for r in ["geographer", "historian"]}
        people = [Agent(role=role, llm=llm, **words) for role, llm in llms.items()]
        tasks = [
            Task(
                description=f"Describe the {what} of Busan.",
                expected_output="Text",
                agent=None if options else person,
            )
            for what, person in zip(["place", "history"], people, strict=True)
        ]
        await Crew(agents=people, tasks=tasks, **options).kickoff_async()

    async def managed():
        manager = lab.crew_llm(agent="manager")
        await bill(process=Process.hierarchical, manager_llm=manager)

    _, _, plain = in_real_time(fresh_lab, bill())
    _, _, led = in_real_time(fresh_lab, managed())
    assert (plain.requests, led.requests, led.peak) == (2, 6, 1)
    assert asked(led)["manager"] == 4
    assert 10 < led.tokens / plain.tokens < 11
