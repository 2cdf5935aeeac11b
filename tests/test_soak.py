"""The soak, in short: nothing is lost, nothing grows."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agentlab import lab

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import soak


def test_a_short_soak_loses_nothing_and_grows_nothing(fresh_lab: None):
    """1,000 calls over real HTTP: 0 lost; descriptors and memory as after the first half."""
    with lab.configure(faults=soak.ROUGH, time_scale=10):
        samples = asyncio.run(soak.soak(1000))
    half, last = samples[4], samples[-1]
    assert (last.calls, last.lost, last.tasks) == (1000, 0, 1)
    assert last.descriptors <= half.descriptors + soak.AT_ONCE
    assert last.rss_mb <= half.rss_mb + 20
