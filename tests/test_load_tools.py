"""What load tools ask of an endpoint: health, metrics, completions, exact lengths, punctuality."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import OpenAI
from openai.types import Completion
from prometheus_client.parser import text_string_to_metric_families
from serving import serving

from agentlab.classroom.app import Classroom
from agentlab.clock import run_virtual
from agentlab.endpoint.contract.record import Recorder, Span
from agentlab.endpoint.contract.tokens import count_tokens
from agentlab.endpoint.server._forward import Forward
from agentlab.endpoint.server._metrics import Metrics
from agentlab.endpoint.server.app import App, Door, local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.settings import Settings

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
TIDES = "Describe tides."


def app(preset: str = "course", time_scale: float = 1.0, **settings: Any) -> App:
    return local_app(Settings(preset=preset, **settings), time_scale=time_scale)


def client(served: Any, key: str = "any") -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = InProcessTransport(served)
    return httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=None
    )


def asked(path: str, body: dict[str, Any], served: Any = None, **options: Any) -> httpx.Response:
    """One answer, in virtual time."""

    async def main() -> httpx.Response:
        return await client(served or app("instant")).post(path, json={"model": "m"} | body)

    return run_virtual(main()).result


def completion(served: Any = None, **fields: Any) -> Completion:
    """A whole completion, as OpenAI's client has it, strictly."""
    answer = asked(COMPLETIONS, {"prompt": TIDES} | fields, served)
    assert answer.status_code == 200, answer.text
    return Completion.model_validate(answer.json(), strict=True)


def refusal(path: str, **fields: Any) -> tuple[int, Any, str]:
    answer = asked(path, fields)
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status_code, error["param"], error["message"]


def chat(text: str = TIDES, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


# ---------------------------------------------------------------- completions


def test_a_completion_has_sixteen_tokens_unless_more_are_asked_for():
    """As OpenAI's reference says; the prompt's own tokens are counted, and no frame of a chat."""
    answer = completion()
    (choice,) = answer.choices
    assert (choice.finish_reason, count_tokens(choice.text)) == ("length", 16)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (count_tokens(TIDES), 16)
    assert answer.usage.total_tokens == count_tokens(TIDES) + 16
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"


def test_a_completion_ends_by_itself():
    """With room enough it stops where a chat would, and says so."""
    (choice,) = completion(max_tokens=1000).choices
    assert choice.finish_reason == "stop" and choice.text.endswith(".")


def test_no_limit_is_the_same_as_the_default():
    """A client that sends null means what one that sends nothing means."""
    assert completion(max_tokens=None).choices == completion().choices


def test_openais_client_reads_a_streamed_completion():
    """Its pieces are the whole one's text, then comes why it ended, then what it took."""

    async def main() -> list[Completion]:
        http = httpx.AsyncClient(transport=InProcessTransport(app()))
        asking = openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key="any", http_client=http, max_retries=0
        )
        stream = await asking.completions.create(
            model="m", prompt=TIDES, stream=True, stream_options={"include_usage": True}
        )
        return [chunk async for chunk in stream]

    *chunks, end, usage = run_virtual(main()).result
    whole = completion(app())
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert (end.choices[0].text, end.choices[0].finish_reason) == ("", "length")
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert len(chunks) == 16


@pytest.mark.parametrize("stream", [False, True])
def test_langchains_completions_client_is_answered(stream: bool):
    """`OpenAI`, the client of the older route, with what it sends by default."""

    http = httpx.AsyncClient(transport=InProcessTransport(app("instant")))
    url = "http://127.0.0.1/v1"
    model = OpenAI(model="m", base_url=url, api_key="any", http_async_client=http)

    async def main() -> str:
        if stream:
            return "".join([piece async for piece in model.astream(TIDES)])
        return await model.ainvoke(TIDES)

    assert asyncio.run(main()) == completion(max_tokens=256).choices[0].text


