"""instructor: structured output in each of its modes."""

import instructor
from cells import MODEL, cell
from instructor import Mode
from openai import OpenAI
from pydantic import BaseModel

ASKED = [{"role": "user", "content": "Describe the market for tides."}]


class Market(BaseModel):
    title: str
    risks: list[str]


for mode in [Mode.TOOLS, Mode.TOOLS_STRICT, Mode.JSON_SCHEMA, Mode.JSON, Mode.MD_JSON]:
    name = "structured output" if mode is Mode.TOOLS else mode.name

    @cell(name, 1)
    def _():
        client = instructor.from_openai(OpenAI(), mode=mode)
        create = client.chat.completions.create
        assert create(model=MODEL, messages=ASKED, response_model=Market).risks


@cell("RESPONSES_TOOLS", 1)
def _():
    client = instructor.from_openai(OpenAI(), mode=Mode.RESPONSES_TOOLS)
    assert client.responses.create(model=MODEL, input=ASKED, response_model=Market).risks


@cell("stream", 1)
def _():
    client = instructor.from_openai(OpenAI())
    parts = client.chat.completions.create_partial(
        model=MODEL, messages=ASKED, response_model=Market
    )
    assert [*parts][-1].risks
