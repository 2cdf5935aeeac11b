"""Calls on other processes: the same answers, one limit for all, and nothing lost with a worker."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from agentlab import engines, lab
from agentlab.content import ContentSystem, Settings
from agentlab.errors import AgentLabError, ConfigError, ModelError, StepError
from agentlab.settings import DATA
from agentlab.trace import Trace, trace
from agentlab.workflow import Workflow

CLUSTERS = DATA / "clusters"

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, of tornado and of ports


def on_cluster(program: Callable[[Any], Awaitable[Any]], **options: Any) -> tuple[Any, Trace]:
    from agentlab.engines.dask import Cluster

    async def run() -> tuple[Any, Trace]:
        async with Cluster(**options) as cluster:
            with trace() as t:
                result = await program(cluster)
            return result, t

    return asyncio.run(run())


async def several(cluster: Any, many: int, max_tokens: int = 41) -> list[str]:
    asked = (
        cluster.ask(f"Describe river {n}.", agent=f"agent {n}", max_tokens=max_tokens)
        for n in range(many)
    )
    return await asyncio.gather(*asked)


async def in_flight(t: Trace, many: int) -> None:
    """Until the endpoint has so many in flight."""
    while sum(span.end_s is None for span in t.spans) < many:
        await asyncio.sleep(0.01)


def below(word: str) -> list[psutil.Process]:
    """The processes started by this one, whose command has this word in it."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and word in process.cmdline()
    ]


def test_answers_are_those_of_every_engine(fresh_lab):
    """The same workflow here and there, byte for byte; three steps are three requests."""
    inputs = {"topic": "tides", "data": "heights"}
    workflow = Workflow.load("report")
    with lab.configure(time_scale=100):
        there, t = on_cluster(lambda c: engines.run(workflow, inputs, engine="dask", ask=c.ask))
        here = asyncio.run(engines.run(workflow, inputs))
    assert there == here
    assert t.requests == 3


def test_a_hundred_wait_at_once_on_two_workers(fresh_lab):
    """A worker is an event loop, not a thread: the endpoint sees a hundred in flight."""
    answers, t = on_cluster(lambda c: several(c, 100, max_tokens=191))
    assert (len(answers), t.requests, t.peak) == (100, 100, 100)


def test_an_error_comes_back_with_its_facts(fresh_lab):
    """Status and code have crossed two processes."""

    async def refused(cluster: Any) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await cluster.ask("Name three rivers.")
        return caught.value

    with lab.configure(faults=[{"kind": "error", "status": 400, "probability": 1}]):
        error, t = on_cluster(refused)
    assert (error.status, error.request_id) == (400, t.spans[0].request_id)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("no", status=429, code="x", request_id="r", retry_after_s=1.5),
        StepError("no", step="a", results={"b": "c"}),
        ConfigError("no"),
    ],
)
def test_errors_survive_pickling(error):
    """Kind, message and facts, keyword arguments included."""
    again: AgentLabError = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), "no", error.__dict__)


def test_a_killed_worker_loses_nothing(fresh_lab):
    """kill -9 in mid-batch: all are answered, and only what was in flight there is sent again."""

    async def killed(cluster: Any) -> list[str]:
        with trace() as t:
            running = asyncio.create_task(several(cluster, 100, max_tokens=191))
            await in_flight(t, 100)
            nanny = below("worker")[0]
            nanny.children()[-1].kill()  # the process that makes the calls
            return await running

    answers, t = on_cluster(killed)
    assert len(answers) == 100 and all(answers)
    assert 100 < t.requests <= 100 + 64
    assert max(Counter(span.agent for span in t.spans).values()) == 2


