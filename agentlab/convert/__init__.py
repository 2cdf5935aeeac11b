"""Workflows and traces from and to the forms of others, where that can be done faithfully.

    langgraph   a graph of `AskStep` nodes -> a workflow
    script      a workflow -> a Python script that needs only LangGraph, or only CrewAI
    published   the traces of others, and ours in their forms -> arrivals, or a trace
    spans       a trace -> OTLP/JSON, Perfetto's events, Mooncake's lines, or a table
    otel        OTLP/JSON, and OpenTelemetry's names for generative AI
    perfetto    trace events, on a track per agent
    _rows       the rows of a file of requests, and their values, checked

What would change its meaning on the way is refused, and the error says what was met.
"""
