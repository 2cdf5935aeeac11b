"""litellm: chat, Responses, text completions, embeddings, and vLLM by its own provider."""

import json

import cells
import litellm
from cells import ASKS, BASE_URL, TOOLS, cell
from pydantic import BaseModel

MODEL = f"openai/{cells.MODEL}"
ASKED = [{"role": "user", "content": "Describe the market for tides."}]
SPECS = [{"type": "function", "function": cells.function(tool)} for tool in TOOLS.values()]


class Market(BaseModel):
    title: str
    risks: list[str]


@cell("plain", 1)
def _():
    assert litellm.completion(MODEL, ASKED).choices[0].message.content


@cell("plain, hosted_vllm", 1)
def _():
    model = f"hosted_vllm/{cells.MODEL}"
    assert litellm.completion(model, ASKED, api_base=BASE_URL).choices[0].message.content


@cell("stream", 1)
def _():
    chunks = [*litellm.completion(MODEL, ASKED, stream=True)]
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content


@cell("tool loop", 2)
def _():
    messages = [{"role": "user", "content": ASKS}]
    said = litellm.completion(MODEL, messages, tools=SPECS).choices[0].message
    (call,) = said.tool_calls
    result = TOOLS[call.function.name](**json.loads(call.function.arguments))
    messages += [said, {"role": "tool", "tool_call_id": call.id, "content": result}]
    answer = litellm.completion(MODEL, messages, tools=SPECS)
    cells.asked_for_weather(answer.choices[0].message.content)


@cell("structured output", 1)
def _():
    answer = litellm.completion(MODEL, ASKED, response_format=Market)
    assert Market.model_validate_json(answer.choices[0].message.content).risks


@cell("second turn, Responses", 2)
def _():
    first = litellm.responses(model=MODEL, input="Describe tides.")
    assert litellm.responses(
        model=MODEL, input="And what do they cost?", previous_response_id=first.id
    ).output


@cell("text completion", 1)
def _():
    model = f"text-completion-openai/{cells.MODEL}"
    answer = litellm.text_completion(model=model, prompt="Describe tides.", max_tokens=32)
    assert answer.choices[0].text


@cell("embedding", 1)
def _():
    answer = litellm.embedding("openai/text-embedding-3-small", ["tides"])
    assert len(answer.data[0]["embedding"]) == 1536
