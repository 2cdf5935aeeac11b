"""The lab: where the model is, and how to ask it."""

from agentlab.clock import is_virtual
from agentlab.lab._ask import ask, chat_model, crew_llm, reply, simulate
from agentlab.lab._model_time import (
    duration_s,
    finite_number,
    model_seconds_a_second,
    now_s,
    retry_after_s,
    sleep,
    sleep_until,
    timeout,
)
from agentlab.lab._read import Reply, ToolCall, read
from agentlab.lab._transport import on_headers
from agentlab.lab.connection import (
    Connection,
    address,
    api_key,
    base_url,
    configure,
    connect,
    current,
    endpoint,
    stop,
    where,
)

__all__ = [
    "Connection", "Reply", "ToolCall", "address", "api_key", "ask", "base_url", "chat_model",
    "configure", "connect", "crew_llm", "current", "duration_s", "endpoint", "finite_number",
    "is_virtual", "model_seconds_a_second", "now_s", "on_headers", "read", "reply", "retry_after_s",
    "simulate", "sleep", "sleep_until", "stop", "timeout", "where",
]  # fmt: skip