def test_each_of_several_prompts_has_choices_of_its_own():
    """Two prompts, two choices each: in that order, each as if it were asked alone."""
    together = completion(prompt=[TIDES, "Name three rivers."], n=2, max_tokens=30)
    alone = [completion(prompt=p, n=2, max_tokens=30) for p in (TIDES, "Name three rivers.")]
    assert [c.index for c in together.choices] == [0, 1, 2, 3]
    assert [c.text for c in together.choices] == [c.text for a in alone for c in a.choices]
    usages = [answer.usage for answer in alone if answer.usage]
    assert together.usage is not None
    assert together.usage.completion_tokens == sum(u.completion_tokens for u in usages)
    assert together.usage.prompt_tokens == sum(u.prompt_tokens for u in usages)


def test_prompts_are_answered_side_by_side():
    """Three of eleven tokens take as long as one: 1 + 10 / 10 s."""
    served = app()
    completion(served, prompt=["a", "b", "c"], max_tokens=11, ignore_eos=True)
    (span,) = served.recorder.since(0)
    assert (span.completion_tokens, span.end_s) == (33, 2.0)


def test_a_stop_string_ends_a_completion():
    """The text up to it, which is not part of the answer."""
    whole = completion(max_tokens=1000).choices[0].text
    cut = completion(max_tokens=1000, stop=["no such text", "."]).choices[0]
    assert (cut.text, cut.finish_reason) == (whole[: whole.index(".")], "stop")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "the end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [5]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 20, "n": 128}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": list("abcde")}, "stop"),
        ({"temperature": 3}, "temperature"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
    ],
)
def test_what_a_completion_cannot_have_is_refused_by_name(fields: dict[str, Any], param: str):
    """400 in OpenAI's shape, which names the field that the client has sent."""
    status, named, message = refusal(COMPLETIONS, **({"prompt": TIDES} | fields))
    assert (status, named.split("[")[0]) == (400, param) and f"'{param}" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"echo": False, "suffix": None, "best_of": 1, "logprobs": None},
        {"suffix": "", "n": 3, "best_of": 3},
        {"top_p": 0.9, "user": "u", "presence_penalty": 0, "repetition_penalty": 1.0},
    ],
)
def test_what_changes_nothing_is_let_pass(fields: dict[str, Any]):
    """Many clients send what is the default already."""
    assert completion(**fields).choices[0].text == completion().choices[0].text


def test_a_prompt_longer_than_the_models_context_is_refused():
    """131,072 tokens with the answer's, for `vllm-1gpu`; no frame of a chat counts."""
    error = asked(COMPLETIONS, {"prompt": " a" * 131_057}, app("vllm-1gpu")).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    longest = asked(COMPLETIONS, {"prompt": " a" * 131_056}, app("vllm-1gpu"))
    assert longest.status_code == 200


def test_completions_are_limited_and_fail_as_chats_do():
    """A limit of three requests a minute, and a plan whose second request is an error."""
    plan = [{"kind": "error", "status": 500, "calls": [2]}]
    served = app(requests_per_minute=3, faults=plan)

    async def main() -> list[int]:
        asking = client(served)
        body = {"model": "m", "prompt": TIDES}
        return [(await asking.post(COMPLETIONS, json=body)).status_code for _ in range(4)]

    assert run_virtual(main()).result == [200, 500, 200, 429]


def test_a_limit_of_tokens_counts_a_completions_prompt():
    """As many tokens as the texts have, and the longest answer."""
    served = app(tokens_per_minute=100)
    error = asked(COMPLETIONS, {"prompt": " a" * 80, "max_tokens": 21}, served).json()["error"]
    assert error["code"] == "rate_limit_exceeded" and "Requested 101" in error["message"]
    texts = {"prompt": ["one two three"] * 30, "max_tokens": 11}
    assert "Requested 101" in asked(COMPLETIONS, texts, served).json()["error"]["message"]


