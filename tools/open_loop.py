"""Let guidellm and `agentlab bench` drive one endpoint at a constant rate, and compare the two.

    python tools/open_loop.py --tools build/load-tools/bin [--rate 4 --seconds 60]

`--tools` is the folder of guidellm's program; see tools/load_tools.py, which has more about it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import load_tools

EXPERIMENT = """\
about: The open loop that guidellm runs.
clock: real
warmups: 0
workloads:
  - agents: {agents}
    tokens: {tokens}
    prompt_tokens: 32
    arrivals: {{constant: {{per_s: {rate}}}}}
engines: [asyncio]
"""


def main() -> None:
    """Print a Markdown table: mean TTFT and ITL, and answers per second, by each of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True, help="where guidellm is")
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--preset", default="course")
    options = parser.parse_args()
    load_tools.PRESET = options.preset
    count = round(options.rate * options.seconds)
    print("| | requests | TTFT (ms) | ITL (ms) | answers per s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, load_tools.served(1.0) as url:
        files = load_tools.Files(Path(folder), options.tools)
        theirs = guidellm(files, url, options.rate, count)
        ours = bench(Path(folder), url, options.rate, count)
    for name, figures in (("guidellm", theirs), ("agentlab bench", ours)):
        print(f"| {name} | {count} | {' | '.join(f'{value:.2f}' for value in figures)} |")
    off = [b / a - 1 for a, b in zip(theirs, ours, strict=True)]
    print(f"| difference | | {' | '.join(f'{share:+.1%}' for share in off)} |")


def guidellm(files: load_tools.Files, url: str, rate: float, count: int) -> list[float]:
    """Return the means of TTFT and ITL, and the rate of answers from first start to last end."""
    report = files.folder / "open-loop.json"
    files.run(
        *("guidellm", "run", "--disable-console-interactive"),
        *("--backend", f"kind=openai_http,target={url},model=local"),
        *("--profile", f"kind=constant,rate={rate}"),
        *("--constraint", f"kind=max_requests,count={count}"),
        *("--data", f"kind=json_file,path={files.prompts}"),
        *("--output", f"kind=json,path={report}"),
    )
    benchmark = json.loads(report.read_text())["benchmarks"][0]
    metrics = benchmark["metrics"]
    means = [
        float(metrics[name]["successful"]["mean"])
        for name in ("time_to_first_token_ms", "inter_token_latency_ms")
    ]
    requests = benchmark["requests"]["successful"]
    begun_s = min(request["request_start_time"] for request in requests)
    ended_s = max(request["request_end_time"] for request in requests)
    return [*means, len(requests) / (ended_s - begun_s)]


def bench(folder: Path, url: str, rate: float, count: int) -> list[float]:
    """Return the same of `agentlab bench`, which asks through its own endpoint."""
    from agentlab.bench import results

    file = folder / "ours.yaml"
    about = {"agents": count, "rate": rate, "tokens": load_tools.TOKENS}
    file.write_text(EXPERIMENT.format(**about), encoding="utf-8")
    command = [sys.executable, "-m", "agentlab", "bench", str(file), "--out", str(folder), "--yes"]
    environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    rows = results.read_requests(folder / "ours.json", 1)
    ttft_ms = [(row.first_token_s - row.sent_s) * 1000 for row in rows]
    gaps = [row.completion_tokens - 1 for row in rows]
    itl_ms = [
        (row.end_s - row.first_token_s) * 1000 / many for row, many in zip(rows, gaps, strict=True)
    ]
    took_s = max(row.returned_s for row in rows) - min(row.sent_s for row in rows)
    return [sum(ttft_ms) / len(rows), sum(itl_ms) / len(rows), len(rows) / took_s]


if __name__ == "__main__":
    main()
