"""The wheel in an environment with the base install alone: it serves, and it asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MOST_PACKAGES, MOST_MB = 32, 65


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `pip install .` builds it, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("agentlab_course-*.whl")
    return built


def needed(requirements: list[str], extra: str = "") -> dict[str, Distribution]:
    """The distributions that the base install brings along: name -> where it lies in .venv."""
    found: dict[str, Distribution] = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            found[requirement.name.lower()] = there = distribution(requirement.name)
            for each in requirement.extras or {""}:
                found |= needed(there.requires or [], each)
    return found


def linked(packages: Path, distributions: dict[str, Distribution]) -> None:
    """Put the packages of `.venv` there as well, without a copy."""
    for package in distributions.values():
        for file in package.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                here, target = Path(str(file.locate())), packages / file
                _link(here, target)
                if here.suffix == ".py":  # compiled once, there
                    compiled = (Path(cache_from_source(str(path))) for path in (here, target))
                    _link(*compiled)


def _link(here: Path, target: Path) -> None:
    """Unless it is there, because two lists name one file, or is not here."""
    if here.exists() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(here, target)


def requirements(wheel: Path, folder: Path) -> list[str]:
    """What the wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        archive.extract(metadata, folder)
    return Distribution.at(folder / Path(metadata).parent).requires or []


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it requires; the packages are those of the lock."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    linked(packages, needed(requirements(wheel, home)))
    return home


@pytest.fixture(scope="module")
def colab(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment as Colab's: a kernel, matplotlib, no course, and what the course brings."""
    home = tmp_path_factory.mktemp("colab")
    pip = ["pip"] if find_spec("pip") else []
    venv.create(home, with_pip=not pip)
    (packages,) = home.glob("lib/python3*/site-packages")
    linked(packages, needed(requirements(wheel, home), "langgraph"))
    linked(packages, needed(["ipykernel", "matplotlib", "nest-asyncio", *pip]))
    kernel = home / "share" / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    program = [str(home / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": program, "display_name": "Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    return home


LESSONS = ["00_start_here", "01_sequential", "02_langgraph_parallel"]
FORGET = "lab.configure()\n%reset -f"


@pytest.fixture(scope="module")
def ran(
    wheel: Path, colab: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[NotebookNode]]:
    """The cells of Colab's lessons, run one after the other in one kernel, without a checkout."""
    together = nbformat.v4.new_notebook()
    for name in LESSONS:
        together.cells += [*stored(name).cells, nbformat.v4.new_code_cell(FORGET)]
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("content"))}}
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PYTHONPATH", "VIRTUAL_ENV"):
            patch.delenv(variable, raising=False)
        patch.setenv("JUPYTER_PATH", str(colab / "share" / "jupyter"))
        patch.setenv("COLAB_RELEASE_TAG", "release-colab")
        patch.setenv("PIP_NO_INDEX", "1")  # of the packages only ours is missing
        patch.setenv("PIP_FIND_LINKS", str(wheel.parent))
        NotebookClient(together, kernel_name="colab", timeout=300, resources=resources).execute()
    cells = iter(together.cells)
    return {name: [next(cells) for _ in (*stored(name).cells, FORGET)] for name in LESSONS}


def stored(name: str) -> NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", LESSONS)
def test_colabs_lessons_need_no_more_than_their_cell_installs(
    name: str, ran: dict[str, list[NotebookNode]]
):
    """Without a checkout, each prints what is stored; CrewAI alone is not there."""
    for before, after in zip(stored(name).cells, ran[name][:-1], strict=True):
        installs = "%pip" in before.source  # and says that it did
        if not installs and "nbval-ignore-output" not in before.metadata.get("tags", []):
            assert printed(after) == printed(before).replace("1.15.30", "is not installed")


def printed(cell: NotebookNode) -> str:
    """What a cell wrote to the standard output."""
    outputs = cell.get("outputs", [])
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_the_wheel_holds_code_and_data_and_nothing_else(wheel: Path):
    """Presets, replies, workflows, the tools that are commands, the licence; no lesson, no test."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "agentlab/data/endpoints/course.yaml" in names
    tools = {name for name in names if name.startswith("agentlab/tools/")}
    assert {Path(name).stem for name in tools} == {
        "trace_forms",
        "progress",
        "doctor",
        "verify",
        "cite",
        "page",
        "page.md",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"agentlab", "agentlab_course"}


def test_the_base_install_is_small(bare: Path):
    """At most 32 packages and 65 MB, our own included."""
    (packages,) = bare.glob("lib/python3*/site-packages")
    count = len(list(packages.glob("*.dist-info")))
    files = [p for p in packages.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    megabytes = sum(p.stat().st_size for p in files) / 1e6
    print(f"{count} packages, {megabytes:.1f} MB")
    assert 20 < count <= MOST_PACKAGES
    assert megabytes <= MOST_MB


ASKS = """
import asyncio
from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.trace import trace

