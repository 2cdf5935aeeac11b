"""Planned faults, as real clients meet them, in virtual time and over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from agentlab import lab, settings
from agentlab.clock import run_virtual
from agentlab.endpoint.contract.record import BROKEN_OFF
from agentlab.endpoint.middleware import fault_plan
from agentlab.endpoint.server.app import local_app
from agentlab.endpoint.server.inprocess import InProcessTransport
from agentlab.errors import ConfigError, EndpointError, FileError
from agentlab.settings import Settings
from agentlab.trace import trace

QUESTION = [{"role": "user", "content": "Describe tides in four sentences."}]
STATUSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


class Asking:
    """A client of an endpoint with a fault plan."""

    def __init__(self, *plan: dict[str, Any], max_retries: int = 0, **chosen: Any):
        self.app = local_app(Settings(faults=list(plan), **chosen), time_scale=1.0)
        self.http = httpx.AsyncClient(transport=InProcessTransport(self.app), timeout=None)
        self.client = openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1",
            api_key="any",
            http_client=self.http,
            max_retries=max_retries,
        )

    async def whole(self, agent: str = "a", **fields: Any) -> Any:
        fields = {"model": "m", "messages": QUESTION, **fields}
        return await self.client.chat.completions.create(extra_headers={"x-agent": agent}, **fields)

    async def stream(self) -> list[Any]:
        """The chunks; an error in mid-stream comes as the last one."""
        chunks: list[Any] = []
        try:
            async for chunk in await self.whole(stream=True):
                chunks.append(chunk)
        except (openai.APIError, httpx.HTTPError, json.JSONDecodeError) as error:
            chunks.append(error)
        return chunks

    @property
    def spans(self) -> list[Any]:
        return self.app.recorder.since(0)


def always(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "probability": 1, **more}


@pytest.mark.parametrize("status", STATUSES)
def test_errors_come_as_the_clients_own_exceptions(status: int):
    """Each status as the class that the client has for it, with a code and a way to repeat."""
    asking = Asking(always("error", status=status, retry_after_s=2.0))
    with pytest.raises(STATUSES[status]) as error:
        run_virtual(asking.whole())
    waits = status in (409, 429, 500, 503)
    assert error.value.response.headers.get("retry-after-ms") == ("2000" if waits else None)
    assert (asking.spans[0].status, asking.spans[0].fault) == (status, "error")


def test_a_lack_of_money_is_told_from_a_rate():
    """Both 429: the code differs, and only a rate says when to come back."""
    with pytest.raises(openai.RateLimitError) as error:
        run_virtual(Asking(always("quota")).whole())
    assert error.value.code == "insufficient_quota"
    assert "retry-after-ms" not in error.value.response.headers


def test_the_sdk_waits_exactly_as_told_and_each_attempt_is_drawn_anew():
    """The first two calls fail: 3 s and 3 s of waiting, then the answer."""
    plan = {"kind": "error", "status": 503, "calls": [1, 2], "retry_after_s": 3.0}
    asking = Asking(plan, max_retries=2, preset="instant")
    assert run_virtual(asking.whole()).elapsed_s == 6.0
    assert [span.attempt for span in asking.spans] == [1, 2, 3]


def test_a_reset_is_a_connection_error():
    """APIConnectionError; the record says that the endpoint broke off."""
    asking = Asking(always("reset"))
    with pytest.raises(openai.APIConnectionError):
        run_virtual(asking.whole())
    assert asking.spans[0].status == BROKEN_OFF


def test_a_stall_lasts_until_the_client_gives_up():
    """A time-out of 5 s ends it after 5 s; the record says who hung up."""
    asking = Asking(always("stall"))

    async def main() -> None:
        with pytest.raises(openai.APITimeoutError):
            await asking.whole(timeout=5)

    assert run_virtual(main()).elapsed_s == 5.0
    assert (asking.spans[0].status, asking.spans[0].fault) == (499, "stall")


def test_a_short_stall_only_delays():
    """Three seconds more than the same answer needs."""
    late = Asking(always("stall", stall_s=3.0))
    elapsed_s = run_virtual(late.whole()).elapsed_s
    assert elapsed_s == run_virtual(Asking().whole()).elapsed_s + 3.0
    assert late.spans[0].ok


def test_a_byte_drip_outlives_a_read_timeout():
    """A byte every half second: the client's read time-out of 1 s never strikes."""
    asking = Asking(always("drip", byte_s=0.5), preset="instant")
    run = run_virtual(asking.whole(timeout=1.0))
    assert run.elapsed_s > 100
    assert run.result.choices[0].message.content


def test_truncated_json_with_status_200():
    """The body stops half-way; it is no JSON."""

    async def main() -> httpx.Response:
        body = {"model": "m", "messages": QUESTION}
        asking = Asking(always("truncated_json"))
        return await asking.http.post("http://127.0.0.1/v1/chat/completions", json=body)

    answer = run_virtual(main()).result
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_no_choices_with_status_200():
    """The client does not complain; who takes choices[0] does."""
    assert run_virtual(Asking(always("empty_choices")).whole()).result.choices == []


def test_a_web_page_with_status_200():
    """What a captive portal sends comes out of the client as a string."""
    assert "<!doctype html>" in run_virtual(Asking(always("html")).whole()).result


def test_a_cut_stream_just_ends():
    """No error and no finish_reason: the answer is short, and nobody says so."""
    asking = Asking(always("cut"))
    chunks = run_virtual(asking.stream()).result
    assert chunks
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert not asking.spans[0].ok


