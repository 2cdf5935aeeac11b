"""Responses that are kept: continued, referred to, read, deleted; by OpenAI's own client."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from agentlab.classroom._door import Roster
from agentlab.classroom.app import Classroom
from agentlab.clock import run_virtual
from agentlab.endpoint.contract.asgi import Application
from agentlab.endpoint.contract.openai_json import RequestError
from agentlab.endpoint.dialects.responses import Kept, Stored
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

URL = "http://127.0.0.1/v1"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
ASKS, GOES_ON = "Describe tides.", "Go on with the moon."
USER: Any = {"role": "user", "content": ASKS}
AGAIN: Any = {"role": "user", "content": GOES_ON}


def asking(app: Application | None = None, key: str = "any") -> openai.AsyncOpenAI:
    app = app or local_app(Settings(preset="instant"), time_scale=1.0)
    http = httpx.AsyncClient(transport=InProcessTransport(app))
    return openai.AsyncOpenAI(base_url=URL, api_key=key, http_client=http, max_retries=0)


def result(main: Callable[[Any], Awaitable[Any]], **settings: Any) -> Any:
    """What `main` returns for the `responses` of a client of a new endpoint, in virtual time."""

    async def run() -> Any:
        app = local_app(Settings(**{"preset": "instant", **settings}), time_scale=1.0)
        return await main(asking(app).responses)

    return run_virtual(run()).result


async def refusal(call: Awaitable[Any]) -> tuple[int, str | None, str | None, str]:
    """The status, param, code and message with which a call is refused."""
    with pytest.raises(openai.APIStatusError) as error:
        await call
    body: Any = error.value.body
    return error.value.status_code, body["param"], body["code"], body["message"]


def test_an_id_continues_the_conversation_as_all_of_it_would():
    """The same words and tokens as when the client sends every item itself."""

    async def by_id(responses: Any) -> Any:
        first = await responses.create(model="m", input=ASKS)
        return await responses.create(model="m", input=GOES_ON, previous_response_id=first.id)

    async def whole(responses: Any) -> Any:
        first = await responses.create(model="m", input=ASKS)
        return await responses.create(model="m", input=[USER, *first.output, AGAIN])

    short, long = result(by_id), result(whole)
    assert (short.id, short.output_text, short.usage) == (long.id, long.output_text, long.usage)
    assert short.previous_response_id and not long.previous_response_id


def test_instructions_are_not_carried_over():
    """Those of an earlier response say nothing to the next."""

    async def main(responses: Any) -> list[int]:
        first = await responses.create(model="m", input=ASKS, instructions="Be brief. " * 50)
        fields: Any = {"model": "m", "input": GOES_ON, "previous_response_id": first.id}
        without = await responses.create(**fields)
        own = await responses.create(**fields, instructions="Be brief.")
        whole = await responses.create(model="m", input=[USER, *first.output, AGAIN])
        return [each.usage.input_tokens for each in (without, own, whole)]

    without, own, whole = result(main)
    assert own > without == whole


def test_a_tool_loop_ends_by_ids():
    """The output of a call is all that the second request sends, streamed or not."""

    async def main(responses: Any) -> list[str]:
        said = []
        for _ in range(2):
            first = await responses.create(
                model="m", input="What is the weather in Seoul?", tools=[WEATHER]
            )
            output = {"type": "function_call_output", "call_id": first.output[0].call_id}
            async with responses.stream(
                model="m",
                input=[{**output, "output": "sunny"}],
                tools=[WEATHER],
                previous_response_id=first.id,
            ) as stream:
                said.append((await stream.get_final_response()).output_text)
        return said

    assert all("sunny" in each for each in result(main))


def test_a_request_may_go_on_without_new_input():
    """An id alone is a question, too."""

    async def main(responses: Any) -> Any:
        first = await responses.create(model="m", input=ASKS)
        return await responses.create(model="m", previous_response_id=first.id)

    assert result(main).output_text


@pytest.mark.parametrize("reference", [{"type": "item_reference"}, {}], ids=["typed", "untyped"])
def test_an_item_reference_stands_for_its_item(reference: dict[str, str]):
    """The same answer as with the item itself; its type may be left out."""

    async def answered(responses: Any, refer: bool) -> Any:
        first = await responses.create(model="m", input=ASKS)
        item = {**reference, "id": first.output[0].id} if refer else first.output[0]
        return await responses.create(model="m", input=[USER, item, AGAIN])

    by_reference = result(lambda responses: answered(responses, True))
    by_item = result(lambda responses: answered(responses, False))
    assert by_reference.output_text == by_item.output_text
    assert by_reference.usage == by_item.usage


def test_what_was_deleted_is_no_more_referred_to():
    """An item goes with the last response that holds it, and not before."""

    async def main(responses: Any) -> Any:
        first = await responses.create(model="m", input=ASKS)
        reference: Any = {"type": "item_reference", "id": first.output[0].id}
        second = await responses.create(model="m", input=[USER, reference, AGAIN])
        await responses.delete(first.id)
        await responses.create(model="m", input=[reference, AGAIN])  # the second holds it
        again = await responses.create(
            model="m", input=GOES_ON, previous_response_id=second.id, instructions="Be brief."
        )
        return second.usage.input_tokens, again.usage.input_tokens

    held, continued = result(main)
    assert continued > held


def test_what_is_not_known_is_refused_as_openai_does():
    """A continuation with 400, anything else with 404."""

    async def main(responses: Any) -> list[Any]:
        reference: Any = {"type": "item_reference", "id": "msg_none"}
        calls = [
            responses.create(model="m", input=ASKS, previous_response_id="resp_none"),
            responses.create(model="m", input=[reference]),
            responses.retrieve("resp_none"),
            responses.delete("resp_none"),
        ]
        return [await refusal(call) for call in calls]

    continued, referred, *others = result(main)
    missing = "Previous response with id 'resp_none' not found."
    assert continued == (
        400,
        "previous_response_id",
        "previous_response_not_found",
        missing,
    )
    assert referred[:3] == (404, "input", None)
    assert referred[3].startswith("Item with id 'msg_none' not found.")
    assert others == [(404, None, None, "Response with id 'resp_none' not found.")] * 2


def test_a_response_is_read_as_it_was_given():
    """Whole or streamed, complete or cut by its limit; until it is deleted."""

    async def main(responses: Any) -> None:
        whole = await responses.create(model="m", input=ASKS)
        stream = await responses.create(model="m", input=ASKS, max_output_tokens=16, stream=True)
        streamed = [event async for event in stream][-1].response
        assert streamed.status == "incomplete"
        for given in (whole, streamed):
            read = await responses.retrieve(given.id)
            assert read.to_dict() == given.to_dict()
            await responses.delete(given.id)
            assert (await refusal(responses.retrieve(given.id)))[0] == 404

    result(main)


def test_what_a_response_was_given_is_listed():
    """All of the conversation before the answer, the newest first, in a page of OpenAI's."""

    async def main(responses: Any) -> None:
        first = await responses.create(model="m", input=ASKS)
        more: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Go on."}]}]
        second = await responses.create(model="m", input=more, previous_response_id=first.id)
        page = await responses.input_items.list(second.id)
        said = [(item.role, item.content[0].type, item.content[0].text) for item in page.data]
        assert said == [
            ("user", "input_text", "Go on."),
            ("assistant", "output_text", first.output_text),
            ("user", "input_text", ASKS),
        ]
        assert (page.object, page.has_more) == ("list", False)
        assert (page.first_id, page.last_id) == (page.data[0].id, page.data[-1].id)
        assert [item.id async for item in page] == [item.id for item in page.data]
        assert (await refusal(responses.input_items.list("resp_none")))[0] == 404

    result(main)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "input_tokens"),
        ("POST", "compact"),
        ("POST", "{id}/cancel"),
        ("GET", "{id}/other"),
        ("GET", "{id}/input_items/other"),
    ],
)
def test_what_is_no_route_of_responses_is_unknown(method: str, path: str):
    """404, and not another method's 405: the paths that there are say what there is."""

    async def main(responses: Any) -> Any:
        given = await responses.create(model="m", input=ASKS)
        http = responses._client._client
        return await http.request(method, f"{URL}/responses/{path.format(id=given.id)}")

    answer = result(main)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert "[" not in answer.json()["error"]["message"]