def test_a_class_counts_completions_by_learner():
    """Who asks shows a name, as for a chat, and has it in the span."""
    room = Classroom(Settings(preset="instant", time_scale=1.0), token="t")

    async def main() -> list[int]:
        body = {"model": "m", "prompt": TIDES}
        asking = [client(room, key) for key in ("", "Ada")]
        return [(await each.post(COMPLETIONS, json=body)).status_code for each in asking]

    assert run_virtual(main()).result == [401, 200]
    spans = room._endpoint.recorder.since(0)
    assert [span.learner for span in spans if span.ok] == ["Ada"]


@pytest.mark.parametrize("stream", [False, True])
def test_before_a_real_model_completions_pass_with_the_labs_key(stream: bool):
    """Forwarded and recorded like a chat, and refused without the key."""

    async def main() -> tuple[list[httpx.Response], list[Any]]:
        async with serving(app(time_scale=1000)) as url:
            lab = App(Forward(url, key="secret-of-the-owner"), door=Door("lab-key"))
            body = {"model": "m", "prompt": TIDES, "stream": stream}
            if stream:
                body["stream_options"] = {"include_usage": True}
            asking = [client(lab, key) for key in ("lab-key", "")]
            answers = [await each.post(COMPLETIONS, json=body) for each in asking]
            return answers, lab.recorder.since(0)

    (answer, refused), spans = asyncio.run(main())
    assert (answer.status_code, refused.status_code) == (200, 401)
    (span,) = [span for span in spans if span.ok]
    assert (span.completion_tokens, span.first_token_s is not None) == (16, stream)
    assert (span.finish_reason, span.late_ms) == (None, None)


# ---------------------------------------------------------------- exact lengths


def tokens_of(path: str, body: dict[str, Any], **fields: Any) -> tuple[int, str]:
    """How many tokens came by the endpoint's own count, and why it ended."""
    answer = asked(path, body | fields)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    if path == RESPONSES:
        reason = (said["incomplete_details"] or {}).get("reason", "stop")
        return said["usage"]["output_tokens"], reason.replace("max_output_tokens", "length")
    return said["usage"]["completion_tokens"], said["choices"][0]["finish_reason"]


@pytest.mark.parametrize("tokens", [1, 2, 16, 61, 128, 600, 16_384])
@pytest.mark.parametrize(
    ("path", "limit", "body"),
    [
        (CHAT, "max_tokens", chat()),
        (CHAT, "max_completion_tokens", chat("감사에 대해 두 문장으로 설명하세요.")),
        (CHAT, "max_tokens", chat('Return JSON such as {"a": 1, "b": "x"}')),
        (CHAT, "max_tokens", chat("Say hello and tell me in one sentence what you are.")),
        (COMPLETIONS, "max_tokens", {"prompt": "Once upon a time"}),
        (COMPLETIONS, "max_tokens", {"prompt": "one two"}),
        (RESPONSES, "max_output_tokens", {"input": "List five bullets about caching."}),
    ],
)
def test_who_ignores_the_end_gets_the_tokens_asked_for(
    path: str, limit: str, body: dict[str, Any], tokens: int
):
    """Exactly as many, short or long, in each route, language and form."""
    if path == RESPONSES:
        tokens = max(tokens, 16)
    assert tokens_of(path, body, ignore_eos=True, **{limit: tokens}) == (tokens, "length")


@pytest.mark.parametrize("tokens", [16, 100, 700])
def test_vllms_two_ways_to_fix_a_length_agree(tokens: int):
    """As aiperf asks: `min_tokens` is the limit itself, with `ignore_eos` or without."""
    fields = {"min_tokens": tokens, "max_tokens": tokens}
    assert tokens_of(CHAT, chat(), **fields) == (tokens, "length")
    assert tokens_of(CHAT, chat(), ignore_eos=True, **fields) == (tokens, "length")


@pytest.mark.parametrize("least", [1, 59, 200, 2000])
def test_an_answer_has_at_least_the_tokens_asked_for(least: int):
    """It goes on to the end of a paragraph, and ends by itself."""
    tokens, reason = tokens_of(CHAT, chat(), min_tokens=least)
    assert reason == "stop" and least <= tokens < least + 100


