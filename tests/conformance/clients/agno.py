"""agno: an agent, its JSON mode, and a team."""

import cells
from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.openai import OpenAIChat, OpenAIResponses
from agno.team import Team
from cells import MODEL, TOOLS, cell
from pydantic import BaseModel


class Market(BaseModel):
    title: str
    risks: list[str]


for route, kind in {"chat": OpenAIChat, "Responses": OpenAIResponses}.items():

    @cell("plain", 1, route)
    def _():
        assert Agent(model=kind(id=MODEL)).run("Describe tides.").content

    @cell("stream", 1, route)
    def _():
        parts = Agent(model=kind(id=MODEL)).run("Describe tides.", stream=True)
        assert "".join(part.content or "" for part in parts)

    def ask(question):
        return Agent(model=kind(id=MODEL), tools=[*TOOLS.values()]).run(question).content

    cells.tool_cells(ask, route)

    for name, json_mode in {"structured output": False, "JSON mode": True}.items():

        @cell(name, 1, route)
        def _():
            agent = Agent(model=kind(id=MODEL), output_schema=Market, use_json_mode=json_mode)
            assert agent.run("Describe the market for tides.").content.risks

    @cell("second turn", 2, route)
    def _():
        db = InMemoryDb()
        agent = Agent(model=kind(id=MODEL), db=db, add_history_to_context=True, session_id="one")
        agent.run("Describe tides.")
        assert agent.run("And what do they cost?").content

    @cell("team", None, route)
    def _():
        researcher = Agent(name="Researcher", role="Researches a topic", model=kind(id=MODEL))
        writer = Agent(name="Writer", role="Writes a text", model=kind(id=MODEL))
        team = Team(members=[researcher, writer], model=kind(id=MODEL))
        answer = team.run("Delegate to the researcher: what is known about tides?")
        assert answer.member_responses, "no member was asked"
        assert answer.content
