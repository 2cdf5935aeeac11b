"""A class in a process of its own, for tests that talk to it over HTTP."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import reaper

from agentlab.settings import DATA

TOKEN = "the-teachers-token"


def small_preset(folder: Path, **figures: int) -> str:
    """A preset of the course's speed with so many slots, places, or requests a minute."""
    lines = [(DATA / "endpoints" / "course.yaml").read_text().rstrip()]
    for name, value in figures.items():
        lines.append(f'{name}: {{value: {value}, basis: chosen, source: "for a test"}}')
    path = folder / "small.yaml"
    path.write_text("\n".join(lines))
    return str(path)


class Class:
    """A class that `agentlab serve` runs until the block ends."""

    def __init__(self, *arguments: str):
        command = [sys.executable, "-m", "agentlab", "serve", "--classroom", "--port", "0"]
        reaper.start()
        self.process = subprocess.Popen(
            [*command, "--token", TOKEN, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"OPENAI_BASE_URL=(http://\S+)/v1", self.said)
        self.url = found[1] if found else ""

    def __enter__(self) -> Class:
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.communicate()

    def get(self, path: str, key: str = TOKEN) -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.get(self.url + path, headers=headers, trust_env=False, timeout=60).json()

    def teach(self, **changes: Any) -> None:
        self._post("/classroom/settings", changes)

    def clear(self) -> None:
        self._post("/classroom/clear", {})

    def _post(self, path: str, body: Any) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = httpx.post(
            self.url + path, json=body, headers=headers, trust_env=False, timeout=60
        )
        assert answer.status_code == 200, answer.text

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; the exit code, and what the process complained about."""
        self.process.send_signal(signal.SIGINT)
        _, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, complaints


def jain(shares: Iterable[float]) -> float:
    """How fair a division is: 1 where all shares are equal, 1/n where one has everything.

    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness" (1984).
    """
    given = list(shares)
    return sum(given) ** 2 / (len(given) * sum(share * share for share in given))