def test_what_is_written_on_follows_the_answer():
    """The beginning is the answer that comes without it; then come sentences not yet said."""
    plain = asked(CHAT, chat()).json()["choices"][0]["message"]["content"]
    longer = asked(CHAT, chat(min_tokens=250)).json()["choices"][0]["message"]["content"]
    assert longer.startswith(f"{plain}\n\n")
    sentences = longer.replace("\n\n", " ").removesuffix(".").split(". ")
    assert len(sentences) == len(set(sentences)) > 10


def test_without_a_limit_the_end_is_ignored_up_to_the_longest_answer():
    """16,384 tokens, as an answer has at most."""
    assert tokens_of(CHAT, chat(), ignore_eos=True) == (16_384, "length")


def test_a_length_below_the_natural_one_changes_nothing():
    """`min_tokens` that the answer has anyway, or none of them, give the same answer."""
    plain = asked(CHAT, chat()).json()["choices"]
    for fields in (
        {"min_tokens": 3},
        {"min_tokens": 0},
        {"ignore_eos": False},
        {"min_tokens": None},
    ):
        assert asked(CHAT, chat(**fields)).json()["choices"] == plain


def test_a_stop_string_is_heard_after_the_fewest_tokens_only():
    """vLLM's rule: before that, it is a part of the answer; `ignore_eos` does not change it."""
    early = tokens_of(CHAT, chat(), stop=".", ignore_eos=True, max_tokens=200)
    assert early[0] < 60 and early[1] == "stop"
    answer = asked(CHAT, chat(stop=".", min_tokens=100, max_tokens=300)).json()
    text = answer["choices"][0]["message"]["content"]
    assert "." in text and not text.endswith(".")
    assert 100 <= answer["usage"]["completion_tokens"] < 150
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 20, "max_tokens": 10}, "min_tokens"),
        ({"min_tokens": 20_000}, "min_tokens"),
        ({"min_tokens": 20_000, "max_tokens": 30_000}, "min_tokens"),
        ({"min_tokens": 20, "max_tokens": 10, "ignore_eos": True}, "min_tokens"),
        ({"max_tokens": 20_000, "ignore_eos": True}, "ignore_eos"),
        ({"min_tokens": 1.5}, "min_tokens"),
        ({"min_tokens": 10**30}, "min_tokens"),
    ],
)
def test_a_length_that_cannot_be_is_refused(fields: dict[str, Any], param: str):
    """Rather than cut short without a word, which would falsify a measurement."""
    assert refusal(CHAT, **chat(**fields))[:2] == (400, param)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, chat(n=9, ignore_eos=True), "ignore_eos"),
        (CHAT, chat(n=9, min_tokens=16_384), "min_tokens"),
        (COMPLETIONS, {"prompt": ["a"] * 9, "ignore_eos": True}, "ignore_eos"),
        (COMPLETIONS, {"prompt": ["a"] * 3, "n": 3, "min_tokens": 16_384}, "min_tokens"),
    ],
)
def test_all_choices_together_are_bounded(path: str, body: dict[str, Any], param: str):
    """131,072 tokens a request, eight of the longest answers; more are refused unwritten."""
    assert refusal(path, **body, max_tokens=16_384)[:2] == (400, param)


