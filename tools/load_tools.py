"""Let guidellm and aiperf measure the local model, and set what they say beside the trace.

    python tools/load_tools.py --tools build/load-tools/bin [--streams 1 16 64]

`--tools` is the folder of their programs, which need an environment of their own:

    python -m venv build/load-tools
    build/load-tools/bin/pip install "guidellm==0.8.1" "aiperf==0.13.0"

Nothing is fetched from a hub: the prompts and a small tokenizer are made here.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
PRESET = "vllm-1gpu"
TOKENS = 128
TOPICS = "tides rivers caching queues harbors lighthouses markets gardens bridges archives".split()
ABOUT = "Explain {} to a new colleague, who asked for it in note {}, with an example."

TOKENIZER = """
import sys
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast
bpe = ByteLevelBPETokenizer()
bpe.train([sys.argv[1]], vocab_size=2000, special_tokens=["<|end|>"])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|end|>")
tokenizer.save_pretrained(sys.argv[2])
"""


def main() -> None:
    """Print a Markdown table: the tool's figures / the trace's, and for the ITL / the formula's.

    n is how many requests hold a slot while a token is made; `late` its median and its most.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, required=True, help="where their programs are")
    parser.add_argument("--run", nargs="+", default=["guidellm", "aiperf"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--time-scale", type=float, default=1.0, help="less on a busy machine")
    options = parser.parse_args()
    titles = "tool, streams", "tokens", "n", "ITL (ms)", "tokens/s", "late (ms)"
    print(f"| {' | '.join(titles)} |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, served(options.time_scale) as url:
        files = Files(Path(folder), options.tools)
        for tool in [tool for tool in (guidellm, aiperf) if tool.__name__ in options.run]:
            for streams in options.streams:
                mark = get(f"{url}/lab/mark")["mark"]
                said = tool(files, url, streams, max(24, 4 * streams))
                spans = get(f"{url}/lab/spans?since={mark}")["spans"]
                print(row(tool.__name__, streams, said, spans, options.time_scale), flush=True)


class Files:
    """The tools' programs, and what they read: prompts and a tokenizer."""

    def __init__(self, folder: Path, tools: Path):
        self.folder, self.tools = folder, tools.resolve()
        self.prompts, self.tokenizer = folder / "prompts.jsonl", folder / "tokenizer"
        texts = [ABOUT.format(TOPICS[n % len(TOPICS)], n) for n in range(512)]
        lines = [json.dumps({"prompt": t, "output_tokens_count": TOKENS}) for t in texts]
        self.prompts.write_text("\n".join(lines))
        self.run("python", "-c", TOKENIZER, str(self.prompts), str(self.tokenizer))

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the programs; what it says is shown if it fails."""
        done = subprocess.run(
            [str(self.tools / program), *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            sys.exit(f"{program} failed:\n{done.stdout[-3000:]}")


class Said(dict[str, float]):
    """What a tool says: `tokens` of an answer, `itl_ms`, `tokens_per_s`."""


def guidellm(files: Files, url: str, streams: int, requests: int) -> Said:
    """Run guidellm with its defaults on our prompts; it sends `ignore_eos` itself."""
    report = files.folder / f"guidellm-{streams}.json"
    files.run(
        *("guidellm", "run", "--disable-console-interactive"),
        *("--backend", f"kind=openai_http,target={url},model=local"),
        *("--profile", f"kind=concurrent,streams={streams}"),
        *("--constraint", f"kind=max_requests,count={requests}"),
        *("--data", f"kind=json_file,path={files.prompts}"),
        *("--output", f"kind=json,path={report}"),
    )
    metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]

    def of(name: str) -> float:
        return float(metrics[name]["successful"]["mean"])

    return Said(
        tokens=of("output_token_count"),
        itl_ms=of("inter_token_latency_ms"),
        tokens_per_s=of("output_tokens_per_second"),
    )


def aiperf(files: Files, url: str, streams: int, requests: int) -> Said:
    """Run aiperf on prompts that it makes, with the tokens counted by the endpoint."""
    folder = files.folder / f"aiperf-{streams}"
    files.run(
        *("aiperf", "profile", "--model", "local", "--url", url, "--ui-type", "none"),
        *("--endpoint-type", "chat", "--streaming", "--use-server-token-count"),
        *("--tokenizer", str(files.tokenizer), "--isl", "60", "--osl", str(TOKENS)),
        *("--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{TOKENS}"),
        *("--concurrency", str(streams), "--request-count", str(requests)),
        *("--artifact-dir", str(folder)),
    )
    found = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    return Said(
        tokens=found["output_sequence_length"]["avg"],
        itl_ms=found["inter_token_latency"]["avg"],
        tokens_per_s=found["output_token_throughput"]["avg"],
    )


def row(tool: str, streams: int, said: Said, spans: list[Any], scale: float) -> str:
    """Return a row: what the tool says on its clock, and the trace on the model's, as one."""
    from agentlab.endpoint import presets

    spans = [span for span in spans if span["status"] == 200 and span["completion_tokens"] > 1]
    lengths = sorted({span["completion_tokens"] for span in spans})
    gaps_ms = [
        (span["end_s"] - span["first_token_s"]) / (span["completion_tokens"] - 1) * 1000
        for span in spans
    ]
    took_s = max(span["end_s"] for span in spans) - min(span["arrived_s"] for span in spans)
    made = sum(span["completion_tokens"] for span in spans) / took_s
    n, physics = active(spans), presets.load(PRESET).physics
    # The mean of a lognormal factor of median 1.
    formula_ms = physics.itl_s(n) * 1000 * math.exp(physics.jitter_sigma**2 / 2)
    late_ms = [span["late_ms"] for span in spans]
    cells = [
        f"{tool}, {streams}",
        f"{said['tokens']:.1f} ({'-'.join(map(str, lengths))})",
        f"{n:.1f}",
        f"{said['itl_ms'] * scale:.2f} / {mean(gaps_ms):.2f} / {formula_ms:.2f}",
        f"{said['tokens_per_s'] / scale:,.0f} / {made:,.0f}",
        f"{median(late_ms):.1f} ({max(late_ms):.1f})",
    ]
    return f"| {' | '.join(cells)} |"


def active(spans: list[Any]) -> float:
    """Return how many requests hold a slot while a token is made, on average over the tokens."""
    changes = sorted([(s["started_s"], 1) for s in spans] + [(s["end_s"], -1) for s in spans])
    n, before_s, slots_s, squares_s = 0, changes[0][0], 0.0, 0.0
    for at_s, change in changes:
        slots_s += n * (at_s - before_s)
        squares_s += n * n * (at_s - before_s)
        n, before_s = n + change, at_s
    return squares_s / slots_s


@contextmanager
def served(time_scale: float) -> Iterator[str]:
    """Serve the preset meanwhile; yield the address without `/v1`."""
    arguments = ["--port", "0", "--preset", PRESET, "--time-scale", str(time_scale)]
    serve = subprocess.Popen(
        [sys.executable, "-m", "agentlab", "serve", *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert serve.stdout is not None
    try:
        found = re.search(r"http://\S+(?=/v1)", serve.stdout.readline())
        assert found is not None, "the local model does not start"
        yield found[0]
    finally:
        serve.terminate()
        serve.wait()


def get(url: str) -> Any:
    """Return the JSON at an address of the endpoint."""
    with urlopen(url, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