def test_a_deletion_is_told_as_openai_tells_it():
    """With the id, and what it was."""

    async def main(responses: Any) -> Any:
        given = await responses.create(model="m", input=ASKS)
        told = await responses.with_raw_response.delete(given.id)
        return given.id, json.loads(told.text)

    id, told = result(main)
    assert told == {"id": id, "object": "response", "deleted": True}


def test_store_false_keeps_nothing():
    """Neither the response nor its items; what it continues stays."""

    async def main(responses: Any) -> None:
        first = await responses.create(model="m", input=ASKS)
        fields = {"model": "m", "input": GOES_ON, "previous_response_id": first.id}
        second = await responses.create(**fields, store=False)
        assert (first.store, second.store) == (True, False)
        reference = {"type": "item_reference", "id": second.output[0].id}
        assert (await refusal(responses.retrieve(second.id)))[0] == 404
        assert (await refusal(responses.create(model="m", input=[reference])))[0] == 404
        assert await responses.retrieve(first.id)

    result(main)


def test_what_is_kept_is_not_streamed():
    """Only what runs in the background can be, so a client is not left with an empty stream."""

    async def main(responses: Any) -> Any:
        given = await responses.create(model="m", input=ASKS)
        return await refusal(responses.retrieve(given.id, stream=True))

    assert result(main)[:2] == (400, "stream")