def test_json_and_tool_calls_end_where_they_are_whole():
    """What comes after them would break who reads them, so nothing does."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    fixed = {"ignore_eos": True, "max_tokens": 500}
    said = asked(CHAT, chat(response_format=form, **fixed)).json()["choices"][0]
    assert set(json.loads(said["message"]["content"])) == {"title"}
    tool = {"type": "function", "function": {"name": "find", "parameters": schema}}
    called = asked(CHAT, chat(tools=[tool], tool_choice="required", **fixed)).json()["choices"][0]
    assert called["finish_reason"] == "tool_calls"
    (call,) = called["message"]["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"title"}


# ---------------------------------------------------------------- health and metrics


def get(served: Any, path: str, key: str = "", method: str = "GET", **headers: str) -> Any:
    async def main() -> httpx.Response:
        return await client(served, key).request(method, path, headers=headers)

    return run_virtual(main()).result


def forwarded() -> App:
    """An endpoint before a real model, with a key of its own."""
    return App(Forward("http://127.0.0.1:9/v1", key="secret-of-the-owner"), door=Door("lab-key"))


def classroom() -> Classroom:
    return Classroom(Settings(preset="instant", time_scale=1.0), token="t")


@pytest.mark.parametrize("served", [app, forwarded, classroom])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_endpoint_says_that_it_serves_without_a_key(served: Callable[[], Any], method: str):
    """200 and nothing else, as vLLM says it, whatever model there is; a foreign page is refused."""
    answer = get(served(), "/health", method=method)
    assert (answer.status_code, answer.content) == (200, b"")
    assert get(served(), "/health", method=method, host="evil.example").status_code == 403


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_health_and_metrics_are_only_read(path: str):
    """Any other method is refused, and is no request in the record."""
    served = app()
    assert get(served, path, method="POST").status_code == 405
    assert served.recorder.since(0) == []


@pytest.mark.parametrize(
    ("served", "key", "status"),
    [
        (app, "", 200),
        (forwarded, "", 401),
        (forwarded, "lab-key", 200),
        (classroom, "", 401),
        (classroom, "Ada", 200),
        (classroom, "t", 200),
    ],
)
def test_who_may_ask_may_read_the_metrics(served: Callable[[], Any], key: str, status: int):
    """They are counts of all requests, so who shows no key where one is needed sees none."""
    assert get(served(), "/metrics", key).status_code == status


def samples(text: str) -> dict[tuple[str, str], float]:
    """(name, `le` or `finished_reason`) -> value, as Prometheus' own parser reads the text."""
    read = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model_name") == "agentlab"
            assert (sample.name, *labels.values()) not in read
            read[sample.name, "".join(labels.values())] = sample.value
    return read


async def scraped(served: Any, key: str = "") -> dict[tuple[str, str], float]:
    answer = await client(served, key).get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def test_the_metrics_count_in_seconds_of_the_wall_clock():
    """At ten model seconds a second, 1 s to the first token and ten more are .1 s and .1 s."""
    served = app(time_scale=10)

    async def main() -> dict[tuple[str, str], float]:
        body = {"model": "m", **chat(max_tokens=11, ignore_eos=True)}
        await asyncio.gather(*(client(served).post(CHAT, json=body) for _ in range(3)))
        await client(served).post(CHAT, json=body | {"max_tokens": 1})
        return await scraped(served)

    read = run_virtual(main()).result
    assert read["vllm:time_to_first_token_seconds_count", ""] == 4
    assert read["vllm:time_to_first_token_seconds_sum", ""] == pytest.approx(0.4)
    assert read["vllm:e2e_request_latency_seconds_sum", ""] == pytest.approx(3 * 0.2 + 0.1)
    assert read["vllm:inter_token_latency_seconds_count", ""] == 30
    assert read["vllm:inter_token_latency_seconds_sum", ""] == pytest.approx(0.3)
    assert read["vllm:request_queue_time_seconds_sum", ""] == 0
    assert read["vllm:generation_tokens_total", ""] == 34
    assert read["vllm:prompt_tokens_total", ""] == 4 * (count_tokens(TIDES) + 6)
    assert read["vllm:request_success_total", "length"] == 4
    assert read["vllm:request_success_total", "stop"] == 0


