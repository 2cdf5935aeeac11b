"""The lab: where the model is, and how to ask it.

    connection    which model answers: one `Connection`; configure, stop, where
    crews         CrewAI, silent from its first import
    _ask          ask, reply, simulate, chat_model, crew_llm
    _http         POST over aiohttp, one session for each event loop
    _langchain    the short way of `ChatOpenAI`'s plain call
    _model_time   seconds of the model's time: now, sleep, time-outs, `retry-after`
    _transport    how clients reach the model: in real time or in virtual time

The endpoint is started by the first use and ends with this process. Nothing here reads the real
key or changes the environment.
"""

from agentlab.lab._ask import (
    Address,
    Answer,
    Configured,
    Reply,
    address,
    api_key,
    ask,
    base_url,
    chat_model,
    configure,
    connect,
    crew_llm,
    current,
    duration_s,
    endpoint,
    model_seconds_a_second,
    now_s,
    read,
    reply,
    retry_after_s,
    simulate,
    sleep,
    sleep_until,
    stop,
    timeout,
    where,
)
from agentlab.lab._model_time import finite_number, real_retry_after_s
from agentlab.lab._transport import on_headers

__all__ = [
    "Address",
    "Answer",
    "Configured",
    "Reply",
    "address",
    "api_key",
    "ask",
    "base_url",
    "chat_model",
    "configure",
    "connect",
    "crew_llm",
    "current",
    "duration_s",
    "endpoint",
    "finite_number",
    "model_seconds_a_second",
    "now_s",
    "on_headers",
    "read",
    "real_retry_after_s",
    "reply",
    "retry_after_s",
    "simulate",
    "sleep",
    "sleep_until",
    "stop",
    "timeout",
    "where",
]
