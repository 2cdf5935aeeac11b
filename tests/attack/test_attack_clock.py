"""Waits of every length in virtual time: none spins, none ends early."""

from __future__ import annotations

import asyncio

import pytest

from agentlab.clock import run_virtual


@pytest.mark.parametrize("end_s", [1 / 3, 0.1 + 0.2, 2 / 3, 1e-9, 7e-10, 1e6 / 7])
def test_a_wait_for_the_rest_ends(end_s: float):
    """A loop that looks at the clock and waits for what is left."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        while loop.time() < end_s:
            await asyncio.sleep(end_s - loop.time())
        return loop.time()

    assert run_virtual(main()).result >= end_s
