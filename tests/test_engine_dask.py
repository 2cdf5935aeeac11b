"""Calls on other processes: the same answers, one limit for all, and nothing lost with a worker."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import dask
import psutil
import pytest
import yaml
from meeting import hung_up, in_flight

from agentlab import engines, lab, settings
from agentlab.content import ContentSystem, Settings
from agentlab.endpoint.server.process import EndpointProcess
from agentlab.errors import (
    AgentLabError,
    ConfigError,
    EndpointError,
    FileError,
    ModelError,
    Problem,
    StepError,
)
from agentlab.settings import DATA
from agentlab.trace import Trace, trace
from agentlab.workflow import Workflow

CLUSTERS = DATA / "clusters"
FAST = {
    "AGENTLAB_TIME_SCALE": "50",
    "AGENTLAB_CONTENT_TIMEOUT_SECONDS": "600",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "120s",
}
"""Answers come soon, and a busy machine is given time."""

pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, of tornado and of ports


def on_cluster(program: Callable[[Any], Awaitable[Any]], **options: Any) -> tuple[Any, Trace]:
    from agentlab.engines.dask import Cluster

    async def run() -> tuple[Any, Trace]:
        async with Cluster(**options) as cluster:
            with trace() as t:
                result = await program(cluster)
            return result, t

    return asyncio.run(run())


@pytest.fixture(scope="module")
def on_shared() -> Iterator[Any]:
    """Run a program as `on_cluster` does, on two workers that are started once for this file."""
    from agentlab.engines.dask import Cluster

    def on_this(program: Callable[[Any], Awaitable[Any]]) -> tuple[Any, Trace]:
        with trace() as t:
            return runner.run(program(cluster)), t

    with asyncio.Runner() as runner:
        cluster = Cluster(dashboard=True)
        runner.run(cluster.__aenter__())
        yield on_this
        runner.run(cluster.__aexit__())


@asynccontextmanager
async def others() -> AsyncIterator[tuple[Any, str]]:
    """A scheduler and a worker that somebody else has started, and the scheduler's address."""
    from agentlab.engines.dask import Cluster

    async with Cluster(workers=1, calls_per_worker=4) as theirs:
        yield theirs, theirs.client.scheduler.address


@pytest.fixture
def upstream(fresh_lab) -> Iterator[EndpointProcess]:
    """What a real model is to these tests: an endpoint that is not this lab's."""
    process = EndpointProcess(settings.Settings(time_scale=100))
    yield process
    process.stop()


async def several(cluster: Any, many: int, max_tokens: int = 41) -> list[str]:
    asked = (
        cluster.ask(f"Describe river {n}.", agent=f"agent {n}", max_tokens=max_tokens)
        for n in range(many)
    )
    return await asyncio.gather(*asked)