def test_the_metrics_need_no_package_of_the_course(monkeypatch: pytest.MonkeyPatch):
    """The wheel's base brings no template engine, and load tools ask it all the same."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run_virtual(scraped(app())).result["vllm:num_requests_running", ""] == 0


def test_a_histogram_grows_with_its_bounds_and_ends_with_all():
    """Each bucket counts what the one before counts, and the last one counts everything."""
    served = app()

    async def main() -> str:
        asking = client(served)
        for tokens in (1, 5, 40):
            await asking.post(CHAT, json={"model": "m", **chat(max_tokens=tokens)})
        return (await asking.get("/metrics")).text

    for family in text_string_to_metric_families(run_virtual(main()).result):
        if family.type == "histogram":
            buckets = [s for s in family.samples if s.name.endswith("_bucket")]
            bounds = [float(s.labels["le"]) for s in buckets]
            assert bounds == sorted(bounds) and bounds[-1] == float("inf")
            assert all(a.value <= b.value for a, b in pairwise(buckets))
            (count,) = [s.value for s in family.samples if s.name.endswith("_count")]
            assert buckets[-1].value == count


def test_the_metrics_say_who_runs_and_who_waits(tmp_path: Any):
    """Of three requests for one slot, one runs and two wait; then nobody does; one gave up."""
    figure = "{value: %s, basis: chosen, source: test}"
    names = "prefill_base prefill_per_token itl_base itl_per_active"
    values = dict.fromkeys([f"{name}_ms" for name in names.split()], 0) | {"prefill_base_ms": 1000}
    values |= {"jitter_sigma": 0, "slots": 1}
    lines = ["about: One slot.", *(f"{name}: {figure % value}" for name, value in values.items())]
    (tmp_path / "one.yaml").write_text("\n".join(lines))
    served = app(str(tmp_path / "one.yaml"))

    def in_flight(read: dict[tuple[str, str], float]) -> tuple[float, float]:
        return read["vllm:num_requests_running", ""], read["vllm:num_requests_waiting", ""]

    async def main() -> tuple[Any, Any]:
        body = {"model": "m", **chat(stream=True)}
        asking = [asyncio.ensure_future(client(served).post(CHAT, json=body)) for _ in range(3)]
        await asyncio.sleep(0.5)
        during = await scraped(served)
        asking[2].cancel()
        await asyncio.wait(asking)
        return during, await scraped(served)

    during, after = run_virtual(main()).result
    assert (in_flight(during), in_flight(after)) == ((1, 2), (0, 0))
    assert after["vllm:request_success_total", "abort"] == 1
    assert after["vllm:request_success_total", "stop"] == 2
    assert after["vllm:request_queue_time_seconds_sum", ""] == pytest.approx(1.0)


def test_reading_the_metrics_twice_counts_nothing_twice():
    """A scrape counts what has ended since the one before, and no more."""
    served = app()

    async def main() -> list[float]:
        body = {"model": "m", **chat(max_tokens=11, ignore_eos=True)}
        counts = []
        for _ in range(3):
            asking = asyncio.ensure_future(client(served).post(CHAT, json=body))
            await asyncio.sleep(1.5)
            await scraped(served)  # in the middle of it
            await asking
            reads = await asyncio.gather(scraped(served), scraped(served))
            counts += [read["vllm:request_success_total", "length"] for read in reads]
        return counts

    assert run_virtual(main()).result == [1, 1, 2, 2, 3, 3]


def test_what_is_no_longer_recorded_is_not_counted():
    """Of five requests the newest two are kept, so a scrape counts two, and no error comes."""
    recorder = Recorder(keep=2)
    for n in range(5):
        times = {"arrived_s": 0.0, "started_s": 0.0, "first_token_s": 1.0, "end_s": 3.0}
        done = {"status": 200, "completion_tokens": 3, "finish_reason": "stop"}
        recorder.add(Span(request_id=f"{n}", agent="a", **times, **done))
    read = samples(asyncio.run(Metrics(recorder, time_scale=2.0).text()).decode())
    assert read["vllm:request_success_total", "stop"] == 2
    assert read["vllm:e2e_request_latency_seconds_sum", ""] == 3.0


def test_what_is_refused_is_no_success():
    """A request with an error has no times, and is not counted as one that has ended well."""
    served = app()

    async def main() -> dict[tuple[str, str], float]:
        await client(served).post(CHAT, json={"model": "m"})
        return await scraped(served)

    read = run_virtual(main()).result
    assert sum(value for (name, _), value in read.items() if "success" in name) == 0
    assert read["vllm:num_requests_running", ""] + read["vllm:num_requests_waiting", ""] == 0
    assert read["vllm:e2e_request_latency_seconds_count", ""] == 0


# ---------------------------------------------------------------- how late it was


def late(
    body: dict[str, Any], *busy: tuple[float, float], path: str = CHAT, **settings: Any
) -> Any:
    """How late the endpoint says it was, with callbacks that keep the loop busy: at, for how long.

    The clock is virtual, so such a callback sets it forward, which a slow one does with a real one.
    """
    served = app(**settings)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def hold(for_s: float) -> None:
            loop._now_s += for_s

        for at_s, for_s in busy:
            loop.call_at(at_s, hold, for_s)
        await client(served).post(path, json={"model": "m"} | body)

    run_virtual(main())
    (span,) = served.recorder.since(0)
    return span.late_ms


@pytest.mark.parametrize("stream", [False, True])
def test_in_virtual_time_nothing_is_late(stream: bool):
    """Where no other work takes time, each token is handed over when it is due."""
    assert late(chat(stream=stream, max_tokens=30)) == 0
    assert late(chat(stream=stream, max_tokens=30), preset="vllm-1gpu") == 0


@pytest.mark.parametrize(
    ("at_s", "for_s", "late_ms"),
    [
        (0.99, 0.05, 40.0),  # over the first token, due at 1 s
        (1.45, 0.10, 50.0),  # over a later one, due at 1.5 s
        (1.95, 0.60, 550.0),  # over several, the first of them due at 2 s
        (3.95, 0.35, 300.0),  # over the last, due at 4 s
        (1.42, 0.05, 0.0),  # between two
    ],
)
def test_a_loop_that_is_held_up_makes_a_stream_late(at_s: float, for_s: float, late_ms: float):
    """By as much as the token that waited longest."""
    body = chat(stream=True, max_tokens=31, ignore_eos=True)
    assert late(body, (at_s, for_s)) == pytest.approx(late_ms)


def test_the_largest_lateness_counts():
    """Held up twice, the longer wait is told."""
    body = chat(stream=True, max_tokens=31, ignore_eos=True)
    assert late(body, (1.45, 0.2), (2.45, 0.1)) == pytest.approx(150)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(max_tokens=21, ignore_eos=True)),
        (COMPLETIONS, {"prompt": TIDES, "max_tokens": 21, "ignore_eos": True}),
        (RESPONSES, {"input": TIDES, "max_output_tokens": 21, "ignore_eos": True}),
    ],
)
def test_a_plain_answer_is_late_by_its_end(path: str, body: dict[str, Any]):
    """Due at 3 s, handed over at 3.05 s; who holds the loop before changes nothing."""
    assert late(body, (2.99, 0.06), path=path) == pytest.approx(50)
    assert late(body, (1.5, 0.06), path=path) == 0


def test_lateness_is_wall_clock_time():
    """At ten model seconds a second, the end is due at .2 s, and comes 50 ms of its clock later."""
    body, served = {"model": "m", **chat(max_tokens=11, ignore_eos=True)}, app(time_scale=10)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.call_at(0.19, lambda: setattr(loop, "_now_s", loop._now_s + 0.06))
        await client(served).post(CHAT, json=body)

    run_virtual(main())
    assert served.recorder.since(0)[0].late_ms == pytest.approx(50)


def test_a_client_that_reads_slowly_makes_nobody_late():
    """A fault that passes the answer on a byte at a time is not the endpoint's fault."""
    plan = [{"kind": "drip", "byte_s": 0.5, "calls": [1]}]
    assert late(chat(stream=True, max_tokens=5), faults=plan) == 0


def test_the_record_tells_how_late_and_why_it_ended():
    """`/lab/spans` has both, for each request; what was refused has neither."""
    served = app()

    async def main() -> list[Any]:
        for body in (chat(max_tokens=3), chat(), {}):
            await client(served).post(CHAT, json={"model": "m"} | body)
        return (await client(served).get("/lab/spans")).json()["spans"]

    told = [(span["finish_reason"], span["late_ms"]) for span in run_virtual(main()).result]
    assert told == [("length", 0.0), ("stop", 0.0), (None, None)]