def test_an_error_in_mid_stream_is_raised():
    """The chunks before it came through."""
    chunks = run_virtual(Asking(always("stream_error")).stream()).result
    assert len(chunks) == 3
    assert isinstance(chunks[-1], openai.APIError)


def test_a_stream_that_breaks_off_is_raised():
    """A reset in mid-stream."""
    chunks = run_virtual(Asking(always("broken")).stream()).result
    assert len(chunks) == 3
    assert isinstance(chunks[-1], httpx.ReadError | openai.APIConnectionError)


def test_a_fault_befalls_the_call_it_is_planned_for():
    """The writer's 2nd call, whatever others do meanwhile."""

    async def main() -> list[str]:
        asking = Asking({"kind": "error", "agent": "writer", "calls": [2]}, preset="instant")
        ends = []
        for agent in ["writer", "reader", "reader", "writer", "writer"]:
            try:
                await asking.whole(agent)
                ends.append("ok")
            except openai.InternalServerError:
                ends.append("failed")
        return ends

    assert run_virtual(main()).result == ["ok", "ok", "ok", "failed", "ok"]


def test_an_outage_lasts_from_when_to_when():
    """Counted from the endpoint's first request, which came late; its end is no longer down."""

    async def main() -> list[int]:
        asking = Asking({"kind": "error", "status": 503, "between_s": [2, 4]}, preset="instant")
        down = []
        await asyncio.sleep(100)
        for second in range(6):
            try:
                await asking.whole()
            except openai.InternalServerError:
                down.append(second)
            await asyncio.sleep(1)
        return down

    assert run_virtual(main()).result == [2, 3]


def fates(order: list[int], seed: int = 7) -> dict[int, str]:
    """What befalls requests that are sent in this order, all at once."""

    async def main() -> dict[int, str]:
        plan = [
            {"kind": "error", "status": 429, "probability": 0.2},
            {"kind": "reset", "probability": 0.1},
        ]
        asking = Asking(*plan, preset="instant", seed=seed)

        async def one(number: int) -> str:
            try:
                await asking.whole(messages=[{"role": "user", "content": f"Number {number}"}])
            except openai.APIError as error:
                return type(error).__name__
            return "ok"

        return dict(zip(order, await asyncio.gather(*map(one, order)), strict=True))

    return run_virtual(main()).result


def test_faults_do_not_depend_on_the_order_of_arrival():
    """Shuffled, the same requests suffer the same; another seed, others do."""
    numbers = list(range(120))
    first = fates(numbers)
    assert first == fates(numbers[::-1])
    assert first != fates(numbers, seed=8)
    counts = Counter(first.values())
    assert 8 <= counts["RateLimitError"] <= 40  # 24 expected; 3.6 sigma either way
    assert 1 <= counts["APIConnectionError"] <= 24


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ([{"kind": "fire", "probability": 1}], "fire"),
        ([{"kind": "reset"}], "either probability or calls"),
        ([{"kind": "reset", "probability": 0.1, "calls": [1]}], "either probability or calls"),
        ([{"kind": "reset", "probability": 1.1}], "less than or equal to 1"),
        ([{"kind": "reset", "calls": [0]}], "greater than or equal to 1"),
        ([{"kind": "reset", "between_s": [4, 2]}], "from 4.0 to 2.0"),
        ([{"kind": "error", "probability": 1, "status": 418}], "418"),
        ([{"kind": "reset", "probability": 1, "odds": 1}], "odds"),
        ([{"kind": "reset", "probability": 0.6}, {"kind": "drip", "probability": 0.6}], "1.2"),
        ("no/such/file.yaml", "No such file"),
    ],
)
def test_a_wrong_plan_is_refused(plan: Any, words: str):
    """The message names the plan and what is wrong with it."""
    with pytest.raises(ConfigError, match=words):
        fault_plan.load(plan)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {kind: quota, calls: [1]}\n- {kind: fire, calls: [1]}\n", ":2:10: [1].kind: "),
        ("- {kind: quota, calls: [1]}\n- {kind: reset, calls: [3, 0]}\n", ":2:28: [1].calls[1]: "),
        ("- {kind: reset}\n", ":1:3: [0]: give either probability or calls"),
        (
            "- {kind: quota, calls: [1]}\n- {agent: 2026-13-45}\n",
            ":2:11: cannot read YAML in UTF-8: ",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, says: str):
    """Line and column, and the field as a reader would write it."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as error:
        fault_plan.load(str(path))
    assert f"fault plan {path}{says}" in str(error.value)


def test_a_plan_can_be_a_file(tmp_path: Path):
    """YAML, by the environment's variable."""
    path = tmp_path / "plan.yaml"
    path.write_text("- {kind: quota, calls: [1]}\n")
    chosen = settings.from_environment({"AGENTLAB_FAULTS": str(path)})
    assert fault_plan.load(chosen.faults)[0].kind == "quota"


@pytest.mark.parametrize("kind", ["reset", "broken"])
def test_over_a_socket_a_reset_is_a_reset(fresh_lab: Any, kind: str):
    """The client sees the connection break, the endpoint lives on."""

    async def main() -> None:
        with pytest.raises(EndpointError, match="broke off"):
            await lab.ask("Describe tides.")
        assert await lab.ask("Describe tides.")

    lab.configure(preset="instant", faults=[{"kind": kind, "calls": [1]}])
    with trace() as t:
        asyncio.run(main())
    assert [span.status for span in t.spans] == [BROKEN_OFF, 200]
    assert f"{BROKEN_OFF} {kind}" in t.table()