def below(word: str) -> list[psutil.Process]:
    """The processes started by this one, whose command has this word in it."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and word in process.cmdline()
    ]


def test_answers_are_those_of_every_engine(on_shared, fresh_lab):
    """The same workflow here and there, byte for byte; three steps are three requests."""
    inputs = {"topic": "tides", "data": "heights"}
    workflow = Workflow.load("report")
    with lab.configure(preset="instant"):
        there, t = on_shared(lambda c: engines.run(workflow, inputs, engine="dask", ask=c.ask))
        here = asyncio.run(engines.run(workflow, inputs))
    assert there == here
    assert t.requests == 3


def test_a_hundred_wait_at_once_on_two_workers(on_shared, fresh_lab):
    """A worker is an event loop, not a thread: the endpoint sees a hundred in flight."""
    t, _ = on_shared(lambda c: hung_up(several(c, 100), 100))
    assert (t.requests, t.peak) == (100, 100)


def test_an_error_comes_back_with_its_facts(on_shared, fresh_lab):
    """Status and code have crossed two processes."""

    async def refused(cluster: Any) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await cluster.ask("Name three rivers.")
        return caught.value

    with lab.configure(faults=[{"kind": "error", "status": 400, "probability": 1}]):
        error, t = on_shared(refused)
    assert (error.status, error.request_id) == (400, t.spans[0].request_id)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("no", status=429, code="x", request_id="r", retry_after_s=1.5),
        StepError("no", step="a", results={"b": "c"}),
        ConfigError("no"),
        FileError("no", "a.yaml", [Problem(1, 2, "a", "b")]),
    ],
)
def test_errors_survive_pickling(error):
    """Kind, message and facts, keyword arguments included."""
    again: AgentLabError = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def test_a_killed_worker_loses_nothing(on_shared, fresh_lab):
    """kill -9 in mid-batch: all are answered, and only what was in flight there is sent again."""

    async def killed(cluster: Any) -> list[str]:
        with trace() as t:
            running = asyncio.create_task(several(cluster, 40, max_tokens=391))
            await in_flight(t, 40)
            nanny = below("worker")[0]
            nanny.children()[-1].kill()  # the process that makes the calls
            return await running

    answers, t = on_shared(killed)
    assert len(answers) == 40 and all(answers)
    assert 40 < t.requests < 80
    assert max(Counter(span.agent for span in t.spans).values()) == 2


def test_a_call_whose_workers_die_may_be_asked_again(fresh_lab, monkeypatch, tmp_path):
    """Dask gives up a call that outlived too many workers; it is an error worth another attempt,
    which says so. A batch makes that attempt, and blames no topic."""
    from agentlab.resilience import classify

    async def killed(asking: Coroutine[Any, Any, Any], many: int) -> Any:
        with trace() as t:
            running = asyncio.create_task(asking)
            await in_flight(t, many)
            below("worker")[-1].children()[-1].kill()
            (result,) = await asyncio.gather(running, return_exceptions=True)
        return result

    async def twice(cluster: Any) -> tuple[BaseException, list[Any]]:
        error = await killed(cluster.ask("Describe it.", agent="a", max_tokens=900), 1)
        topics = [f"Tides in harbour {number}" for number in range(4)]
        with ContentSystem(Settings(timeout_seconds=300), out=tmp_path) as system:
            return error, await killed(system.batch_generate(topics, cluster=cluster), 4)

    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    (error, contents), t = on_cluster(twice, workers=1)
    assert isinstance(error, EndpointError)
    assert re.match(r"workers that died while 'a' waited: 1; ask again", str(error))
    assert classify(error).retry
    assert [content.status for content in contents] == ["done"] * 4
    assert t.requests > 1 + 16


def test_a_worker_that_would_ask_another_model_refuses(upstream, monkeypatch):
    """The driver's model is real, the worker's environment names none: no answer is made up."""
    from agentlab.engines.dask import Cluster

    async def asked() -> None:
        async with others() as (_, address):
            lab.configure(upstream=upstream.url, model="m")
            async with Cluster(address):
                pass

    with pytest.raises(
        ConfigError,
        match=rf"worker tcp://127.* would ask its local model, not m at {upstream.url}; "
        "set OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL there",
    ):
        asyncio.run(asked())
    assert upstream.since(0) == []


def test_workers_of_ones_own_environment_ask_the_real_model(upstream, monkeypatch, tmp_path):
    """They ask it themselves. One that comes later, with another model set, refuses: the batch
    stops, no topic is blamed, and no answer is made up."""
    from agentlab.engines.dask import Cluster

    async def asked() -> tuple[str, list[Any]]:
        async with others() as (theirs, address), Cluster(address) as cluster:
            with trace() as t:
                answer = await cluster.ask("Name three rivers.")
            assert t.requests == 0  # at this process's endpoint
            monkeypatch.setenv("OPENAI_MODEL", "another")
            await theirs.scale(2)
            theirs._here.reverse()
            await theirs.scale(1)
            monkeypatch.delenv("OPENAI_MODEL")
            with ContentSystem(Settings(timeout_seconds=6000), out=tmp_path) as system:
                return answer, await system.batch_generate(["Tides", "Ebb"], cluster=cluster)

    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
    with lab.configure():
        answer, contents = asyncio.run(asked())
    assert answer and len(upstream.since(0)) == 1
    assert [content.status for content in contents] == ["left"] * 2
    assert "would ask another at" in str(contents[0].error)


def test_workers_started_here_ask_what_is_asked_here(upstream, monkeypatch):
    """Their environment names OpenAI, and this program another model: they share its endpoint, and
    send its model's name."""

    async def asked(cluster: Any) -> tuple[str, list[str]]:
        answer = await cluster.ask("Name three rivers.")
        return answer, [*(await cluster.client.run(lambda: lab.current().model)).values()]

    monkeypatch.setenv("OPENAI_API_KEY", upstream.key)
    monkeypatch.setenv("OPENAI_MODEL", "another")
    with lab.configure(upstream=upstream.url, model="m"):
        (answer, models), t = on_cluster(asked, workers=1)
    assert answer and models == ["m"]
    assert (t.requests, len(upstream.since(0))) == (1, 1)


