"""A and B, measured in turn: each round has all of both, in an order that is drawn."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from secrets import token_hex
from shutil import unpack_archive
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from pydantic import TypeAdapter

from agentlab._support.progress_bar import bar
from agentlab.bench import results
from agentlab.bench.compare import IN_TURN
from agentlab.bench.experiment import AXES, Experiment
from agentlab.bench.results import Results
from agentlab.errors import ConfigError

ROUNDS = 12  # tools/calibrate_compare.py says what they show
KINDS = ("commit", "python", *AXES[1:])
_CODE = Path(__file__).parents[2]


class _Side(NamedTuple):
    experiment: Experiment
    python: str = sys.executable
    code: Path | None = _CODE  # None: what that Python has installed


def run(
    experiment: Experiment, other: str, file: Path, *, rounds: int = ROUNDS
) -> tuple[Results, Results]:
    """Measure an experiment, and the same with one thing changed: `other` is KIND=VALUE.

    Each side of a round is a process of its own, and each round is a repeat in NAME.a.json and
    NAME.b.json, which are written as it goes. In virtual time one round is exact.

    Raises:
        ConfigError: If `other` changes nothing, or a side cannot be measured.
    """
    real = experiment.clock == "real"
    order = ["".join(Random().sample("ab", 2)) for _ in range(rounds if real else 1)]
    run = f"{other}, run {token_hex(4)}, in the order {' '.join(order)}" if real else other
    kept: dict[str, Results] = {}
    with TemporaryDirectory() as temporary, results.one_writer(file):
        folder = Path(temporary)
        sides = _sides(_Side(replace(experiment, repeats=1)), other, folder)
        for number, names in enumerate(bar(order, name=file.stem)):
            for name in names:
                new = _measured(sides[name], folder / f"{number}{name}", file.stem)
                if not number:
                    asked = replace(new.experiment, repeats=len(order))
                    about = {"experiment": asked, "machine": new.machine | {IN_TURN: run}}
                    kept[name] = msgspec.structs.replace(new, **about, measurements=[])
                for m in new.measurements:
                    repeat = number * new.experiment.runs(m.case.workload) + m.repeat
                    kept[name].measurements.append(msgspec.structs.replace(m, repeat=repeat))
            for name, whole in kept.items():
                results.write(file.with_suffix(f".{name}.json"), whole)
    return kept["a"], kept["b"]


def _sides(a: _Side, other: str, folder: Path) -> dict[str, _Side]:
    kind, _, value = other.partition("=")
    if not value or kind not in KINDS:
        raise ConfigError(f"--against {other}: give KIND=VALUE, a kind of {', '.join(KINDS)}")
    if kind == "python":
        return {"a": a, "b": a._replace(python=value, code=None)}
    if kind == "commit":
        archive, code = folder / "code.zip", folder / "code"
        command = ["git", "-C", str(_CODE), "archive", f"--output={archive}", "--end-of-options"]
        unpack_archive(_made(archive, [*command, value]), code)
        return {"a": a, "b": a._replace(code=code)}
    field = {"strategy": "strategies", "max_concurrency": kind}.get(kind, f"{kind}s")
    changed = None if value == "none" else int(value) if value.isdecimal() else value
    rest = [one for one in getattr(a.experiment, field) if one != changed]
    if not rest or (a.experiment.asks_real and kind in ("preset", "seed")):
        raise ConfigError(f"--against {other}: nothing would change; choose another {kind}")
    lists: dict[str, Any] = {"a": rest, "b": [changed]}
    return {name: _Side(replace(a.experiment, **{field: of})) for name, of in lists.items()}


def _measured(side: _Side, folder: Path, name: str) -> Results:
    """Return what one round of a side gave."""
    folder.mkdir()
    file = folder / f"{name}.yaml"
    file.write_bytes(TypeAdapter(Experiment).dump_json(side.experiment, exclude_defaults=True))
    code = {} if side.code is None else {"PYTHONPATH": str(side.code)}
    command = [side.python, "-m", "agentlab", "bench", str(file), "--out", str(folder), "--yes"]
    environ = {"PYTHONSAFEPATH": "1", "AGENTLAB_PROGRESS": "0"}  # not what lies in this folder
    return results.load(_made(file.with_suffix(".json"), command, **environ, **code))


def _made(file: Path, command: list[str], **environ: str) -> Path:
    """Return the file that a command makes; if it does not, what it says is a ConfigError."""
    try:
        done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True)
        code, said = done.returncode, done.stderr
    except OSError as error:
        code, said = 2, str(error)
    if code > 1 or not file.exists():  # 1: made, and some runs in it cannot be compared
        said = said.strip().rpartition("\n")[2]  # below a traceback, if there is one
        raise ConfigError(f"--against: {command[0]} failed: {said or 'it said nothing'}")
    return file
