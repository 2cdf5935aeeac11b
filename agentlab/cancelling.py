"""A cancellation that nobody here asked for is a failure, not a wish to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from agentlab.errors import EndpointError

T = TypeVar("T")


async def never_cancelled_from_within(asked: Awaitable[T]) -> T:
    """What is awaited; if it ends as cancelled although nobody cancelled this task, an error.

    A task group takes such an end for a quiet one: there would be no answer, and no error either.

    Raises:
        EndpointError: In that case; asking again may help.

    Example:
        answer = await never_cancelled_from_within(model.ainvoke("Name three rivers."))
    """
    try:
        return await asked
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise EndpointError("the call was cancelled by whoever made it; ask again") from None