async def three():
    return await asyncio.gather(*(lab.ask(f"Name {n} rivers.") for n in "abc"))

with trace() as t:
    assert all(run_virtual(three()).result)
print(t.requests, t.peak, t.makespan_s)
lab.configure(preset="instant")
with trace() as t:
    assert asyncio.run(lab.ask("Name three rivers."))
print(t.requests)
"""


def run(bare: Path, *command: str) -> str:
    """What a command of the bare environment prints; it sees neither checkout nor `.venv`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    program = [str(bare / "bin" / "python"), "-W", "error", *command]
    ran = subprocess.run(program, cwd=bare, env=clean, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_base_install_asks_and_measures(bare: Path):
    """The lab, the trace and virtual time, and an endpoint in a process of its own."""
    first, second = run(bare, "-c", ASKS).splitlines()
    assert first.startswith("3 3 ")
    assert second == "1"


def test_the_base_install_runs_the_readmes_first_example(bare: Path):
    """As far as it says that no extra is needed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    needs_none, _, _ = readme.split("```python\n")[1].partition("\nfrom agentlab import plots")
    assert run(bare, "-c", needs_none + "\nprint(t.peak)").strip() == "3"


SERVES = """
import subprocess, sys, urllib.request, json
serve = subprocess.Popen(
    [sys.executable, "-m", "agentlab", "serve", "--port", "0", "--preset", "instant"],
    stdout=subprocess.PIPE, text=True,
)
url = next(word for line in serve.stdout for word in line.split() if word.startswith("http://"))
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Name three rivers."}]})
request = urllib.request.Request(url.rstrip("/.,;") + "/chat/completions", body.encode(),
                                 {"content-type": "application/json", "authorization": "Bearer x"})
with urllib.request.urlopen(request) as answer:
    print(json.load(answer)["choices"][0]["finish_reason"])
serve.terminate()
serve.wait()
"""


def test_the_base_install_serves(bare: Path):
    """`agentlab serve` answers a client of the standard library."""
    assert run(bare, "-c", SERVES).strip() == "stop"


def test_the_doctor_checks_what_a_wheel_has(bare: Path):
    """Neither a lock nor a kernel is missing where nobody promised one."""
    said = run(bare, "-m", "agentlab", "doctor", "--offline")
    assert said.splitlines()[-1] == "Ready: try `agentlab serve`."
    assert "all of the base install, and of the extras none" in said
    assert "lock" not in said and "make setup" not in said


def test_the_base_install_takes_a_trace_there_and_back(bare: Path, tmp_path: Path):
    """`agentlab trace` runs a tool that travels inside the package."""
    sample = ROOT / "data/traces/agents.jsonl"
    there, back = tmp_path / "there", tmp_path / "back"
    command = ["-m", "agentlab", "trace"]
    run(bare, *command, "export", str(sample), "--to", "otel", "--out", str(there))
    run(bare, *command, "import", str(there), "--out", str(back))
    assert back.read_bytes() == sample.read_bytes()


WORKFLOW = (
    "from agentlab.workflow import Step, Workflow; w = Workflow([Step('a', 'Name a river.')])"
)


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("from agentlab import lab; lab.chat_model()", "langgraph"),
        (f"{WORKFLOW}; import asyncio; from agentlab import engines; "
         "asyncio.run(engines.run(w, engine='dask'))", "dask"),
        ("from agentlab import plots", "course"),
    ],
    ids=["a chat model", "an engine", "a plot"],
)  # fmt: skip
def test_what_is_not_installed_says_which_extra_brings_it(code: str, extra: str, bare: Path):
    """An import error names the package; ours adds the way out, which no index has to know."""
    tried = f"try:\n    exec({code!r})\nexcept Exception as e:\n    print(type(e).__name__, e)\n"
    said = run(bare, "-c", tried)
    assert said.startswith("ConfigError")
    assert f"pip install '.[{extra}]'" in said