def test_another_method_is_told_which_there_are():
    """405, with Allow."""

    async def main(responses: Any) -> Any:
        given = await responses.create(model="m", input=ASKS)
        http = responses._client._client
        return [
            await http.request(method, f"{URL}/responses/{given.id}") for method in ("PUT", "POST")
        ]

    answers = result(main)
    assert [answer.status_code for answer in answers] == [405] * 2
    assert answers[1].headers["allow"].startswith("GET, DELETE")


FAULTS = ["cut", "stream_error", "broken", "truncated_json", "empty_choices", "html", "reset"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [*FAULTS, "stall"])
def test_what_a_fault_broke_is_not_kept(kind: str, stream: bool):
    """Late is not broken: after a stall it came whole."""

    async def given(responses: Any) -> Any:
        answer = await responses.create(model="m", input=ASKS, stream=stream)
        return [event async for event in answer][-1].response if stream else answer

    async def run() -> int:
        sound = await given(asking().responses)  # of which the same id is expected
        plan = {"kind": kind, "probability": 1.0} | ({"stall_s": 1} if kind == "stall" else {})
        hit = asking(local_app(Settings(preset="instant", faults=[plan]), time_scale=1.0))
        with suppress(openai.OpenAIError, httpx.HTTPError, AttributeError, IndexError, ValueError):
            await given(hit.responses)
        return (await hit._client.get(f"{URL}/responses/{sound.id}")).status_code

    assert run_virtual(run()).result == (404 if kind in FAULTS else 200)


def test_what_nobody_waited_for_is_not_kept():
    """A client that hangs up in the middle of a stream has no response to continue."""

    async def main(responses: Any) -> Any:
        stream = await responses.create(model="m", input=ASKS, stream=True)
        id = (await anext(aiter(stream))).response.id
        await stream.close()
        return (await refusal(responses.retrieve(id)))[0]

    assert result(main, preset="course") == 404


def kept(size_bytes: int, *before: tuple[str, bytes]) -> Kept:
    said = [*before, (f"msg_{len(before)}", bytes(size_bytes))]
    return Kept(b"{}", said, len(before))


def known(stored: Stored, learner: str | None, count: int) -> list[int]:
    """The numbers of those of a learner's responses that are still there."""
    there = []
    for number in range(count):
        scope = {"path": f"/v1/responses/resp_{number}", "method": "GET", "query_string": b""}
        with suppress(RequestError):
            stored.answer(learner, scope)
            there.append(number)
    return there


def test_the_newest_are_kept():
    """By number and by size; one that is continued counts as new."""
    stored = Stored()
    for number in range(1500):
        stored.keep(None, f"resp_{number}", kept(10))
    assert known(stored, None, 1500) == [*range(1500 - 1024, 1500)]
    large = Stored()
    for number in range(100):
        large.keep(None, f"resp_{number}", kept(2**20))
    assert known(large, None, 100) == [*range(100 - 63, 100)]  # 64 MiB, with what else they hold


