"""Measure NVIDIA's mocker, which simulates vLLM's scheduler: data/measured/mocker*.csv.

It has a clock of its own, so that no machine disturbs what it measures, and the same command gives
the same figures. Its program has an environment of its own:

    python -m venv build/mocker
    build/mocker/bin/pip install --no-deps ai-dynamo==1.6.1
    build/mocker/bin/pip install ai-dynamo-runtime==1.6.1 aiohttp kubernetes prometheus-client \\
        pyzmq redis transformers zstandard
    .venv/bin/python tools/measure_mocker.py --mocker build/mocker/bin

`mocker.csv` has closed loops, request by request. `mocker-workflows.csv` has the makespans of
random workflows that begin together; their prompts and answers are as long as on the local model.
"""

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from agentlab import lab
from agentlab.clock import run_virtual
from agentlab.engines import run
from agentlab.settings import DATA
from agentlab.trace import Span, trace
from agentlab.workflow import Workflow, random_workflow

ENGINE = {"backend": "vllm", "max_num_seqs": 6, "enable_prefix_caching": False}  # else its defaults
SHAPES = [(30, 96), (400, 32), (2000, 64)]  # tokens of prompts and answers
# Each is what some clients ask, one after the other; where all shapes are mixed, none keeps step.
LOOPS = [([shape], clients) for shape in SHAPES for clients in (1, 2, 4, 8)]
LOOPS += [(SHAPES, clients) for clients in (2, 4, 8)]
LOOPS += [([shape], clients) for shape in ((150, 80), (1000, 40)) for clients in (1, 2, 4, 6, 12)]
CROWDS = [(seed, n) for seed in (0, 100, 200) for n in (1, 2, 4, 8, 12)]
APART_S = 100  # from the beginning of one loop to that of the next

REPLAY = """
import json, sys
from dynamo.replay import run_trace_replay
asked = json.load(sys.stdin)
options = {"extra_engine_args": {"engine": asked["engine"]}, "capture_per_request": True}
loops = [
    run_trace_replay([path], replay_concurrency=n, trace_block_size=64, **options).per_request
    for path, n in asked["loops"]
]
options |= {"trace_format": "agentic_mooncake", "execution_model": "mock"}
crowds = [run_trace_replay([path], **options).summary for path in asked["crowds"]]
print(json.dumps({"loops": loops, "crowds": [one["duration_ms"] for one in crowds]}))
"""


def main() -> None:
    """Let the mocker simulate all, and write what it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocker", type=Path, required=True, help="where its Python is")
    parser.add_argument("--out", type=Path, default=DATA / "measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def written(name: str, lines: list[dict[str, Any]]) -> str:
            path = Path(folder) / f"{name}.jsonl"
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            return str(path)

        asked = {
            "engine": ENGINE,
            "loops": [(written(f"loop{n}", loop(n)), LOOPS[n][1]) for n in range(len(LOOPS))],
            "crowds": [written(f"crowd{seed}-{n}", crowd(seed, n)) for seed, n in CROWDS],
        }
        program = [options.mocker.absolute() / "python", "-c", REPLAY]
        said = subprocess.run(
            program, input=json.dumps(asked), text=True, stdout=subprocess.PIPE, check=True
        )
    found = json.loads(said.stdout.splitlines()[-1])
    rows = [row for number, of in enumerate(found["loops"]) for row in loop_rows(number, of)]
    header = "shape,at_once,arrived_s,first_token_s,end_s,prompt_tokens,completion_tokens"
    write(options.out / "mocker.csv", header, rows)
    crowd_rows = [
        (*of, round(ms / 1000, 6)) for of, ms in zip(CROWDS, found["crowds"], strict=True)
    ]
    write(options.out / "mocker-workflows.csv", "first_seed,at_once,makespan_s", crowd_rows)


def loop(number: int) -> list[dict[str, Any]]:
    """Return the lines of a trace, as Mooncake's has them: two requests or more of each client."""
    shapes, clients = LOOPS[number]
    draw, lines = Random(number), list[dict[str, Any]]()
    for n in range(max(3, 2 * clients) * len(shapes)):
        prompt, answer = draw.choice(shapes)
        lengths = {"timestamp": 0, "input_length": prompt, "output_length": answer}
        lines.append(lengths | {"hash_ids": hashes(n, prompt)})
    return lines


def hashes(number: int, prompt_tokens: int) -> list[int]:
    """Return names for a prompt's blocks that no other prompt has."""
    return [number * 1000 + n for n in range(-(-prompt_tokens // 64))]


def loop_rows(number: int, requests: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    shapes, clients = LOOPS[number]
    shape = "{}/{}".format(*shapes[0]) if len(shapes) == 1 else "mixed"
    times = ("arrival_time_ms", "first_token_ms", "last_token_ms")
    return sorted(
        (
            *(shape, clients),
            *(round(number * APART_S + one[at] / 1000, 6) for at in times),
            *(one["input_length"], one["output_length"]),
        )
        for one in requests
    )


def write(path: Path, header: str, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])


def crowd(seed: int, many: int) -> list[dict[str, Any]]:
    """Return the lines of a trace of so many random workflows, as Mooncake's for agents has it."""
    lines: list[dict[str, Any]] = [
        {"schema": "dynamo.agentic_mooncake", "version": 2, "block_size": 64,
         "hash_id_scope": "local", "source": {"format": "random workflows", "digest": str(seed)}}
    ]  # fmt: skip
    for number in range(seed, seed + many):
        workflow = random_workflow(number)
        spans = {span.agent: span for span in run_virtual(spans_of(workflow)).result}
        for name, needs in workflow.needs.items():
            after = [f"{number}-{need}" for need in needs]
            depends = [
                {"request_id": one, "trigger": "completion", "delay_ms": 0, "relation": "join"}
                for one in after
            ]
            tokens = spans[name].prompt_tokens
            lines.append(
                {"request_id": f"{number}-{name}", "play_id": str(number), "model": "mock",
                 "session_id": f"{number}-{name}", "input_length": tokens,
                 "output_length": spans[name].completion_tokens, "not_before_ms": 0,
                 "hash_ids": hashes(len(lines), tokens),
                 "dependencies": depends}
            )  # fmt: skip
    return lines


async def spans_of(workflow: Workflow) -> list[Span]:
    with lab.configure(preset="course"), trace() as t:
        await run(workflow)
    return t.spans


if __name__ == "__main__":
    main()