def test_who_is_cancelled_hangs_up(fresh_lab):
    """Nobody waits any more, so the worker does not, either: the model is told."""

    async def cancelled(cluster: Any) -> None:
        with trace() as t:
            running = asyncio.create_task(cluster.ask("Describe it.", max_tokens=900))
            await in_flight(t, 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            while t.spans[0].end_s is None:
                await asyncio.sleep(0.01)

    _, t = on_cluster(cancelled)
    assert [span.status for span in t.spans] == [499]


def test_a_late_worker_takes_work(fresh_lab):
    """One worker of four calls at a time; with a second one eight are in flight."""

    async def grown(cluster: Any) -> tuple[int, int]:
        with trace() as t:
            running = asyncio.create_task(several(cluster, 60, max_tokens=61))
            await in_flight(t, 4)
            alone = t.peak
            await cluster.scale(2)
            await running
        return alone, t.peak

    (alone, together), t = on_cluster(grown, workers=1, calls_per_worker=4)
    assert (alone, together) == (4, 8)
    assert t.requests == 60


def test_one_rate_for_all_workers(fresh_lab, tmp_path):
    """40 requests from two workers at an endpoint that takes 20 a minute: kept by the driver none
    is refused; the same 40, kept by nobody, are."""
    topics = [f"Tides in harbour {number}" for number in range(10)]

    async def written(cluster: Any) -> list[Any]:
        settings = Settings(max_concurrent_agents=20, requests_per_minute=18, timeout_seconds=300)
        with ContentSystem(settings, out=tmp_path) as system:
            return await system.batch_generate(topics, cluster=cluster)

    async def unkept(cluster: Any) -> None:
        asked = (cluster.ask(f"Describe river {n}.", max_tokens=1) for n in range(40))
        await asyncio.gather(*asked, return_exceptions=True)

    with lab.configure(requests_per_minute=20):
        contents, kept = on_cluster(written)
    with lab.configure(requests_per_minute=20):
        _, refused = on_cluster(unkept)
    assert [content.status for content in contents] == ["done"] * 10
    assert Counter(span.status for span in kept.spans) == {200: 40}
    assert Counter(span.status for span in refused.spans)[429] >= 15


def test_a_lost_scheduler_leaves_a_batch_that_goes_on(fresh_lab, tmp_path):
    """Its death stops the batch and blames no topic; a new one asks only what is not recorded."""
    topics = [f"Tides in harbour {number}" for number in range(12)]

    async def lost(cluster: Any) -> tuple[list[Any], int]:
        with ContentSystem(Settings(max_concurrent_agents=4), out=tmp_path) as system:
            running = asyncio.create_task(system.batch_generate(topics, cluster=cluster))
            while system.journal.bill().answers < 10:
                await asyncio.sleep(0.01)
            await cluster.behead()
            return await running, system.journal.bill().answers

    with lab.configure(time_scale=50):
        (contents, answers), _ = on_cluster(lost)
        assert "left" in {content.status for content in contents}
        assert not {"quarantined", "failed"} & {content.status for content in contents}
        with ContentSystem(out=tmp_path) as system, trace() as t:
            again = asyncio.run(system.batch_generate(topics))
    assert [content.status for content in again] == ["done"] * 12
    assert sum(span.ok for span in t.spans) == 48 - answers


def test_a_cluster_that_is_not_there_is_named(fresh_lab):
    """With what to do; nothing hangs."""
    with pytest.raises(ConfigError, match=r"no cluster at tcp://127\.0\.0\.1:9"):
        on_cluster(lambda c: c.ask("?"), address="tcp://127.0.0.1:9")


def test_the_dashboard_counts_workers(fresh_lab):
    """Dask's own page, if asked for; and every socket of the cluster is loopback's."""

    async def looked(cluster: Any) -> tuple[dict[str, int], set[str]]:
        async with aiohttp.ClientSession() as session:
            counts = cluster.dashboard.replace("/status", "/json/counts.json")
            page, numbers = await session.get(cluster.dashboard), await session.get(counts)
            assert page.status == 200
            listening = {
                connection.laddr.ip
                for process in below("dask")
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
            return await numbers.json(), listening

    (counted, listening), _ = on_cluster(looked, workers=2, calls_per_worker=8, dashboard=True)
    assert (counted["workers"], counted["cores"]) == (2, 16)
    assert listening == {"127.0.0.1"}


def test_there_is_no_dashboard_unless_asked_for(fresh_lab):
    """It is a page that others on this machine can open."""

    async def where(cluster: Any) -> str | None:
        return cluster.dashboard

    assert on_cluster(where, workers=1)[0] is None


def test_nothing_is_left_running(fresh_lab):
    """Scheduler, nannies and workers end with the block."""
    on_cluster(lambda c: several(c, 2, max_tokens=1))
    assert below("dask") == []


def test_processes_end_with_the_one_they_serve(fresh_lab):
    """Killed with signal 9, it takes scheduler and workers along."""
    program = (
        "import asyncio\nfrom agentlab.engines.dask import Cluster\n"
        "async def main():\n    async with Cluster(workers=1):\n"
        "        print('up', flush=True)\n        await asyncio.sleep(60)\nasyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == b"up\n"
        started = psutil.Process(driver.pid).children(recursive=True)
        assert len(started) >= 3
        driver.kill()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_a_benchmark_takes_it(fresh_lab, tmp_path):
    """Equal answers and requests from here and from workers, measured in turn."""
    from agentlab.bench import measure, results
    from agentlab.bench.experiment import Experiment, Workload

    experiment = Experiment(
        about="x",
        workloads=[Workload(agents=8)],
        engines=["asyncio", "dask"],
        clock="real",
        settings={"time_scale": 100},
    )
    measured = measure.run(experiment, tmp_path / "dask.json").measurements
    assert [m.case.engine for m in measured] == ["asyncio", "dask"]
    assert results.unequal(measured) == [] and measured[1].peak == 8


def test_what_starts_clusters_can_be_read():
    """Kubernetes' file parses and its parts name each other; the scripts are valid bash."""
    import yaml

    parts = list(yaml.safe_load_all((CLUSTERS / "kubernetes.yaml").read_text()))
    assert [part["kind"] for part in parts].count("Deployment") == 3
    for part in parts:
        labels = part["spec"].get("template", {}).get("metadata", {}).get("labels", {})
        wanted = part["spec"].get("selector", {}).get("matchLabels", {})
        assert wanted.items() <= labels.items()
    for script in CLUSTERS.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_recipe_for_hosts_works(tmp_path):
    """`ssh.sh` as it stands, with loopback for a network and `bash -c` for ssh."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nexec bash -c "$2"\n')
    ssh.chmod(0o755)
    (tmp_path / "topics.txt").write_text("Tides\nEbb\n")
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / ".venv").symlink_to(Path(sys.prefix))
    here = {"SSH": str(ssh), "AGENTLAB_TIME_SCALE": "50"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here["PORT"] = str(free.getsockname()[1])
    run = subprocess.run(
        [str(CLUSTERS / "ssh.sh"), str(tmp_path / "topics.txt"), "127.0.0.1", "one"],
        cwd=tmp_path / "course",
        env=os.environ | here,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 done")
    assert len(list((tmp_path / "course" / "content").glob("*.html"))) == 2