def test_workers_elsewhere_need_a_model_that_they_can_reach(fresh_lab):
    """The local model is on this host's loopback; nothing is sent to find that out."""
    with pytest.raises(ConfigError, match=r"set OPENAI_BASE_URL and OPENAI_API_KEY here and there"):
        on_cluster(lambda c: c.ask("?"), address="tcp://203.0.113.1:8786")


def test_who_is_cancelled_hangs_up(on_shared, fresh_lab):
    """Nobody waits any more, so the worker does not, either: the model is told."""

    async def cancelled(cluster: Any) -> None:
        with trace() as t:
            running = asyncio.create_task(cluster.ask("Describe it.", max_tokens=900))
            await in_flight(t, 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            while t.spans[0].end_s is None:
                await asyncio.sleep(0.01)

    _, t = on_shared(cancelled)
    assert [span.status for span in t.spans] == [499]


def test_a_late_worker_takes_work(fresh_lab):
    """One worker of four calls at a time; with a second one eight are in flight."""

    async def grown(cluster: Any) -> int:
        with trace() as t:
            running = asyncio.create_task(several(cluster, 400, max_tokens=61))
            await in_flight(t, 4)
            alone = t.peak
            await cluster.scale(2)
            await in_flight(t, 8)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return alone

    alone, t = on_cluster(grown, workers=1, calls_per_worker=4)
    assert (alone, t.peak) == (4, 8)


def test_one_rate_for_all_workers(on_shared, fresh_lab, tmp_path):
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
        contents, kept = on_shared(written)
    with lab.configure(requests_per_minute=20):
        _, refused = on_shared(unkept)
    assert [content.status for content in contents] == ["done"] * 10
    assert Counter(span.status for span in kept.spans) == {200: 40}
    assert Counter(span.status for span in refused.spans)[429] >= 15


def test_a_lost_scheduler_leaves_a_batch_that_goes_on(fresh_lab, tmp_path):
    """Its death stops the batch and blames no topic; a new one asks only what is not recorded."""
    topics = [f"Tides in harbour {number}" for number in range(12)]
    four = Settings(max_concurrent_agents=4, timeout_seconds=3000)

    async def lost(cluster: Any) -> tuple[list[Any], int]:
        with ContentSystem(four, out=tmp_path) as system:
            running = asyncio.create_task(system.batch_generate(topics, cluster=cluster))
            while system.journal.bill().answers < 10:
                await asyncio.sleep(0.01)
            await cluster.kill_scheduler()
            return await running, system.journal.bill().answers

    with lab.configure(time_scale=50):
        (contents, answers), _ = on_cluster(lost)
        assert "left" in {content.status for content in contents}
        assert not {"quarantined", "failed"} & {content.status for content in contents}
        with ContentSystem(four, out=tmp_path) as system, trace() as t:
            again = asyncio.run(system.batch_generate(topics))
    assert [content.status for content in again] == ["done"] * 12
    assert sum(span.ok for span in t.spans) == 48 - answers


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9", 8786])
def test_a_cluster_that_is_not_there_is_named(fresh_lab, address):
    """With what to do; nothing hangs."""
    wrong = pytest.raises(ConfigError, match=rf"no cluster at {address}.*; start one with")
    with wrong, dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        on_cluster(lambda c: c.ask("?"), address=address)


def test_the_dashboard_counts_workers(on_shared, fresh_lab):
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

    (counted, listening), _ = on_shared(looked)
    assert (counted["workers"], counted["cores"]) == (2, 128)
    assert listening == {"127.0.0.1"}


def test_a_cluster_is_of_use_in_its_block_alone(fresh_lab):
    """Before and after it, whatever is asked of it names the way in. Scheduler, nanny and worker
    end with the block; inside of it there is no dashboard, which others here could open, unless
    it was asked for."""
    from agentlab.engines.dask import Cluster

    async def used(cluster: Cluster) -> None:
        for use in (lambda: cluster.ask("?"), lambda: cluster.scale(2)):
            with pytest.raises(ConfigError, match="`async with Cluster"):
                await use()

    async def before_and_after() -> None:
        cluster = Cluster(workers=1)
        await used(cluster)
        async with cluster:
            assert cluster.dashboard is None
            assert len(below("dask")) > len(running)
            with pytest.raises(ConfigError, match="open already"):
                await cluster.__aenter__()
        await used(cluster)

    running = below("dask")
    asyncio.run(before_and_after())
    assert below("dask") == running


def test_a_cluster_leaves_no_files(fresh_lab, monkeypatch, tmp_path):
    """Neither this process's nor Dask's own, which would lie in the system's temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert on_cluster(lambda c: c.ask("Name three rivers."), workers=1)[0]
    assert list(tmp_path.iterdir()) == []


def test_another_event_loop_is_refused(on_shared, fresh_lab):
    """There a call would wait for ever: the loop in which the cluster was opened stands still."""

    async def simulated(cluster: Any) -> None:
        lab.simulate(cluster.ask("Name three rivers."))

    with pytest.raises(ConfigError, match=r"opened in another event loop; await it there"):
        on_shared(simulated)


def test_a_benchmark_under_faults_gives_what_every_engine_gives(fresh_lab, tmp_path):
    """Random workflows, on an endpoint that fails: the bytes that are stored without faults."""
    from agentlab.bench import measure, results
    from agentlab.bench.experiment import Experiment, Workload

    asked = Experiment(
        about="x",
        workloads=[Workload(random=3)],
        engines=["dask"],
        presets=["instant"],
        strategies=["timeout"],
        clock="real",
        warmups=0,
        settings={"time_scale": 20, "faults": str(DATA / "faults" / "every-kind.yaml")},
    )
    runs = measure.run(asked, tmp_path / "dask.json").measurements
    stored = results.load(DATA / "results" / "graphs.json").measurements
    whole = [m for m in stored if m.case.engine == "sequential" and m.repeat < 3]
    assert [(m.answers, m.error) for m in runs] == [(m.answers, None) for m in whole]
    assert sum(m.requests for m in runs) > sum(m.steps for m in runs)


def run_by_dask(command: list[str]) -> dict[str, Any]:
    """The options of a `dask scheduler` or `dask worker`, as its own parser reads them."""
    from distributed.cli import dask_scheduler, dask_worker

    assert command[0] == "dask"
    program = {"scheduler": dask_scheduler, "worker": dask_worker}[command[1]].main
    return program.make_context(command[1], [*command[2:]]).params


def check_kubernetes(text: str) -> None:
    """Whether the parts of the manifest fit each other, Dask, and what its head tells to type."""
    told = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    parts = {(p["kind"], p["metadata"]["name"]): p for p in yaml.safe_load_all(text)}
    versions = {
        "Deployment": "apps/v1",
        "Service": "v1",
        "PersistentVolumeClaim": "v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }
    assert Counter(kind for kind, _ in parts) == Counter([*versions, "Deployment", "Deployment"])
    assert all(part["apiVersion"] == versions[kind] for (kind, _), part in parts.items())

    pods = {}
    for (kind, name), part in parts.items():
        if kind == "Deployment":
            pods[name.removeprefix("agentlab-")] = pod = part["spec"]["template"]
            wanted = part["spec"]["selector"]["matchLabels"]
            assert wanted.items() <= pod["metadata"]["labels"].items()
    labels = {name: pod["metadata"]["labels"].items() for name, pod in pods.items()}
    does = {name: pod["spec"]["containers"][0] for name, pod in pods.items()}
    assert set(does) == {"scheduler", "workers", "driver"}

    service = parts["Service", "agentlab-scheduler"]["spec"]
    chosen = service["selector"].items()
    assert [name for name in labels if chosen <= labels[name]] == ["scheduler"]
    (port,) = (p["port"] for p in service["ports"])
    listening = run_by_dask(does["scheduler"]["command"])
    assert port == int(listening["port"]) == does["scheduler"]["ports"][0]["containerPort"]
    joining = run_by_dask(does["workers"]["command"])
    assert joining["scheduler"] == f"tcp://agentlab-scheduler:{port}"
    assert (joining["nthreads"], joining["n_workers"]) == (64, "1")
    assert f"--cluster {joining['scheduler']}\n" in told
    ((ttl, silent),) = (tuple(entry.values()) for entry in does["scheduler"]["env"])
    assert (ttl, silent) == ("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "30s")

    assert does["workers"]["env"] == does["driver"]["env"]
    secret = re.search(r"create secret generic (\w+) ", told)
    assert secret is not None
    keys = {"OPENAI_BASE_URL": "url", "OPENAI_API_KEY": "key", "OPENAI_MODEL": "model"}
    for entry in does["driver"]["env"]:
        taken = entry["valueFrom"]["secretKeyRef"]
        assert (taken["name"], taken["key"]) == (secret[1], keys.pop(entry["name"]))
        assert f"--from-literal={taken['key']}=" in told
    assert not keys

    ((volume, folder),) = (m.values() for m in does["driver"]["volumeMounts"])
    (given,) = pods["driver"]["spec"]["volumes"]
    assert given["name"] == volume
    assert ("PersistentVolumeClaim", given["persistentVolumeClaim"]["claimName"]) in parts
    assert f'kubectl cp topics.txt "$driver:{folder}/"' in told
    assert f"write {folder}/topics.txt --out {folder}/content --resume" in told
    found = re.search(r"get pod -l (\S+)", told)
    assert found is not None
    asked = {tuple(label.split("=")) for label in found[1].split(",")}
    assert [name for name in labels if asked <= labels[name]] == ["driver"]

    rule = parts["NetworkPolicy", "agentlab-only"]["spec"]
    (allowed,) = rule["ingress"][0]["from"]
    for pod in (rule["podSelector"], allowed["podSelector"]):
        assert all(pod["matchLabels"].items() <= has for has in labels.values())


def test_the_manifest_for_kubernetes_fits_together():
    """Selectors, addresses, ports, claims, secrets and the commands in its head name each other."""
    check_kubernetes((CLUSTERS / "kubernetes.yaml").read_text())


@pytest.mark.parametrize(
    "right, wrong",
    [
        (
            "selector: {app: agentlab, part: scheduler}\n",
            "selector: {app: agentlab, part: worker}\n",
        ),
        ("tcp://agentlab-scheduler:8786", "tcp://scheduler:8786"),
        ("ports: [{port: 8786}]", "ports: [{port: 8787}]"),
        ('--port, "8786"', '--port, "8785"'),
        ("claimName: agentlab-work", "claimName: work"),
        ("secretKeyRef: {name: model, key: key}", "secretKeyRef: {name: model, key: url}"),
        ("apiVersion: apps/v1", "apiVersion: v1"),
        ("--nthreads", "--threads"),
        ("mountPath: /work", "mountPath: /data"),
        ("part=driver", "part=worker"),
    ],
)
def test_a_manifest_that_does_not_fit_is_noticed(right, wrong):
    """What the test above would say of one slip."""
    text = (CLUSTERS / "kubernetes.yaml").read_text()
    assert right in text
    with pytest.raises((AssertionError, click.UsageError)):
        check_kubernetes(text.replace(right, wrong, 1))


def stand_in(folder: Path, name: str, script: str) -> Path:
    """A program of that name that does what this script says."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def course(tmp_path) -> Path:
    """A checkout, as far as recipes look at it."""
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


@pytest.fixture
def recipe_environment(tmp_path) -> dict[str, str]:
    """Loopback for a network, and stand-ins before all other programs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PORT": port, "PATH": path} | FAST


@pytest.mark.parametrize("recipe", ["ssh.sh", "slurm.sh"])
def test_the_recipes_for_hosts_work(recipe, tmp_path, course, recipe_environment):
    """As they stand, with loopback for a network, `bash -c` for ssh, and an `srun` that is run on
    this host alone."""
    (tmp_path / "topics.txt").write_text("Tides\nEbb\n")
    recipe_environment["SSH"] = str(stand_in(tmp_path / "bin", "ssh", 'exec bash -c "$2"'))
    stand_in(tmp_path / "bin", "srun", '[ "$1" = --overlap ] && shift && exec "$@"')
    stand_in(tmp_path / "bin", "hostname", "echo 127.0.0.1")
    hosts = ["127.0.0.1", "one"] if recipe == "ssh.sh" else []
    run = subprocess.run(
        ["bash", str(CLUSTERS / recipe), str(tmp_path / "topics.txt"), *hosts],
        cwd=course,
        env=recipe_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 done")
    assert len(list((course / "content").glob("*.html"))) == 2


def cloud() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The user data, and its files by their path."""
    text = (CLUSTERS / "cloud.yaml").read_text()
    assert text.startswith("#cloud-config\n")  # else cloud-init passes it by
    data = yaml.safe_load(text)
    return data, {file["path"]: file for file in data["write_files"]}


def test_the_user_data_for_a_cloud_fits_together():
    """Its keys are cloud-init's; unit, script, settings, folder and user name each other."""
    data, files = cloud()
    assert set(data) == {"packages", "users", "write_files", "runcmd"}
    for file in files.values():
        assert {"path", "content"} <= set(file) <= {"path", "content", "permissions"}
    (unit,) = (file for path, file in files.items() if path.startswith("/etc/systemd/system/"))
    says = dict(line.split("=", 1) for line in unit["content"].splitlines() if "=" in line)
    assert files[says["ExecStart"]]["permissions"] == "0755"
    assert files[says["EnvironmentFile"]]["permissions"] == "0600"
    assert says["User"] in [user["name"] for user in data["users"][1:]]
    clone, set_up, own, start = data["runcmd"]
    assert clone[:2] == ["git", "clone"] and clone[-1] == says["WorkingDirectory"]
    assert (DATA.parent / Path(set_up[1]).relative_to(clone[-1])).is_file()
    assert own == ["chown", "-R", f"{says['User']}:", says["WorkingDirectory"]]
    assert start == ["systemctl", "enable", "--now", Path(unit["path"]).stem]
    assert all(isinstance(word, str) for command in data["runcmd"] for word in command)
    values = dict(
        line.split("=", 1) for line in files[says["EnvironmentFile"]]["content"].splitlines()
    )
    assert set(values) == {
        "SCHEDULER",
        *("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL"),
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL",
    }
    assert f"--cluster tcp://{values['SCHEDULER']}:8786\n" in (CLUSTERS / "cloud.yaml").read_text()


def test_the_script_for_a_cloud_makes_a_scheduler_and_a_worker(
    fresh_lab, tmp_path, course, recipe_environment
):
    """The machine that has the scheduler's address becomes the scheduler, another one a worker,
    which answers."""
    from agentlab.engines.dask import Cluster

    _, files = cloud()
    script = tmp_path / "node"
    script.write_text(files["/usr/local/bin/agentlab-node"]["content"])
    environment = recipe_environment | {"SCHEDULER": "127.0.0.1"}
    running = []

    async def asked() -> tuple[str, int]:
        async with Cluster(f"tcp://127.0.0.1:{environment['PORT']}") as cluster:
            info = cluster.client.scheduler_info()
            return await cluster.ask("Name three rivers."), info["total_threads"]

    try:
        for addresses in ("172.17.0.1 127.0.0.1", "127.0.0.10 1.127.0.0"):
            stand_in(tmp_path / "bin", "hostname", f"echo {addresses}")
            running.append(
                subprocess.Popen(
                    ["bash", str(script)], cwd=course, env=environment, stderr=subprocess.DEVNULL
                )
            )
            below_one = psutil.Process(running[-1].pid)
            while "bash" in below_one.name():  # until it has become Dask
                assert running[-1].poll() is None
                time.sleep(0.05)
        with dask.config.set({"distributed.comm.timeouts.connect": "120s"}):
            answer, max_concurrency = asyncio.run(asked())
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
    assert answer and max_concurrency == 64


def test_tools_run_here_and_calls_on_workers(on_shared, fresh_lab):
    """The answers are those of asyncio, and each tool ran in this process."""
    ran = []

    async def look(city: str) -> str:
        """Look up a city."""
        ran.append(os.getpid())
        return f"seen {city}"

    tools = dict.fromkeys(["weather", "tides", "search_history"], look)
    w, inputs = Workflow.load("trip"), {"city": "Busan"}
    expected, _ = lab.simulate(engines.run(w, inputs, tools=tools))

    def program(cluster):
        return engines.run(w, inputs, engine="dask", tools=tools, ask=cluster.reply)

    results, t = on_shared(program)
    assert (results, t.requests) == (expected, 5)
    assert ran == [os.getpid()] * 6