def test_whoever_keeps_most_loses_the_oldest():
    """A learner's flood does not drive out what others keep."""
    stored = Stored()
    stored.keep("ada", "resp_0", kept(1000))
    for number in range(3000):
        stored.keep("mallory", f"resp_{number}", kept(50_000))
    assert known(stored, "ada", 1) == [0]
    assert len(known(stored, "mallory", 3000)) == 1023


def test_a_long_conversation_is_in_memory_once():
    """Of 200 turns of 5 kB each, a megabyte is held, not the hundred of all their copies."""
    stored, said = Stored(most_bytes=2**30), list[tuple[str, bytes]]()
    tracemalloc.start()
    for number in range(200):
        turn = kept(5000, *said)
        stored.keep(None, f"resp_{number}", turn)
        said = turn.said
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 * 2**20


@pytest.mark.parametrize("items", [2047, 2])
def test_a_conversation_has_an_end(items: int):
    """2,048 items, or 1 MiB; the error says so."""
    text = "a" * (10 if items > 2 else 524_150)

    async def main(responses: Any) -> Any:
        said: Any = [{"role": "user", "content": text}] * items
        first = await responses.create(model="m", input=said)
        fields = {"model": "m", "previous_response_id": first.id}
        return await refusal(responses.create(**fields, input=[USER, AGAIN]))

    status, param, code, message = result(main, preset="instant")
    assert (status, param, code) == (400, "input", "context_length_exceeded")
    assert "2048 items and 1,048,576 bytes" in message


def test_no_learner_reads_or_continues_what_another_keeps():
    """Though both have the same id, because both asked the same first."""

    async def main() -> None:
        app = Classroom(Settings(preset="instant"), token="a-long-token-1", roster=Roster(None))
        ada, bob = (asking(app, name).responses for name in ("ada", "bob"))
        mine = await ada.create(model="m", input=ASKS, metadata={"of": "ada"})
        assert (await refusal(bob.retrieve(mine.id)))[0] == 404
        fields: Any = {"model": "m", "input": GOES_ON, "previous_response_id": mine.id}
        assert (await refusal(bob.create(**fields)))[2] == "previous_response_not_found"
        reference: Any = {"type": "item_reference", "id": mine.output[0].id}
        assert (await refusal(bob.create(model="m", input=[reference])))[0] == 404
        theirs = await bob.create(model="m", input=ASKS)
        assert theirs.id == mine.id
        await bob.delete(theirs.id)
        assert (await ada.retrieve(mine.id)).metadata == {"of": "ada"}
        assert await ada.create(**fields)

    run_virtual(main())


def test_a_retry_is_kept_in_place_of_the_first():
    """It has the same id, and the same answer."""

    async def main(responses: Any) -> None:
        first = await responses.create(model="m", input=ASKS)
        headers = {"x-stainless-retry-count": "1"}
        again = await responses.create(model="m", input=ASKS, extra_headers=headers)
        assert again.id == first.id
        await responses.delete(first.id)
        assert (await refusal(responses.retrieve(first.id)))[0] == 404

    result(main)


def test_chat_openai_goes_on_by_ids():
    """LangChain's client with use_previous_response_id sends the newest message alone."""
    from langchain_openai import ChatOpenAI

    async def main() -> tuple[Any, Any]:
        app = local_app(Settings(preset="instant"), time_scale=1.0)
        model = ChatOpenAI(
            model="m",
            base_url=URL,
            api_key="any",  # type: ignore[arg-type]
            use_responses_api=True,
            use_previous_response_id=True,
            http_async_client=httpx.AsyncClient(transport=InProcessTransport(app)),
        )
        first = await model.ainvoke(ASKS)
        second = await model.ainvoke([("user", ASKS), first, ("user", GOES_ON)])
        kept = await asking(app).responses.retrieve(second.response_metadata["id"])
        return kept, first

    kept, first = run_virtual(main()).result
    assert kept.output_text
    assert kept.previous_response_id == first.response_metadata["id"]
